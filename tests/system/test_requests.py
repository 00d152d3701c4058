"""Batches, calls, variables and surroundings, end to end, in both subprotocols and over HTTP."""

from __future__ import annotations

import json
import math
import os
import signal
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.system.conftest import RunningBroker
from tests.system.peer import (
    JSON,
    MSGPACK,
    Event,
    Peer,
    attached,
    call,
    execute,
    new_name,
    row_of,
    value_of,
)

BOTH = pytest.mark.parametrize("subprotocol", [MSGPACK, JSON])


async def ask(peer: Peer, kind: str, **fields: Any) -> list[Event]:
    """Send a request; return its events up to its last one."""
    request_id = str(fields.setdefault("id", uuid.uuid4().hex))
    await peer.send({"type": kind, **fields})
    events = []
    while True:
        event = await peer.next()
        if event.get("id") == request_id:
            events.append(event)
            last = event["type"] == "done" and "cell" not in event
            if last or event["type"] in ("fault", "reply"):
                return events


def text_of(events: list[Event]) -> str:
    return "".join(event["text"] for event in events if event["type"] == "stream")


# Variables


@BOTH
async def test_inputs_are_variables_as_they_were_given(
    broker: RunningBroker, subprotocol: str
) -> None:
    inputs = {"a": [1, 2.5, None, True, "größe"], "b": {"$int": {"x y": [[]]}}}
    if subprotocol == MSGPACK:
        inputs |= {"c": b"\xff\x00", "d": [math.inf, 2**64 - 1]}
    else:
        inputs |= {"c": {"base64": "/wA="}}
    async with attached(broker, new_name(), subprotocols=[subprotocol]) as peer:
        names = ", ".join(inputs)
        told = await ask(peer, "execute", code=f"print([{names}])", inputs=inputs)
        expected = [b"\xff\x00" if name == "c" else value for name, value in inputs.items()]
        assert text_of(told) == f"{expected}\n"
        assert await peer.value("c") == repr(b"\xff\x00")


async def test_a_name_that_is_none_is_refused_and_nothing_runs(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:
        for name in ("1x", "x y", "class", "__builtins__", "x" * 300):
            (fault,) = await ask(peer, "execute", code="print('ran')", inputs={name: 1})
            assert (fault["code"], fault["field"]) == ("bad_message", "inputs")
        assert await peer.value("1 + 1") == "2"
        assert not [event for event in peer.events if event["type"] == "stream"]


# Calls


@BOTH
@pytest.mark.row("call", "value")
async def test_a_call_is_answered_with_plain_data(broker: RunningBroker, subprotocol: str) -> None:
    async with attached(broker, new_name(), subprotocols=[subprotocol]) as peer:
        source = "def f(x, *, y):\n    print(x)\n    return [x, y, b'\\xff', float('nan'), 2**70]"
        told = await ask(peer, "call", function=source, args=["a"], kwargs={"y": {"b": None}})
        kinds = dict.fromkeys(event["type"] for event in told)
        assert [*kinds] == ["started", "stream", "value", "done"]
        assert told[0]["code"] == source
        x, y, binary, not_a_number, large = told[-2]["value"]
        assert (x, y, large) == ("a", {"b": None}, str(2**70))
        if subprotocol == MSGPACK:
            assert binary == b"\xff"
            assert math.isnan(not_a_number)
        else:
            assert binary == {"base64": "/w=="}
            assert not_a_number is None
        assert told[-1]["status"] == "ok"
        assert told[-1]["execution_count"] is None


async def test_calls_see_the_session_and_the_session_sees_nothing_of_them(
    broker: RunningBroker,
) -> None:
    async with attached(broker, new_name()) as peer:
        await peer.run("base = 40\ndef add(x): return base + x")
        assert (await ask(peer, "call", function="add", args=[2]))[-2]["value"] == 42
        assert (await ask(peer, "call", function="lambda: base"))[-2]["value"] == 40
        await ask(peer, "call", function="def gone(): pass")
        assert await peer.value("'gone' in globals(), len(In)") == "(False, 3)"


async def test_a_call_that_fails_says_where(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:
        told = await ask(peer, "call", function="def f(x):\n    return 1 / x", args=[0])
        assert [event["type"] for event in told] == ["started", "error", "done"]
        assert (told[1]["name"], told[2]["status"]) == ("ZeroDivisionError", "error")
        traceback = "\n".join(told[1]["traceback"])
        assert "return 1 / x" in traceback
        assert "_kernel" not in traceback
        told = await ask(peer, "call", function="1 + 1")
        assert told[1]["message"].startswith("function: expected the source of one lambda")


async def test_what_has_no_plain_form_is_shown(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:
        code = "def f():\n    import pandas\n    return pandas.DataFrame({'a': [1]}).style"
        told = await ask(peer, "call", function=code)
        assert "<table" in told[-2]["data"]["text/html"]
        (*_, error, done) = await ask(peer, "call", function="lambda: [object()]")
        assert error["message"].startswith("value[0]: an object has no plain form")
        assert done["status"] == "error"


async def test_hostile_values_are_errors_and_the_session_lives_on(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:
        for function, word in (
            ("def f():\n a = 1\n for _ in range(10_000): a = [a]\n return a", "nested deeper"),
            ("lambda: b'a' * 100_000_000", "bytes as data; return less"),
            ("lambda: [[]] * 10**6", "lists, maps and members"),
            ("def f():\n a = {}\n a['a'] = a\n return a", "contains itself"),
        ):
            (*_, error, done) = await ask(peer, "call", function=function)
            assert (error["name"], done["status"]) == ("ValueError", "error")
            assert word in error["message"]
        forge = (
            "def f():\n    k = get_ipython().kernel\n"
            "    def say(**c): k.send_response(k.iopub_socket, 'broker_value', c)\n"
            "    say(value={'$reduce': ['os', 'system']})\n    say(nothing=1)\n"
            "    v = 1\n    for _ in range(900): v = [v]\n    say(value=v)\n"
            "    say(value=[[]] * 300_000)\n    return 3"
        )
        told = await ask(peer, "call", function=forge)
        values = [event for event in told if event["type"] == "value"]
        assert len(values) == 1
        assert "left out" in values[0]["data"]["text/plain"]
        forged = "k = get_ipython().kernel; "
        forged += "k.send_response(k.iopub_socket, 'broker_value', {'value': 1})"
        assert not [e for e in await ask(peer, "execute", code=forged) if e["type"] == "value"]
        assert await peer.value("1 + 1") == "2"


async def test_a_call_is_interrupted_and_timed_out_like_code(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:
        loop = "async def f():\n    import asyncio\n    print('up', flush=True)\n"
        await peer.send(
            {"type": "call", "id": "c", "function": loop + "    await asyncio.sleep(99)"}
        )
        await peer.until("stream")
        await peer.send({"type": "interrupt", "id": "i", "target": "c"})
        assert (await peer.until("done", id="c"))["status"] == "interrupted"
        told = await ask(peer, "call", function="def f():\n    while True: pass", timeout=0.3)
        assert told[-1]["status"] == "timeout"
        assert await peer.value("1 + 1") == "2"


# Batches


@BOTH
@pytest.mark.row("batch")
async def test_the_cells_of_a_batch_run_one_after_the_other(
    broker: RunningBroker, subprotocol: str
) -> None:
    async with attached(broker, new_name(), subprotocols=[subprotocol]) as peer:
        cells = [{"code": "x = 1"}, {"code": "print(x)\nx + 1"}]
        told = await ask(peer, "batch", cells=cells)
        shape = dict.fromkeys((event["type"], event.get("cell")) for event in told)
        assert [*shape] == [
            ("started", 0),
            ("done", 0),
            ("started", 1),
            ("stream", 1),
            ("result", 1),
            ("done", 1),
            ("done", None),
        ]
        last = told[-1]
        assert (last["status"], last["cells"], last["output_bytes"] > 0) == ("ok", 2, True)


async def test_a_batch_ends_at_its_first_failing_cell(broker: RunningBroker) -> None:
    cells = [{"code": "1"}, {"code": "1 / 0"}, {"code": "print('ran')"}]
    async with attached(broker, new_name()) as peer:
        told = await ask(peer, "batch", cells=cells)
        ends = [event["status"] for event in told if event["type"] == "done"]
        assert ends == ["ok", "error", "aborted", "error"]
        told = await ask(peer, "batch", cells=cells, stop_on_error=False)
        ends = [event["status"] for event in told if event["type"] == "done"]
        assert ends == ["ok", "error", "ok", "error"]


async def test_a_kernel_that_ends_in_a_batch_ends_the_batch(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:
        cells = [{"code": "1"}, {"code": "import os; os._exit(3)"}, {"code": "2"}]
        told = await ask(peer, "batch", cells=cells)
        ends = [(e["status"], e.get("reason")) for e in told if e["type"] == "done"]
        assert [status for status, _ in ends] == ["ok", "lost", "aborted", "lost"]
        assert ends[-1][1] == "exit 3"


@pytest.mark.parametrize("stop_on_error", [True, False])
@pytest.mark.parametrize("code", ["exit()", "quit()", "get_ipython().exit_now = True\n1"])
async def test_a_cell_that_exits_ends_its_batch_and_each_cell_is_told_once(
    broker: RunningBroker, code: str, *, stop_on_error: bool
) -> None:
    async with attached(broker, new_name()) as peer:
        codes = ["x = 1", f"print('last words')\n{code}", "print('ran')", "x"]
        cells = [{"code": each} for each in codes]
        told = await ask(peer, "batch", cells=cells, stop_on_error=stop_on_error)
        assert text_of(told) == "last words\n"
        ends = [(e.get("cell"), e["status"], e.get("reason")) for e in told if e["type"] == "done"]
        unrun = "aborted", "the kernel was lost before it ran"
        expected = [(0, "ok", None), (1, "lost", "exit 0"), (2, *unrun), (3, *unrun)]
        assert ends == [*expected, (None, "lost", "exit 0")]
        assert told[-1]["cells"] == 2
        lost = await peer.until("session")
        assert (lost["state"], lost["generation"], lost["reason"]) == ("lost", 1, "exit 0")
        [*_, error, done] = await peer.run("x")
        assert (error["name"], done["generation"]) == ("NameError", 2)
        assert [e for e in peer.events if e.get("id") == told[-1]["id"]] == told, "told once"


# Surroundings

LOOK = "import os; print(os.environ.get('A'), os.environ.get('B'), os.path.basename(os.getcwd()))"


async def test_an_environment_and_a_directory_hold_for_one_execution(
    broker: RunningBroker,
) -> None:
    async with attached(broker, new_name()) as peer:
        await peer.run("import os; os.mkdir('sub')")
        lent = {"env": {"A": "1"}, "cwd": "sub"}
        assert text_of(await ask(peer, "execute", code=LOOK, **lent)) == "1 None sub\n"
        await ask(peer, "execute", code="while True: pass", timeout=0.3, **lent)
        home = await peer.value("os.path.basename(os.environ['HOME'])")
        assert text_of(await ask(peer, "execute", code=LOOK)) == f"None None {str(home)[1:-1]}\n"
        function = "lambda: [os.environ['A'], os.path.basename(os.getcwd())]"
        assert (await ask(peer, "call", function=function, **lent))[-2]["value"] == ["1", "sub"]
        told = await ask(peer, "execute", code="print('ran')", cwd="absent")
        assert [event["type"] for event in told] == ["started", "error", "done"]
        assert told[1]["name"] == "FileNotFoundError"
        assert "absent" in told[1]["message"]


@pytest.mark.row("configure")
async def test_what_is_configured_holds_in_order_and_for_later_kernels(
    broker: RunningBroker,
) -> None:
    async with attached(broker, new_name()) as peer:
        await peer.run("import os; os.mkdir('sub')")
        before = {"type": "execute", "id": "before", "code": LOOK}
        await peer.send(before)
        (reply,) = await ask(peer, "configure", env={"A": "1", "B": "2"}, cwd="sub")
        assert reply["type"] == "reply"
        told = await ask(peer, "execute", code=LOOK)
        assert text_of(told) == "1 2 sub\n"
        outputs = [e["text"] for e in peer.events if e.get("id") == "before" and "text" in e]
        assert outputs[0].startswith("None None ")
        await ask(peer, "configure", env={"B": None})
        assert text_of(await ask(peer, "execute", code=LOOK)) == "1 None sub\n"
        await ask(peer, "restart")
        assert text_of(await ask(peer, "execute", code=LOOK)) == "1 None sub\n"
        await peer.run("os._exit(3)")
        assert text_of(await ask(peer, "execute", code=LOOK)) == "1 None sub\n"


async def test_a_directory_that_is_not_there_is_told_once_and_the_former_one_stays(
    broker: RunningBroker,
) -> None:
    async with attached(broker, new_name()) as peer:
        await peer.run("import os; os.mkdir('sub')")
        await ask(peer, "configure", cwd="sub")
        assert text_of(await ask(peer, "execute", code=LOOK)) == "None None sub\n"
        await ask(peer, "configure", env={"A": "1"}, cwd="absent")
        told = await ask(peer, "execute", code="print('ran')")
        assert [event["type"] for event in told] == ["started", "error", "done"]
        assert told[1]["name"] == "FileNotFoundError"
        assert told[1]["message"].endswith("the former one stays: 'absent'")
        assert text_of(await ask(peer, "execute", code=LOOK)) == "1 None sub\n"
        await ask(peer, "restart")
        assert text_of(await ask(peer, "execute", code=LOOK)) == "1 None sub\n"


# Over HTTP


@pytest.mark.row("POST /v1/sessions/{s}/call", "POST /v1/call")
def test_a_call_over_http_is_answered_with_its_value(broker: RunningBroker) -> None:
    session = new_name()
    body = {"function": "lambda x: [x, b'\\xff', float('inf')]", "args": [{"base64": "AA=="}]}
    answer = call(broker, "POST", f"/v1/sessions/{session}/call", body).body
    assert (answer["status"], answer["data"]) == ("ok", None)
    assert answer["value"] == [{"base64": "AA=="}, {"base64": "/w=="}, None]
    shown = call(broker, "POST", "/v1/call", {"function": "object"}).body
    assert shown["value"] is None
    assert shown["data"]["text/plain"].startswith("<object")
    failed = call(broker, "POST", "/v1/call", {"function": "lambda: 1 / 0"}).body
    assert (failed["value"], failed["error"]["name"]) == (None, "ZeroDivisionError")
    accept = {"Accept": "application/x-ndjson"}
    lines = call(broker, "POST", "/v1/call", {"function": "lambda: 1"}, **accept).text.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["started", "value", "done"]


def test_code_over_http_brings_variables_and_surroundings(broker: RunningBroker) -> None:
    session = new_name()
    answer = execute(broker, session, f"{LOOK}; x", inputs={"x": [1]}, env={"A": "1"}, cwd="/")
    assert answer["stdout"] == "1 None \n"
    assert answer["result"]["text/plain"] == "[1]"


def test_a_body_that_is_refused_opens_no_session(broker: RunningBroker) -> None:
    session = new_name()
    for action, body, field in (
        ("/execute", {"code": "1", "inputs": {"1x": 1}}, "inputs"),
        ("/execute", {"code": "1", "env": {"A": "a\0b"}}, "env"),
        ("/execute", {"code": "1", "env": {"A=B": "1"}}, "env"),
        ("/execute", {"code": "1", "cwd": ""}, "cwd"),
        ("/call", {"function": ""}, "function"),
        ("/call", {"args": []}, "function"),
        ("/call", {"function": "f", "kwargs": [1]}, "kwargs"),
        ("", {"env": {"A": 1}}, "env"),
        ("", {"env": {"A": "a\0b"}}, "env"),
        ("", {"env": {f"A{number}": 30_000 * "x" for number in range(9)}}, "env"),
        ("", {"limits": {"disk": "1G"}}, "disk"),
        ("", {"limits": {"memory": "lots"}}, "memory"),
        ("", {"more": 1}, "more"),
    ):
        answer = call(broker, "POST", f"/v1/sessions/{session}{action}", body)
        assert (answer.status, answer.error["field"]) == (400, field), body
        assert call(broker, "GET", f"/v1/sessions/{session}").status == 404


@pytest.mark.row("POST /v1/sessions/{s}")
def test_a_session_is_opened_with_an_environment(broker: RunningBroker) -> None:
    session = new_name()
    body = {"env": {"A": "1"}, "cwd": "/usr", "limits": {"execution_timeout": 90}}
    answer = call(broker, "POST", f"/v1/sessions/{session}", body)
    assert (answer.status, answer.body["session"]) == (200, session)
    assert execute(broker, session, LOOK)["stdout"] == "1 None usr\n"
    assert call(broker, "POST", f"/v1/sessions/{session}", {"env": {"B": "2"}}).status == 200
    assert execute(broker, session, LOOK)["stdout"] == "1 2 usr\n"
    told = call(broker, "POST", f"/v1/sessions/{session}", {"limits": {"execution_timeout": 80}})
    assert (told.status, told.error["field"]) == (400, "execution_timeout")
    assert call(broker, "POST", f"/v1/sessions/{session}").body["state"] == "ready"
    url = f"/v1/sessions/{session}?env=A"
    assert call(broker, "POST", url, {}).error["field"] == "env"


# Where nothing of it may be


async def test_values_are_written_nowhere_and_shown_to_nobody(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    directory, secret = short_dir(), "s3cret-of-this-test"
    flags = ("--log-level", "debug", "--warm", "1", "--preload", "json")
    audited = {"BROKER_AUDIT_LOG": "on", "BROKER_AUDIT_CODE": "on"}
    with start_broker(directory, *flags, **audited) as first:
        body = {"env": {"OPENED": secret}}
        answers = [call(first, "POST", "/v1/sessions/kept", body).text]
        async with attached(first, "kept", subprotocols=[MSGPACK]) as peer:
            await ask(peer, "configure", env={"SET": secret})
            await ask(peer, "execute", code="1", inputs={"x": secret}, env={"LENT": secret})
            await ask(peer, "call", function="lambda x: 1", args=[secret], env={"LENT": secret})
            await ask(peer, "execute", code="1", env={"LENT": secret}, cwd="absent")
            await ask(peer, "execute", code="1", env={"LENT": f"{secret}\0"})
            await ask(peer, "execute", code="1", env={"LE=NT": secret})
            await ask(peer, "execute", code="1", env={"LENT": [secret]})
            await ask(peer, "configure", env={f"N{n}": secret * 1000 for n in range(20)})
            answers.append(str(peer.events))
        paths = "/v1/sessions", "/v1/sessions/kept", "/v1/pools", "/v1/nodes", "/metrics"
        answers += [call(first, "GET", path).text for path in paths]
        assert secret not in "".join(answers)
        assert "broker.audit" in first.log
        assert secret not in first.log
        store = redis.Redis(unix_socket_path=str(directory / "valkey.sock"))
        for key in store.scan_iter():
            assert secret.encode() not in store.dump(key), key
        store.close()
        for path in directory.rglob("*"):
            if path.is_file():
                assert secret.encode() not in path.read_bytes(), path
        assert value_of(first, "kept", "__import__('os').environ['SET']") == repr(secret)
        os.kill(first.pid, signal.SIGKILL)
        first.process.wait(20)
    with start_broker(directory, *flags, **audited) as second:
        # The kernel has it still; the broker, who was killed, has kept it for no other.
        assert value_of(second, "kept", "__import__('os').environ['SET']") == repr(secret)
        assert row_of(second, "kept")["generation"] == 1
        call(second, "POST", "/v1/sessions/kept/restart")
        assert value_of(second, "kept", "'SET' in __import__('os').environ") == "False"
        assert secret not in second.log
