"""The reapers of a warden: each is pid 1 of a kernel's pid namespace, made before the kernel.

The warden makes them because it is small: a fork of the zygote would copy the page tables of all
its libraries a second time. One is kept ready, so that a zygote need not wait for it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..sandbox import reaper, seccomp, system
from ..sandbox.sleeper import Sleeper


@dataclass
class Reaper:
    """A reaper as its parent sees it."""

    pid: int
    told: int  # the pipe's end for the kernel's wait status
    given: tuple[int, ...]  # the other end, and the pid namespace, until they are handed out
    zygote: int = 0  # who has it
    kernel: int = 0  # the pid of whom it serves, as the warden counts


class Reapers:
    """Make reapers, hand them out, and let each end when its kernel has."""

    def __init__(self) -> None:
        self._all: dict[int, Reaper] = {}
        self._spare: Reaper | None = None
        self._pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._filter = seccomp.compile_filter(memory_files=False)
        self._sleeper = Sleeper()

    def prepare(self) -> None:
        """Have one ready."""
        if self._spare is None:
            self._spare = self._make()

    def grant(self, zygote: int, connection: socket.socket) -> None:
        """Give a zygote the next one: its pid, a pidfd, its kernel's end, and its namespace.

        Where none can be made now, that is the answer: the warden must not end for it.
        """
        pidfd = -1
        try:
            granted = self._spare or self._make()
            self._spare = granted  # until it is on its way
            pidfd = os.pidfd_open(granted.pid)
            answer = json.dumps({"reaper": granted.pid}).encode()
            socket.send_fds(connection, [answer], [pidfd, *granted.given])
            granted.zygote, self._spare = zygote, None
            given, granted.given = granted.given, ()
            for descriptor in given:
                os.close(descriptor)
        except OSError as error:
            with suppress(OSError):  # the zygote itself may have gone
                connection.send(json.dumps({"error": f"no reaper: {error}"}).encode())
        finally:
            if pidfd >= 0:
                os.close(pidfd)

    def serve_kernel(self, said: dict[str, Any]) -> None:
        """Note for whom a reaper is there."""
        if found := self._all.get(said["reaper"]):
            found.kernel = said["kernel"]

    def kernel_ended(self, pid: int, status: int) -> None:
        """Pass on how the kernel of a reaper ended, and end what it has left."""
        if found := self._all.get(pid):
            found.kernel = 0
            with suppress(OSError):  # nobody wants to know
                os.write(found.told, reaper.STATUS.pack(status))
            os.kill(pid, signal.SIGKILL)

    def child_ended(self, pid: int, status: int) -> bool:
        """Take in a child that has ended; tell whether it was one of ours."""
        if found := self._all.pop(pid, None):
            for descriptor in (found.told, *found.given):
                os.close(descriptor)
            if self._spare is found:
                self._spare = None
            return True
        for each in self._all.values():
            if each.kernel == pid:  # its zygote has gone, and left it to us
                self.kernel_ended(each.pid, status)
                return True
        return False

    def forsake(self, zygote: int) -> None:
        """End those that a zygote took and gave no kernel before it ended."""
        for each in self._all.values():
            if each.zygote == zygote and not each.kernel:
                os.kill(each.pid, signal.SIGKILL)

    @property
    def busy(self) -> bool:
        """Tell whether any serves a kernel."""
        return any(each.kernel for each in self._all.values())

    def keep(self, known: Collection[int]) -> None:
        """End those whose kernels nobody knows any more."""
        for each in self._all.values():
            if each.kernel and each.pid not in known:
                os.kill(each.pid, signal.SIGKILL)

    def _make(self) -> Reaper:
        telling, told = os.pipe()
        try:
            pid, inside = self._fork()
        except OSError:
            os.close(telling)
            os.close(told)
            raise
        made = self._all[pid] = Reaper(pid, told, (telling, inside))
        return made

    def _fork(self) -> tuple[int, int]:
        """Fork a reaper; return its pid and a descriptor of its pid namespace."""
        # Without a way back to our own namespace, a second one could not be made.
        system.setns(self._pids, system.CLONE_NEWPID)
        system.unshare(system.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                reaper.serve(self._filter, self._sleeper)
            # A way in for the zygote: the reaper lets nobody look at its own.
            inside = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            system.setns(self._pids, system.CLONE_NEWPID)
        return pid, inside
