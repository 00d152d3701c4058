"""What is told of an error: where it happened in the user's code, and without a long search.

`inspect.getmodule` looks a file up that it has not seen in every module there is. That writes a
reference count to a page of each: seven megabytes, shared until then, for a kernel's first error.
"""

from __future__ import annotations

import codeop
import inspect
import linecache
import os
import traceback
from collections.abc import Iterator
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any

import ipykernel
import IPython

from .places import CELLS

# Of no use to whoever wrote the cell; the last one is what IPython compiles with.
_FOLDERS = (os.path.dirname(str(each)) for each in (__file__, IPython.__file__, ipykernel.__file__))
OWN_FILES = (*(folder + os.sep for folder in _FOLDERS), codeop.__file__)
_getmodule = inspect.getmodule
# Not by the name: a class of the user's may have one of its own.
_traceback, _cause, _context = (
    vars(BaseException)[f"__{name}__"].__get__ for name in ("traceback", "cause", "context")
)


def getmodule(object: Any, _filename: str | None = None) -> ModuleType | None:  # noqa: A002
    """Return the module of an object, as `inspect.getmodule` does; None for the code of a cell."""
    code = object
    if isinstance(code, TracebackType):
        code = code.tb_frame
    if isinstance(code, FrameType):
        code = code.f_code
    if isinstance(code, CodeType):
        name = _filename or code.co_filename
        if name in linecache.cache and not os.path.exists(name):
            return None
    return _getmodule(object, _filename)


def install() -> None:
    """Put it in the place of the one in `inspect`."""
    inspect.getmodule = getmodule


def forget_own_frames(error: BaseException | None) -> None:
    """Take our frames out of the traceback of an error, and of those that led to it.

    The outermost stays: IPython leaves it out itself.
    """
    for each in _led_to(error):
        step = _traceback(each)
        while step is not None:
            inner = step.tb_next
            if inner is not None and inner.tb_frame.f_code.co_filename.startswith(OWN_FILES):
                step.tb_next = inner.tb_next
            else:
                step = inner


def has_group(error: BaseException) -> bool:
    """Tell whether an error is a group of errors, or one that led to it is."""
    return any(isinstance(each, BaseExceptionGroup) for each in _led_to(error))


def users_part(error: BaseException) -> TracebackType | None:
    """Return the traceback of an error from the user's code on."""
    step: TracebackType | None = _traceback(error)
    while step is not None and step.tb_frame.f_code.co_filename.startswith(OWN_FILES):
        step = step.tb_next
    return step


def native_lines(error: BaseException) -> list[str]:
    """Return a traceback as Python itself shows it, from the user's code on."""
    return traceback.format_exception(type(error), error, users_part(error))


def cell_line(error: BaseException) -> int | None:
    """Return the line of the cell that an error came from, the innermost of the cell's.

    Of several cells it is the one that ran: whose code was called first.
    """
    try:
        if isinstance(error, SyntaxError) and error.filename in CELLS:
            return error.lineno
        step, ran, line = _traceback(error), None, None
        while step is not None:
            file = step.tb_frame.f_code.co_filename
            if file == ran or (ran is None and file in CELLS):
                ran, line = file, step.tb_lineno
            step = step.tb_next
    except Exception:  # whatever a class of the user's has made of these
        return None
    return line


def text_of(error: BaseException) -> str:
    """Return the message of an error, whose `str` may raise.

    That of a cell's syntax does without the file and the line, which stand beside it.
    """
    try:
        text = str(error)
        if isinstance(error, SyntaxError) and str(error.filename) in CELLS:
            file = os.path.basename(str(error.filename))
            text = text.removesuffix(f" ({file}, line {error.lineno})")
        return text
    except Exception:
        return "(an exception that cannot be shown)"


def _led_to(error: BaseException | None) -> Iterator[BaseException]:
    left, seen = [error], set()
    while left:
        error = left.pop()
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        left += [_cause(error), _context(error)]
