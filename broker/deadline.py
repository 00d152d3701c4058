"""When the time of what runs is up: on the clock, or on its processors; and when its grace is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial

from broker.execution import UNKNOWN
from broker.roles import SessionKernel, SessionLimits
from kernels.spec import Usage

# s between two looks at the CPU time used: what is closer than this to its end has had it.
RESOLUTION = 0.02
# The same where each look reads the table of all processes, as nothing meters the kernel.
UNMETERED = 0.25


def usage_of(kernel: SessionKernel | None) -> Usage:
    """Return what a kernel has used, if that costs no more than microseconds."""
    return kernel.usage() if kernel is not None and kernel.is_metered else UNKNOWN


class Deadline:
    """The end of one execution's time at a time; set it anew for the next.

    `expired` is called with the reason, one of EXPIRED, when the time is up, and `overdue` with
    the same reason when nothing has cleared the deadline for the grace after that.
    """

    def __init__(
        self, limits: SessionLimits, expired: Callable[[str], None], overdue: Callable[[str], None]
    ) -> None:
        self._limits = limits
        self._expired = expired
        self._overdue = overdue
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def set(self, kernel: SessionKernel, timeout: float | None) -> Usage:
        """Begin; `timeout` in seconds, None for the session's own. Return what is used already."""
        limits = self._limits
        if seconds := timeout or limits.execution_timeout:
            self._arm("clock", seconds, self._expire, "timeout")
        used = kernel.usage() if limits.cpu_time else usage_of(kernel)
        if limits.cpu_time and used.cpu_seconds is not None:
            self._look(kernel, until=used.cpu_seconds + limits.cpu_time)
        return used

    def _look(self, kernel: SessionKernel, *, until: float) -> None:
        """Look at the CPU time used, and again when it could be `until` at the earliest."""
        used = kernel.usage().cpu_seconds
        if used is None:
            return  # it has ended, and somebody else tells why
        if used >= until:
            self._expire("cpu")
            return
        # Nobody uses more than its cores' seconds in one; they are bounded where they are counted.
        cores = self._limits.cpu if kernel.is_metered else float(os.cpu_count() or 1)
        least = RESOLUTION if kernel.is_metered else UNMETERED
        again = max((until - used) / cores, least)
        self._arm("cpu", again, partial(self._look, kernel, until=until))

    def clear(self) -> None:
        """Forget it: the execution has ended."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _expire(self, reason: str) -> None:
        self.clear()
        self._arm("grace", self._limits.interrupt_grace, self._overdue, reason)
        self._expired(reason)

    def _arm(self, name: str, seconds: float, act: Callable[..., None], *args: str) -> None:
        self._timers[name] = self._loop.call_later(seconds, act, *args)
