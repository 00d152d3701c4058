"""Cells that run beside the main thread's: over the control channel, and in subshells."""

from __future__ import annotations

import re
from typing import Any

import pytest

from kernels.launch import Launcher
from kernels.spec import KernelSpec, Limits
from tests.kernels.talk import Said, Talk, Visitor

pytestmark = pytest.mark.asyncio(loop_scope="module")

OUTPUT = 200_000
WAITING = "import threading\ngo = threading.Event()"


@pytest.fixture(scope="module")
def spec() -> KernelSpec:
    return KernelSpec(preload=(), limits=Limits(output_bytes=OUTPUT))


def execution(code: str) -> dict[str, Any]:
    return {"code": code, "silent": False, "allow_stdin": False}


async def beside(talk: Talk, code: str) -> Said:
    """Run a cell over the control channel."""
    return await talk.end(talk.ask("execute_request", execution(code), "control"))


async def test_what_it_shows_is_its_own(talk: Talk) -> None:
    await talk.run(WAITING)
    cell = talk.start("print('in', flush=True)\ngo.wait()")
    await talk.until(cell.text)
    said = await beside(talk, "print('beside')\ndisplay(1)\n2")
    assert (said.text(), said.value) == ("beside\n", "2")
    assert len(said.contents("display_data")) == 1
    failed = await beside(talk, "print('to fail')\n1 / 0")
    assert (failed.text(), failed.value) == ("to fail\n", "ZeroDivisionError: division by zero")
    await beside(talk, "go.set()")
    assert (await talk.end(cell)).text() == "in\n"
    assert [message.type for message in cell.messages].count("error") == 0
    assert (await talk.run("print('after')")).text() == "after\n"


async def test_its_text_is_counted_by_itself(talk: Talk) -> None:
    await talk.run(WAITING)
    cell = talk.start(f"print('a' * {OUTPUT // 4}, flush=True)\ngo.wait()\nprint('b' * {OUTPUT})")
    await talk.until(cell.text)
    assert (await beside(talk, "print('short')")).text() == "short\n"
    long = await beside(talk, f"print('c' * {OUTPUT})\nprint('end')")
    assert long.metadata["truncated"]["total"] == OUTPUT + 5
    assert re.fullmatch(r"c+\n… \d+ characters left out; .* …\nc+\nend\n", long.text())
    assert (await beside(talk, "print('short')")).text() == "short\n"
    await beside(talk, "go.set()")
    await talk.end(cell)
    assert cell.metadata["truncated"]["total"] == OUTPUT // 4 + OUTPUT + 2
    assert cell.text().startswith("a" * (OUTPUT // 4) + "\nb")
    assert cell.text().endswith("b\n")


async def test_that_of_a_subshell_is_counted_by_itself(talk: Talk, launcher: Launcher) -> None:
    await talk.run(WAITING)
    made = await talk.end(talk.ask("create_subshell_request", {}, "control"))
    assert made.reply is not None
    cell = talk.start(f"print('a' * {OUTPUT // 4}, flush=True)\ngo.wait()\nprint('b' * {OUTPUT})")
    await talk.until(cell.text)
    with Visitor(talk, "shell", launcher._key(talk.kernel.kernel_id)) as visitor:
        for code, total in ((f"print('c' * {OUTPUT})", OUTPUT + 1), ("go.set()", 0)):
            content = execution(code)
            await visitor.send("execute_request", content, made.reply.content["subshell_id"])
            told = (await visitor.receive())["metadata"].get("truncated", {})
            assert told.get("total", 0) == total
    await talk.end(cell)
    assert cell.metadata["truncated"]["total"] == OUTPUT // 4 + OUTPUT + 2


async def test_it_leaves_the_main_threads_cell_where_it_is(talk: Talk) -> None:
    await talk.run(f"import os\nos.mkdir('sub')\n{WAITING}")
    look = "os.environ.get('A'), os.path.basename(os.getcwd())"
    lent = {"env": {"A": "1"}, "cwd": "sub"}
    cell = talk.start(f"print('in', flush=True)\ngo.wait()\n{look}", broker=lent)
    await talk.until(cell.text)
    asked = execution(look) | {"broker": {"env": {"A": "2"}}}
    assert (await talk.end(talk.ask("execute_request", asked, "control"))).value == "('2', 'sub')"
    await beside(talk, "go.set()")
    assert (await talk.end(cell)).value == "('1', 'sub')"
    assert (await talk.value(look)).startswith("(None, ")
