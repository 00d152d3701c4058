"""When the time of what runs is up: on the clock, or on its processors; and when its grace is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from math import inf

from broker.execution import EXPIRED, UNKNOWN, Execution
from broker.roles import SessionKernel, SessionLimits
from kernels.spec import Usage

# s between two looks at the CPU time used: what is closer than this to its end has had it.
RESOLUTION = 0.02
# The same where each look reads the table of all processes, as nothing meters the kernel.
UNMETERED = 0.25
KILLED = "killed"  # why a kernel is lost whose cell an interrupt did not end


def usage_after(kernel: SessionKernel | None, execution: Execution) -> Usage:
    """Return what a kernel has used after an execution, whose last it may have been.

    Where nothing meters it, what an execution has used is looked up if that is bounded: only what
    was known at its beginning is worth the milliseconds that this takes.
    """
    if kernel is None:
        return UNKNOWN
    if kernel.exited.done():
        return Usage(kernel.spent)
    counted = kernel.is_metered or execution.used_before.cpu_seconds is not None
    return kernel.usage() if counted else UNKNOWN


def status_of_loss(running: Execution, reason: str) -> str:
    """Return the status of what ran when its kernel was lost, for this reason."""
    if running.interrupted in EXPIRED and reason == running.interrupted:
        return "timeout"
    return "interrupted" if running.interrupted == "interrupted" and reason == KILLED else "lost"


class Deadline:
    """The end of one execution's time at a time; set it anew for the next.

    `expired` is called with the reason, one of EXPIRED, when the time is up. From then on, or from
    `hasten` on, there is a grace: `insist` is called when a third of it is over, and `overdue` with
    the reason at its end, when nothing has cleared the deadline by then. `stop` it when there will
    be no next one.

    One timer serves one execution after the other: it is left as it is where it rings too early,
    and then set to what is due next.
    """

    def __init__(
        self,
        limits: SessionLimits,
        *,
        expired: Callable[[str], None],
        insist: Callable[[], None],
        overdue: Callable[[str], None],
    ) -> None:
        self._limits = limits
        self._expired = expired
        self._insist = insist
        self._overdue = overdue
        self._out_of_time = partial(self._expire, "timeout")
        self._loop = asyncio.get_running_loop()
        self._due: dict[str, tuple[float, Callable[[], None]]] = {}  # when, on the loop's clock
        self._timer: asyncio.TimerHandle | None = None

    def set(
        self,
        kernel: SessionKernel,
        timeout: float | None,
        left: float = inf,
        *,
        since: float | None = None,
    ) -> Usage:
        """Begin; `timeout` in seconds, None for the session's own. Return what is used already.

        `left` is what CPU seconds the tenant has left, for this execution too. They count from
        `since` CPU seconds of the kernel, if it has begun before.
        """
        limits = self._limits
        if seconds := timeout or limits.execution_timeout:
            self._arm("clock", seconds, self._out_of_time)
        bound, reason = limits.cpu_time or inf, "cpu"
        if left < bound:
            bound, reason = max(left, RESOLUTION), "quota"
        used = kernel.usage() if bound < inf or kernel.is_metered else UNKNOWN
        if bound < inf and used.cpu_seconds is not None:
            until = bound + (used.cpu_seconds if since is None else since)
            self._look_again(kernel, reason, used=used.cpu_seconds, until=until)
        return used

    def _look(self, kernel: SessionKernel, reason: str, *, until: float) -> None:
        """Look at the CPU time used; the time is up when it is `until`."""
        used = kernel.usage().cpu_seconds
        if used is None:
            return  # it has ended, and somebody else tells why
        if used >= until:
            self._expire(reason)
            return
        self._look_again(kernel, reason, used=used, until=until)

    def _look_again(self, kernel: SessionKernel, reason: str, *, used: float, until: float) -> None:
        """Look when it could be `until` at the earliest."""
        # Nobody uses more than its cores' seconds in one; they are bounded where they are counted.
        cores = self._limits.cpu if kernel.is_metered else float(os.cpu_count() or 1)
        least = RESOLUTION if kernel.is_metered else UNMETERED
        again = max((until - used) / cores, least)
        self._arm("cpu", again, partial(self._look, kernel, reason, until=until))

    def hasten(self, reason: str) -> None:
        """Let the grace begin now, for this reason; it has one end, however often this is called.

        The reason is that of `overdue`. Nothing else comes due any more.
        """
        if "grace" not in self._due:
            self.clear()
            grace = self._limits.interrupt_grace
            self._arm("insist", grace / 3, self._insist)
            self._arm("grace", grace, partial(self._overdue, reason))

    def clear(self) -> None:
        """Forget it: the execution has ended."""
        self._due.clear()

    def stop(self) -> None:
        """Forget it, and keep nothing alive until the timer would have rung."""
        self.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self, reason: str) -> None:
        self.hasten(reason)
        self._expired(reason)

    def _arm(self, name: str, seconds: float, act: Callable[[], None]) -> None:
        when = self._loop.time() + seconds
        self._due[name] = when, act
        self._ring_at(when)

    def _ring_at(self, when: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= when:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.time()
        for name, due in sorted(self._due.items(), key=lambda item: item[1][0]):
            when, act = due
            if when > now:
                self._ring_at(when)
            elif self._due.get(name) is due:  # else it is over, by the act of one before
                del self._due[name]
                act()
