"""What a kernel was running when the broker before this one was killed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Protocol

from broker.batches import Batch, Order
from broker.execution import STATUS, Execution
from broker.marks import ALONE, CALL, UNKEPT, Mark, Running
from broker.requests import MAX_CELLS, VISITOR, Execute, marked, origin_of
from broker.roles import SessionKernel, SessionLimits
from broker.transcript import Transcript
from kernels.introductions import heard
from kernels.messages import Message

SETTLE = 2.0  # s until a kernel that is free is asked again to say that it has said everything,
ASKED = 15  # times at the most: one that never does keeps nobody waiting for ever
# Why a `done` does not tell how the execution ended: its kernel does not say it twice.
UNTOLD = "broker_restart"
LEAST = 0.1  # s that are left of a time that has run out meanwhile: it ends as any other does


class Place(Protocol):
    """A session, as far as it is noted what runs in it."""

    mark: Mark
    limits: SessionLimits
    transcript: Transcript

    def pace(self) -> bool:
        """Hold the kernel back, or no longer; tell whether it is."""


class Greeting:
    """What an adopted kernel answers when it is free.

    Its reply tells that nothing runs. That all has come which the kernel published before, only the
    greeting's own `idle` tells, which follows it on iopub: the two sockets are read at different
    paces, and iopub perhaps not at all for a while.
    """

    def __init__(self, place: Place, kernel: SessionKernel) -> None:
        self._place = place
        self._kernel = kernel
        self._timer: asyncio.TimerHandle | None = None
        self.free = False  # it has replied
        self.heard = False  # and all that it published before has come
        self._ids: list[str] = []  # each of which will do: the cell has ended before any of them
        self._ask()

    def __repr__(self) -> str:
        return f"<Greeting {self._ids}: free={self.free} heard={self.heard}>"

    def _ask(self) -> None:
        self._ids.append(self._kernel.channels.send("shell", "kernel_info_request", {}))

    def take(self, channel: str, message: Message) -> bool:
        """Take in what answers it; return whether it is news."""
        before = self.free, self.heard
        if message.parent_id not in self._ids:
            return False
        if channel == "shell":
            self.free = True
            if info := heard(message):
                self._kernel.introduce(info)
        elif message.type == "status" and len(message.content_bytes) <= STATUS:
            idle = message.content.get("execution_state") == "idle"
            self.heard = self.heard or idle
        return before != (self.free, self.heard)

    def await_idle(self, unheard: Callable[[], None]) -> None:
        """Call `unheard` if its `idle` does not come; while nobody reads, it need not."""
        self.close()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(SETTLE, self._look, unheard)

    def close(self) -> None:
        """Wait for nothing any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, unheard: Callable[[], None]) -> None:
        if not self._place.pace():
            if len(self._ids) >= ASKED:
                unheard()
                return
            # A kernel of another make publishes nothing to who has not been subscribed by then.
            try:
                self._ask()
            except BlockingIOError:  # it reads no more
                unheard()
                return
        self.await_idle(unheard)


def note(place: Place, execution: Execution, message: str) -> None:
    """Note an execution that the kernel is about to be asked for, in a message of this id."""
    request, order = execution.request, execution.order
    cell, rest = CALL if order.is_call else ALONE, 0
    if order.batch is not None and order.cell is not None:
        cell, rest = order.cell, order.batch.after(order.cell)
    timeout = request.timeout or place.limits.execution_timeout or 0
    now, silent, answers = time.time(), request.silent, execution.answers
    used, kept = execution.used_before.cpu_seconds, place.transcript.foresee(execution)
    visits = origin_of(request.metadata) == VISITOR
    asked = Running(execution.id, message, now, timeout, silent, cell, rest, answers, used)
    place.mark.run(asked._replace(kept=kept, visits=visits))


def resumed(place: Place, running: Running) -> tuple[Execution, float | None]:
    """Return the execution, as it is now, and the seconds that it has left, None for the default.

    The transcript goes on with it. The cells of a batch that waited behind it are gone; each is
    told so, once this one has ended.
    """
    spent, clock = max(0.0, time.time() - running.began), time.monotonic()
    recorded = running.kept != UNKEPT
    request = Execute(id=running.id, code="", silent=running.silent, store_history=recorded)
    request = marked(request, VISITOR if running.visits else "")
    order = Order({"call": None} if running.cell == CALL else None)
    if running.cell >= 0:
        rest = min(running.rest, MAX_CELLS)
        batch = Batch(running.id, 1 + rest, clock - spent)
        behind = range(running.cell + 1, running.cell + 1 + rest)
        batch.cut(behind, "lost", UNTOLD)
        order = Order(batch=batch, cell=running.cell)
    execution = Execution(request, None, clock - spent, place.limits.output, order=order)
    execution.resume(running, clock - spent)
    place.transcript.resume(execution, running)
    left = max(LEAST, running.timeout - spent) if running.timeout else None
    return execution, left
