"""Where the code of a cell is, as people are told it: `Cell In[3], line 2`.

For the interpreter, and for debuggers, a cell is a file by a hash of its source. There is no such
file: whoever reads its name learns nothing. IPython's tracebacks have the cell's number in its
place; so have here those that Python itself makes, and warnings.
"""

from __future__ import annotations

import sys
import threading
import traceback
import warnings
from typing import Any

CELLS: dict[str, int] = {}  # their numbers, by the names that they have as files
_format_frame = traceback.StackSummary.format_frame_summary
_format_warning = warnings.formatwarning


def format_frame(self: Any, frame_summary: Any, **options: Any) -> Any:
    """Return the lines about one frame, as `StackSummary.format_frame_summary` does."""
    text = _format_frame(self, frame_summary, **options)
    number = CELLS.get(frame_summary.filename)
    if number is None or not text:
        return text
    named = text.replace(f'"{frame_summary.filename}"', f"Cell In[{number}]", 1)
    return named.replace("File ", "", 1)


def format_warning(
    message: Any, category: Any, filename: str, lineno: int, line: str | None = None
) -> str:
    """Return the lines about a warning, as `warnings.formatwarning` does."""
    text = _format_warning(message, category, filename, lineno, line)
    number = CELLS.get(filename)
    if number is None:
        return text
    return text.replace(f"{filename}:{lineno}: ", f"Cell In[{number}], line {lineno}: ", 1)


def tell_of_thread(ended: Any) -> None:
    """Print an error that has ended a thread, as `threading.excepthook` does."""
    if ended.exc_type is SystemExit:
        return
    name = threading.get_ident() if ended.thread is None else ended.thread.name
    told = traceback.format_exception(ended.exc_type, ended.exc_value, ended.exc_traceback)
    _say(f"Exception in thread {name}:\n{''.join(told)}")


def tell_of_ignored(ignored: Any) -> None:
    """Print an error that nobody can catch, as `sys.unraisablehook` does."""
    try:
        where = "" if ignored.object is None else f" {ignored.object!r}"
        told = traceback.format_exception(
            ignored.exc_type, ignored.exc_value, ignored.exc_traceback
        )
        text = f"{ignored.err_msg or 'Exception ignored in'}:{where}\n{''.join(told)}"
    except Exception:  # as where a class of the user's shows itself badly
        sys.__unraisablehook__(ignored)
    else:
        _say(text)


def _say(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text)
        sys.stderr.flush()


def install() -> None:
    """Have Python tell of cells so, in this process and in those that it forks."""
    traceback.StackSummary.format_frame_summary = format_frame  # type: ignore[method-assign]
    warnings.formatwarning = format_warning
    # Both are C's, which would print the names that code has. pytest's and the like replace them.
    threading.excepthook = tell_of_thread
    sys.unraisablehook = tell_of_ignored
