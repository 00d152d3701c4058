"""What a debugger has the user's objects do, and the end of its time.

debugpy evaluates in the thread that stands at a breakpoint, or in one of its own, and tells nobody
how to stop it. An exception is raised there, as often as it takes: pydevd answers with it. Code
that catches all exceptions, or that Python has no word with, goes on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

from .raising import raise_in, take_back


class TookTooLong(Exception):
    """Raised in what a debugger evaluates, when its time is up."""


Frames = Callable[[], dict[int, FrameType]]


def stop_evaluations(frames: Frames = sys._current_frames) -> set[int]:
    """Stop what is evaluated; return the threads that do it.

    One that was done while it was looked for is spared: it is at the user's code by now.
    """
    found = {ident for ident, frame in frames().items() if _evaluates(frame)}
    for ident in found:
        raise_in(ident, TookTooLong)
    # At once, before this thread has to let others run: none that is spared has noticed.
    there = frames()
    gone = {ident for ident in found if not _evaluates(there.get(ident))}
    withdraw(gone)
    return found - gone


def withdraw(idents: set[int]) -> None:
    """Stop nothing any more in these threads, as far as they have not noticed."""
    for ident in idents:
        take_back(ident)


def _evaluates(frame: FrameType | None) -> bool:
    """Tell whether a thread is at a command of pydevd's, and does not just wait for one."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "do_it" and code.co_filename.endswith("pydevd_comm.py"):
            return True
        frame = frame.f_back
    return False
