"""A tree that keeps more memory than it may is noticed, whoever in it has the memory."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from kernels.watchdog import Seen, Watchdog, below, families, kept, look, usage

MIB = 1 << 20
# Runs each line it is told, and forks children that do nothing but hold what they have.
PROGRAM = """
import mmap, os, signal, subprocess, sys, time
kept = []
def fork():
    pid = os.fork()
    if pid == 0:
        signal.pause()
    return pid
for line in sys.stdin:
    exec(line)
    print(flush=True)
"""


class Child:
    """A process that does as it is told, with everything below it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.pid = process.pid

    def run(self, line: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == b"\n", "it has ended"

    def keep(self, size: int) -> None:
        self.run(f"kept.append(b'x' * {size})")


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)  # the children too


@pytest.fixture
def spawn() -> Iterator[Callable[[], Child]]:
    with ExitStack() as stack:

        def spawn() -> Child:
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-I", "-c", PROGRAM],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    process_group=0,
                )
            )
            stack.callback(end, process)
            child = Child(process)
            child.run("")
            return child

        yield spawn


@pytest.fixture
async def watchdog() -> AsyncIterator[Watchdog]:
    watchdog = Watchdog()
    yield watchdog
    await watchdog.close()


class Calls(asyncio.Queue[str]):
    """The reasons given, in order."""

    async def first(self) -> str:
        async with asyncio.timeout(10):
            return await self.get()


async def test_a_tree_over_its_limit_is_told_of_once(
    watchdog: Watchdog, spawn: Callable[[], Child]
) -> None:
    child, calls = spawn(), Calls()
    watchdog.start(child.pid, 64 * MIB, calls.put_nowait)
    child.keep(32 * MIB)
    child.keep(64 * MIB)
    assert await calls.first() == "oom"
    assert "of 0" in repr(watchdog)
    other = Calls()
    watchdog.start(child.pid, 64 * MIB, other.put_nowait)
    assert await other.first() == "oom"
    assert calls.empty()


async def test_what_a_tree_has_used_by_its_end_is_known_within_what_it_could_use_since(
    watchdog: Watchdog, spawn: Callable[[], Child]
) -> None:
    child = spawn()
    child.run("burn = 'while time.process_time() < 0.3: pass'; exec(burn)")
    watchdog.start(child.pid, 1 << 40, Calls().put_nowait)
    assert watchdog.spent(child.pid) is None
    first = watchdog._look
    looked = asyncio.Event()

    async def look() -> float:
        pause = await first()
        looked.set()
        return pause

    watchdog._look = look
    async with asyncio.timeout(10):
        await looked.wait()
    seen, began = watchdog.spent(child.pid), time.monotonic()
    child.run("burn = 'while time.process_time() < 0.6: pass'; exec(burn)")
    end(child.process)
    child.process.wait()
    used = watchdog.spent(child.pid)
    assert seen is not None
    assert used is not None
    tick = 0.05  # the system counts in ticks, each of a process's four sums
    assert 0.3 - tick <= seen <= used
    assert 0.6 - tick <= used <= seen + (time.monotonic() - began) * (os.cpu_count() or 1) + 1
    watchdog.stop(child.pid)
    assert watchdog.spent(child.pid) is None


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("if not os.fork(): kept.append(b'x' * (96 << 20)); signal.pause()", id="fork"),
        pytest.param(
            "subprocess.Popen([sys.executable, '-I', '-c',"
            " 'import signal; x = b\"x\" * (96 << 20); signal.pause()'])",
            id="program",
        ),
        pytest.param(
            "m = mmap.mmap(-1, 96 << 20); m.write(b'x' * (96 << 20)); kept.append(m)", id="shared"
        ),
    ],
)
async def test_memory_anywhere_in_the_tree_counts(
    line: str, watchdog: Watchdog, spawn: Callable[[], Child]
) -> None:
    child, calls = spawn(), Calls()
    watchdog.start(child.pid, 64 * MIB, calls.put_nowait)
    child.run(line)
    assert await calls.first() == "oom"


async def test_pages_that_forks_share_count_once_where_that_may_be_known(
    watchdog: Watchdog, spawn: Callable[[], Child]
) -> None:
    child, greedy = spawn(), spawn()
    wrong, right = Calls(), Calls()
    child.keep(64 * MIB)
    child.run("kept += [fork() for _ in range(4)]")
    assert usage(child.pid).memory > 256 * MIB
    watchdog.start(child.pid, 128 * MIB, wrong.put_nowait)
    watchdog.start(greedy.pid, 64 * MIB, right.put_nowait)
    greedy.keep(96 * MIB)
    assert await right.first() == "oom"
    child.run("")  # it lives
    assert wrong.empty()
    child.keep(96 * MIB)
    assert await wrong.first() == "oom"


async def test_what_came_from_the_zygote_is_not_the_kernels(
    watchdog: Watchdog, spawn: Callable[[], Child]
) -> None:
    zygote = spawn()
    zygote.keep(48 * MIB)
    # A kernel of it, which fills 40 MiB when it is told.
    zygote.run("down, up = os.pipe()")
    zygote.run("os.fork() or (os.read(down, 1), kept.append(b'x' * (40 << 20)), signal.pause())")
    table = look()
    kernel = next(
        pid for pid in below(zygote.pid, table, families(table)) if table[pid].parent == zygote.pid
    )
    baseline = kept([zygote.pid])
    assert baseline > 48 * MIB
    calls = Calls()
    watchdog.start(kernel, 32 * MIB, calls.put_nowait, baseline=baseline)
    greedy, looked = spawn(), Calls()
    watchdog.start(greedy.pid, MIB, looked.put_nowait)
    assert await looked.first() == "oom"
    assert calls.empty()
    assert (usage(kernel, baseline).memory or 0) < 8 * MIB
    zygote.run("os.write(up, b'1')")
    assert await calls.first() == "oom"


class Stumbling(Watchdog):
    """Fails at its first look, as where no descriptor is left."""

    failed = False

    async def _look(self) -> float:
        if not self.failed:
            self.failed = True
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return await super()._look()


async def test_a_look_that_fails_is_told_and_followed_by_another(
    spawn: Callable[[], Child], caplog: pytest.LogCaptureFixture
) -> None:
    watchdog, calls = Stumbling(), Calls()
    watchdog.start(spawn().pid, MIB, calls.put_nowait)
    assert await calls.first() == "oom"
    assert [one.levelno for one in caplog.records] == [logging.CRITICAL]
    await watchdog.close()


async def test_a_watch_that_is_stopped_says_nothing(
    watchdog: Watchdog, spawn: Callable[[], Child]
) -> None:
    stopped, watched = spawn(), spawn()
    silent, calls = Calls(), Calls()
    watchdog.start(stopped.pid, MIB, silent.put_nowait)
    watchdog.stop(stopped.pid)
    watchdog.stop(stopped.pid)
    watchdog.start(watched.pid, MIB, calls.put_nowait)
    assert await calls.first() == "oom"
    assert silent.empty()


async def test_a_watch_ends_with_its_process(
    watchdog: Watchdog, spawn: Callable[[], Child]
) -> None:
    ended, watched = spawn(), spawn()
    silent, calls = Calls(), Calls()
    watchdog.start(ended.pid, 1 << 40, silent.put_nowait)
    ended.process.kill()
    await asyncio.to_thread(ended.process.wait)
    watchdog.start(watched.pid, MIB, calls.put_nowait)
    assert await calls.first() == "oom"
    assert repr(watchdog).startswith("<Watchdog of 0,")
    assert silent.empty()
    with pytest.raises(ProcessLookupError):
        watchdog.start(ended.pid, MIB, silent.put_nowait)


def test_the_time_and_number_of_a_tree(spawn: Callable[[], Child]) -> None:
    child = spawn()
    before = usage(child.pid)
    assert before.processes == 1
    # One child spins and is waited for, another is there to stay.
    child.run("if not os.fork(): list(iter(lambda: time.process_time() < 0.2, False)); os._exit(0)")
    child.run("os.wait(); kept.append(fork())")
    after = usage(child.pid)
    assert after.processes == 2
    assert (after.cpu_seconds or 0) >= (before.cpu_seconds or 0) + 0.08
    assert usage(2**22 + 1).processes is None


def test_a_process_may_have_any_name(spawn: Callable[[], Child]) -> None:
    child = spawn()
    child.run("open('/proc/self/comm', 'w').write(') 1 (x) 2')")
    assert look((child.pid,))[child.pid].parent == os.getpid()


def test_a_tree_is_found_by_its_family_and_its_reapers_orphans() -> None:
    table = {number: Seen(parent, 5, 1, 0.0) for number, parent in PARENTS.items()}
    children = families(table)
    assert children == {1: [2, 3], 2: [20], 20: [200], 3: [4], 200: [201]}
    assert below(20, table, children) == [20, 200, 201]
    assert below(20, table, children, reaper=3) == [20, 4, 200, 201]
    assert below(99, table, children) == []


PARENTS = {2: 1, 3: 1, 20: 2, 200: 20, 4: 3, 201: 200}
