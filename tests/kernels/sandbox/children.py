"""Do what cannot be undone in a child, and tell what came of it."""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import signal
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from kernels.sandbox import system

LIBC = ctypes.CDLL(None, use_errno=True)


def _fork(act: Callable[[], object]) -> tuple[bytes, int]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            result: object = (True, act())
        except BaseException:  # the parent tells it
            result = (False, traceback.format_exc())
        with os.fdopen(write, "wb") as pipe:
            pipe.write(pickle.dumps(result))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read()
    return said, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(act: Callable[[], object]) -> Any:
    """Return what `act` returned in a forked child; fail with its traceback if it raised."""
    said, status = _fork(act)
    assert status == 0, f"the child ended with {status}"
    done, result = pickle.loads(said)  # noqa: S301 - our own child's
    assert done, result
    return result


def end_of_child(act: Callable[[], object]) -> str:
    """Return the name of the signal that ended a forked child, or `exit N`."""
    _, status = _fork(act)
    return signal.Signals(-status).name if status < 0 else f"exit {status}"


def raw(number: int, *arguments: int | bytes) -> str:
    """Make a call by its number; return the errno's name, "" if it succeeded."""
    ctypes.set_errno(0)
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    if LIBC.syscall(ctypes.c_long(number), *passed) >= 0:
        return ""
    return errno.errorcode[ctypes.get_errno()]


def failure(act: Callable[..., object], *arguments: object) -> str:
    """Return the name of the errno that the call fails with, "" if it succeeds."""
    try:
        act(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


def no_new_privileges() -> None:
    """Do what an unprivileged process must before it restricts itself."""
    system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)


def take_capabilities() -> None:
    """Have CAP_SETPCAP: an ordinary user has it in a user namespace of their own."""
    if os.geteuid() != 0:
        system.unshare(system.CLONE_NEWUSER)


def need_capabilities() -> None:
    """Skip where an ordinary user may not make user namespaces."""
    if refusal := in_child(lambda: failure(take_capabilities)):
        pytest.skip(f"needs root or a user namespace: unshare says {refusal}")
