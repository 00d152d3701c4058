"""Cells that ask for input and call host tools, through a real broker and both subprotocols."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.system.conftest import RunningBroker
from tests.system.peer import JSON, MSGPACK, Event, Peer, attached, execute, new_name

pytestmark = pytest.mark.asyncio

ECHO = {"name": "echo"}
WEATHER = {
    "name": "get_weather",
    "description": "Tell the weather.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}


@pytest_asyncio.fixture(params=[JSON, MSGPACK])
async def peer(broker: RunningBroker, request: Any) -> AsyncIterator[Peer]:
    async with attached(broker, new_name(), subprotocols=[request.param]) as peer:
        yield peer


async def serve(peer: Peer, *tools: dict[str, Any], name: str = "t") -> Event:
    await peer.send({"type": "tools", "id": name, "tools": [*tools]})
    while True:
        event = await peer.next()
        if event["type"] in ("reply", "fault") and event.get("id") == name:
            return event


async def start(peer: Peer, code: str, name: str = "x", **fields: Any) -> None:
    await peer.send({"type": "execute", "id": name, "code": code, **fields})


def said(peer: Peer, kind: str, name: str = "x") -> list[Event]:
    return [event for event in peer.events if event["type"] == kind and event.get("id") == name]


@pytest.mark.row("input_request", "input_reply")
async def test_a_cell_asks_and_the_answer_comes_back(peer: Peer) -> None:
    await start(peer, "import getpass\nprint('hello', end='')\na = input('name? ')\n"
                      "b = getpass.getpass('secret: ')\na, b")  # fmt: skip
    asked = await peer.until("input_request")
    assert (asked["id"], asked["prompt"], asked["password"]) == ("x", "name? ", False)
    assert said(peer, "stream")[0]["text"] == "hello"  # before the question
    await peer.send({"type": "input_reply", "value": "Ada"})
    asked = await peer.until("input_request")
    assert (asked["prompt"], asked["password"]) == ("secret: ", True)
    await peer.send({"type": "input_reply", "value": "hunter2"})
    result = await peer.until("result")
    assert result["data"]["text/plain"] == "('Ada', 'hunter2')"
    assert (await peer.until("done"))["status"] == "ok"


async def test_whoever_answers_first_is_heard(broker: RunningBroker, peer: Peer) -> None:
    name = new_name()
    async with attached(broker, name) as one, attached(broker, name) as other:
        await start(one, "input()")
        await one.until("input_request")
        await other.until("input_request")
        await other.send({"type": "input_reply", "value": "theirs"})
        assert (await one.until("result"))["data"]["text/plain"] == "'theirs'"
        await one.send({"type": "input_reply", "id": "late", "value": "mine"})
        fault = await one.until("fault")
        assert (fault["code"], fault["id"]) == ("not_running", "late")


async def test_who_watches_may_not_answer(broker: RunningBroker) -> None:
    name = new_name()
    async with attached(broker, name) as peer, attached(broker, name, mode="watch") as watcher:
        await start(peer, "input()")
        await watcher.until("input_request")
        await watcher.send({"type": "input_reply", "value": "x"})
        assert (await watcher.until("fault"))["code"] == "forbidden"
        await watcher.send({"type": "tools", "id": "t", "tools": []})
        assert (await watcher.until("fault"))["code"] == "forbidden"
        await peer.send({"type": "input_reply", "value": None})
        assert (await peer.until("error"))["name"] == "EOFError"


async def test_where_nobody_can_answer_the_cell_is_told_at_once(
    broker: RunningBroker, peer: Peer
) -> None:
    body = await asyncio.to_thread(execute, broker, new_name(), "input()")
    assert body["error"]["name"] == "StdinNotImplementedError"
    events = await peer.run("try:\n    input()\nexcept Exception as e:\n    x = repr(e)",
                            silent=True)  # fmt: skip
    assert events[-1]["status"] == "ok"
    assert "StdinNotImplementedError" in str(await peer.value("x"))


async def test_an_interrupt_ends_a_cell_that_waits_for_input(peer: Peer) -> None:
    await start(peer, "input()")
    await peer.until("input_request")
    await peer.send({"type": "interrupt", "id": "i"})
    assert (await peer.until("error"))["name"] == "KeyboardInterrupt"
    assert (await peer.until("done"))["status"] == "interrupted"
    await peer.send({"type": "input_reply", "id": "late", "value": "x"})
    assert (await peer.until("fault"))["code"] == "not_running"
    assert await peer.value("1 + 1") == "2"


async def test_the_time_of_a_cell_goes_on_while_it_waits(peer: Peer) -> None:
    await start(peer, "input()", timeout=0.5)
    await peer.until("input_request")
    done = await peer.until("done")
    assert (done["status"], done["reason"]) == ("timeout", "timeout")


async def test_a_question_waits_for_whoever_comes(broker: RunningBroker) -> None:
    name = new_name()
    async with attached(broker, name) as peer:
        await start(peer, "input('who? ')")
        asked = await peer.until("input_request")
    async with attached(broker, name) as fresh, attached(broker, name, after=0) as back:
        session = await fresh.until("session")
        assert [one["prompt"] for one in session["waiting"]] == ["who? "]
        assert (await back.until("input_request"))["seq"] == asked["seq"]
        await fresh.send({"type": "input_reply", "value": "me"})
        assert (await fresh.until("result"))["data"]["text/plain"] == "'me'"


async def test_a_debugger_is_talked_to(peer: Peer) -> None:
    await start(peer, "def f(n):\n    breakpoint()\n    return n\nf(5)")
    for line in ("p n + 1", "c"):
        assert (await peer.until("input_request"))["prompt"] == "ipdb> "
        await peer.send({"type": "input_reply", "value": line})
    assert (await peer.until("result"))["data"]["text/plain"] == "5"
    assert "6" in "".join(event["text"] for event in said(peer, "stream"))


@pytest.mark.row("tools", "tool_call", "tool_result")
async def test_a_cell_calls_a_tool_as_a_function(peer: Peer) -> None:
    assert (await serve(peer, WEATHER))["tools"] == ["get_weather"]
    await start(peer, "get_weather(city='Oslo')")
    call = await peer.until("tool_call")
    assert (call["id"], call["name"], call["args"], call["kwargs"], call["tools"]) == (
        "x", "get_weather", [], {"city": "Oslo"}, "t")  # fmt: skip
    raw = b"\x00\xff" if peer.is_binary else {"base64": "AP8="}
    value = {"sunny": [True, None, 1.5], "raw": raw}
    await peer.send({"type": "tool_result", "call": call["call"], "value": value})
    shown = (await peer.until("result"))["data"]["text/plain"]
    assert shown == "{'sunny': [True, None, 1.5], 'raw': b'\\x00\\xff'}"
    assert (await peer.until("done"))["status"] == "ok"


async def test_bytes_and_nested_data_reach_the_tool(peer: Peer) -> None:
    await serve(peer, ECHO)
    await start(peer, "echo([{'raw': b'\\x00\\xff'}], 2, deep=[[['x']]])")
    call = await peer.until("tool_call")
    raw = b"\x00\xff" if peer.is_binary else {"base64": "AP8="}
    assert call["args"] == [[{"raw": raw}], 2]
    assert call["kwargs"] == {"deep": [[["x"]]]}
    error = {"name": "PermissionError", "message": "not today"}
    await peer.send({"type": "tool_result", "call": call["call"], "error": error})
    failed = await peer.until("error")
    assert (failed["name"], failed["message"]) == ("ToolError", "PermissionError: not today")
    assert "futures" not in "\n".join(failed["traceback"])


async def test_only_who_registered_a_tool_may_answer(broker: RunningBroker) -> None:
    name = new_name()
    async with attached(broker, name) as peer, attached(broker, name) as other:
        await serve(peer, ECHO)
        await start(other, "echo(1)")
        seen = await other.until("tool_call")
        await other.send({"type": "tool_result", "id": "r", "call": seen["call"], "value": 0})
        assert (await other.until("fault"))["code"] == "forbidden"
        await peer.until("tool_call")
        await peer.send({"type": "tool_result", "call": seen["call"], "value": 1})
        assert (await other.until("result"))["data"]["text/plain"] == "1"


async def test_a_tool_nobody_serves_any_more_fails_at_once(peer: Peer) -> None:
    await serve(peer, ECHO)
    await peer.run("kept = echo")
    await serve(peer, name="t2")
    events = await peer.run("kept(1)")
    error = next(event for event in events if event["type"] == "error")
    assert error["message"] == "NotServed: nobody serves echo"
    events = await peer.run("echo")
    assert next(event for event in events if event["type"] == "error")["name"] == "NameError"


async def test_the_server_of_a_tool_may_reconnect(broker: RunningBroker) -> None:
    name = new_name()
    async with attached(broker, name) as watcher:
        async with attached(broker, name) as peer:
            await serve(peer, ECHO)
            await start(watcher, "echo(1)")
            await peer.until("tool_call")
        async with attached(broker, name) as back:
            session = await back.until("session")
            assert [one["name"] for one in session["waiting"]] == ["echo"]
            await back.send({"type": "tools", "id": "again", "tools": [ECHO]})
            call = await back.until("tool_call", tools="again")
            await back.send({"type": "tool_result", "call": call["call"], "value": "back"})
            assert (await watcher.until("result"))["data"]["text/plain"] == "'back'"


async def test_ten_calls_at_once_take_the_time_of_one(peer: Peer) -> None:
    await serve(peer, ECHO)
    tasks = set()

    async def answer(call: Event) -> None:
        await asyncio.sleep(1)  # what the tool takes
        await peer.send({"type": "tool_result", "call": call["call"], "value": call["args"][0]})

    await start(peer, "import asyncio\nawait asyncio.gather(*(echo.aio(n) for n in range(10)))")
    began = time.monotonic()
    while (event := await peer.next())["type"] != "done":
        if event["type"] == "tool_call":
            tasks.add(asyncio.create_task(answer(event)))
    assert event["status"] == "ok"
    assert 1 < time.monotonic() - began < 5
    assert said(peer, "result")[0]["data"]["text/plain"] == str(list(range(10)))


async def test_an_interrupt_ends_a_call(peer: Peer) -> None:
    await serve(peer, ECHO)
    await start(peer, "echo(1)")
    call = await peer.until("tool_call")
    await peer.send({"type": "interrupt", "id": "i"})
    assert (await peer.until("done"))["status"] == "interrupted"
    await peer.send({"type": "tool_result", "call": call["call"], "value": 1, "id": "r"})
    assert (await peer.until("fault"))["code"] == "not_running"


async def test_a_call_waits_on_the_clock_and_uses_no_cpu(peer: Peer) -> None:
    await serve(peer, ECHO)
    await start(peer, "echo(1)", timeout=0.5)
    await peer.until("tool_call")
    done = await peer.until("done")
    assert done["status"] == "timeout"
    assert done["cpu"] < 0.4


async def test_a_bad_tool_is_a_fault_that_names_the_field(peer: Peer) -> None:
    fault = await serve(peer, {"name": "class"})
    assert (fault["type"], fault["code"], fault["field"]) == ("fault", "bad_message", "tools")
    assert await peer.value("1") == "1"
