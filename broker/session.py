"""One session: its kernel, its clients, and every event in one numbered sequence.

What runs in it is `broker.executions`'. Knows nothing of pools, stores or sockets: it asks its
`Host` for a kernel when it needs one, and tells it when one was lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

from broker.audience import Audience
from broker.execution import Event
from broker.executions import Executions
from broker.marks import Mark, Running, beyond
from broker.past import Past
from broker.questions import Questions
from broker.roles import Client, Envelope, Host, SessionKernel, SessionLimits, Tap, Workspace
from broker.transcript import Transcript
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
        mark: Mark | None = None,
    ) -> None:
        self.tenant = tenant
        self.name = name
        self.profile = profile
        self.limits = limits
        self.state = SessionState.OPENING
        self.generation = 0
        self.kernel: SessionKernel | None = None
        self.workspace: Workspace | None = None  # of its kernels, one after another
        self.created = time.time()
        self.mark = mark or Mark()
        events, size = limits.replay_events, limits.replay_bytes
        self.audience = Audience(events, size, self.pace, self.mark)
        self.past = Past()
        self.transcript = Transcript(limits.transcript_cells, limits.transcript_bytes)
        self.passing = False  # a one-shot: nothing remembers it when it has ended
        self.gate = gate  # held while the host binds or releases
        self.lost_reason = ""  # why the last kernel ended
        self.host = host
        self._loop = asyncio.get_running_loop()
        self.work = Executions(self)
        self.questions = Questions(self)
        self.tap: Tap | None = None  # of the clients that speak the kernel's own language
        # When its kernel was an earlier broker's: the last number before, and the loop's time.
        self.adopted: tuple[int, float] | None = None
        self._verdict = ""  # why we killed the kernel
        self._orphan = self.mark.running  # of a broker before this one, until its end is told
        self._skipped: tuple[int, int] | None = None  # numbers that attached clients have missed

    def __repr__(self) -> str:
        return (
            f"<Session {self.tenant}/{self.name}: {self.state}, generation {self.generation}, "
            f"{self.work.queued} queued, {len(self.audience.clients)} clients>"
        )

    @property
    def key(self) -> tuple[str, str]:
        """Return what names the session on every node."""
        return self.tenant, self.name

    @property
    def busy(self) -> bool:
        """Tell whether an execution runs or waits."""
        return self.work.occupied or bool(self.work.queued)

    @property
    def occupied(self) -> bool:
        """Tell whether the kernel runs something."""
        return self.work.occupied

    @property
    def is_opening(self) -> bool:
        """Tell whether it may have a kernel soon."""
        return self.state is SessionState.OPENING

    @property
    def expires(self) -> float:
        """Return when it ends if nothing more is executed; Unix seconds, 0 for never."""
        idle, life = self.limits.idle_timeout, self.limits.max_lifetime
        unused = self.work.last_used + idle if idle else 0.0
        old = self.created + life if life else 0.0
        return min(unused, old) if unused and old else unused or old

    # Clients

    def attach(self, client: Client, after: int | None = None, *, at_once: bool = False) -> None:
        """Add a client; it gets the session's state and every kept event later than `after`.

        The state is told `at_once` even if there is no kernel: to who waits for none.
        """
        if after is not None and after > self.audience.last and not self.generation:
            self._skip()  # it has numbers of another broker, which had the session
        self.audience.add(client)  # first: it may leave while it is given the rest
        missed, kept = self.audience.since(after)
        if self.kernel is not None or after is not None or at_once:
            # While a kernel is being bound, the event of its binding is a newcomer's first.
            known = self.generation or self.mark.generation or after  # of kernels before that one
            state = "warm" if self.kernel is not None else "lost" if known else "fresh"
            event = self._description(state, self.lost_reason if state == "lost" else "")
            # Of a session that has ended and comes again, only its mark knows.
            event["generation"] = self.generation or self.mark.generation
            event["seq"] = self.audience.last
            if waiting := self.work.dialogue.waiting():
                event["waiting"] = waiting
            orphans = [] if self._orphan is None else [self._orphan.id]
            event["open"] = list(dict.fromkeys([*orphans, *self.work.open]))
            if missed is not None:
                event["missed"] = list(missed)
            client.deliver(Envelope(event))
        for envelope in kept:
            client.deliver(envelope)
        client.dispatch()

    def detach(self, client: Client) -> None:
        """Forget a client; what it has asked for goes on."""
        self.audience.remove(client)
        self.work.dialogue.leave(client)
        if not self.audience.clients:
            self.host.left(self)

    def pace(self) -> bool:
        """Hold the kernel back while nobody can take more; return whether it is held."""
        # What is to stop must be heard saying so, or its kernel would be killed for silence.
        held = self.audience.all_behind and not self.work.stopping
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
        self.advance(SessionEvent.BOUND)
        self.kernel, self.generation = kernel, generation
        if self.workspace is not None and self.workspace.changes is not None:
            self.workspace.changes.owner = self.tenant
        self._verdict = ""
        self.lost_reason = reason
        kernel.channels.receiver, kernel.channels.turned = self._receive, self._turned
        self.past.begin(generation, None if state == "warm" else time.time())
        running = self._go_on(kernel, generation, warm=state == "warm")
        kernel.channels.broken.add_done_callback(partial(self._distrust, kernel))
        kernel.exited.add_done_callback(partial(self._exited, kernel))
        adopted = self.audience.last, self._loop.time()
        self.adopted = adopted if state == "warm" else None
        event = self._description(state, reason)
        if self._skipped is not None and any(self._skipped):
            event["missed"] = [*self._skipped]
        self._skipped = None
        self.audience.emit(event)
        self.work.begin(kernel, state, running if state == "warm" else self._orphan, reason)
        if state == "lost":  # with it the cell that an earlier broker had it run, told just now
            self.transcript.lose(reason)
        self._orphan = None
        self.questions.begin()
        if self.tap is not None:
            self.tap.bound()

    def _go_on(self, kernel: SessionKernel, generation: int, *, warm: bool) -> Running | None:
        """Go on with the numbers, and with what the kernel has said since; tell what it runs."""
        mark, running = self.mark, None
        if warm and mark.last and mark.generation == generation:
            kernel.channels.catch_up(mark.taken)
            running = mark.running
        elif warm or (generation > 1 and not (mark.last and mark.generation == generation - 1)):
            # Where it is not known how far its numbers are, they go on above all there were.
            self._skip()
        mark.bound(generation, fresh=not warm)
        return running

    def _skip(self) -> None:
        """Go on above all numbers there can have been; whoever is there is told so at binding."""
        if self._skipped is None:  # else it is so already, and a second time would be a gap
            before, there = self.audience.last, bool(self.audience.clients)
            self.audience.skip(beyond())
            self._skipped = (before + 1, self.audience.last) if there else (0, 0)

    @property
    def condemned(self) -> bool:
        """Tell whether the kernel was killed, and its end is not known yet."""
        return bool(self._verdict)

    def kill(self, reason: str) -> None:
        """End the kernel at once; its loss is told with this reason."""
        if self.kernel is not None:
            self._verdict = self._verdict or reason
            self.kernel.kill()

    def drop_kernel(self, reason: str, *, last: bool = False) -> SessionKernel | None:
        """Let go of the kernel now, and return it to be ended; the `last` one is not replaced."""
        kernel = self.kernel
        if last and self.tap is not None:
            self.tap.close()
            self.tap = None
        if kernel is not None:
            self._lose(kernel, reason)
        return kernel

    def _distrust(self, kernel: SessionKernel, broken: asyncio.Future[BadFrame]) -> None:
        if not broken.cancelled() and self.kernel is kernel:
            logger.warning("session=%s/%s kernel sent %s", *self.key, broken.result())
            self.kill("bad_frame")

    def _exited(self, kernel: SessionKernel, exited: asyncio.Future[str]) -> None:
        if not exited.cancelled():
            kernel.channels.resume()  # its last words are read whoever is behind
            reason = exited.result()
            self._loop.call_later(EXIT_SETTLE, self._settle, kernel, reason)

    def _settle(self, kernel: SessionKernel, reason: str) -> None:
        if self.kernel is kernel:
            reason = self._verdict or reason
            # First: its release comes before the kernel that somebody may ask for when told so.
            self.host.kernel_lost(self, kernel, reason)
            self._lose(kernel, reason)

    def _lose(self, kernel: SessionKernel, reason: str) -> None:
        logger.info("session=%s/%s generation %d ended: %s", *self.key, self.generation, reason)
        kernel.channels.receiver = kernel.channels.turned = None
        self.kernel = None
        self.lost_reason = reason
        self.past.end(self.generation, reason, time.time())
        self.advance(SessionEvent.LOST)
        self.work.lose(kernel, reason)
        self.questions.lose()
        self.audience.emit(self._description("lost", reason))
        if self.tap is not None:
            self.tap.ended(reason)

    def _receive(self, channel: str, message: Message) -> bool:
        self.audience.gather()
        if channel != "iopub" and self.questions.take(message):
            return True
        if channel == "iopub" and self.kernel is not None:
            self.mark.taking(self.kernel.channels.position)
        told = self.tap is not None and self.tap.take(channel, message)
        return self.work.take(channel, message) or told

    def _turned(self, channel: str) -> None:
        self.work.turned(channel)
        self.audience.flush()

    # What executions ask of their place

    def advance(self, event: SessionEvent) -> None:
        """Change the state; an illegal event raises and changes nothing."""
        self.state = advance(SESSION, self.state, event)

    # The store's word

    def suspend(self) -> None:
        """Refuse new work until the lease is sure again; what runs goes on."""
        if self.state not in (SessionState.SUSPENDED, SessionState.CLOSED):
            self.advance(SessionEvent.SUSPEND)

    def resume(self) -> None:
        """Take work again."""
        if self.state is SessionState.SUSPENDED:
            event = SessionEvent.RESUME_EMPTY
            if self.kernel is not None:
                busy = self.work.occupied
                event = SessionEvent.RESUME_BUSY if busy else SessionEvent.RESUME_READY
            self.advance(event)
            if self.work.queued and self.kernel is None:
                self.host.need_kernel(self)
            self.work.start_next()

    def close(self, code: int, reason: str, *, spare: Client | None = None) -> None:
        """End the session for every client but `spare`, who gets a word of its own."""
        if self.state is not SessionState.CLOSED:
            self.advance(SessionEvent.CLOSE)
        self.work.close(reason)
        if self.tap is not None:
            self.tap.close()
        (self.mark.forget if self.passing else self.mark.end)()
        self.audience.end(code, reason, spare=spare)
