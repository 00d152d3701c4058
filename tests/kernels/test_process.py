"""The end of a process is known by its pidfd, with the reason its parent tells."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from kernels import process as process_module
from kernels.process import UNKNOWN, Process, reason_of

Child = subprocess.Popen[bytes]


@pytest.fixture
def child() -> Iterator[Child]:
    """Yield a process that exits with the number it is told, and never before."""
    code = "import sys; sys.exit(int(sys.stdin.readline()))"
    with subprocess.Popen([sys.executable, "-I", "-c", code], stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


def tell(child: Child, number: int) -> None:
    assert child.stdin is not None
    child.stdin.write(b"%d\n" % number)
    child.stdin.flush()


def watch(child: Child) -> Process:
    return Process(os.pidfd_open(child.pid))


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (0, "exit 0"),
        (3 << 8, "exit 3"),
        (255 << 8, "exit 255"),
        (signal.SIGKILL, "signal SIGKILL"),
        (signal.SIGSEGV | 0x80, "signal SIGSEGV"),
        (40, "signal 40"),
    ],
)
def test_a_wait_status_in_words(status: int, reason: str) -> None:
    assert reason_of(status) == reason


async def test_a_status_told_by_the_parent_is_the_reason(child: Child) -> None:
    process = watch(child)
    tell(child, 3)
    _, status = await asyncio.to_thread(os.waitpid, child.pid, 0)
    process.set_status(status)
    assert await process.exited == "exit 3"
    assert process.pidfd == -1
    assert "exit 3" in repr(process)


async def test_without_a_word_from_the_parent_a_status_nobody_took_is_unknown(
    child: Child,
) -> None:
    process = watch(child)
    assert "running" in repr(process)
    tell(child, 0)
    async with asyncio.timeout(process_module.STATUS_WAIT + 5):
        assert await process.exited == UNKNOWN


async def test_without_a_word_from_the_parent_the_system_is_asked(child: Child) -> None:
    process = watch(child)
    tell(child, 3)
    await asyncio.to_thread(os.waitpid, child.pid, 0)
    async with asyncio.timeout(process_module.STATUS_WAIT + 5):
        reason = await process.exited
    known = tuple(map(int, platform.release().split("-")[0].split(".")[:2])) >= (6, 15)
    assert reason == ("exit 3" if known else UNKNOWN)


async def test_kill_sends_sigkill(child: Child) -> None:
    process = watch(child)
    process.kill()
    _, status = await asyncio.to_thread(os.waitpid, child.pid, 0)
    process.set_status(status)
    assert await process.exited == "signal SIGKILL"


async def test_signals_after_the_end_do_nothing(child: Child) -> None:
    process = watch(child)
    tell(child, 0)
    await asyncio.to_thread(child.wait)
    process.kill()
    process.set_status(0)
    process.send_signal(signal.SIGTERM)
    process.set_status(9)
    assert await process.exited == "exit 0"
