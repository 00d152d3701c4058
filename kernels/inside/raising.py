"""An exception in a thread that has not asked for one."""

from __future__ import annotations

import ctypes

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc


def raise_in(ident: int, kind: type[BaseException]) -> None:
    """Have a thread raise an exception as soon as it runs Python's code; C code sees none."""
    _raise_in(ctypes.c_ulong(ident), ctypes.py_object(kind))
