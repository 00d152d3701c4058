"""An exception in a thread that has not asked for one."""

from __future__ import annotations

import ctypes
import threading

_raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
_NULL = ctypes.py_object()


class _Noticed(BaseException):
    """Raised in the thread that takes one back, to be noticed at once."""


def raise_in(ident: int, kind: type[BaseException]) -> None:
    """Have a thread raise an exception as soon as it runs Python's code; C code sees none."""
    _raise_in(ctypes.c_ulong(ident), ctypes.py_object(kind))


def take_back(ident: int) -> None:
    """Have a thread raise nothing after all, if it has not noticed."""
    _raise_in(ctypes.c_ulong(ident), _NULL)
    try:  # or all threads would look for it for good: only who finds one stops that
        raise_in(threading.get_ident(), _Noticed)
        for _ in range(1000):
            pass
    except _Noticed:
        return
