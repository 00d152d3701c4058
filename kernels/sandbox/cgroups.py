"""Control groups: what holds a kernel's whole process tree to its memory, processes and cores.

    groups = Cgroups.open("node-1")
    group = groups.make("kernel-7", memory=1 << 30, processes=128, cpu=1.0)
    for descriptor in group.join_descriptors(): ...  # the kernel writes b"0" to each, and is in

This file finds the broker's own place in the hierarchies; the faces are kept by `cgroup_v1` and
`cgroup_v2`. Everything here blocks on files below /sys/fs/cgroup: microseconds, but for `remove`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import re
import select
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator
from typing import Final, NamedTuple

WANTED: Final = ("memory", "pids", "cpu")
REQUIRED: Final = frozenset({"memory", "pids"})
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
REMOVE_WAIT: Final = 2.0  # s for the last process of a killed kernel to leave
# Where 20 ms of every 100 ms are granted, a kernel over its quota is still for 80 ms, and deaf to
# an interrupt; at 20 ms it is for 16. The price is one timer each 20 ms while the kernel runs.
CPU_PERIOD: Final = 20_000  # µs
CPU_QUOTA_LEAST: Final = 1_000  # µs; the system takes no less


class Unavailable(Exception):
    """No control groups for this process. `reason` says why, `remedy` what to do about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}. {remedy}")
        self.reason = reason
        self.remedy = remedy


class Hierarchy(NamedTuple):
    """One mounted hierarchy and this process's own directory in it."""

    version: int
    controllers: frozenset[str]  # of v2: empty, the directory itself tells
    directory: str
    mount: str


class Cgroup(ABC):
    """One kernel's group. Not thread-safe; call `close` or `remove` when done with it."""

    def __init__(self, kernel: str) -> None:
        self.kernel = kernel

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.kernel}>"

    @abstractmethod
    def join_descriptors(self) -> list[int]:
        """Return descriptors for the kernel to write b"0" to while it has one thread.

        Who opened them counts, not who writes: they work after privileges are dropped. The
        caller closes them.
        """

    @abstractmethod
    def oom_descriptor(self) -> int:
        """Return a descriptor that is readable when the group may be out of memory.

        Ask `is_out_of_memory` then: it also reads the descriptor empty. It stays ours, and is
        closed by `close` and `remove`: take it off the loop before.
        """

    @abstractmethod
    def is_out_of_memory(self) -> bool:
        """Say whether the group has gone over its memory: the whole tree must die then."""

    @abstractmethod
    def oom_kills(self) -> int:
        """Return how many of its processes the system has killed for memory."""

    @abstractmethod
    def cpu_seconds(self) -> float | None:
        """Return the CPU time of the whole tree, ended processes included."""

    @abstractmethod
    def memory(self) -> tuple[int | None, int | None]:
        """Return the bytes used now and the most since the last `reset_peak`."""

    @abstractmethod
    def reset_peak(self) -> None:
        """Count the peak from now on, where the system can."""

    @abstractmethod
    def processes(self) -> int | None:
        """Return how many processes and threads there are."""

    @abstractmethod
    def set(
        self, *, memory: int | None = None, processes: int | None = None, cpu: float | None = None
    ) -> None:
        """Lower limits; None leaves one as it is. Raises OSError (EBUSY) over what is in use."""

    @abstractmethod
    def kill(self) -> None:
        """Send SIGKILL to every process of the group, and to those that fork meanwhile."""

    @abstractmethod
    def remove(self) -> bool:
        """Kill what is left and remove the group; False if that did not end in 2 s."""

    @abstractmethod
    def close(self) -> None:
        """Close our descriptors; the group and its processes go on."""


class Cgroups(ABC):
    """The directory of one broker, with a group for each of its kernels."""

    version: int
    controllers: frozenset[str]

    @staticmethod
    def open(name: str, *, required: Collection[str] = REQUIRED, proc: str = "/proc") -> Cgroups:
        """Find our own place and make, or find again, the directory `kernel-broker-<name>` there.

        Raises Unavailable if one of the `required` controllers is out of reach, or all are.
        """
        from .cgroup_v1 import CgroupsV1
        from .cgroup_v2 import CgroupsV2

        hierarchies = own_hierarchies(proc)
        if not hierarchies:
            raise Unavailable("no cgroup hierarchy is mounted", _mount_remedy())
        directory = "kernel-broker-" + checked(name)
        old = {c for h in hierarchies if h.version == 1 for c in h.controllers} & set(WANTED)
        unified = [h.directory for h in hierarchies if h.version == 2]
        # A hybrid system keeps its controllers in v1; a v2 without any of ours is of no use.
        if old or not unified:
            return CgroupsV1.prepare(hierarchies, directory, frozenset(required))
        return CgroupsV2.prepare(unified[0], directory, frozenset(required))

    @abstractmethod
    def make(self, kernel: str, *, memory: int, processes: int, cpu: float) -> Cgroup:
        """Make a group with these limits (bytes, count, cores; 0 is none). Raises OSError."""

    @abstractmethod
    def find(self, kernel: str) -> Cgroup | None:
        """Return the group that an earlier broker of our name made for the kernel."""

    @abstractmethod
    def names(self) -> set[str]:
        """Return the kernels that have a group, or what is left of one."""

    @abstractmethod
    def leftover(self, kernel: str) -> Cgroup:
        """Return whatever there is of a group, for its removal."""

    @abstractmethod
    def used(self) -> tuple[float | None, int | None]:
        """Return the CPU seconds of all groups, removed ones too, and the bytes used now."""

    @abstractmethod
    def remove(self) -> None:
        """Remove the broker's own directory if it is empty."""

    @abstractmethod
    def evidence(self) -> str:
        """Say in one line where the groups are."""

    def __repr__(self) -> str:
        return f"<Cgroups {self.evidence()}>"

    def sweep(self, live: Collection[str]) -> None:
        """Kill and remove every group whose kernel is not among the `live`."""
        for kernel in self.names() - set(live):
            if NAME.fullmatch(kernel):  # somebody else's are left alone
                self.leftover(kernel).remove()


def checked(name: str) -> str:
    """Return the name if it is fit to be a directory's. Raises ValueError."""
    if not NAME.fullmatch(name):
        raise ValueError(f"{name!r} cannot name a control group")
    return name


# -- where we are -----------------------------------------------------------------------------


def own_hierarchies(proc: str = "/proc") -> list[Hierarchy]:
    """Return each mounted hierarchy that shows this process's own group."""
    try:
        mounts = _read(f"{proc}/self/mountinfo")
        groups = _read(f"{proc}/self/cgroup")
    except OSError:
        return []
    return parse_hierarchies(mounts, groups)


def parse_hierarchies(mountinfo: str, cgroup: str) -> list[Hierarchy]:
    """Match the lines of /proc/self/cgroup with the mounts that show them.

    A mount may show only a part of the hierarchy (its `root`), as in a container; our own group
    is then found relative to that. A hierarchy that is mounted twice counts once.
    """
    own: dict[frozenset[str], str] = {}
    for line in cgroup.splitlines():
        _, controllers, path = line.split(":", 2)
        own[frozenset(filter(None, controllers.split(",")))] = path
    found: dict[frozenset[str], Hierarchy] = {}
    for kind, root, mount, options in _mounts(mountinfo):
        version = {"cgroup": 1, "cgroup2": 2}.get(kind, 0)
        key = next((k for k in own if k and k <= options), None) if version == 1 else frozenset()
        if not version or key is None or key not in own or key in found:
            continue
        below = _relative(own[key], root)
        if below is not None:
            found[key] = Hierarchy(version, key, mount.rstrip("/") + below, mount)
    return list(found.values())


def _mounts(mountinfo: str) -> Iterator[tuple[str, str, str, set[str]]]:
    """Yield type, root, mount point and super block options of each mount."""
    for line in mountinfo.splitlines():
        # "36 35 98:0 /root /mount rw,noatime master:1 - type source options" (proc(5))
        before, separator, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if separator and len(fields) > 5 and len(rest) > 2:
            yield rest[0], _plain(fields[3]), _plain(fields[4]), set(rest[2].split(","))


def _plain(path: str) -> str:
    """Undo mountinfo's escapes: a space is written as backslash 040."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _relative(path: str, root: str) -> str | None:
    """Return `path` as seen from `root`: "" or "/…"; None if it is not below it."""
    root = root.rstrip("/")
    if path != root and not path.startswith(root + "/"):
        return None
    below = path.removeprefix(root).rstrip("/")
    return None if ".." in below.split("/") else below


# -- the files of a group ---------------------------------------------------------------------


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


def read_number(path: str) -> int | None:
    """Return the number in the file, or None if there is no such file."""
    try:
        return int(_read(path))
    except (OSError, ValueError):
        return None


def read_fields(path: str) -> dict[str, int]:
    """Return the lines `name number` of a file; nothing if there is no such file."""
    with contextlib.suppress(OSError):
        pairs = (line.split() for line in _read(path).splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2}
    return {}


def read_words(path: str) -> set[str]:
    """Return the words of a file; none if there is no such file."""
    with contextlib.suppress(OSError):
        return set(_read(path).split())
    return set()


def write(path: str, value: object) -> None:
    """Write one value to an existing file, in one call."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, str(value).encode())
    finally:
        os.close(descriptor)


def open_all(paths: Iterable[str]) -> list[int]:
    """Open the files for writing: all of them, or none."""
    with contextlib.ExitStack() as stack:
        descriptors: list[int] = []
        for path in paths:
            descriptors.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
            stack.callback(os.close, descriptors[-1])
        stack.pop_all()
    return descriptors


def quota(cpu: float) -> tuple[int, int]:
    """Return quota and period in µs for so many cores."""
    period = max(CPU_PERIOD, min(1_000_000, int(CPU_QUOTA_LEAST / cpu)))
    return max(CPU_QUOTA_LEAST, int(cpu * period)), period


def members(directories: Iterable[str]) -> set[int]:
    """Return the processes of the groups, as far as our pid namespace has numbers for them."""
    found: set[int] = set()
    for directory in directories:
        with contextlib.suppress(OSError):
            found.update(map(int, _read(f"{directory}/cgroup.procs").split()))
    return found - {0}  # 0 stands for one without a number here; as a target it means ourselves


def kill_members(directories: list[str]) -> list[int]:
    """Send SIGKILL to every process of the groups; return pidfds, for the caller to close."""
    pidfds: dict[int, int] = {}
    for pid in members(directories):
        with contextlib.suppress(OSError):
            pidfds[pid] = os.pidfd_open(pid)
    # A number read before the descriptor was opened may have become another process's by then.
    for pid in pidfds.keys() & members(directories):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfds[pid], signal.SIGKILL)
    return list(pidfds.values())


def remove_directories(directories: list[str], patience: float = REMOVE_WAIT) -> bool:
    """Kill what is in the directories and remove them; say whether they are gone.

    The end of each process is waited for through its pidfd. A process leaves its group a moment
    after that, and nothing tells when: then we look again after 1, 2, 4 … ms.
    """
    deadline = time.monotonic() + patience
    pause = 0.001
    left = list(directories)
    while left := [directory for directory in left if not _is_removed(directory)]:
        rest = deadline - time.monotonic()
        if rest <= 0:
            return False
        if pidfds := kill_members(left):
            _await_end(pidfds, rest)
        else:
            time.sleep(min(pause, rest))
            pause *= 2
    return True


def _is_removed(directory: str) -> bool:
    try:
        os.rmdir(directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
            return False
        raise
    return True


def _await_end(pidfds: list[int], patience: float) -> None:
    deadline = time.monotonic() + patience
    poll = select.poll()
    for pidfd in pidfds:
        poll.register(pidfd, select.POLLIN)
    waiting = set(pidfds)
    try:
        while waiting and (rest := deadline - time.monotonic()) > 0:
            for pidfd, _ in poll.poll(rest * 1000):
                poll.unregister(pidfd)
                waiting.discard(pidfd)
    finally:
        for pidfd in pidfds:
            os.close(pidfd)


def user() -> str:
    """Return the name of the user we run as, for a remedy."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _mount_remedy() -> str:
    return (
        "Mount it: mount -t cgroup2 none /sys/fs/cgroup; in a container, start it with"
        " --cgroupns=private and a writable /sys/fs/cgroup"
    )
