"""What a kernel was running when the broker before this one was killed."""

from __future__ import annotations

import time
from typing import Protocol

from broker.batches import Batch, Order
from broker.execution import Execution, OutputLimits
from broker.marks import ALONE, CALL, Mark, Running
from broker.requests import MAX_CELLS, Execute
from broker.roles import SessionLimits

# s from the answer that tells that a kernel is free: what it said on its other sockets has come.
SETTLE = 0.5
# Why a `done` does not tell how the execution ended: its kernel does not say it twice.
UNTOLD = "broker_restart"
LEAST = 0.1  # s that are left of a time that has run out meanwhile: it ends as any other does


class Place(Protocol):
    """A session, as far as it is noted what runs in it."""

    mark: Mark
    limits: SessionLimits


def note(place: Place, execution: Execution, message: str) -> None:
    """Note an execution that the kernel is about to be asked for, in a message of this id."""
    request, order = execution.request, execution.order
    cell, rest = CALL if order.is_call else ALONE, 0
    if order.batch is not None and order.cell is not None:
        cell, rest = order.cell, order.batch.after(order.cell)
    timeout = request.timeout or place.limits.execution_timeout or 0
    now = time.time()
    place.mark.run(Running(execution.id, message, now, timeout, request.silent, cell, rest))


def resumed(running: Running, limits: OutputLimits) -> tuple[Execution, float | None]:
    """Return the execution, as it is now, and the seconds that it has left, None for the default.

    The cells of a batch that waited behind it are gone; each is told so, once this one has ended.
    """
    spent, clock = max(0.0, time.time() - running.began), time.monotonic()
    request = Execute(id=running.id, code="", silent=running.silent)
    order = Order({"call": None} if running.cell == CALL else None)
    if running.cell >= 0:
        rest = min(running.rest, MAX_CELLS)
        batch = Batch(running.id, 1 + rest, clock - spent)
        behind = range(running.cell + 1, running.cell + 1 + rest)
        batch.cut(behind, "lost", UNTOLD)
        order = Order(batch=batch, cell=running.cell)
    execution = Execution(request, None, clock - spent, limits, order=order)
    execution.resume(started=clock - spent, announced=running.started)
    left = max(LEAST, running.timeout - spent) if running.timeout else None
    return execution, left
