"""A process that lets go of its memory holds one page, takes in its children, and can be killed."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels.sandbox import system
from kernels.sandbox.sleeper import _CODE, PAGE, Sleeper

PATIENCE = 20.0  # s

pytestmark = pytest.mark.skipif(
    system.MACHINE not in _CODE, reason=f"no instructions for {system.MACHINE}"
)


def wait(descriptor: int) -> None:
    readable, _, _ = select.select([descriptor], [], [], PATIENCE)
    assert readable


@pytest.fixture
def sleeping() -> Iterator[tuple[int, int, int]]:
    """A sleeper with a child: their pids, and what the child waits to see closed."""
    reading, writing = os.pipe()
    telling, told = os.pipe()
    sleeper = Sleeper()
    pid = os.fork()
    if pid == 0:
        os.close(writing)
        child = os.fork()
        if child == 0:
            os.close(told)
            os.read(reading, 1)
            os._exit(0)
        os.write(told, child.to_bytes(4, "little"))
        sleeper.let_go()
        os._exit(1)
    os.close(reading)
    child = int.from_bytes(os.read(telling, 4), "little")
    yield pid, child, writing
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    for descriptor in (writing, telling, told):
        os.close(descriptor)


def asleep(pid: int) -> list[str]:
    """Wait until only what cannot be let go of is left, and return that."""
    while len(maps := Path(f"/proc/{pid}/maps").read_text().splitlines()) > 2:
        os.sched_yield()
    return maps


def test_one_page_is_left(sleeping: tuple[int, int, int]) -> None:
    maps = [line for line in asleep(sleeping[0]) if "[vsyscall]" not in line]
    assert len(maps) == 1
    first, end = (int(part, 16) for part in maps[0].split()[0].split("-"))
    assert end - first == PAGE


def test_children_that_end_leave_nothing(sleeping: tuple[int, int, int]) -> None:
    pid, child, writing = sleeping
    asleep(pid)
    ended = os.pidfd_open(child)
    os.write(writing, b"x")
    wait(ended)
    os.close(ended)
    assert not Path(f"/proc/{child}").exists()
    assert len(asleep(pid)) <= 2
