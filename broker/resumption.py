"""What a kernel was running when the broker before this one was killed."""

from __future__ import annotations

from broker.execution import Execution, OutputLimits
from broker.marks import Running
from broker.requests import Execute

# s from the answer that tells that a kernel is free: what it said on its other sockets has come.
SETTLE = 0.5
# Why a `done` does not tell how the execution ended: its kernel does not say it twice.
UNTOLD = "broker_restart"
LEAST = 0.1  # s that are left of a time that has run out meanwhile: it ends as any other does


def resumed(
    running: Running, limits: OutputLimits, *, now: float, clock: float
) -> tuple[Execution, float | None]:
    """Return the execution, as it is now, and the seconds that it has left, None for the default.

    `now` is Unix time, `clock` the monotonic time of the same moment.
    """
    spent = max(0.0, now - running.began)
    request = Execute(id=running.id, code="", silent=running.silent)
    execution = Execution(request, None, clock - spent, limits)
    execution.resume(started=clock - spent, announced=running.started)
    left = max(LEAST, running.timeout - spent) if running.timeout else None
    return execution, left
