"""Keep the showing of an error from reading all modules: for a cell's code there is none to find.

`inspect.getmodule` looks a file up that it has not seen in every module there is. That writes a
reference count to a page of each: seven megabytes, shared until then, for a kernel's first error.
"""

from __future__ import annotations

import inspect
import linecache
import os
from types import CodeType, FrameType, ModuleType, TracebackType
from typing import Any

_getmodule = inspect.getmodule


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
