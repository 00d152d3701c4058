"""The warden: keeps what outlives a zygote, and starts one when somebody comes for it.

In a sandbox it is pid 1 of the zygotes' pid namespace and holds their mounts, the workspaces among
them; kernels whose zygote has gone are its children, and all of them end with it. Without one it
is an ordinary process that takes in the kernels of a dead zygote.

    broker ── listener ── warden ─┬─ zygote ── kernels
                                  ├─ the next zygote
                                  └─ reapers, one for each kernel

A zygote says over its socket, each word with a JSON object where it needs one:

    ready, failed      whoever waited has been told
    successor, cancel  start another beside me; end that one
    reaper             -> {reaper: pid} + [pidfd, pipe, pid namespace], for the next kernel
    kernel {reaper, kernel}, ended {reaper, status}   who is in it; how that one ended
    keep {reapers}     those of the kernels that somebody knows; the others end

It exits with 0 when it was told to stop or nobody came for it: then everything ends. It exits with
RETIRED when another has taken its place; after any other end the next one is started when somebody
connects.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from ..sandbox import capabilities, mounts, namespaces, network, reaper, system
from .reapers import Reapers

RETIRED = 3
# CHOWN DAC_OVERRIDE KILL SETGID SETUID SETPCAP NET_ADMIN SYS_CHROOT SYS_ADMIN, capability.h
ZYGOTE_CAPABILITIES = (0, 1, 5, 6, 7, 8, 12, 18, 21)
NO_SANDBOX = "the sandbox cannot be made"  # the broker knows this line
MAX_WORD = 64 << 10  # bytes
THREAD_STACK = 2 << 20  # bytes; what a thread of a kernel is given, by glibc, at its start
BOOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")


@dataclass
class Zygote:
    """A zygote as its parent sees it."""

    pid: int
    connection: socket.socket | None
    answered: bool = False  # whoever had it started knows what became of it


class Warden:
    """Start zygotes on a listener, one at a time but for a change of guard."""

    def __init__(
        self, listener: socket.socket, options: dict[str, Any], *, command: list[str]
    ) -> None:
        self._listener = listener
        self._options = options
        self._command = command
        self._zygotes: dict[int, Zygote] = {}  # by pid
        self._reapers = Reapers() if options["sandbox"] else None
        self._alone_since = time.monotonic()

    def serve(self) -> None:
        """Run until a zygote was told to stop, or nobody came for `orphan_ttl` seconds."""
        wakeup, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._start()
        while True:
            connections = {
                zygote.connection: zygote
                for zygote in self._zygotes.values()
                if zygote.connection is not None
            }
            timeout = None
            wanted: list[Any] = [wakeup, *connections]
            if not self._zygotes:
                wanted.append(self._listener)
                timeout = self._alone_since + self._options["orphan_ttl"] - time.monotonic()
                if timeout <= 0:
                    return
            readable = ready(wanted, timeout)
            for connection, zygote in connections.items():
                if connection in readable:
                    self._hear(zygote, connection)
            if self._reapers is not None:
                with contextlib.suppress(OSError):  # no process to be had now; asked for again
                    self._reapers.prepare()
            if wakeup in readable:
                os.read(wakeup, 4096)
                if not self._reap():
                    self._listener.close()  # whoever comes now is to start another warden
                    return
            if self._listener in readable:
                self._try_start()

    def _try_start(self) -> None:
        try:
            self._start()
        except OSError as error:  # no process to be had now: whoever came tries again
            os.write(2, f"cannot start the zygote: {error}\n".encode())
            self._turn_away()

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        keeper, pid = -1, -1
        try:
            if self._options["sandbox"]:
                keeper = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
            pid = os.fork()
            if pid == 0:
                self._become_zygote(theirs, keeper)
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
            if keeper >= 0:
                os.close(keeper)
        self._zygotes[pid] = Zygote(pid, ours)

    def _become_zygote(self, connection: socket.socket, keeper: int) -> NoReturn:
        passed = [self._listener.fileno(), connection.fileno()]
        try:
            if keeper >= 0:
                passed.append(keeper)
                system.unshare(system.CLONE_NEWNS)
                system.umount(mounts.WORKSPACES)
            reaper.close_all_but(set(passed))
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in passed:
                os.set_inheritable(descriptor, True)
            told = os.memfd_create("options")
            os.write(told, json.dumps(self._options).encode())
            os.lseek(told, 0, os.SEEK_SET)
            os.dup2(told, 0)
            os.close(told)
            command = [*self._command, ",".join(map(str, passed))]
            os.execv(command[0], command)  # noqa: S606 - the interpreter a profile names
        except BaseException as error:
            os.write(2, f"cannot start the zygote: {error}\n".encode())
        finally:
            os._exit(1)

    def _hear(self, zygote: Zygote, connection: socket.socket) -> None:
        try:
            word, _, rest = connection.recv(MAX_WORD).partition(b" ")
        except OSError:
            word = rest = b""
        said = json.loads(rest) if rest else {}
        if not word:
            connection.close()
            zygote.connection = None  # it is ending; in which way, its status will say
        elif word in (b"ready", b"failed"):
            zygote.answered = True
        elif word == b"successor":  # its own predecessor may still be on its way out
            self._try_start()
        elif word == b"cancel":
            for other in self._zygotes.values():
                if other is not zygote:
                    other.answered = True  # nobody waits for it any more
                    os.kill(other.pid, signal.SIGKILL)
        elif self._reapers is not None:
            if word == b"reaper":
                self._reapers.grant(zygote.pid, connection)
            elif word == b"kernel":
                self._reapers.serve_kernel(said)
            elif word == b"ended":
                self._reapers.kernel_ended(said["reaper"], said["status"])
            elif word == b"keep":
                self._reapers.keep(said["reapers"])

    def _reap(self) -> bool:
        """Take in what has ended, and tell whether to go on."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if not pid:
                return True
            zygote = self._zygotes.pop(pid, None)
            if zygote is None:  # a reaper, or a kernel whose zygote had gone
                if self._reapers is not None:
                    self._reapers.child_ended(pid, status)
                continue
            if self._reapers is not None:
                self._reapers.forsake(pid)
            if status and status >> 8 != RETIRED and not zygote.answered:
                self._turn_away()
            if zygote.connection is not None:
                zygote.connection.close()
            if status == 0 or not (self._zygotes or self._wanted or self._is_needed):
                return False
            self._alone_since = time.monotonic()

    @property
    def _wanted(self) -> bool:
        return bool(ready([self._listener], 0))

    @property
    def _is_needed(self) -> bool:
        """Tell whether anything lives here that a next zygote could go on with."""
        if self._reapers is None:
            return bool(children())
        return self._reapers.busy or bool(os.listdir(mounts.WORKSPACES))

    def _turn_away(self) -> None:
        """Close on whoever waits for a zygote that did not come up: they know when to try again."""
        while self._wanted:
            self._listener.accept()[0].close()

    def end_all(self) -> None:
        """Kill what is left of the kernels. Pid 1 need not: they end with it."""
        for pid in children() if os.getpid() != 1 else ():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def ready(wanted: Sequence[Any], timeout: float | None) -> set[Any]:
    """Return which of them can be read within so many seconds; numbers over 1023 are no matter."""
    poll, by_number = select.poll(), {}
    for each in wanted:
        number = each if isinstance(each, int) else each.fileno()
        by_number[number] = each
        poll.register(number, select.POLLIN)
    found = poll.poll(None if timeout is None else 1000 * timeout)
    return {by_number[number] for number, _ in found}


def children() -> list[int]:
    """Return the pids of this process's children."""
    with contextlib.suppress(OSError), open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]
    return []


def main(arguments: list[str]) -> None:
    """Make the zygotes' namespaces where a sandbox is asked for, then keep watch."""
    listener, options = socket.socket(fileno=int(arguments[0])), json.load(sys.stdin)
    sandbox = options["sandbox"]
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    resource.setrlimit(resource.RLIMIT_STACK, (THREAD_STACK, hard))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sandbox:
        os.umask(0o022)  # while the root is made: its directories are for everyone in it
        try:
            _enter(sandbox, listener.fileno())
        except OSError as error:
            os.write(2, f"{NO_SANDBOX}: {error}\n".encode())
            os._exit(1)
    else:
        system.prctl(system.PR_SET_CHILD_SUBREAPER, 1)
    command = [options["python"], "-I", BOOT, "forkserver"]
    warden = Warden(listener, options, command=command)
    try:
        warden.serve()
    finally:
        warden.end_all()


def _enter(sandbox: dict[str, Any], listener: int) -> None:
    """Return as pid 1 of new namespaces; the process that called has ended by then."""
    mode = sandbox["mode"]
    os.chdir("/")
    if mode != "root-plain":
        namespaces.enter_user_namespace(mode, *sandbox["ids"])
    flags = namespaces.ZYGOTE
    if sandbox["network"] != "host":
        flags |= system.CLONE_NEWNET
    system.unshare(flags)
    if os.fork():
        os._exit(0)
    os.setsid()
    reaper.close_all_but({listener})
    trees = mounts.take_trees(sandbox["shown"], sandbox.pop("cache"))  # no zygote is to know where
    if mode in ("root", "user-range"):
        namespaces.become(0, groups=True)
        system.prctl(system.PR_SET_DUMPABLE, 1)
    mounts.build_root(trees, network=sandbox["network"])
    socket.sethostname("sandbox")
    if mode != "root-plain":
        sysctl = os.open("/proc/sys", os.O_RDONLY | os.O_DIRECTORY)
        namespaces.allow(namespaces.ZYGOTE_COUNTS, sysctl)
        os.close(sysctl)
    if mode == "root-plain":
        # There is no namespace between these powers and the host: keep those the zygote needs.
        capabilities.bound(ZYGOTE_CAPABILITIES)
    if sandbox["network"] != "host":
        network.raise_loopback()
