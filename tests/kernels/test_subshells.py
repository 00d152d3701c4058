"""The shell channel of a kernel that more than one client talks to, while a cell runs and after."""

from __future__ import annotations

import socket

import pytest

from kernels.inside import zmtp
from kernels.launch import Launcher
from tests.kernels.talk import Said, Talk, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="module")

BUSY = "import time\nprint('in', flush=True)\nwhile True: time.sleep(0.01)"
HELLO = zmtp.GREETING + zmtp.command(b"READY")


@pytest.fixture
def key(talk: Talk, launcher: Launcher) -> str:
    return launcher._key(talk.kernel.kernel_id)


async def busy(talk: Talk) -> Said:
    """Start a cell that runs until it is interrupted."""
    cell = talk.start(BUSY)
    await talk.until(lambda: "in" in cell.text())
    return cell


async def noticed(talk: Talk) -> None:
    """Return when the control thread has seen all that came before."""
    for _ in range(3):  # a connection, what it said, and its end
        await talk.end(talk.ask("kernel_info_request", {}, "control"))


async def subshell(talk: Talk) -> str:
    made = await talk.end(talk.ask("create_subshell_request", {}, "control"))
    assert made.reply is not None
    return str(made.reply.content["subshell_id"])


@pytest.mark.parametrize("first", ["visitor", "subshell"])
async def test_who_connects_while_a_cell_runs_is_served_beside_it(
    talk: Talk, key: str, first: str
) -> None:
    cell = await busy(talk)
    made = await subshell(talk) if first == "subshell" else ""
    with Visitor(talk, "shell", key) as visitor:
        await visitor.send("kernel_info_request", {})  # for after the cell
        await noticed(talk)
        made = made or await subshell(talk)
        asked = await visitor.send("kernel_info_request", {}, made)
        assert (await visitor.receive())["parent_header"]["msg_id"] == asked
        assert cell.reply is None
        await talk.interrupt()
        await talk.end(cell)
        await visitor.receive()


async def test_who_left_while_a_cell_ran_takes_nobody_along(talk: Talk) -> None:
    cell = talk.start(BUSY, stop_on_error=True)
    await talk.until(lambda: "in" in cell.text())
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.connect(f"{talk.kernel.directory}/k-1")
        visitor.sendall(HELLO)
        await noticed(talk)
    await talk.interrupt()
    await talk.end(cell)
    assert await subshell(talk)
    assert await talk.value("1 + 1") == "2"


async def test_what_was_said_first_is_answered_first(talk: Talk, key: str) -> None:
    cell = talk.start(BUSY, stop_on_error=True)
    await talk.until(lambda: "in" in cell.text())
    first, second = (Visitor.message("kernel_info_request", {}, key) for _ in range(2))
    with socket.socket(socket.AF_UNIX) as visitor:
        visitor.settimeout(20)
        visitor.connect(f"{talk.kernel.directory}/k-1")
        visitor.sendall(HELLO + zmtp.packed(first.frames))
        await noticed(talk)
        visitor.sendall(zmtp.packed(second.frames))
        await talk.interrupt()
        await talk.end(cell)
        received = b""
        while second.id.encode() not in received:
            received += visitor.recv(1 << 16)
        assert first.id.encode() in received[: received.index(second.id.encode())]
