"""A chat's session as a Jupyter kernel: looked into beside its chat, through losses and deaths."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from tornado.httpclient import HTTPRequest
from tornado.websocket import websocket_connect

from broker.client import Broker
from broker.jupyter.names import kernel_id
from tests.jupyter.messages import LEGACY, V1
from tests.jupyter.rest import call, face
from tests.jupyter.sockets import Socket, socket
from tests.system.conftest import RunningBroker, StartBroker, kill
from tests.system.peer import attached, execute, gate, new_name, open_gate, row_of
from tests.system.test_tokens import made, revoke

LEAN = "orphan_ttl = '20s'\n[profiles.python]\npreload = []\nwarm = 1\n"


def looking_into(
    broker: RunningBroker, name: str, framing: str = V1, *, token: str = "", session: str = "me"
) -> AbstractAsyncContextManager[Socket]:
    """Open the kernel of a chat's session, which is there."""
    place = face(broker, token)
    return socket(place, kernel_id("default", name), framing, session)


def text_of(message: dict[str, Any]) -> str:
    return str(message["content"].get("text", message["content"].get("data", {}).get("text/plain")))


@pytest.mark.parametrize("framing", [V1, LEGACY])
async def test_a_notebook_and_a_chat_share_a_session(broker: RunningBroker, framing: str) -> None:
    name = new_name()
    execute(broker, name, "x = 20")
    async with looking_into(broker, name, framing) as notebook, attached(broker, name) as chat:
        cell = await notebook.execute("print(x); x * 2 + 2", store_history=True)
        assert (await notebook.done(cell))["content"]["status"] == "ok"
        assert text_of(await notebook.output(cell, "execute_result")) == "42"
        seen = await chat.until("done")
        assert (seen["id"], seen["status"]) == (cell, "ok")
        await chat.run("y = 'of the chat'; print(y)")
        heard = await notebook.until(
            lambda one: one["header"]["msg_type"] == "stream" and "chat" in text_of(one), "text"
        )
        assert heard["parent_header"]["msg_id"] != cell
    with Broker(broker.url, broker.token).session(name) as session:
        codes = [cell["code"] for cell in session.history()["cells"]]
    assert codes == ["x = 20", "print(x); x * 2 + 2", "y = 'of the chat'; print(y)"]


@pytest.mark.parametrize("framing", [V1, LEGACY])
async def test_a_notebook_is_told_what_the_chat_has_run(
    broker: RunningBroker, framing: str
) -> None:
    name = new_name()
    execute(broker, name, "x = 20")
    with Broker(broker.url, broker.token).session(name) as session:
        session.restart()
    execute(broker, name, "x = 21; 2 * x")
    watcher = made(broker, scopes=["watch"], session=name)
    for token in ("", watcher.token):
        async with looking_into(broker, name, framing, token=token) as notebook:
            tail = {"hist_access_type": "tail", "n": 500, "output": True, "raw": True}
            asked = await notebook.send("shell", "history_request", tail)
            told = (await notebook.reply(asked))["content"]
            await notebook.idle(asked)
            assert told["status"] == "ok"
            assert told["history"] == [[1, 1, ["x = 20", None]], [2, 1, ["x = 21; 2 * x", "42"]]]
            asked = await notebook.send("shell", "history_request", tail | {"n": "all"})
            refused = (await notebook.done(asked))["content"]
            assert (refused["status"], refused["evalue"]) == ("error", "n: expected a whole number")


async def test_a_cell_that_a_notebook_left_running_is_told_when_it_is_back(
    broker: RunningBroker,
) -> None:
    name = new_name()
    execute(broker, name, "1")
    async with looking_into(broker, name) as notebook:
        cell = await notebook.execute(f"{gate()}\nprint('done'); 7")
        await notebook.output(cell, "stream")
    async with looking_into(broker, name) as back:
        open_gate(row_of(broker, name)["pid"])
        assert (await back.done(cell))["content"]["status"] == "ok"
        assert text_of(await back.output(cell, "execute_result")) == "7"


async def test_a_first_notebook_learns_what_the_kernel_is_while_a_cell_lets_no_thread_run(
    broker: RunningBroker,
) -> None:
    name = new_name()
    async with attached(broker, name) as chat:
        cell = "display('up'); import ctypes; ctypes.PyDLL(None).pause()"
        await chat.send({"type": "execute", "id": "c", "code": cell})
        await chat.until("display")
        async with looking_into(broker, name) as notebook:
            info = await notebook.send("shell", "kernel_info_request", {})
            told = (await notebook.done(info))["content"]
            assert (told["status"], told["language_info"]["name"]) == ("ok", "python")
            assert row_of(broker, name)["state"] == "busy"
        Broker(broker.url, broker.token).kill(name)


async def test_what_a_kernel_is_reads_as_it_says_it_itself(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "1")
    async with looking_into(broker, name) as notebook:
        info = await notebook.send("shell", "kernel_info_request", {})
        told = (await notebook.done(info))["content"]
        code = "import json; print(json.dumps(get_ipython().kernel.kernel_info))"
        cell = await notebook.execute(code)
        said = json.loads(text_of(await notebook.output(cell, "stream")))
    assert told.pop("banner").partition("Tip: ")[0] == said.pop("banner").partition("Tip: ")[0]
    assert told == {"status": "ok", **said}


async def test_a_second_connection_takes_the_place_of_the_first(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "1")
    async with looking_into(broker, name) as first, looking_into(broker, name) as second:
        assert await first.until_closed() == 4410
        await second.run("1")


async def test_what_ends_a_kernel_is_told_and_the_next_cell_runs_in_another(
    broker: RunningBroker,
) -> None:
    name = new_name()
    execute(broker, name, "x = 1")
    async with looking_into(broker, name) as notebook:
        cell = await notebook.execute("import os; os._exit(3)")
        reply = (await notebook.done(cell))["content"]
        assert (reply["ename"], reply["evalue"]) == ("KernelLost", "lost: exit 3")
        await notebook.until(lambda one: "exit 3" in text_of(one), "the reason")
        await notebook.until(
            lambda one: one["content"].get("execution_state") == "restarting", "restarting"
        )
        assert (await notebook.run("x"))["content"]["ename"] == "NameError"
    row = row_of(broker, name)
    assert (row["generation"], row["reason"]) == (2, "exit 3")
    with Broker(broker.url, broker.token).session(name) as session:
        notes = [cell["source"] for cell in session.notebook()["cells"] if "lost" in str(cell)]
    assert "`exit 3`" in notes[-1]


async def test_a_session_that_ends_closes_the_notebooks_connection(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "1")
    async with looking_into(broker, name) as notebook:
        Broker(broker.url, broker.token).kill(name)
        assert await notebook.until_closed() == 4404
    gone = call(face(broker), "GET", f"/api/kernels/{kernel_id('default', name)}")
    assert gone.status == 404


async def test_a_token_that_only_watches_sees_all_and_runs_nothing(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "1")
    watcher = made(broker, scopes=["watch"], session=name)
    async with looking_into(broker, name, token=watcher.token) as notebook:
        info = await notebook.send("shell", "kernel_info_request", {})
        assert (await notebook.done(info))["content"]["status"] == "ok"
        refused = (await notebook.run("x = 1"))["content"]
        assert refused["ename"] == "Forbidden"
        async with attached(broker, name) as chat:
            await chat.run("print('seen')")
        await notebook.until(lambda one: text_of(one) == "seen\n", "what the chat prints")
        assert revoke(broker, watcher).status == 200
        assert await notebook.until_closed() == 4401


async def test_bad_frames_in_a_row_close_the_connection_and_a_good_one_between_does_not(
    broker: RunningBroker,
) -> None:
    name = new_name()
    execute(broker, name, "1")
    async with looking_into(broker, name) as notebook:
        for _ in range(3):
            for _ in range(9):
                await notebook.connection.send(b"\0" * 24)
            await notebook.run("1")
        for _ in range(10):
            await notebook.connection.send("no frame of this subprotocol")
        assert await notebook.until_closed() == 4400
    assert execute(broker, name, "2")["status"] == "ok"


async def test_a_question_reaches_the_notebook_and_pdb_is_driven_through_it(
    broker: RunningBroker,
) -> None:
    name = new_name()
    execute(broker, name, "def broken(): x = 42; breakpoint(); return x")
    async with looking_into(broker, name) as notebook:
        cell = await notebook.execute("broken()", allow_stdin=True)
        for command, seen in (("p x", "42"), ("q", "")):
            question = await notebook.output(cell, "input_request")
            assert "(Pdb)" in question["content"]["prompt"] or "ipdb" in str(question["content"])
            notebook.came.remove(question)
            await notebook.send("stdin", "input_reply", {"value": command})
            if seen:
                await notebook.until(
                    lambda one, seen=seen: (
                        one["header"]["msg_type"] == "stream" and seen in text_of(one)
                    ),
                    seen,
                )
        assert (await notebook.done(cell))["content"]["status"] in ("ok", "error")


async def test_a_killed_broker_leaves_the_notebook_its_kernel_and_variables(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    with start_broker(*place) as broker:
        execute(broker, name, "x = 'kept'")
        async with looking_into(broker, name) as notebook:
            await notebook.run("y = x + ' twice'")
            kill(broker)
            await notebook.until_closed()
    with start_broker(*place) as again:
        model = call(face(again), "GET", f"/api/kernels/{kernel_id('default', name)}").body
        assert model["execution_state"] == "idle"
        async with looking_into(again, name) as notebook:
            cell = await notebook.execute("y")
            assert text_of(await notebook.output(cell, "execute_result")) == "'kept twice'"


async def test_a_restart_is_seen_by_everybody_and_what_waits_runs_after_it(
    broker: RunningBroker,
) -> None:
    name = new_name()
    execute(broker, name, "x = 1")
    place, kernel = face(broker), kernel_id("default", name)
    async with looking_into(broker, name) as notebook:
        answer = await asyncio.to_thread(call, place, "POST", f"/api/kernels/{kernel}/restart", {})
        assert (answer.status, answer.body["execution_state"]) == (200, "idle")
        # Not `restarting`: of that, pages say to people that the kernel has died.
        await notebook.until(
            lambda one: one["content"].get("execution_state") == "starting", "starting"
        )
        assert (await notebook.run("x"))["content"]["ename"] == "NameError"


class Debugger:
    """Speaks DAP over the control channel, as JupyterLab's debugger does."""

    def __init__(self, notebook: Socket) -> None:
        self._notebook = notebook
        self._seq = 0

    async def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        self._seq += 1
        content = {"type": "request", "seq": self._seq, "command": command, "arguments": arguments}
        asked = await self._notebook.send("control", "debug_request", content)
        answer: dict[str, Any] = (await self._notebook.reply(asked))["content"]
        assert answer["success"], answer
        return dict(answer.get("body") or {})

    async def event(self, name: str) -> dict[str, Any]:
        found = await self._notebook.until(
            lambda one: (
                one["header"]["msg_type"] == "debug_event" and one["content"]["event"] == name
            ),
            name,
        )
        self._notebook.came.remove(found)  # the next one is another
        return dict(found["content"].get("body") or {})


async def test_a_breakpoint_stops_a_cell_of_the_sandbox_and_shows_its_variables(
    broker: RunningBroker,
) -> None:
    name = new_name()
    execute(broker, name, "1")
    code = "def double(n):\n    m = n * 2\n    return m\ndouble(21)"
    async with looking_into(broker, name) as notebook:
        debugger = Debugger(notebook)
        await debugger.ask("initialize", clientID="test", adapterID="python", pathFormat="path")
        await debugger.ask("attach")
        path = (await debugger.ask("dumpCell", code=code))["sourcePath"]
        await debugger.ask(
            "setBreakpoints", source={"path": path}, breakpoints=[{"line": 3}], lines=[3]
        )
        await debugger.ask("configurationDone")
        cell = await notebook.execute(code)
        stopped = await debugger.event("stopped")
        frames = await debugger.ask("stackTrace", threadId=stopped["threadId"])
        scopes = await debugger.ask("scopes", frameId=frames["stackFrames"][0]["id"])
        reference = scopes["scopes"][0]["variablesReference"]
        found = await debugger.ask("variables", variablesReference=reference)
        values = {one["name"]: one["value"] for one in found["variables"]}
        assert (values["n"], values["m"]) == ("21", "42")
        await debugger.ask("continue", threadId=stopped["threadId"])
        assert (await notebook.done(cell))["content"]["status"] == "ok"
        assert text_of(await notebook.output(cell, "execute_result")) == "42"


async def test_a_notebook_that_reads_nothing_is_let_go_and_the_chat_goes_on(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    small = {"BROKER_WIRE_CLIENT_BACKLOG": "256K"}
    with start_broker(*place, **small) as broker:
        execute(broker, name, "1")
        async with looking_into(broker, name) as notebook, attached(broker, name) as chat:
            notebook.connection.transport.pause_reading()
            code = "for i in range(60):\n    print('x' * 16000, flush=True)"
            for _ in range(8):
                await chat.run(f"{code}\n    display({{'text/plain': 'y' * 500000}}, raw=True)")
                if "Jupyter client too slow" in broker.log:
                    break  # a connection that does not answer a close is cut off soon
            notebook.connection.transport.resume_reading()
            assert await notebook.until_closed() == 4408
            await chat.run("1")


async def test_the_broker_ends_with_notebooks_open(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    with start_broker(*place) as broker:
        execute(broker, name, "1")
        async with looking_into(broker, name) as notebook:
            await notebook.run("1")
            os.kill(broker.pid, signal.SIGTERM)
            assert await notebook.until_closed() in (1001, 1006)
        await asyncio.to_thread(broker.process.wait, 30)
        assert "Traceback" not in broker.log


async def test_a_jupyter_server_between_gets_text_alone_and_is_told_what_is_left_out(
    broker: RunningBroker,
) -> None:
    name = new_name()
    execute(broker, name, "1")
    url = f"{face(broker).socket_url}/api/kernels/{kernel_id('default', name)}/channels"
    headers = {"Authorization": f"token {broker.token}"}
    code = "from comm import create_comm\nfor _ in 'ab': create_comm('t', buffers=[b'\\x00\\xff'])"
    connection = await websocket_connect(HTTPRequest(url, headers=headers))
    request = {"header": {"msg_id": "m", "msg_type": "execute_request"}, "content": {"code": code}}
    await connection.write_message(json.dumps(request))
    told = []
    while not told or told[-1]["msg_type"] != "execute_reply":
        frame = await connection.read_message()
        assert isinstance(frame, str)
        told.append(json.loads(frame))
    connection.close()
    kinds = [one["msg_type"] for one in told if one["channel"] == "iopub"]
    assert kinds == [
        *("status", "execute_input", "stream", "comm_open", "comm_open", "status"),
    ]
    assert "binary data left out" in text_of(told[2])


async def test_a_notebooks_cell_that_outlived_its_broker_is_told_in_full(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    running, ended = new_name(), new_name()
    cells = {}
    with start_broker(*place) as broker:
        pids = {}
        for name in (running, ended):
            execute(broker, name, "1")
            pids[name] = row_of(broker, name)["pid"]
        async with looking_into(broker, running) as one, looking_into(broker, ended) as other:
            for name, notebook in ((running, one), (ended, other)):
                cells[name] = await notebook.execute(f"{gate()}\nprint('after'); 7")
                await notebook.output(cells[name], "stream")
            kill(broker)
            await one.until_closed()
    open_gate(pids[ended])  # while no broker lives
    with start_broker(*place) as again:
        for name in (ended, running):
            async with looking_into(again, name) as notebook:
                if name == running:
                    info = await notebook.send("shell", "kernel_info_request", {})
                    await notebook.done(info)
                    open_gate(pids[running])
                assert (await notebook.done(cells[name]))["content"]["status"] == "ok"
                result = await notebook.output(cells[name], "execute_result")
                assert text_of(result) == "7"
                texts = [
                    text_of(each)
                    for each in notebook.came
                    if each["header"]["msg_type"] == "stream"
                ]
                # The end of the line before may be heard after the broker's death.
                assert "".join(texts).lstrip("\n") == "after\n"
