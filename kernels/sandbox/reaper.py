"""Pid 1 of a kernel's pid namespace: takes in its orphans, and takes them all with it.

A kernel that was pid 1 itself would not reap what its children leave behind, and a hundred dead
orphans would use up its processes. When pid 1 ends, the system ends everything in its namespace.
"""

from __future__ import annotations

import os
import signal
import struct
from typing import NoReturn

from . import capabilities, seccomp, system
from .sleeper import Sleeper

STATUS = struct.Struct("i")  # the wait status of a kernel


def serve(program: bytes, sleeper: Sleeper) -> NoReturn:
    """Be a reaper until somebody above kills it. Never returns.

    `program` is a seccomp filter.
    """
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        signal.set_wakeup_fd(-1)
        os.setsid()
        close_all_but(set())
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        os.close(null)
        capabilities.drop()
        system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
        system.prctl(system.PR_SET_DUMPABLE, 0)
        seccomp.install(program)
        sleeper.let_go()
        while True:
            signal.sigwait({signal.SIGCHLD})
            while _take_one():
                pass
    finally:
        os._exit(1)


def _take_one() -> bool:
    """Take in a child that has ended, and tell whether there was one."""
    try:
        return os.waitpid(-1, os.WNOHANG)[0] > 0
    except ChildProcessError:
        return False


def close_all_but(keep: set[int]) -> None:
    """Close every descriptor above 2 that is not named."""
    lower = 3
    for descriptor in sorted(keep):
        if descriptor >= lower:
            os.closerange(lower, descriptor)
            lower = descriptor + 1
    os.closerange(lower, os.sysconf("SC_OPEN_MAX"))
