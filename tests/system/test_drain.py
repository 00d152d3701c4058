"""A node that is emptied, so that it can be stopped."""

from __future__ import annotations

from typing import Any

import pytest

from tests.system.conftest import RunningBroker
from tests.system.peer import ask_until, attached, call, execute, gate, new_name, open_gate, row_of


@pytest.fixture
def node(broker: RunningBroker) -> Any:
    name = call(broker, "GET", "/v1/nodes").body["nodes"][0]["node"]
    yield name
    assert call(broker, "DELETE", f"/v1/nodes/{name}/drain").body["draining"] is False


def live(broker: RunningBroker) -> set[str]:
    return {row["session"] for row in call(broker, "GET", "/v1/sessions").body["sessions"]}


def pid_of(broker: RunningBroker, name: str) -> int:
    pools = call(broker, "GET", "/v1/pools").body["pools"]
    found = [row for pool in pools for row in pool["kernels"] if row["session"] == name]
    return int(found[0]["pid"])


async def test_what_runs_is_let_end_and_what_is_idle_goes_away(
    broker: RunningBroker, node: str
) -> None:
    idle, busy = new_name("idle"), new_name("busy")
    async with attached(broker, idle) as one, attached(broker, busy) as other:
        await one.run("a = 1")
        await other.send({"type": "execute", "id": "x", "code": gate()})
        await other.send({"type": "execute", "id": "y", "code": "'queued'"})
        await other.until("stream", text="up\n")
        told = call(broker, "POST", f"/v1/nodes/{node}/drain").body
        assert (told["draining"], told["busy"]) == (True, 1)
        assert (await one.closed())[0] == 1001
        open_gate(pid_of(broker, busy))
        assert (await other.until("done", id="x"))["status"] == "ok"
        assert (await other.until("done", id="y"))["status"] == "ok"
        assert (await other.closed())[0] == 1001
    ask_until(lambda: not live(broker) & {idle, busy}, "sessions ended")
    assert row_of(broker, idle)["reason"] == "drained"


@pytest.mark.row("POST /v1/nodes/{n}/drain")
def test_a_draining_node_says_so_and_takes_nothing_new(broker: RunningBroker, node: str) -> None:
    call(broker, "POST", f"/v1/nodes/{node}/drain")
    [told] = call(broker, "GET", "/v1/nodes").body["nodes"]
    assert told["draining"] is True
    assert call(broker, "GET", "/readyz").status == 503
    assert "draining" in call(broker, "GET", "/readyz").body["reasons"]
    refused = call(broker, "POST", f"/v1/sessions/{new_name()}/execute", {"code": "1"})
    assert (refused.status, refused.error["code"]) == (503, "draining")
    assert call(broker, "DELETE", f"/v1/nodes/{node}/drain").status == 200
    assert execute(broker, new_name(), "1 + 1")["result"]["text/plain"] == "2"


def test_sessions_may_be_kept(broker: RunningBroker, node: str) -> None:
    name = new_name()
    execute(broker, name, "a = 1")
    assert call(broker, "POST", f"/v1/nodes/{node}/drain?sessions=keep").status == 200
    assert execute(broker, name, "a + 1")["generation"] == 1


def test_only_a_node_itself_is_drained(broker: RunningBroker, node: str) -> None:
    assert call(broker, "POST", "/v1/nodes/nobody/drain").status == 404
    for query in ("sessions=x", "sesions=keep"):
        assert call(broker, "POST", f"/v1/nodes/{node}/drain?{query}").status == 400
    assert call(broker, "GET", "/readyz").body["reasons"] != ["draining"]


def test_the_command_drains_and_undoes_it(broker: RunningBroker, node: str) -> None:
    told = broker.cli("drain", node, "--keep")
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith(f"{node} is draining: ")
    assert broker.cli("drain", node, "--undo").stdout == f"{node} takes new sessions again\n"
    assert broker.cli("drain", "nobody").returncode == 1
