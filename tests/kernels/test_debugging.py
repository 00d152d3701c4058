"""The debugger of a kernel: asked beside everything else, by those who have the key."""

from __future__ import annotations

import time
from typing import Any

import pytest

from kernels.inside.debugging import GRACE
from kernels.launch import Launcher
from kernels.spec import KernelSpec
from tests.kernels.talk import Said, Talk, Visitor, overheard, talking

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def spec() -> KernelSpec:
    return KernelSpec(preload=(), env=(("PYDEVD_DISABLE_FILE_VALIDATION", "mine"),))


LIMIT = 1.0  # s
HURRIED = 2  # the number of a request that has this limit, so that nobody waits for the true one
ENDLESS = "[one for one in iter(int, 1) if one]"
OBJECTS = f"""
debugging = get_ipython().kernel._debugging
async def answer(request, served, limit=debugging.limit, answer=debugging.answer):
    debugging.limit = {LIMIT} if request["seq"] == {HURRIED} else limit
    return await answer(request, served)
debugging.answer = answer
class Slow:
    def __repr__(self):
        while True: pass
class Deaf:
    def __repr__(self):
        import ctypes, threading, time
        c, barrier = ctypes.CDLL(None), ctypes.create_string_buffer(64)
        c.pthread_barrier_init(barrier, None, 2)
        def meet():
            while not get_ipython().kernel._debugging._is_left: time.sleep(0.05)
            c.pthread_barrier_wait(barrier)
        thread = threading.Thread(target=meet)
        thread.pydev_do_not_trace = thread.is_pydev_daemon_thread = True
        thread.start()
        return str(c.pthread_barrier_wait(barrier))  # C code, which no signal ends
"""


def request(command: str, seq: int = 1, **arguments: Any) -> dict[str, Any]:
    return {"type": "request", "seq": seq, "command": command, "arguments": arguments}


def ask(talk: Talk, command: str, seq: int = 1, **arguments: Any) -> Said:
    return talk.ask("debug_request", request(command, seq, **arguments), "control")


async def told(talk: Talk, command: str, seq: int = 1, **arguments: Any) -> dict[str, Any]:
    """Return what the debugger answers."""
    said = await talk.end(ask(talk, command, seq, **arguments))
    assert said.reply is not None
    return said.reply.content


async def attached(talk: Talk) -> None:
    for command in ("initialize", "attach", "configurationDone"):
        answered = await told(talk, command, clientID="test", adapterID="python", pathFormat="path")
        assert answered["success"], answered


async def stopped(talk: Talk, code: str, line: int) -> tuple[Said, int, int]:
    """Run code up to a breakpoint; return the cell, and the thread and frame that stand there."""
    path = (await told(talk, "dumpCell", code=code))["body"]["sourcePath"]
    at: dict[str, Any] = {"source": {"path": path}, "breakpoints": [{"line": line}]}
    assert (await told(talk, "setBreakpoints", **at))["success"]
    with overheard(talk) as messages:
        cell = talk.start(code)
        await talk.until(lambda: any(one.content.get("event") == "stopped" for one in messages))
    [event] = [one for one in messages if one.content.get("event") == "stopped"]
    thread = event.content["body"]["threadId"]
    frames = (await told(talk, "stackTrace", threadId=thread))["body"]["stackFrames"]
    return cell, thread, frames[0]["id"]


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


@pytest.mark.parametrize("expression", [ENDLESS, "__import__('time').sleep(1000)", "slow"])
async def test_what_is_evaluated_at_a_breakpoint_has_an_end(
    launcher: Launcher, expression: str
) -> None:
    async with talking(launcher) as talk:
        await talk.run(OBJECTS)
        await attached(talk)
        cell, thread, frame = await stopped(talk, "slow = Slow()\ny = 20\ny + 22", 3)
        began = time.monotonic()
        answered = await told(talk, "evaluate", HURRIED, expression=expression, frameId=frame)
        took = time.monotonic() - began
        assert LIMIT <= took < LIMIT + GRACE + 20  # some machines have much else to do
        assert "TookTooLong" in str(answered) or "Slow object at" in str(answered), answered
        good = await told(talk, "evaluate", expression="y + 1", frameId=frame)
        assert (good["success"], good["body"]["result"]) == (True, "21")
        assert (await told(talk, "continue", threadId=thread))["success"]
        assert (await talk.end(cell)).value == "42"


@pytest.mark.parametrize("ends_it", [False, True])
async def test_who_leaves_at_a_breakpoint_has_the_cell_go_on_and_may_come_back(
    launcher: Launcher, ends_it: bool
) -> None:
    async with talking(launcher) as talk:
        for value in ("42", "43"):
            await attached(talk)
            cell, _, _ = await stopped(talk, f"x = 1\n{value}", 2)
            assert (await told(talk, "disconnect", terminateDebuggee=ends_it))["success"]
            assert (await talk.end(cell)).value == value
            info = (await told(talk, "debugInfo"))["body"]
            assert (info["isStarted"], info["stoppedThreads"]) == (False, [])
            assert info["breakpoints"] == []


async def test_no_end_of_the_kernel_is_offered_by_a_debugger(talk: Talk) -> None:
    able = (await told(talk, "initialize", clientID="test", pathFormat="path"))["body"]
    assert able["supportsConfigurationDoneRequest"]
    assert able["supportsTerminateRequest"] is False
    assert not [one for one in able if "TerminateDebuggee" in one and able[one]]


async def test_a_debugger_ends_no_kernel(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await attached(talk)
        cell, thread, _ = await stopped(talk, "x = 41\nx + 1", 2)
        refused = await told(talk, "terminate")
        assert not refused["success"]
        assert "`disconnect`" in refused["message"]
        assert (await told(talk, "continue", threadId=thread))["success"]
        assert (await talk.end(cell)).value == "42"


async def test_what_is_evaluated_where_nothing_runs_has_an_end(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await talk.run(OBJECTS)
        await attached(talk)
        answered = await told(talk, "evaluate", HURRIED, expression=ENDLESS)
        assert "TookTooLong" in str(answered), answered
        assert await talk.value("20 + 22") == "42"


async def test_what_cannot_be_stopped_is_refused_and_so_is_what_comes_after_it(
    launcher: Launcher,
) -> None:
    async with talking(launcher) as talk:
        await talk.run(OBJECTS)
        await attached(talk)
        cell, thread, frame = await stopped(talk, "deaf = Deaf()\n42", 2)
        answered = await told(talk, "evaluate", HURRIED, expression="deaf", frameId=frame)
        assert not answered["success"]
        assert "cannot be stopped" in answered["message"]
        answered = await told(talk, "continue", threadId=thread)
        assert not answered["success"]
        assert "keeps the debugger" in answered["message"]
        asked = talk.ask("kernel_info_request", {}, "control")  # nobody else waits for it
        assert (await talk.end(asked)).status == "ok"
        assert (await told(talk, "disconnect"))["success"]
        info = (await told(talk, "debugInfo"))["body"]
        assert (info["isStarted"], info["stoppedThreads"], info["breakpoints"]) == (False, [], [])
        await talk.until(lambda: cell.reply is not None and cell.idle)
        assert cell.value == "42"  # once the C code has ended
        assert "restart the kernel" in (await told(talk, "initialize"))["message"]


@pytest.mark.parametrize(
    ("command", "arguments"),
    [("inspectVariables", {}), ("richInspectVariables", {"variableName": "slow"})],
)
async def test_what_is_shown_where_nothing_is_stopped_has_an_end(
    launcher: Launcher, command: str, arguments: dict[str, Any]
) -> None:
    async with talking(launcher) as talk:
        await talk.run(OBJECTS)
        await attached(talk)
        await talk.run("slow, x = Slow(), 20")
        await told(talk, command, HURRIED, **arguments)  # in whichever words
        await talk.run("del slow")
        shown = (await told(talk, "inspectVariables"))["body"]["variables"]
        assert "20" in [one["value"] for one in shown]
        cell = talk.start(ENDLESS)
        await talk.until(lambda: bool(cell.contents("execute_input")))
        await talk.interrupt(cell)  # heard, for the control thread is free
        assert (await talk.end(cell)).status == "error"


async def test_a_debugger_does_not_trace_who_only_looks(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await attached(talk)
        with overheard(talk) as messages:
            assert (await told(talk, "inspectVariables"))["success"]
            assert (await told(talk, "threads"))["success"]  # debugpy's events come before it
        started = [one.content for one in messages if one.type == "debug_event"]
        assert [one for one in started if one["event"] == "thread"] == []


async def test_what_fails_is_told_as_its_error_and_not_as_slowness(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        refused = await told(talk, "richInspectVariables")
        assert not refused["success"]
        assert "KeyError" in refused["message"], refused
        assert await told(talk, "variables", variablesReference=1) == {}  # as without a debugger


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
