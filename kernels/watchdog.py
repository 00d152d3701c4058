"""Memory of kernels where no cgroup holds it: look at their process trees, often enough.

A look reads the table of processes once for all kernels (10 µs for each process of the host, 20
µs more for each of a kernel), in a thread once that has taken 5 ms. When to look next follows from
the room that is left: what cannot be filled in that time need not be looked at. So kernels far
from their limit cost next to nothing, whether a cell or a thread it left behind is running, and
one near it is looked at every 0.1 s. It can go over its limit by what it writes within that time.

Written for Linux's /proc; psutil knows neither shared memory nor swap of a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from kernels.spec import Usage

logger = logging.getLogger(__name__)

GROWTH: Final = 4 << 30  # bytes/s that a kernel is taken to fill; one thread does 2.6 GB/s
SOONEST, LATEST = 0.1, 2.0  # s between two looks
LONG: Final = 0.005  # s of a look, after which the next is taken in a thread
LACKING: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # ours to have, not a process's
TICK: Final = os.sysconf("SC_CLK_TCK")
# What a process keeps from others; page tables can be many for few pages.
KEPT: Final = (b"RssAnon:", b"RssShmem:", b"VmSwap:", b"VmPTE:")
TABLES: Final = (b"VmPTE:",)
EXACT: Final = (b"Pss_Anon:", b"Pss_Shmem:", b"SwapPss:")  # the same, shared pages in parts


class Seen(NamedTuple):
    """A process as the table has it."""

    parent: int
    started: int  # ticks since boot: with the number, this is one process and no other
    threads: int
    cpu_seconds: float  # its own and that of the children it has waited for


class Watch(NamedTuple):
    """What was asked for."""

    started: int
    limit: int
    baseline: int
    exceeded: Callable[[str], None]
    reaper: int


class Watchdog:
    """Call back when a process tree keeps more memory than it may.

    It looks only while there is something to watch. Close it to end its task.
    """

    def __init__(self) -> None:
        self._watches: dict[int, Watch] = {}
        self._used: dict[int, tuple[float, float]] = {}  # CPU seconds, and when they were seen
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._took = 0.0  # s of the last look

    def __repr__(self) -> str:
        return f"<Watchdog of {len(self._watches)}, {self._took * 1000:.1f} ms a look>"

    def start(
        self,
        pid: int,
        limit: int,
        exceeded: Callable[[str], None],
        *,
        baseline: int = 0,
        reaper: int = 0,
    ) -> None:
        """Call `exceeded("oom")` once, when the tree below `pid` keeps more than `limit` bytes.

        `baseline` is what it has from its zygote: what that `kept`. Orphans of the tree are below
        its `reaper`, if it has one. The watch ends with the process. Raises ProcessLookupError if
        we cannot see it.
        """
        seen = look((pid,)).get(pid)
        if seen is None:
            raise ProcessLookupError(pid)
        self._watches[pid] = Watch(seen.started, limit, baseline, exceeded, reaper)
        self._changed.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="watchdog")

    def stop(self, pid: int) -> None:
        """Watch the tree no longer; nothing happens if it is not watched."""
        self._watches.pop(pid, None)
        self._used.pop(pid, None)
        if not self._watches:
            self._changed.set()

    def spent(self, pid: int) -> float | None:
        """Return the CPU seconds that a tree has used by now, at most: it may have ended.

        Those of the last look, and since then as many as all processors have. None without a look.
        """
        if pid not in self._used:
            return None
        seconds, at = self._used[pid]
        return seconds + (time.monotonic() - at) * (os.cpu_count() or 1)

    async def close(self) -> None:
        """Watch nothing any longer."""
        self._watches.clear()
        self._used.clear()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while self._watches:
            self._changed.clear()
            try:
                pause = await self._look()
            except Exception:
                # Unwatched kernels could fill the host: a look that fails is followed by another.
                logger.critical("a look at the memory of kernels failed", exc_info=True)
                pause = SOONEST
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    async def _look(self) -> float:
        """Look at every tree; return for how long nothing can happen."""
        begun = time.monotonic()
        watches = dict(self._watches)
        roots = {pid: watch.reaper for pid, watch in watches.items()}
        if self._took > LONG:
            found = await asyncio.to_thread(survey, roots)
        else:
            found = survey(roots)
        self._took = time.monotonic() - begun
        room = LATEST * GROWTH
        for pid, (root, members, memory, seconds) in found.items():
            watch = watches[pid]
            if self._watches.get(pid) is not watch:
                continue  # it was stopped while we looked
            if root is None or root.started != watch.started:
                del self._watches[pid]
                continue
            self._used[pid] = seconds, begun
            left = watch.limit - (memory - watch.baseline)
            if left < 0:
                left = watch.limit - await self._exact(members, memory - watch.baseline)
            if left < 0 and self._watches.get(pid) is watch:
                del self._watches[pid]
                asyncio.get_running_loop().call_soon(watch.exceeded, "oom")
            else:
                room = min(room, left)
        return max(SOONEST, min(LATEST, room / GROWTH))

    async def _exact(self, members: list[int], estimate: int) -> int:
        """Count pages that a fork shares once, if we may: the estimate counts them each time."""
        exact = await asyncio.to_thread(shared_out, members)
        return estimate if exact is None else min(exact, estimate)


def usage(pid: int, baseline: int = 0, *, reaper: int = 0) -> Usage:
    """Return what the tree below the process uses; nothing is known of one that has ended."""
    table = look()
    members = below(pid, table, families(table), reaper)
    if not members:
        return Usage()
    return Usage(
        cpu_seconds=_seconds(members, table),
        memory=max(0, kept(members) - baseline),
        processes=sum(table[member].threads for member in members),
    )


def survey(roots: Mapping[int, int]) -> dict[int, tuple[Seen | None, list[int], int, float]]:
    """Return for each tree, by its root, that root, its members, the bytes they keep, and the
    CPU seconds that they and the children they have waited for have used.

    `roots` has the reaper of each, or 0.
    """
    table = look()
    children = families(table)
    trees = {pid: below(pid, table, children, reaper) for pid, reaper in roots.items()}
    return {
        pid: (table.get(pid), members, kept(members), _seconds(members, table))
        for pid, members in trees.items()
    }


def look(pids: Iterable[int] | None = None) -> dict[int, Seen]:
    """Return the processes that can be seen, or those of the `pids` that can."""
    if pids is None:
        pids = [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]
    table: dict[int, Seen] = {}
    for pid in pids:
        text = _seen(f"/proc/{pid}/stat")
        # The name stands in parentheses and may hold any byte: fields count from the last one.
        fields = text[text.rfind(b")") + 2 :].split()
        if len(fields) > 19:
            ticks = sum(map(int, fields[11:15]))
            table[pid] = Seen(int(fields[1]), int(fields[19]), int(fields[17]), ticks / TICK)
    return table


def families(table: Mapping[int, Seen]) -> dict[int, list[int]]:
    """Return the children of each process that has any."""
    children: dict[int, list[int]] = {}
    for number, seen in table.items():
        children.setdefault(seen.parent, []).append(number)
    return children


def below(
    pid: int, table: Mapping[int, Seen], children: Mapping[int, list[int]], reaper: int = 0
) -> list[int]:
    """Return the process and all its descendants, with the orphans that its reaper took in."""
    if pid not in table:
        return []
    members = [pid, *children.get(reaper, ())] if reaper else [pid]
    for member in members:
        members.extend(children.get(member, ()))
    return members


def _seconds(members: Iterable[int], table: Mapping[int, Seen]) -> float:
    return sum(table[member].cpu_seconds for member in members)


def kept(members: Iterable[int]) -> int:
    """Return the bytes the processes keep from others, those that a fork shares counted twice."""
    return sum(_total(_seen(f"/proc/{pid}/status"), KEPT) for pid in members)


def shared_out(members: Iterable[int]) -> int | None:
    """Return the same with shared pages in parts; None if we may not know. Takes 10 ms a GB."""
    try:
        return sum(
            _total(_read(f"/proc/{pid}/smaps_rollup"), EXACT)
            + _total(_read(f"/proc/{pid}/status"), TABLES)
            for pid in members
        )
    except OSError:  # not permitted, or no descriptor left
        return None


def _total(text: bytes, names: tuple[bytes, ...]) -> int:
    """Add up the lines `<name> <number> kB` of a file."""
    lines = text.splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(names)) << 10


def _seen(path: str) -> bytes:
    """Return a small file of /proc, or nothing if that process cannot be seen.

    One that hides must not hide the others. What we lack ourselves is raised: else every tree
    would seem to have ended.
    """
    try:
        return _read(path)
    except OSError as error:
        if error.errno in LACKING:
            raise
        return b""


def _read(path: str) -> bytes:
    """Return a small file of /proc; nothing if the process has ended. Raises OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return b""
    try:
        return os.read(descriptor, 8192)
    except ProcessLookupError:  # it ended in between
        return b""
    finally:
        os.close(descriptor)
