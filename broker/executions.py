"""What runs in a session, one execution at a time, and what waits behind it.

Knows the kernel's messages about requests and nothing of how kernels come and go: whoever has the
kernel tells when there is one, and when it is lost. Each execution ends here, with its one `done`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from broker.deadline import KILLED, Deadline, status_of_loss, usage_after
from broker.dialogue import Dialogue
from broker.errors import BadMessage, BrokerError, NotRunning, StoreUnavailable
from broker.execution import Event, Execution, are_akin
from broker.marks import Running
from broker.orders import Runs, executions_of, surrounded
from broker.place import Place
from broker.requests import Configure, marked
from broker.resumption import UNTOLD, Greeting, note, resumed
from broker.roles import Client, SessionKernel
from broker.strays import Strays
from broker.surroundings import Around
from broker.waiting import Waiting
from kernels.messages import Message
from kernels.state import SessionEvent, SessionState

MOST_LINE = 200  # characters


class Executions:
    """One session's executions."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.count = 0  # of those that have ended after they had begun
        self.last_used = time.time()  # Unix s
        self.was_free = False  # an adopted kernel: it is known what it ran, if it ran anything
        self._queue = Waiting(place.limits.queue)
        self.running: Execution | None = None  # changed here alone
        self.request_id = ""  # the kernel's id of what runs, or ran last
        self._greeting: Greeting | None = None  # of an adopted kernel, which may run something
        self._strays = Strays(place.limits.output)
        self._deadline = Deadline(
            place.limits, expired=self._expire, insist=self._insist, overdue=place.kill
        )
        self.dialogue = Dialogue(place, self._emit)
        self._state = "fresh"  # of the variables, as what begins next will find them
        self._answered = False  # by the kernel it has now
        self._around = Around()
        self._turn = 0  # the place among those who wait for a kernel, where there is a queue

    def __repr__(self) -> str:
        return f"<Executions: {self.running!r}, {len(self._queue)} queued>"

    @property
    def occupied(self) -> bool:
        """Tell whether the kernel runs something."""
        return self.running is not None or self._greeting is not None

    @property
    def cell(self) -> tuple[str, float] | None:
        """Return the id of what runs, and the seconds it has run for; None where none is known."""
        running = self.running
        return None if running is None else (running.id, time.monotonic() - running.started)

    @property
    def line(self) -> str | None:
        """Return the first line of the code that runs, without secrets; None if none is known."""
        code = self.running.request.code if self.running is not None else ""
        whole = self._place.transcript.redacted(code).strip()  # a secret may have many lines
        return whole.split("\n", 1)[0][:MOST_LINE] or None

    @property
    def queued(self) -> int:
        """Count those that wait."""
        return len(self._queue)

    @property
    def open(self) -> list[str]:
        """Return the ids of what runs and what waits, in order."""
        return [*dict.fromkeys(execution.id for execution in self._all())]

    @property
    def stopping(self) -> bool:
        """Tell whether what runs has been interrupted."""
        return self.running is not None and bool(self.running.interrupted)

    def begin(
        self, kernel: SessionKernel, state: str, running: Running | None = None, reason: str = ""
    ) -> None:
        """Take up a kernel. `running` is what an earlier broker had the session run.

        A `warm` kernel may still run it; else it was lost with its own, for this reason.
        """
        self._state, warm = state, state == "warm"
        self._answered = warm
        self._around.version = 0
        self.dialogue.begin(warm=warm)
        self._turn = 0
        self._strays.renew()
        if warm:
            self._place.advance(SessionEvent.STARTED)
            if running is not None:
                self.running, timeout = resumed(self._place, running)
                self.request_id = running.message
                left = self._place.host.quotas.cpu_left(self._place)
                self._deadline.set(kernel, timeout, left, since=running.used)
            self._greeting = Greeting(self._place, kernel)
        elif running is not None:
            self._finish(resumed(self._place, running)[0], "lost", reason)
        self.start_next()

    def lose(self, kernel: SessionKernel, reason: str) -> None:
        """End everything: the kernel is lost, for this reason."""
        running, self.running = self.running, None
        waiting = self._queue.take()
        self._state = "lost"
        self._part()
        self._deadline.stop()
        self.dialogue.lose()
        if running is not None:
            running.used_after = usage_after(kernel, running)
            self._finish(running, status_of_loss(running, reason), reason)
        for execution in waiting:
            self._finish(execution, "aborted", "the kernel was lost before it ran")

    def refuse(self, error: BrokerError) -> None:
        """Give back everything that waits for a kernel that cannot be had."""
        self._turn = 0
        for execution in self._queue.take():
            clients = self._place.audience.clients
            owner = next((one for one in clients if one is execution.owner), None)
            if owner is not None and not execution.order.cell:  # once for a batch
                owner.fault(execution.id, error)
            if owner is None or execution.told:
                self._finish(execution, "aborted", error.message)

    def waits(self, position: int) -> None:
        """Tell the place among those who wait for a kernel, from 1; of the first execution's."""
        self._turn = position
        event: Event = {"type": "queued", "position": position}
        for execution in self._queue:  # of a batch, each cell
            event.setdefault("id", execution.id)
            execution.told = execution.told or execution.id == event["id"]
        self._place.audience.emit(event)

    def close(self, reason: str) -> None:
        """End what waits: the session has ended. For those not told of, that end says it."""
        self.dialogue.close()
        for execution in self._queue.take():
            if execution.told:
                self._finish(execution, "aborted", reason)

    # Requests

    def submit(
        self, request: Runs, owner: Client, *, answers: bool = False, origin: str = ""
    ) -> None:
        """Queue what is to run: all of it, or none; its owner answers what it asks, or cannot.

        `origin` is where it comes from, whatever it says of that itself; empty for its own word.
        Raises QueueFull, StoreUnavailable, and BadMessage, for an id in use for one.
        """
        limits, now = self._place.limits, time.monotonic()
        executions = executions_of(request, owner, now, limits, self._around.wanted)
        for execution in executions:
            execution.answers = answers
            execution.request = marked(execution.request, origin)
        self._check(request.id, len(executions))
        self._enqueue(executions)

    def configure(self, request: Configure) -> None:
        """Set what is around all that is submitted from now on. Raises BadMessage."""
        limits, around = self._place.limits, self._around
        around.wanted = surrounded(around.wanted, request, limits, applied=around.version)

    def _check(self, request_id: str, number: int) -> None:
        """Raise what speaks against queueing so many more under this id."""
        self._place.host.quotas.submit(self._place)
        if self._place.state is SessionState.SUSPENDED:
            raise StoreUnavailable("the session store is out of reach; the session is safe")
        self._queue.check(number)
        # Whoever's it is: `target` of an interrupt or a cancel, and all events, name no client.
        if any(one.id == request_id for one in self._all()):
            raise BadMessage(f"id: {request_id!r} is still open in this session", field="id")

    def _enqueue(self, executions: list[Execution]) -> None:
        # Of the first: behind those before it, or in the session's own turn for a kernel.
        position = len(self._queue) + 1 - (not self.occupied) or self._turn
        if position > 0:
            for execution in executions:
                execution.told = True
            event: Event = {"type": "queued", "id": executions[0].id, "position": position}
            self._place.audience.emit(event)
        self._queue.add(executions)
        if self._place.kernel is None:
            self._place.host.need_kernel(self._place)
        else:
            self.start_next()

    def _all(self) -> Iterable[Execution]:
        if self.running is not None:
            yield self.running
        yield from self._queue

    def interrupt(self, target: str | None = None) -> str:
        """Interrupt what runs, and return its id. Raises NotRunning."""
        running, kernel = self.running, self._place.kernel
        if self._greeting is not None and running is None and kernel is not None and not target:
            kernel.interrupt()  # what the last broker had it run; its id is not known
            self._deadline.hasten(KILLED)
            return ""
        if running is None or kernel is None or (target and running.id != target):
            what = f"{target!r} is not running" if target else "nothing is running"
            if any(one.id == target for one in self._queue):
                what += ": it waits, and cancel takes it out of the queue"
            raise NotRunning(what, field="target" if target else None)
        running.interrupt(time.monotonic())
        self._deadline.hasten(KILLED)
        self._place.pace()
        self._interrupt_once_taken(running)
        return running.id

    def cancel(self, target: str) -> None:
        """Take an execution out of the queue. Raises NotRunning."""
        found = self._queue.take(lambda waiting: waiting.id == target)
        if not found:
            raise NotRunning(f"{target!r} is not in the queue", field="target")
        for execution in found:
            self._finish(execution, "cancelled", "")

    def start_next(self) -> None:
        """Have the kernel run what has waited longest, if it is free."""
        kernel = self._place.kernel
        if self._place.state is not SessionState.READY or not self._queue or kernel is None:
            return
        if self._place.condemned:
            return
        self._place.advance(SessionEvent.STARTED)
        execution = self.running = self._queue.next()
        execution.started = time.monotonic()
        execution.state, self._state = self._state, "warm"
        self._strays.renew()
        left = self._place.host.quotas.cpu_left(self._place)
        execution.used_before = self._deadline.set(kernel, execution.request.timeout, left)
        self.request_id = kernel.channels.next_id()
        content = execution.content(self._around.version)
        self.dialogue.brief(kernel, content)
        note(self._place, execution, self.request_id)
        try:
            kernel.channels.send(
                "shell",
                "execute_request",
                content,
                msg_id=self.request_id,
                metadata=execution.request.metadata,
            )
        except BlockingIOError:  # it gets one request at a time, and has answered without reading
            self._place.kill("bad_frame")

    def _expire(self, reason: str) -> None:
        if self.running is not None:
            self.running.interrupted = reason
            self._place.pace()
            self._interrupt_once_taken(self.running)

    def _insist(self) -> None:
        running, kernel = self.running, self._place.kernel
        if kernel is not None:
            for channel in ("iopub", "shell"):  # it may have ended, and the signal has no name
                kernel.channels.look(channel)
            if self.running is running and self.occupied:
                kernel.insist()

    def _interrupt_once_taken(self, running: Execution) -> None:
        # What reaches the kernel before it has taken up the cell would stop nothing.
        running.interrupt_due = not running.taken
        if running.taken and self._place.kernel is not None:
            self._place.kernel.interrupt(self.request_id)

    def turned(self, channel: str) -> None:
        """Note the end of a turn in which the kernel has said something."""
        running, kernel = self.running, self._place.kernel
        if channel == "iopub" and running is not None and running.lacks_reply and kernel:
            kernel.channels.look("shell")  # so that `done` leaves with what came before it

    def take(self, channel: str, message: Message) -> bool:
        """Take in what the kernel says; return whether it stands for anything."""
        if channel == "stdin":
            return self._listen(message)
        running, told = self.running, False
        if running is not None and message.parent_id == self.request_id:
            if not self._answered:
                self._answered = True
                self._place.host.answered(time.monotonic() - running.submitted)
            for event in running.take(channel, message, time.monotonic()):
                self._emit(running, event)
                told = True
            told = told or running.bounded  # a kernel that says too much is no broken one
            # What ends as its kernel is killed ends with it: what came next would be lost there.
            if running.finished and not self._place.condemned:
                self._complete(running)
            elif running.interrupt_due:
                self._interrupt_once_taken(running)
        elif (greeting := self._greeting) is not None and greeting.take(channel, message):
            told = True
            if greeting.free and not self._place.condemned:
                self._caught_up(greeting)
        elif channel == "iopub" and message.type != "status":
            for event in self._strays.take(message):
                self._place.audience.emit(event)
                told = True
            # What an adopted kernel still runs has an id of the last broker's, which we never knew.
            asked = self._greeting is not None or are_akin(message.parent_id, self.request_id)
            told = told or (asked and self._strays.bounded)
        return told

    def _listen(self, message: Message) -> bool:
        """Take in what the cell asks, after all that it has said before."""
        if self._place.kernel is not None:
            self._place.kernel.channels.look("iopub")
        own = message.parent_id == self.request_id
        return self.dialogue.take(message, self.running, own=own, busy=self.occupied)

    def _caught_up(self, greeting: Greeting) -> None:
        running = self.running
        if running is not None:
            # It has ended; what tells how may still be on its way, or went to the last broker.
            if greeting.heard:
                self._complete(running, *(("", "") if running.replied else ("lost", UNTOLD)))
            else:
                greeting.await_idle(partial(self._complete, running, "lost", UNTOLD))
            return
        self._part()
        self._deadline.clear()
        self.dialogue.end()
        if not self.was_free:
            self.last_used = time.time()  # it has perhaps only now ended what nobody has noted
        self._place.advance(SessionEvent.FINISHED)
        self._place.host.caught_up(self._place)
        self.start_next()

    def _part(self) -> None:
        if self._greeting is not None:
            self._greeting.close()
            self._greeting = None

    def _complete(self, execution: Execution, status: str = "", reason: str = "") -> None:
        self.running = None
        self._part()
        self._deadline.clear()
        if execution.configured:
            self._around.settle(execution.around, refused=execution.cwd_refused)
        self.dialogue.end()
        execution.used_after = usage_after(self._place.kernel, execution)
        self._place.advance(SessionEvent.FINISHED)
        status = self._finish(execution, status, reason)
        if status not in ("ok", "aborted") and execution.request.stop_on_error:
            for waiting in self._queue.take(execution.takes_along):
                self._finish(waiting, "aborted", f"{execution.id} failed before it")
        self.start_next()

    def _finish(self, execution: Execution, status: str = "", reason: str = "") -> str:
        """Send the one `done` of an execution and return its status."""
        now = time.monotonic()
        if (started := execution.late_start()) is not None:
            self._emit(execution, started)
        event = execution.done(status, reason, now=now)
        if execution.started:
            self.count += 1
            self.last_used = time.time()
            if execution.interrupted or event["status"] in ("timeout", "lost"):
                event.setdefault("reason", execution.interrupted or "lost")
            if self._place.workspace is not None:
                event |= self._place.workspace.changed()
            self._place.mark.ending()
        event["generation"] = self._place.generation
        event |= {"state": execution.state or self._state, "expires_at": self._place.expires}
        self._emit(execution, event)
        if (batch := execution.order.batch) is not None and execution.order.cell is not None:
            cell, started_at = execution.order.cell, execution.started
            for last in batch.ended(cell, event, started=started_at, now=now):
                self._place.audience.emit(last)
        self._place.host.executed(self._place, event["status"], event["duration"], event["cpu"])
        return str(event["status"])

    def _emit(self, execution: Execution, event: Event) -> None:
        if execution.order.cell is not None:
            event["cell"] = execution.order.cell
        kind = event["type"]
        if kind in ("started", "error"):
            self._place.mark.told(kind)
        if kind in ("error", "done"):
            self._place.past.note(event, time.time(), self._place.transcript.redacted)
        self._place.audience.emit(event)
        self._place.transcript.note(execution, event)
