"""Alarms and other signal handlers that a cell leaves behind, and that raise when it has ended.

What they raise would end the kernel's main loop, and so the process: the next cell shall find its
variables.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

from .subshells import Lane

TIMERS = signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF


def serve(loop: Any) -> None:
    """Run the main thread's loop, a Tornado one, until it is told to stop."""
    while not loop.asyncio_loop.is_closed():
        try:
            loop.start()
            return
        except (Exception, KeyboardInterrupt) as error:  # the loop's callbacks let none through
            for timer in TIMERS:  # one that repeats would strike here, too
                signal.setitimer(timer, 0)
            if Lane.leave is not None:
                Lane.leave()
            # To the descriptor: what is read from it counts as the last cell's. Its name alone:
            # what an exception says of itself is the cell's code.
            said = f"a signal handler raised between two cells: {type(error).__name__}\n"
            with contextlib.suppress(OSError):
                os.write(2, said.encode(errors="replace"))
