"""Control groups, version 1: each controller may have a hierarchy, and a directory, of its own."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import Final

from .cgroups import (
    WANTED,
    Cgroup,
    Cgroups,
    Hierarchy,
    Unavailable,
    checked,
    kill_members,
    open_all,
    quota,
    read_fields,
    read_number,
    remove_directories,
    user,
    write,
)
from .counters import Counter

SHARES: Final = 512  # of the CPU, for all kernels together; the broker has 1024 by itself
NEAR: Final = 0.9  # of its limit: a group that is out of memory has at least so much in use
SOCKET_SHARE: Final = 8  # of a kernel's memory, the part that buffers of its sockets may add
COUNTERS: Final = (  # by controller
    ("cpuacct", "cpuacct.usage"),
    ("memory", "memory.usage_in_bytes"),
    ("memory", "memory.max_usage_in_bytes"),
    ("pids", "pids.current"),
)
FORKS: Final = 10  # rounds of killing; the first leaves only forks that were under way


class CgroupsV1(Cgroups):
    """One directory in each hierarchy of `memory`, `pids`, `cpu` and `cpuacct` that is there."""

    version = 1

    def __init__(self, directories: dict[str, str]) -> None:
        self._directories = directories  # by controller; those mounted together have the same
        self.controllers = frozenset(directories) & frozenset(WANTED)

    @classmethod
    def prepare(
        cls, hierarchies: list[Hierarchy], name: str, required: frozenset[str]
    ) -> CgroupsV1:
        """Make our directory in each hierarchy. Raises Unavailable."""
        own = {
            controller: hierarchy.directory
            for hierarchy in hierarchies
            if hierarchy.version == 1
            for controller in hierarchy.controllers & {*WANTED, "cpuacct"}
        }
        directories: dict[str, str] = {}
        refused: dict[str, OSError] = {}
        for controller, place in own.items():
            directory = f"{place}/{name}"
            try:
                _adopt(directory)
            except OSError as error:
                refused[controller] = error
            else:
                directories[controller] = directory
        missing = sorted(required - directories.keys())
        if missing or not directories.keys() & set(WANTED):
            for directory in set(directories.values()):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
            raise _unavailable(missing or list(WANTED), own, refused, name)
        _settle(directories)
        return cls(directories)

    def make(self, kernel: str, *, memory: int, processes: int, cpu: float) -> Cgroup:
        """Make the directories and write their limits."""
        group = self.leftover(kernel)
        made: list[str] = []
        try:
            for directory in group.directories:
                os.mkdir(directory, 0o755)
                made.append(directory)
            group.set(memory=memory, processes=processes, cpu=cpu)
        except BaseException:
            group.close()
            remove_directories(made)
            raise
        return group

    def find(self, kernel: str) -> Cgroup | None:
        """Return the group if it is there in every hierarchy."""
        group = self.leftover(kernel)
        return group if all(map(os.path.isdir, group.directories)) else None

    def names(self) -> set[str]:
        """Read the names in every hierarchy: one half removed has lost some."""
        found: set[str] = set()
        for directory in self._directories.values():
            with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
                found.update(entry.name for entry in entries if entry.is_dir())
        return found

    def leftover(self, kernel: str) -> CgroupV1:
        """Return the group, whatever there is of it."""
        name = checked(kernel)
        return CgroupV1(kernel, {key: f"{path}/{name}" for key, path in self._directories.items()})

    def used(self) -> tuple[float | None, int | None]:
        """Read cpuacct.usage and memory.usage_in_bytes, which count the groups below as well."""
        of = self._directories
        used = read_number(f"{of['cpuacct']}/cpuacct.usage") if "cpuacct" in of else None
        memory = read_number(f"{of['memory']}/memory.usage_in_bytes") if "memory" in of else None
        return None if used is None else used / 1e9, memory

    def remove(self) -> None:
        """Remove our empty directories."""
        for directory in set(self._directories.values()):
            with contextlib.suppress(OSError):
                os.rmdir(directory)

    def evidence(self) -> str:
        """Name the controllers, and the directory of the first."""
        controllers = " ".join(name for name in WANTED if name in self.controllers)
        key = next(name for name in WANTED if name in self.controllers)
        return f"v1: {controllers} at {self._directories[key]}"


class CgroupV1(Cgroup):
    """One kernel's directory in each hierarchy."""

    def __init__(self, kernel: str, directories: dict[str, str]) -> None:
        super().__init__(kernel)
        self._of = directories
        self.directories = list(dict.fromkeys(directories.values()))
        self._event = -1
        # What is asked for before and after each execution.
        self._counters = {
            name: Counter(f"{directories[controller]}/{name}")
            for controller, name in COUNTERS
            if controller in directories
        }

    def join_descriptors(self) -> list[int]:
        """Open `tasks` of each hierarchy."""
        # `tasks` moves the one thread that writes "0", and takes no lock that stops forks of the
        # whole system: 0.1 ms, where `cgroup.procs` waits 5 ms and more for each hierarchy.
        return open_all(f"{directory}/tasks" for directory in self.directories)

    def oom_descriptor(self) -> int:
        """Return an eventfd that the memory controller writes to."""
        if self._event < 0:
            event = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            try:
                control = os.open(f"{self._of['memory']}/memory.oom_control", os.O_RDONLY)
                try:
                    # "<event_fd> <fd of memory.oom_control>" (cgroup-v1/memory.rst, section 10)
                    write(f"{self._of['memory']}/cgroup.event_control", f"{event} {control}")
                finally:
                    os.close(control)
            except BaseException:
                os.close(event)
                raise
            self._event = event
        return self._event

    def is_out_of_memory(self) -> bool:
        """Tell an event of ours from one of a group above."""
        fired = False
        if self._event >= 0:
            with contextlib.suppress(BlockingIOError):
                fired = os.eventfd_read(self._event) > 0
        # The event comes before the kill, and the count before the memory is given back: read
        # now and in this order, one of the two tells. The event also comes when a group above is
        # out of memory (memory.rst); then this one need not be near its own limit.
        used = read_number(f"{self._of['memory']}/memory.usage_in_bytes") or 0
        limit = read_number(f"{self._of['memory']}/memory.limit_in_bytes") or 0
        return self.oom_kills() > 0 or (fired and used >= NEAR * limit)

    def oom_kills(self) -> int:
        """Read the counter `oom_kill`."""
        if "memory" not in self._of:
            return 0
        return read_fields(f"{self._of['memory']}/memory.oom_control").get("oom_kill", 0)

    def cpu_seconds(self) -> float | None:
        """Read cpuacct.usage."""
        used = self._count("cpuacct.usage")
        return None if used is None else used / 1e9

    def memory(self) -> tuple[int | None, int | None]:
        """Read usage and peak; page cache and files in a tmpfs are in them."""
        return self._count("memory.usage_in_bytes"), self._count("memory.max_usage_in_bytes")

    def reset_peak(self) -> None:
        """Write to max_usage_in_bytes."""
        if "memory" in self._of:
            write(f"{self._of['memory']}/memory.max_usage_in_bytes", 0)

    def processes(self) -> int | None:
        """Read pids.current."""
        return self._count("pids.current")

    def _count(self, name: str) -> int | None:
        counter = self._counters.get(name)
        return None if counter is None else counter.read()

    def set(
        self, *, memory: int | None = None, processes: int | None = None, cpu: float | None = None
    ) -> None:
        """Write the limits; memory that cannot be reclaimed is EBUSY, and nothing is killed."""
        if memory and "memory" in self._of:
            self._set_memory(memory)
        if processes and "pids" in self._of:
            write(f"{self._of['pids']}/pids.max", processes)
        if cpu and "cpu" in self._of:
            self._set_cpu(cpu)

    def _set_memory(self, limit: int) -> None:
        directory = self._of["memory"]
        write(f"{directory}/memory.limit_in_bytes", limit)
        try:
            # Memory and swap together, so that there is no swap; it may not be below the first.
            write(f"{directory}/memory.memsw.limit_in_bytes", limit)
        except FileNotFoundError:  # the system counts no swap (swapaccount=0)
            with contextlib.suppress(OSError):
                write(f"{directory}/memory.swappiness", 0)

        # Socket buffers of TCP and UDP are no part of the first; unix sockets' are.
        with contextlib.suppress(FileNotFoundError):  # a system without this account
            write(f"{directory}/memory.kmem.tcp.limit_in_bytes", limit // SOCKET_SHARE)

    def _set_cpu(self, cores: float) -> None:
        micros, period = quota(cores)
        try:
            write(f"{self._of['cpu']}/cpu.cfs_period_us", period)
            write(f"{self._of['cpu']}/cpu.cfs_quota_us", micros)
        except OSError as error:
            # "the quota of a child may not be over its parent's": a group above has less to give,
            # and that holds us anyway.
            if error.errno != errno.EINVAL:
                raise

    def kill(self) -> None:
        """Forbid forks, then kill until nobody new is found."""
        if "pids" in self._of:
            with contextlib.suppress(OSError):
                write(f"{self._of['pids']}/pids.max", 0)  # nothing is forked from here on
        for _ in range(FORKS):
            pidfds = kill_members(self.directories)
            for pidfd in pidfds:
                os.close(pidfd)
            if not pidfds:
                return

    def remove(self) -> bool:
        """Kill, wait for the end, and remove the directory in each hierarchy."""
        self.close()
        if "pids" in self._of:
            with contextlib.suppress(OSError):
                write(f"{self._of['pids']}/pids.max", 0)
        return remove_directories(self.directories)

    def close(self) -> None:
        """Close the counters' descriptors and the event's."""
        for counter in self._counters.values():
            counter.close()
        if self._event >= 0:
            os.close(self._event)
        self._event = -1


def _adopt(directory: str) -> None:
    """Make the directory, or take the one that is there. Raises OSError if we may not use it."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(directory, 0o755)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "it belongs to somebody else", directory)


def _settle(directories: dict[str, str]) -> None:
    """Set what holds for all kernels together, as far as we may."""
    with contextlib.suppress(OSError):
        if "cpu" in directories:
            write(f"{directories['cpu']}/cpu.shares", SHARES)
    with contextlib.suppress(OSError):
        # Before Linux 5.11 a group's limits held its children only if this said so.
        path = f"{directories.get('memory', '')}/memory.use_hierarchy"
        if read_number(path) == 0:
            write(path, 1)


def _unavailable(
    missing: list[str], own: dict[str, str], refused: dict[str, OSError], name: str
) -> Unavailable:
    absent = [controller for controller in missing if controller not in own]
    if absent:
        return Unavailable(
            f"the cgroup v1 controller {', '.join(absent)} is not mounted",
            f"Mount it: mkdir -p /sys/fs/cgroup/{absent[0]}"
            f" && mount -t cgroup -o {absent[0]} {absent[0]} /sys/fs/cgroup/{absent[0]};"
            " in a container, share the host's hierarchies with it. Boot with"
            " cgroup_enable=memory where the system was built with it switched off",
        )
    places = " ".join(sorted({f"{place}/{name}" for place in own.values()}))
    first = refused[missing[0]]
    return Unavailable(
        f"the cgroup v1 controller {', '.join(missing)} cannot be used:"
        f" {os.strerror(first.errno or 0)}: {first.filename}",
        f"As root: for d in {places}; do mkdir -p $d && chown {user()} $d; done. In a container,"
        " mount /sys/fs/cgroup writable",
    )
