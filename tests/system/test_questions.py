"""Questions beside executions, over both subprotocols and HTTP."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.system.conftest import RunningBroker
from tests.system.peer import (
    JSON,
    MSGPACK,
    Peer,
    attached,
    call,
    execute,
    gate,
    new_name,
    open_gate,
)

BOTH = pytest.mark.parametrize("subprotocol", [JSON, MSGPACK])
STUCK = """
import time
class Stuck:
    def __dir__(self): time.sleep(30)
    def __getattr__(self, name): time.sleep(30)
    def __repr__(self): time.sleep(30)
stuck = Stuck()
"""


async def ask(peer: Peer, kind: str, **fields: Any) -> dict[str, Any]:
    await peer.send({"type": kind, "id": f"{kind}-q", **fields})
    while True:
        event = await peer.next()
        if event.get("id") == f"{kind}-q":
            return event


@BOTH
@pytest.mark.row("complete", "inspect", "variables")
async def test_an_idle_session_answers_what_it_is_asked(
    broker: RunningBroker, subprotocol: str
) -> None:
    async with attached(broker, new_name(), subprotocols=[subprotocol]) as peer:
        await peer.run("chapter_one = [1, 2]")
        told = await ask(peer, "complete", code="chapter_", cursor=8)
        assert told["type"] == "reply"
        assert told["matches"] == ["chapter_one"]
        assert (told["cursor_start"], told["cursor_end"]) == (0, 8)
        told = await ask(peer, "inspect", code="chapter_one", cursor=4)
        assert told["found"]
        assert "list" in told["data"]["text/plain"]
        told = await ask(peer, "variables")
        [row] = told["variables"]
        assert (row["name"], row["type"], row["length"]) == ("chapter_one", "list", 2)
        assert row["preview"] == "[1, 2]"
        told = await ask(peer, "variables", names=["nope"])
        assert told["missing"] == ["nope"]


@BOTH
async def test_a_busy_session_answers_beside_its_cell(
    broker: RunningBroker, subprotocol: str
) -> None:
    name = new_name()
    async with (
        attached(broker, name, subprotocols=[subprotocol]) as peer,
        attached(broker, name, subprotocols=[subprotocol]) as other,
    ):
        await peer.send({"type": "execute", "id": "x", "code": "kept = 5\n" + gate()})
        await peer.until("stream", text="up\n")
        told = await ask(peer, "variables", names=["kept"])
        assert told["variables"][0]["preview"] == "5"
        assert (await ask(peer, "complete", code="kep", cursor=3))["matches"] == ["kept"]
        pid = pid_of(broker, name)
        open_gate(pid)
        assert (await peer.until("done"))["status"] == "ok"
        await other.until("done")
        assert not [event for event in other.events if event["type"] == "reply"]


def pid_of(broker: RunningBroker, name: str) -> int:
    pools = call(broker, "GET", "/v1/pools").body["pools"]
    found = [row for pool in pools for row in pool["kernels"] if row["session"] == name]
    return int(found[0]["pid"])


@BOTH
async def test_objects_that_block_in_c_cost_a_bounded_time(
    broker: RunningBroker, subprotocol: str
) -> None:
    async with attached(broker, new_name(), subprotocols=[subprotocol]) as peer:
        await peer.run(STUCK)
        began = time.monotonic()
        told = await ask(peer, "variables")
        assert time.monotonic() - began < 3
        assert told["variables"][0]["preview"] == "<__main__.Stuck object>"
        told = await ask(peer, "complete", code="stuck.", cursor=6)
        assert told["type"] in ("reply", "fault")
        assert time.monotonic() - began < 6
        assert await peer.value("1 + 1") == "2"  # its own thread was never theirs


async def test_code_that_keeps_the_interpreter_is_a_busy_kernel(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:
        # One regular expression that backtracks for long, and lets nobody else run.
        code = "import re\nprint('in', flush=True)\nre.match('(a+)+$', 'a' * 40 + 'b')"
        await peer.send({"type": "execute", "id": "x", "code": code})
        await peer.until("stream", text="in\n")
        began, told = time.monotonic(), await ask(peer, "variables")
        while told["type"] == "reply":  # it has said that it goes in, and is not there yet
            began, told = time.monotonic(), await ask(peer, "variables")
        assert told["type"] == "fault"
        assert told["code"] == "busy"
        assert told["retry_after"] > 0
        assert time.monotonic() - began > 1  # it had its time to answer
        await peer.send({"type": "interrupt", "id": "i"})  # it would go on for hours
        assert (await peer.until("done"))["status"] == "interrupted"


async def test_who_only_watches_may_not_ask(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "1")
    async with attached(broker, name, mode="watch") as peer:
        assert (await ask(peer, "variables"))["code"] == "forbidden"


@pytest.mark.row("open questions of a session")
async def test_open_questions_of_a_session_are_bounded(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:
        await peer.run(STUCK)
        for number in range(17):
            await peer.send({"type": "variables", "id": f"v{number}"})
        assert (await peer.until("fault", id="v16"))["code"] == "queue_full"
        ends = {"v16"}
        while len(ends) < 17:
            event = await peer.next()
            if event["type"] in ("reply", "fault"):
                ends.add(event["id"])
        assert await peer.value("1 + 1") == "2"


async def test_a_lost_kernel_ends_what_it_was_asked(broker: RunningBroker) -> None:
    name = new_name()
    async with attached(broker, name) as peer:
        await peer.run(STUCK)
        await peer.send({"type": "variables", "id": "v"})
        await peer.send({"type": "restart", "id": "r"})
        assert (await peer.until("fault", id="v"))["code"] == "busy"
        assert (await peer.until("reply", id="r"))["generation"] == 2
        assert (await ask(peer, "variables"))["variables"] == []


@pytest.mark.row("GET /v1/sessions/{s}/variables")
def test_variables_over_http(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "a = 1; b = 'two'")
    body = call(broker, "GET", f"/v1/sessions/{name}/variables").body
    assert body["session"] == name
    assert {row["name"]: row["preview"] for row in body["variables"]} == {"a": "1", "b": "'two'"}
    body = call(broker, "GET", f"/v1/sessions/{name}/variables?names=a,z&max=1").body
    assert [row["name"] for row in body["variables"]] == ["a"]
    assert body["missing"] == ["z"]
    assert call(broker, "GET", f"/v1/sessions/{new_name()}/variables").status == 404
    for query in ("max=0", "max=x", "max=99999999999", "nmes=a"):
        answer = call(broker, "GET", f"/v1/sessions/{name}/variables?{query}")
        assert answer.status == 400, query


def test_questions_leave_executions_as_they_were(broker: RunningBroker) -> None:
    name = new_name()
    assert execute(broker, name, "x = 41\nx")["execution_count"] == 1
    call(broker, "GET", f"/v1/sessions/{name}/variables")
    done = execute(broker, name, "x + 1")
    assert done["execution_count"] == 2
    assert done["result"]["text/plain"] == "42"


FORGE = """
kernel = get_ipython().kernel
asked, _, number = get_ipython().parent_header["msg_id"].rpartition("_")
row = {"name": "forged", "type": "x", "preview": "y"}
def flood(count):  # with one message, again and again: the broker looks at each
    [ident] = kernel.control_stream._peers
    message = kernel.session.msg("question_reply", {"status": "ok"}, {"header": {"msg_id": "x"}})
    frames = [ident, *kernel.session.serialize(message)]
    for _ in range(count):
        kernel.control_stream.send_multipart(frames)
def forge(count):
    for step in range(count):
        parent = {"header": {"msg_id": f"{asked}_{int(number) + step % 100}"}}
        for ident in list(kernel.control_stream._peers):
            content = {"status": "ok", "variables": [row]}
            kernel.session.send(kernel.control_stream, "question_reply", content, parent, [ident])
"""


async def test_answers_that_nobody_waits_for_are_answers_to_nothing(broker: RunningBroker) -> None:
    async with attached(broker, new_name()) as peer:
        assert (await peer.run(FORGE))[-1]["status"] == "ok"
        assert (await peer.run("forge(500)"))[-1]["status"] == "ok"
        told = await ask(peer, "variables", names=["number", "forged"])
        assert [row["name"] for row in told["variables"]] == ["number"]
        assert told["missing"] == ["forged"]


async def test_a_flood_of_forged_answers_ends_its_kernel_alone(broker: RunningBroker) -> None:
    other = new_name()
    execute(broker, other, "kept = 1")
    async with attached(broker, new_name()) as peer:
        await peer.run(FORGE)
        done = (await peer.run("flood(400_000)"))[-1]
        assert (done["status"], done["reason"]) == ("lost", "bad_frame")
        assert await peer.value("1 + 1") == "2"
    assert execute(broker, other, "kept")["result"]["text/plain"] == "1"
