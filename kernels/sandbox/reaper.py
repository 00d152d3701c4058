"""Pid 1 of a kernel's pid namespace: takes in its orphans, and says how the kernel ended.

A kernel that was pid 1 itself would not reap what its children leave behind, and a hundred dead
orphans would use up its processes. When pid 1 ends, the system ends everything below it.
"""

from __future__ import annotations

import os
import signal
import struct
from collections.abc import Iterable

STATUS = struct.Struct("i")  # the wait status of the kernel
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)


def split(status: int, keep: Iterable[int] = ()) -> None:
    """Fork: return in the kernel; stay in the parent as its pid 1, which never returns.

    `status` is the writing end of a pipe; the reaper keeps no descriptor but that and `keep`.
    """
    # Blocked signals stay pending, even those that pid 1 would otherwise never see.
    waited = {signal.SIGCHLD, *FORWARDED}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    kernel = os.fork()
    if kernel == 0:
        os.close(status)
        os.setsid()  # leads its own group: an interrupt of all of it is not forwarded once more
        signal.pthread_sigmask(signal.SIG_UNBLOCK, waited)
        return
    try:
        close_all_but({status, *keep})
        _serve(kernel, status, waited)
    finally:
        os._exit(1)


def _serve(kernel: int, status: int, waited: set[signal.Signals]) -> None:
    while True:
        number = signal.sigwait(waited)
        if number != signal.SIGCHLD:
            os.kill(kernel, number)
        while (ended := _next_ended()) is not None:
            pid, code = ended
            if pid == kernel:
                os.write(status, STATUS.pack(code))
                exit_code = os.waitstatus_to_exitcode(code)
                os._exit(exit_code if exit_code >= 0 else 128 - exit_code)


def _next_ended() -> tuple[int, int] | None:
    try:
        pid, code = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, code) if pid else None


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor above 2 that is not named."""
    lower = 3
    for descriptor in sorted(keep):
        if descriptor >= lower:
            os.closerange(lower, descriptor)
            lower = descriptor + 1
    os.closerange(lower, _highest())


def _highest() -> int:
    return os.sysconf("SC_OPEN_MAX")
