"""Control groups, version 2: one hierarchy, and processes only in its leaves.

    ours/                     what we were started in: writable, delegated, left without processes
    ours/broker/              the broker and its zygotes
    ours/kernel-broker-<name>/<kernel>/

Written from the documents (cgroup-v2.rst) and tested on plain files: it has not yet run on a live
version 2 hierarchy with these controllers.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Final

from .cgroups import (
    WANTED,
    Cgroup,
    Cgroups,
    Unavailable,
    checked,
    kill_members,
    members,
    open_all,
    quota,
    read_fields,
    read_number,
    read_words,
    remove_directories,
    write,
)
from .counters import Counter
from .system import syscall

LEAF: Final = "broker"
WEIGHT: Final = 50  # of the CPU, for all kernels together; the leaf has 100 by itself
MOVES: Final = 10  # rounds of moving processes into the leaf, which may fork meanwhile
SYSTEMD: Final = "/run/systemd/system"  # is there if systemd runs the system: sd_booted(3)
IN_MODIFY: Final = 2
BUFFER: Final = 4096

REMEDY: Final = (
    "With systemd, run it as a service with Delegate=yes and DelegateSubgroup=broker, or from a"
    " terminal: systemd-run --user --scope -p Delegate=yes broker serve (as root without --user)."
    " In a container, make its own cgroup writable: docker run --cgroupns=private --security-opt"
    " writable-cgroups=true (Docker 28), podman run --security-opt unmask=/sys/fs/cgroup"
)


class CgroupsV2(Cgroups):
    """One directory with a group for each kernel."""

    version = 2

    def __init__(self, directory: str, controllers: frozenset[str]) -> None:
        self._directory = directory
        self.controllers = controllers

    @classmethod
    def prepare(cls, own: str, name: str, required: frozenset[str]) -> CgroupsV2:
        """Clear our own group of processes and pass its controllers on. Raises Unavailable."""
        # Started in the leaf: by systemd (DelegateSubgroup=), or by a broker before us.
        base = os.path.dirname(own) if os.path.basename(own) == LEAF else own
        available = frozenset(read_words(f"{base}/cgroup.controllers")) & frozenset(WANTED)
        missing = sorted(required - available)
        if missing or not available:
            names = ", ".join(missing or WANTED)
            raise Unavailable(f"the cgroup v2 controller {names} is not given to {base}", REMEDY)
        for path in (base, f"{base}/cgroup.procs", f"{base}/cgroup.subtree_control"):
            if not os.access(path, os.W_OK):
                raise Unavailable(f"{path} is not writable for us", REMEDY)
        if not is_delegated(base):
            raise Unavailable(f"systemd has not delegated {base}", REMEDY)
        directory = f"{base}/{name}"
        try:
            if not available <= read_words(f"{base}/cgroup.subtree_control"):
                _clear(base)
                _enable(base, available)
            with contextlib.suppress(FileExistsError):
                os.mkdir(directory, 0o755)
            _enable(directory, available)
            if "cpu" in available:
                write(f"{directory}/cpu.weight", WEIGHT)
        except OSError as error:
            raise Unavailable(f"{base} cannot be divided: {error}", REMEDY) from error
        return cls(directory, available)

    def make(self, kernel: str, *, memory: int, processes: int, cpu: float) -> Cgroup:
        """Make the directory and write its limits."""
        group = self.leftover(kernel)
        os.mkdir(group.directory, 0o755)
        try:
            group.settle()
            group.set(memory=memory, processes=processes, cpu=cpu)
        except BaseException:
            group.remove()
            raise
        return group

    def find(self, kernel: str) -> Cgroup | None:
        """Return the group if its directory is there."""
        group = self.leftover(kernel)
        return group if os.path.isdir(group.directory) else None

    def names(self) -> set[str]:
        """Read the names of the directories."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self._directory) as entries:
            return {entry.name for entry in entries if entry.is_dir()}
        return set()

    def leftover(self, kernel: str) -> CgroupV2:
        """Return the group, whether it is there or not."""
        return CgroupV2(kernel, f"{self._directory}/{checked(kernel)}", self.controllers)

    def used(self) -> tuple[float | None, int | None]:
        """Read usage_usec of cpu.stat, and memory.current, which count the groups below as well."""
        used = read_fields(f"{self._directory}/cpu.stat").get("usage_usec")
        memory = read_number(f"{self._directory}/memory.current")
        return None if used is None else used / 1e6, memory

    def remove(self) -> None:
        """Remove our directory if no kernel is left in it; we stay in the leaf."""
        with contextlib.suppress(OSError):
            os.rmdir(self._directory)

    def evidence(self) -> str:
        """Name the controllers and the directory."""
        controllers = " ".join(name for name in WANTED if name in self.controllers)
        return f"v2: {controllers} at {self._directory}"


class CgroupV2(Cgroup):
    """One kernel's directory."""

    def __init__(self, kernel: str, directory: str, controllers: frozenset[str]) -> None:
        super().__init__(kernel)
        self.directory = directory
        self._controllers = controllers
        self._stat = self._peak = self._events = -1
        self._current = Counter(f"{directory}/memory.current")
        self._processes = Counter(f"{directory}/pids.current")
        self._peak_is_ours = True  # False once it could not be reset

    def settle(self) -> None:
        """Set what holds for every kernel, whatever its limits."""
        if "memory" in self._controllers:
            write(f"{self.directory}/memory.oom.group", 1)  # a tree dies as a whole
            with contextlib.suppress(FileNotFoundError):  # the system counts no swap
                write(f"{self.directory}/memory.swap.max", 0)

    def join_descriptors(self) -> list[int]:
        """Open cgroup.procs; here there is no cheaper way in for a process already forked."""
        return open_all([f"{self.directory}/cgroup.procs"])

    def oom_descriptor(self) -> int:
        """Return an inotify descriptor on memory.events."""
        if self._events < 0:
            watch = syscall("inotify_init1", os.O_CLOEXEC | os.O_NONBLOCK)
            try:
                path = f"{self.directory}/memory.events"
                syscall("inotify_add_watch", watch, path.encode(), IN_MODIFY)
            except BaseException:
                os.close(watch)
                raise
            self._events = watch
        return self._events

    def is_out_of_memory(self) -> bool:
        """Read the counter; the event also comes for reclaim at the limit, which is no harm."""
        if self._events >= 0:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._events, BUFFER):
                    pass
        return self.oom_kills() > 0

    def oom_kills(self) -> int:
        """Read the counter `oom_kill`."""
        return read_fields(f"{self.directory}/memory.events").get("oom_kill", 0)

    def cpu_seconds(self) -> float | None:
        """Read usage_usec of cpu.stat, which is there without the controller too."""
        try:
            if self._stat < 0:
                self._stat = os.open(f"{self.directory}/cpu.stat", os.O_RDONLY | os.O_CLOEXEC)
            # Its first line is "usage_usec <number>".
            return int(os.pread(self._stat, 64, 0).split(None, 2)[1]) / 1e6
        except OSError:  # ENODEV: the group has been removed
            return None

    def memory(self) -> tuple[int | None, int | None]:
        """Read memory.current and memory.peak; page cache and files in a tmpfs are in them."""
        current = self._current.read()
        if not self._peak_is_ours or not self._open_peak():
            return current, None
        with contextlib.suppress(OSError):  # ENODEV: the group has been removed
            return current, int(os.pread(self._peak, 32, 0))
        return current, None

    def reset_peak(self) -> None:
        """Write to memory.peak; that counts for reads of the same descriptor (Linux 6.12)."""
        try:
            self._peak_is_ours = self._open_peak() and os.pwrite(self._peak, b"reset", 0) > 0
        except OSError:
            self._peak_is_ours = False

    def _open_peak(self) -> bool:
        for flags in (os.O_RDWR, os.O_RDONLY):  # read-only before Linux 6.12
            if self._peak < 0:
                with contextlib.suppress(OSError):
                    self._peak = os.open(f"{self.directory}/memory.peak", flags | os.O_CLOEXEC)
        return self._peak >= 0

    def processes(self) -> int | None:
        """Read pids.current."""
        return self._processes.read()

    def set(
        self, *, memory: int | None = None, processes: int | None = None, cpu: float | None = None
    ) -> None:
        """Write the limits; memory below what is in use is EBUSY, as version 1 has it."""
        if memory and "memory" in self._controllers:
            # memory.max would take it, and kill.
            if (read_number(f"{self.directory}/memory.current") or 0) > memory:
                raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), self.directory)
            write(f"{self.directory}/memory.max", memory)
        if processes and "pids" in self._controllers:
            write(f"{self.directory}/pids.max", processes)
        if cpu and "cpu" in self._controllers:
            micros, period = quota(cpu)
            write(f"{self.directory}/cpu.max", f"{micros} {period}")

    def kill(self) -> None:
        """Write to cgroup.kill, which forks cannot outrun; before Linux 5.14 kill one by one."""
        try:
            write(f"{self.directory}/cgroup.kill", 1)
        except OSError:
            with contextlib.suppress(OSError):
                write(f"{self.directory}/pids.max", 0)
            for pidfd in kill_members([self.directory]):
                os.close(pidfd)

    def remove(self) -> bool:
        """Kill, wait for the end, and remove the directory."""
        self.close()
        self.kill()
        return remove_directories([self.directory])

    def close(self) -> None:
        """Close the descriptors of the counters and of the event."""
        self._current.close()
        self._processes.close()
        for descriptor in (self._stat, self._peak, self._events):
            if descriptor >= 0:
                os.close(descriptor)
        self._stat = self._peak = self._events = -1


def is_delegated(directory: str, systemd: str = SYSTEMD) -> bool:
    """Say whether systemd has left the directory to us, or there is no systemd.

    Root could write to any; but what systemd runs, only systemd may divide.
    """
    if not os.path.isdir(systemd) or os.geteuid():
        return True
    for name in ("trusted.delegate", "user.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(directory, name) == b"1":
                return True
    return False


def _clear(base: str) -> None:
    """Move every process of the group into the leaf. Raises OSError."""
    # "a non-root cgroup can distribute domain resources to its children only when it doesn't have
    # any processes of its own" (cgroup-v2.rst). The root has no cgroup.type.
    if not os.path.exists(f"{base}/cgroup.type"):
        return
    leaf = f"{base}/{LEAF}"
    with contextlib.suppress(FileExistsError):
        os.mkdir(leaf, 0o755)
    for _ in range(MOVES):
        pids = members([base])
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                write(f"{leaf}/cgroup.procs", pid)


def _enable(directory: str, controllers: frozenset[str]) -> None:
    """Give the controllers to the children of the group."""
    words = " ".join(f"+{name}" for name in WANTED if name in controllers)
    write(f"{directory}/cgroup.subtree_control", words)
