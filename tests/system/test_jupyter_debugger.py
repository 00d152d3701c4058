"""A cell that waits for somebody who has gone: at a breakpoint, or for a line of input."""

from __future__ import annotations

import pytest

from tests.jupyter.messages import LEGACY, V1
from tests.jupyter.sockets import Socket
from tests.system.conftest import RunningBroker
from tests.system.peer import attached, execute, new_name, row_of
from tests.system.test_jupyter_channels import Debugger, looking_into

CODE = "x = 20\nprint('stops', flush=True)\nx + 22"


STEPS = "def double(n):\n    m = n * 2\n    return m\nx = double(21)\nx + 1"


async def begun(notebook: Socket, debugger: Debugger, code: str, line: int) -> str:
    """Run a cell that has a breakpoint, and return its id."""
    await debugger.ask("initialize", clientID="test", adapterID="python", pathFormat="path")
    await debugger.ask("attach")
    path = (await debugger.ask("dumpCell", code=code))["sourcePath"]
    at = [{"line": line}]
    await debugger.ask("setBreakpoints", source={"path": path}, breakpoints=at, lines=[line])
    await debugger.ask("configurationDone")
    return await notebook.execute(code)


async def stopped(notebook: Socket) -> str:
    """Have a cell stop at a breakpoint, and return its id."""
    debugger = Debugger(notebook)
    cell = await begun(notebook, debugger, CODE, 3)
    await debugger.event("stopped")
    return cell


@pytest.mark.parametrize("framing", [V1, LEGACY])
async def test_a_stopped_cell_is_stepped_into_over_and_out_of_a_function(
    broker: RunningBroker, framing: str
) -> None:
    name = new_name()
    execute(broker, name, "1")
    async with looking_into(broker, name, framing) as notebook:
        debugger = Debugger(notebook)
        cell = await begun(notebook, debugger, STEPS, 4)
        stood = []
        for how in ("stepIn", "next", "stepOut", "next", "continue"):
            event = await debugger.event("stopped")
            thread = event["threadId"]
            frames = (await debugger.ask("stackTrace", threadId=thread))["stackFrames"]
            own = [(one["name"], one["line"]) for one in frames]
            stood.append((event["reason"], own))
            await debugger.ask(how, threadId=thread)
        module, double = "<module>", "double"
        assert stood == [
            ("breakpoint", [(module, 4)]),
            ("step", [(double, 2), (module, 4)]),
            ("step", [(double, 3), (module, 4)]),
            ("step", [(module, 4)]),
            ("step", [(module, 5)]),
        ]
        assert (await notebook.done(cell))["content"]["status"] == "ok"
        result = await notebook.output(cell, "execute_result")
        assert result["content"]["data"]["text/plain"] == "43"


@pytest.mark.parametrize("how", ["closed", "killed"])
async def test_a_cell_at_a_breakpoint_goes_on_when_who_debugs_it_has_gone(
    broker: RunningBroker, how: str
) -> None:
    name = new_name()
    execute(broker, name, "1")
    async with attached(broker, name) as chat:
        # Without a session_id it has no place to come back to.
        async with looking_into(broker, name, session="") as notebook:
            cell = await stopped(notebook)
            assert row_of(broker, name)["state"] == "busy"
            if how == "killed":
                notebook.connection.transport.abort()
        done = await chat.until("done", id=cell)
        assert done["status"] == "ok"
        await chat.run("1")
    async with looking_into(broker, name) as back:
        debugger = Debugger(back)
        info = await debugger.ask("debugInfo")
        assert (info["isStarted"], info["stoppedThreads"]) == (False, [])
        assert info["breakpoints"] == []
        cell = await stopped(back)  # again
        threads = (await debugger.ask("debugInfo"))["stoppedThreads"]
        await debugger.ask("continue", threadId=threads[0])
        assert (await back.done(cell))["content"]["status"] == "ok"


async def test_who_comes_back_to_a_breakpoint_finds_the_cell_there(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "1")
    async with looking_into(broker, name) as notebook:
        cell = await stopped(notebook)
        notebook.connection.transport.abort()
    async with looking_into(broker, name) as back:
        debugger = Debugger(back)
        info = await debugger.ask("debugInfo")
        assert info["isStarted"]
        await debugger.ask("continue", threadId=info["stoppedThreads"][0])
        assert (await back.done(cell))["content"]["status"] == "ok"


async def test_a_question_that_nobody_answers_has_no_more_time_than_its_cell(
    broker: RunningBroker,
) -> None:
    name = new_name()
    execute(broker, name, "1")
    async with attached(broker, name) as leaves:
        sent = {"type": "execute", "id": "asks", "code": "breakpoint()", "timeout": 3.0}
        await leaves.send(sent)
        await leaves.until("input_request")
    async with attached(broker, name) as stays:
        done = await stays.until("done", id="asks")
        assert done["reason"] == "timeout"
        await stays.run("1")
