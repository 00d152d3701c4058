"""One session: its queue, its kernel, its clients, and every event in one numbered sequence.

Runs one execution at a time. Knows nothing of pools, stores or sockets: it asks its `Host` for a
kernel when it needs one, and tells it when one was lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from functools import partial

from broker.audience import Audience
from broker.deadline import Deadline, usage_of
from broker.errors import BadMessage, BrokerError, NotRunning, QueueFull, StoreUnavailable
from broker.execution import EXPIRED, Event, Execution, are_akin
from broker.protocol import Execute
from broker.roles import Client, Envelope, Host, SessionKernel, SessionLimits, Workspace
from broker.strays import Strays
from kernels.errors import BadFrame
from kernels.messages import Message
from kernels.state import SESSION, SessionEvent, SessionState, advance

logger = logging.getLogger(__name__)

EXIT_SETTLE = 0.05  # s from a kernel's death until its last words, in its sockets, count as said


class Session:
    """A named place for variables. Made by the service, which is its host."""

    def __init__(
        self,
        tenant: str,
        name: str,
        profile: str,
        *,
        limits: SessionLimits,
        gate: asyncio.Lock,
        host: Host[Session],
    ) -> None:
        self.tenant = tenant
        self.name = name
        self.profile = profile
        self.limits = limits
        self.state = SessionState.OPENING
        self.generation = 0
        self.kernel: SessionKernel | None = None
        self.workspace: Workspace | None = None  # of its kernels, one after another
        self.created = self.last_used = time.time()
        self.executions = 0
        self.audience = Audience(limits.replay_events, limits.replay_bytes, self._throttle)
        self.passing = False  # a one-shot: nothing remembers it when it has ended
        self.gate = gate  # held while the host binds or releases
        self.lost_reason = ""  # why the last kernel ended
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Execution] = deque()
        self._running: Execution | None = None
        self._catching_up = False  # an adopted kernel may still run what it was given before
        self._request_id = ""  # the kernel's id of what runs
        self._strays = Strays(limits.output)
        self._deadline = Deadline(limits, self._expire, self._kill)
        self._verdict = ""  # why we killed the kernel
        self._answered = False  # by the kernel it has now

    def __repr__(self) -> str:
        return (
            f"<Session {self.tenant}/{self.name}: {self.state}, generation {self.generation}, "
            f"{len(self._queue)} queued, {len(self.audience.clients)} clients>"
        )

    @property
    def key(self) -> tuple[str, str]:
        """Return what names the session on every node."""
        return self.tenant, self.name

    @property
    def busy(self) -> bool:
        """Tell whether an execution runs or waits."""
        return self._occupied or bool(self._queue)

    @property
    def _occupied(self) -> bool:
        return self._running is not None or self._catching_up

    @property
    def queued(self) -> int:
        """Count the executions that wait."""
        return len(self._queue)

    @property
    def expires(self) -> float:
        """Return when it ends if nothing more is executed; Unix seconds, 0 for never."""
        idle, life = self.limits.idle_timeout, self.limits.max_lifetime
        both = (self.last_used, idle), (self.created, life)
        return min([since + most for since, most in both if most], default=0.0)

    # Clients

    def attach(self, client: Client, after: int | None = None) -> None:
        """Add a client; it gets the session's state and every kept event later than `after`."""
        missed, kept = self.audience.since(after)
        if self.kernel is not None or missed is not None:
            # While a kernel is being bound, the event of its binding is everybody's first.
            state = "warm" if self.kernel is not None else "lost" if self.generation else "fresh"
            event = self._description(state, self.lost_reason if state == "lost" else "")
            event["seq"] = self.audience.last
            if missed is not None:
                event["missed"] = list(missed)
            client.deliver(Envelope(event))
        for envelope in kept:
            client.deliver(envelope)
        client.dispatch()
        self.audience.add(client)

    def detach(self, client: Client) -> None:
        """Forget a client; what it has asked for goes on."""
        self.audience.remove(client)
        if not self.audience.clients:
            self._host.left(self)

    def _throttle(self) -> bool:
        # What is to stop must be heard saying so, or its kernel would be killed for silence.
        stopping = self._running is not None and bool(self._running.interrupted)
        held = self.audience.all_behind and not stopping
        if self.kernel is not None:
            (self.kernel.channels.pause if held else self.kernel.channels.resume)()
        return held

    def _description(self, state: str, reason: str) -> Event:
        event: Event = {
            "type": "session",
            "session": self.name,
            "generation": self.generation,
            "state": state,
            "profile": self.profile,
            "limits": self.limits.told(),
            "expires_at": self.expires,
        }
        if reason:
            event["reason"] = reason
        return event

    # The kernel

    def bind(self, kernel: SessionKernel, generation: int, state: str, reason: str) -> None:
        """Take a kernel for good; what waits begins to run."""
        self.state = advance(SESSION, self.state, SessionEvent.BOUND)
        self.kernel, self.generation = kernel, generation
        self._verdict = ""
        self._answered = state == "warm"
        self.lost_reason = reason
        self._strays.renew()
        kernel.channels.receiver, kernel.channels.turned = self._receive, self._turned
        kernel.channels.broken.add_done_callback(partial(self._distrust, kernel))
        kernel.exited.add_done_callback(partial(self._exited, kernel))
        self.audience.emit(self._description(state, reason))
        if state == "warm":
            self._catch_up(kernel)
        self._start_next()

    def _catch_up(self, kernel: SessionKernel) -> None:
        """Be busy until an adopted kernel answers: it may be in the middle of a cell."""
        self.state = advance(SESSION, self.state, SessionEvent.STARTED)
        self._catching_up = True
        self._request_id = kernel.channels.send("shell", "kernel_info_request", {})

    def _caught_up(self) -> None:
        self._catching_up = False
        self.last_used = time.time()
        self.state = advance(SESSION, self.state, SessionEvent.FINISHED)
        self._host.caught_up(self)
        self._start_next()

    def refuse(self, error: BrokerError) -> None:
        """Give back everything that waits for a kernel that cannot be had."""
        waiting, self._queue = self._queue, deque()
        for execution in waiting:
            owner = next((one for one in self.audience.clients if one is execution.owner), None)
            if owner is not None:
                owner.fault(execution.id, error)
            if owner is None or execution.told:
                self._finish(execution, "aborted", error.message)

    def _kill(self, reason: str) -> None:
        """End the kernel at once; its loss is told with this reason."""
        if self.kernel is not None:
            self._verdict = self._verdict or reason
            self.kernel.kill()

    def drop_kernel(self, reason: str) -> SessionKernel | None:
        """Let go of the kernel now, and return it to be ended."""
        kernel = self.kernel
        if kernel is not None:
            self._lose(kernel, reason)
        return kernel

    def _distrust(self, kernel: SessionKernel, broken: asyncio.Future[BadFrame]) -> None:
        if not broken.cancelled() and self.kernel is kernel:
            logger.warning("session=%s/%s kernel sent %s", *self.key, broken.result())
            self._kill("bad_frame")

    def _exited(self, kernel: SessionKernel, exited: asyncio.Future[str]) -> None:
        if not exited.cancelled():
            kernel.channels.resume()  # its last words are read whoever is behind
            reason = exited.result()
            self._loop.call_later(EXIT_SETTLE, self._settle, kernel, reason)

    def _settle(self, kernel: SessionKernel, reason: str) -> None:
        if self.kernel is kernel:
            self._lose(kernel, self._verdict or reason)
            self._host.kernel_lost(self, kernel, self.lost_reason)

    def _lose(self, kernel: SessionKernel, reason: str) -> None:
        logger.info("session=%s/%s generation %d ended: %s", *self.key, self.generation, reason)
        kernel.channels.receiver = kernel.channels.turned = None
        running, self._running = self._running, None
        waiting, self._queue = self._queue, deque()
        self.kernel = None
        self._catching_up = False
        self.lost_reason = reason
        self.state = advance(SESSION, self.state, SessionEvent.LOST)
        self._deadline.stop()
        if running is not None:
            expired = running.interrupted in EXPIRED and reason == running.interrupted
            self._finish(running, "timeout" if expired else "lost", reason)
        for execution in waiting:
            self._finish(execution, "aborted", "the kernel was lost before it ran")
        self.audience.emit(self._description("lost", reason))

    # Executions

    def submit(self, request: Execute, owner: Client) -> None:
        """Queue an execution. Raises QueueFull, StoreUnavailable, BadMessage for an id in use."""
        if self.state is SessionState.SUSPENDED:
            raise StoreUnavailable("the session store is out of reach; the session is safe")
        if (count := len(self._queue)) >= self.limits.queue:
            raise QueueFull(
                f"{count} executions wait already, as many as the session's queue holds"
            )
        # Whoever's it is: `target` of an interrupt or a cancel, and all events, name no client.
        if any(one is not None and one.id == request.id for one in (self._running, *self._queue)):
            raise BadMessage(f"id: {request.id!r} is still open in this session", field="id")
        execution = Execution(request, owner, time.monotonic(), self.limits.output)
        self._queue.append(execution)
        position = len(self._queue) - (not self._occupied)
        if position > 0:
            execution.told = True
            self.audience.emit({"type": "queued", "id": request.id, "position": position})
        if self.kernel is None:
            self._host.need_kernel(self)
        else:
            self._start_next()

    def interrupt(self, target: str | None = None) -> str:
        """Interrupt what runs, and return its id. Raises NotRunning."""
        running = self._running
        if self._catching_up and self.kernel is not None and not target:
            self.kernel.interrupt()  # what the last broker had it run; its id is not known
            return ""
        if running is None or self.kernel is None or (target and running.id != target):
            what = f"{target!r} is not running" if target else "nothing is running"
            raise NotRunning(what, field="target" if target else None)
        running.interrupted = running.interrupted or "interrupted"
        self._throttle()
        self._interrupt_once_taken(running)
        return running.id

    def cancel(self, target: str) -> None:
        """Take an execution out of the queue. Raises NotRunning."""
        for execution in self._queue:
            if execution.id == target:
                self._queue.remove(execution)
                self._finish(execution, "cancelled", "")
                return
        raise NotRunning(f"{target!r} is not in the queue", field="target")

    def _start_next(self) -> None:
        if self.state is not SessionState.READY or not self._queue or self.kernel is None:
            return
        self.state = advance(SESSION, self.state, SessionEvent.STARTED)
        execution = self._running = self._queue.popleft()
        execution.started = time.monotonic()
        self._strays.renew()
        execution.used_before = self._deadline.set(self.kernel, execution.request.timeout)
        self._request_id = self.kernel.channels.next_id()
        try:
            self.kernel.channels.send(
                "shell",
                "execute_request",
                execution.content(),
                msg_id=self._request_id,
                metadata=execution.request.metadata,
            )
        except BlockingIOError:  # it gets one request at a time, and has answered without reading
            self._kill("bad_frame")

    def _expire(self, reason: str) -> None:
        if self._running is not None:
            self._running.interrupted = reason
            self._throttle()
            self._interrupt_once_taken(self._running)

    def _interrupt_once_taken(self, running: Execution) -> None:
        # What reaches the kernel before it has taken up the cell would stop nothing.
        running.interrupt_due = not running.taken
        if running.taken and self.kernel is not None:
            self.kernel.interrupt()

    def _turned(self, channel: str) -> None:
        running = self._running
        if channel == "iopub" and running is not None and running.lacks_reply and self.kernel:
            self.kernel.channels.look("shell")  # so that `done` leaves with what came before it
        self.audience.flush()

    def _receive(self, channel: str, message: Message) -> bool:
        self.audience.gather()
        running, told = self._running, False  # whether the message stands for anything
        if running is not None and message.parent_id == self._request_id:
            if not self._answered:
                self._answered = True
                self._host.answered(time.monotonic() - running.submitted)
            for event in running.take(channel, message):
                self.audience.emit(event)
                told = True
            told = told or running.bounded  # a kernel that says too much is no broken one
            if running.finished:
                self._complete(running)
            elif running.interrupt_due:
                self._interrupt_once_taken(running)
        elif self._catching_up and channel == "shell" and message.parent_id == self._request_id:
            self._caught_up()
        elif channel == "iopub" and message.type != "status":
            for event in self._strays.take(message):
                self.audience.emit(event)
                told = True
            # What an adopted kernel still runs has an id of the last broker's, which we never knew.
            asked = self._catching_up or are_akin(message.parent_id, self._request_id)
            told = told or (asked and self._strays.bounded)
        return told

    def _complete(self, execution: Execution) -> None:
        self._running = None
        self._deadline.clear()
        execution.used_after = usage_of(self.kernel)
        self.state = advance(SESSION, self.state, SessionEvent.FINISHED)
        status = self._finish(execution)
        if status not in ("ok", "aborted") and execution.request.stop_on_error:
            for waiting in [one for one in self._queue if one.owner is execution.owner]:
                self._queue.remove(waiting)
                self._finish(waiting, "aborted", f"{execution.id} failed before it")
        self._start_next()

    def _finish(self, execution: Execution, status: str = "", reason: str = "") -> str:
        """Send the one `done` of an execution and return its status."""
        now = time.monotonic()
        if (started := execution.late_start()) is not None:
            self.audience.emit(started)
        event = execution.done(status, reason, now=now)
        if execution.started:
            self.executions += 1
            self.last_used = time.time()
            if event["status"] in ("timeout", "lost", "interrupted"):
                event.setdefault("reason", execution.interrupted or "lost")
        event |= {"generation": self.generation, "expires_at": self.expires}
        self.audience.emit(event)
        self._host.executed(self, event["status"], event["duration"])
        return str(event["status"])

    # The store's word

    def suspend(self) -> None:
        """Refuse new work until the lease is sure again; what runs goes on."""
        if self.state not in (SessionState.SUSPENDED, SessionState.CLOSED):
            self.state = advance(SESSION, self.state, SessionEvent.SUSPEND)

    def resume(self) -> None:
        """Take work again."""
        if self.state is SessionState.SUSPENDED:
            event = SessionEvent.RESUME_EMPTY
            if self.kernel is not None:
                event = SessionEvent.RESUME_BUSY if self._occupied else SessionEvent.RESUME_READY
            self.state = advance(SESSION, self.state, event)
            if self._queue and self.kernel is None:
                self._host.need_kernel(self)
            self._start_next()

    def close(self, code: int, reason: str, *, spare: Client | None = None) -> None:
        """End the session for every client but `spare`, who gets a word of its own."""
        if self.state is not SessionState.CLOSED:
            self.state = advance(SESSION, self.state, SessionEvent.CLOSE)
        waiting, self._queue = self._queue, deque()
        for execution in waiting:
            if execution.told:  # for the others, the end says it
                self._finish(execution, "aborted", reason)
        self.audience.end(code, reason, spare=spare)
