"""What a debugger has the user's objects do, and the end of its time.

debugpy evaluates in the thread that stands at a breakpoint, or in one of its own, and tells nobody
how to stop it. An exception is raised there, as often as it takes: pydevd answers with it. Code
that catches all exceptions, or that Python has no word with, goes on.
"""

from __future__ import annotations

import sys
import threading
from types import FrameType

from .raising import raise_in


class TookTooLong(Exception):
    """Raised in what a debugger evaluates, when its time is up."""


def stop_evaluations() -> bool:
    """Stop what is evaluated; tell whether the main thread does, which may sleep meanwhile."""
    found = [ident for ident, frame in sys._current_frames().items() if _evaluates(frame)]
    for ident in found:
        raise_in(ident, TookTooLong)
    return threading.main_thread().ident in found


def _evaluates(frame: FrameType | None) -> bool:
    """Tell whether a thread is at a command of pydevd's, and does not just wait for one."""
    while frame is not None:
        code = frame.f_code
        if code.co_name == "do_it" and code.co_filename.endswith("pydevd_comm.py"):
            return True
        frame = frame.f_back
    return False
