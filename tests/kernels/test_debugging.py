"""The debugger of a kernel: asked beside everything else, by those who have the key."""

from __future__ import annotations

from typing import Any

import pytest

from kernels.launch import Launcher
from kernels.spec import KernelSpec
from tests.kernels.talk import Said, Talk, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def spec() -> KernelSpec:
    return KernelSpec(preload=(), env=(("PYDEVD_DISABLE_FILE_VALIDATION", "mine"),))


def request(command: str) -> dict[str, Any]:
    return {"type": "request", "seq": 1, "command": command, "arguments": {}}


def ask(talk: Talk, command: str) -> Said:
    return talk.ask("debug_request", request(command), "control")


def answer(said: Said) -> tuple[str, bool]:
    assert said.reply is not None
    return said.reply.content["command"], said.reply.content["success"]


async def test_it_waits_for_the_cell_and_holds_nobody_up(talk: Talk) -> None:
    """The cell's command fills its pipe: somebody must read it meanwhile."""
    flood = "import subprocess\nwhile True: subprocess.run('yes | head -c 300000', shell=True)"
    cell = talk.start(flood)
    await talk.until(lambda: cell.text() != "")
    attached = ask(talk, "initialize")
    await talk.until(lambda: len(cell.text()) > 400_000)
    assert attached.reply is None
    await talk.interrupt()
    assert (await talk.end(cell)).status == "error"
    assert answer(await talk.end(attached)) == ("initialize", True)
    said = await talk.run("import os; print('after')")
    assert (said.text(), said.text("stderr")) == ("after\n", "")
    assert await talk.value("os.environ['PYDEVD_DISABLE_FILE_VALIDATION']") == "'mine'"


async def test_a_request_without_an_answer_holds_up_no_interrupt(talk: Talk) -> None:
    assert answer(await talk.end(ask(talk, "initialize"))) == ("initialize", True)
    ask(talk, "attach")  # waits for an event that comes only to those who said who they are
    cell = talk.start("import time\nprint('in', flush=True)\nwhile True: time.sleep(0.01)")
    await talk.until(lambda: "in" in cell.text())
    asked = talk.ask("interrupt_request", {}, "control")
    await talk.end(asked)
    assert [content["execution_state"] for content in asked.contents("status")] == ["busy", "idle"]
    assert (await talk.end(cell)).status == "error"


async def test_who_lacks_the_key_starts_no_debugger(talk: Talk, launcher: Launcher) -> None:
    with Visitor(talk, "control", "not the key") as visitor:
        await visitor.send("debug_request", request("initialize"))
        with Visitor(talk, "control", launcher._key(talk.kernel.kernel_id)) as known:
            await known.send("kernel_info_request", {})
            await known.receive()
    assert await talk.value("get_ipython().kernel.debugger.debugpy_initialized") == "False"


async def test_where_it_cannot_listen_it_says_so(talk: Talk) -> None:
    await talk.run("import sys; sys.modules['debugpy'] = None")
    refused = await talk.end(ask(talk, "initialize"))
    assert answer(refused) == ("initialize", False)
    assert refused.reply is not None
    assert "debugpy cannot listen" in refused.reply.content["message"]
