"""A process that is not our child: a pidfd to signal it and to learn of its end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct

UNKNOWN = "unknown"
# ioctl_pidfd_get_info(2const), Linux 6.15 and later: `struct pidfd_info` is a mask, a cgroup id,
# eleven ids of 32 bits and the wait status, which is there once the process was reaped.
GET_INFO = 0xC040FF0B
INFO_EXIT = 1 << 3
INFO = struct.Struct("QQ11Ii")
STATUS = struct.Struct("i")  # what a reaper leaves
STATUS_WAIT = 0.5  # s between the pidfd's word and the parent's status, before we say `unknown`


def reason_of(status: int) -> str:
    """Return the words for a wait status: `exit 3`, `signal SIGSEGV`."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def status_of(pidfd: int) -> int | None:
    """Return the wait status that the system kept for us, or None where it keeps none."""
    buffer = bytearray(INFO.pack(INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, GET_INFO, buffer)
    except OSError:
        return None
    mask, *_, status = INFO.unpack(buffer)
    return status if mask & INFO_EXIT else None


def pid_of(pidfd: int) -> int:
    """Return the process id behind a pidfd as it is seen from here; -1 when it has ended."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("Pid:")), -1)


class Process:
    """Watch one process through its pidfd, which this object owns and closes.

    `exited` resolves with the reason. Only a parent may read a status. In a sandbox the process
    watched and killed is the kernel's reaper, whose end is the whole tree's; `own` is of the kernel
    itself, whose status is left in the pipe `ending`. Else the zygote, which is the parent, tells
    it through `set_status`; without its word the system is asked, and where that cannot tell, the
    reason is `unknown`.
    """

    def __init__(self, pidfd: int, own: int = -1, ending: int = -1) -> None:
        self.pid = pid_of(pidfd if own < 0 else own)
        self.reaper = 0 if own < 0 else pid_of(pidfd)
        self._pidfd = pidfd
        self._own = own
        self._ending = ending
        self._gone = False
        self._told: int | None = None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.returncode: int | None = None  # as in `subprocess`; None while unknown
        self.exited: asyncio.Future[str] = self._loop.create_future()
        self._loop.add_reader(pidfd, self._ended)

    def __repr__(self) -> str:
        state = self.exited.result() if self.exited.done() else "running"
        return f"<Process {self.pid}: {state}>"

    @property
    def pidfd(self) -> int:
        """Return the descriptor, for passing on; -1 once the process has ended."""
        return self._pidfd

    @property
    def descriptors(self) -> list[int]:
        """Return what another needs to watch it too; nothing once it has ended."""
        return [each for each in (self._pidfd, self._own, self._ending) if each >= 0]

    def set_status(self, status: int) -> None:
        """Take the wait status from whoever reaped the process.

        Where there is a reaper it is the kernel's; the reaper's own end is still to come.
        """
        if self._ending >= 0 and not self._gone:
            self._told = status
            return
        if not self.exited.done() and (said := self._last_word()) is not None:
            status = said
        self.returncode = os.waitstatus_to_exitcode(status)
        self._resolve(reason_of(status))

    def send_signal(self, number: int) -> None:
        """Signal the process; nothing happens if it has ended."""
        self._signal(self._pidfd if self._own < 0 else self._own, number)

    def kill(self) -> None:
        """End it and everything below it with SIGKILL."""
        self._signal(self._pidfd, signal.SIGKILL)

    @staticmethod
    def _signal(pidfd: int, number: int) -> None:
        if pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, number)

    def _last_word(self) -> int | None:
        """Return the status that the reaper left, or None if it was killed before it could."""
        if self._ending < 0:
            return None
        os.set_blocking(self._ending, False)
        try:
            word = os.read(self._ending, STATUS.size)
        except BlockingIOError:
            return None
        return int(STATUS.unpack(word)[0]) if len(word) == STATUS.size else None

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._gone = True
        status = self._last_word()
        status = self._told if status is None else status
        if status is not None:
            self.returncode = os.waitstatus_to_exitcode(status)
            self._resolve(reason_of(status))
            return
        self._timer = self._loop.call_later(STATUS_WAIT, self._ask_the_system)

    def _ask_the_system(self) -> None:
        status = status_of(self._pidfd)
        if status is None:
            self._resolve(UNKNOWN)
        else:
            self.set_status(status)

    def _resolve(self, reason: str) -> None:
        self._drop()
        if not self.exited.done():
            self.exited.set_result(reason)

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._pidfd >= 0:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = -1
        for descriptor in (self._own, self._ending):
            if descriptor >= 0:
                os.close(descriptor)
        self._own = self._ending = -1
