"""A cell that waits for somebody who has gone: at a breakpoint, or for a line of input."""

from __future__ import annotations

import pytest

from tests.jupyter.sockets import Socket
from tests.system.conftest import RunningBroker
from tests.system.peer import attached, execute, new_name, row_of
from tests.system.test_jupyter_channels import Debugger, looking_into

CODE = "x = 20\nprint('stops', flush=True)\nx + 22"


async def stopped(notebook: Socket) -> str:
    """Have a cell stop at a breakpoint, and return its id."""
    debugger = Debugger(notebook)
    await debugger.ask("initialize", clientID="test", adapterID="python", pathFormat="path")
    await debugger.ask("attach")
    path = (await debugger.ask("dumpCell", code=CODE))["sourcePath"]
    at = [{"line": 3}]
    await debugger.ask("setBreakpoints", source={"path": path}, breakpoints=at, lines=[3])
    await debugger.ask("configurationDone")
    cell = await notebook.execute(CODE)
    await debugger.event("stopped")
    return cell


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
