"""What operators ask of sessions over HTTP: lists, what each uses and has been through."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from broker.client import AsyncBroker, Broker, NotRunning, UnknownSession
from tests.system.conftest import RunningBroker, kill
from tests.system.peer import (
    Place,
    ask_until,
    attached,
    call,
    execute,
    gate,
    new_name,
    open_gate,
    row_of,
)
from tests.system.test_cli_logs import stored
from tests.system.test_tokens import made

DIVIDED = "ZeroDivisionError: division by zero, cell line 1"

LEAN = """
[profiles.python]
preload = []
warm = 1
[profiles.other]
preload = []
warm = 0
"""


@pytest.fixture(scope="module")
def lean(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> Iterator[RunningBroker]:
    directory = short_dir()
    (directory / "broker.toml").write_text(LEAN)
    with start_broker(directory, "--config", str(directory / "broker.toml")) as running:
        yield running


@pytest.fixture
def broker(lean: RunningBroker) -> Iterator[RunningBroker]:
    yield lean
    client = Broker(lean.url, lean.token)
    for row in client.sessions(tenant="*"):
        with contextlib.suppress(UnknownSession):
            client.kill(row["session"], tenant=row["tenant"])


def listed(broker: Place, query: str) -> list[str]:
    body = call(broker, "GET", f"/v1/sessions?{query}").body
    return [row["session"] for row in body["sessions"]]


def node_of(broker: Place) -> str:
    return str(call(broker, "GET", "/v1/sessions?limit=1").body["node"])


def test_the_list_is_of_a_node_a_profile_and_a_tenant(broker: RunningBroker) -> None:
    acme, name, other = made(broker, tenant="acme"), new_name(), new_name("other")
    execute(broker, name, "1")
    execute(acme, name, "1")
    call(broker, "POST", f"/v1/sessions/{other}", {"profile": "other"})
    node = node_of(broker)
    assert listed(broker, f"node={node}") == sorted([name, other])
    assert listed(broker, "node=elsewhere") == []
    assert listed(broker, "profile=other") == [other]
    assert listed(broker, "tenant=acme") == [name]
    every = call(broker, "GET", "/v1/sessions?tenant=*").body
    assert [(row["tenant"], row["session"]) for row in every["sessions"]] == [
        ("acme", name),
        *(("default", one) for one in sorted([name, other])),
    ]
    assert (every["total"], every["next"]) == (3, None)
    for query in ("tenant=*", "tenant=default"):
        assert call(acme, "GET", f"/v1/sessions?{query}").status == 403


def test_the_list_of_all_tenants_is_read_in_pages(broker: RunningBroker) -> None:
    holders = [made(broker, tenant=tenant) for tenant in ("a", "a-b", "a.c")]
    for holder in holders:
        for name in ("x", "y"):
            execute(holder, name, "1")
    found, after = [], ""
    while True:
        body = call(broker, "GET", f"/v1/sessions?tenant=*&limit=1&after={after}").body
        found += [(row["tenant"], row["session"]) for row in body["sessions"]]
        assert body["total"] == 6
        if body["next"] is None:
            break
        after = body["next"]
    assert found == [(tenant, name) for tenant in ("a", "a-b", "a.c") for name in ("x", "y")]


async def test_the_list_is_sorted_by_what_each_uses_and_runs(broker: RunningBroker) -> None:
    quiet, greedy, running = new_name("b"), new_name("c"), new_name("a")
    await asyncio.to_thread(execute, broker, quiet, "1")
    burn = "import time\nwhile time.process_time() < .5: pass\nx = bytearray(40 << 20)"
    await asyncio.to_thread(execute, broker, greedy, burn)
    async with attached(broker, running) as peer:
        await peer.send({"type": "execute", "id": "cell", "code": gate()})
        await peer.until("stream")
        node = node_of(broker)
        body = call(broker, "GET", f"/v1/sessions?node={node}").body
        rows = {row["session"]: row for row in body["sessions"]}
        assert rows[running]["cell"]["id"] == "cell"
        assert 0 < rows[running]["cell"]["seconds"] < 60
        assert (rows[quiet]["cell"], rows[running]["idle"]) == (None, 0.0)
        assert 0 < rows[quiet]["idle"] < 60
        assert listed(broker, "sort=cell")[0] == running
        assert listed(broker, "sort=state")[0] == running
        assert listed(broker, "sort=idle") == [quiet, greedy, running]
        assert listed(broker, "sort=idle&limit=1") == [quiet]
        if rows[greedy]["usage"] is None:
            pytest.skip("no cgroup counts what kernels use here")
        assert rows[greedy]["usage"]["cpu_seconds"] > 0.4 > rows[quiet]["usage"]["cpu_seconds"]
        assert rows[greedy]["usage"]["memory"] > 40 << 20
        assert listed(broker, "sort=cpu")[0] == greedy
        assert listed(broker, "sort=memory")[0] == greedy
        open_gate(rows[running]["pid"])
        await peer.until("done", id="cell")
        assert row_of(broker, running)["cell"] is None


@pytest.mark.parametrize(
    ("query", "field"),
    [("sort=size", "sort"), ("sort=cpu&after=a", "after"), ("tenant=**", "tenant")],
)
def test_what_cannot_be_listed_is_refused_by_name(
    broker: RunningBroker, query: str, field: str
) -> None:
    answer = call(broker, "GET", f"/v1/sessions?{query}")
    assert (answer.status, answer.error["code"], answer.error["field"]) == (
        *(400, "bad_message"),
        field,
    )


async def test_a_session_is_described_with_its_limits_use_and_clients(
    broker: RunningBroker,
) -> None:
    name = new_name()
    async with (
        attached(broker, name, memory="200M") as peer,
        attached(broker, name, mode="watch"),
    ):
        await peer.run("open('f', 'wb').write(bytes(3 << 20)); x = bytearray(30 << 20)")
        found = row_of(broker, name)
        assert found["attached"] == {"run": 1, "watch": 1}
        assert found["limits"]["memory"] == 200 << 20
        assert found["usage"]["cpu_seconds"] > 0
        assert found["usage"]["memory"] > 30 << 20
        assert found["usage"]["processes"] >= 1
        assert 3 << 20 <= found["workspace_bytes"] < 8 << 20


async def test_a_session_tells_the_first_line_of_what_runs_without_secrets(
    broker: RunningBroker,
) -> None:
    name = new_name()
    async with attached(broker, name) as peer:
        assert row_of(broker, name)["code"] is None
        environ = {"API_TOKEN": "s3cret-of-many-letters"}
        code = "\n  # uses s3cret-of-many-letters\ninput()"
        await peer.send({"type": "execute", "id": "one", "code": code, "env": environ})
        await peer.until("input_request")
        found = row_of(broker, name)
        assert found["code"] == "# uses [redacted API_TOKEN]"
        assert found["cell"]["id"] == "one"


async def test_an_interrupt_that_names_an_execution_stops_no_other(broker: RunningBroker) -> None:
    name = new_name()
    async with attached(broker, name) as peer:
        await peer.send({"type": "execute", "id": "one", "code": "input()"})
        await peer.until("input_request")
        answer = call(broker, "POST", f"/v1/sessions/{name}/interrupt?target=two")
        assert (answer.status, answer.error["code"]) == (409, "not_running")
        assert row_of(broker, name)["cell"]["id"] == "one"
        answer = call(broker, "POST", f"/v1/sessions/{name}/interrupt?target=one")
        assert answer.body == {"interrupted": "one"}
        assert (await peer.until("done"))["status"] == "interrupted"


def test_a_session_tells_its_last_errors_in_a_line_each(broker: RunningBroker) -> None:
    name = new_name()
    began = time.time()
    execute(broker, name, "x = 1\n1 / 0")
    execute(broker, name, "x")
    execute(broker, name, "import os; os._exit(3)")
    found = row_of(broker, name)
    assert [one["error"] for one in found["errors"]] == [
        "ZeroDivisionError: division by zero, cell line 2",
        "lost: exit 3",
    ]
    assert all(began - 1 <= one["at"] <= time.time() + 1 for one in found["errors"])
    assert found["last_error"] == "lost: exit 3"
    assert execute(broker, name, "x")["error"]["name"] == "NameError"


def test_a_sessions_generations_have_their_times_and_reasons(broker: RunningBroker) -> None:
    name = new_name()
    began = time.time()
    execute(broker, name, "1")
    call(broker, "POST", f"/v1/sessions/{name}/restart")
    execute(broker, name, "import os; os._exit(3)")
    execute(broker, name, "1")
    call(broker, "DELETE", f"/v1/sessions/{name}?reason=tidied")
    closed = row_of(broker, name)["history"]
    reasons = ["restart", "exit 3", "tidied"]
    assert [(one["generation"], one["reason"]) for one in closed] == [*enumerate(reasons, 1)]
    times = [at for one in closed for at in (one["began"], one["ended"])]
    assert times == sorted(times)
    assert began - 1 < times[0] < times[-1] < time.time() + 1
    execute(broker, name, "1")
    history = row_of(broker, name)["history"]
    assert history[:3] == closed
    assert (history[3]["generation"], history[3]["ended"], history[3]["reason"]) == (4, None, "")


ASKED = "/v1/sessions/kept?errors=true"


def test_generations_and_errors_are_known_to_a_broker_that_comes_after(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    place: tuple[Path, str, str],
) -> None:
    directory, *flags = place
    with start_broker(directory, *flags) as first:
        execute(first, "kept", "1")
        call(first, "POST", "/v1/sessions/kept/restart")
        execute(first, "kept", "1 / 0")
        before = row_of(first, "kept")["history"]
        failed = row_of(first, "kept")["errors"]
        assert [one["error"] for one in failed] == [DIVIDED]
        ask_until(lambda: stored(directory) == 2, "cells written")
        kill(first)
    with start_broker(directory, *flags) as second:
        after = row_of(second, "kept")["history"]
        assert [(one["generation"], one["reason"]) for one in after] == [(1, "restart"), (2, "")]
        for one, other in zip(before, after, strict=True):
            assert abs(one["began"] - other["began"]) < 1
        row = row_of(second, "kept")
        [known] = call(second, "GET", ASKED).body["errors"]
        assert (known["id"], known["error"]) == (failed[0]["id"], DIVIDED)
        assert abs(known["at"] - failed[0]["at"]) < 1
        again = row_of(second, "kept")
        assert (row["errors"], row["last_error"]) == (again["errors"], again["last_error"])
        assert (again["errors"], again["last_error"]) == ([], None)  # whoever else has looked
        execute(second, "kept", "never_made")
        told = ["NameError: name 'never_made' is not defined, cell line 1"]
        assert [one["error"] for one in row_of(second, "kept")["errors"]] == told
        told = [DIVIDED, *told]
        assert [one["error"] for one in call(second, "GET", ASKED).body["errors"]] == told
        call(second, "DELETE", "/v1/sessions/kept")
        assert row_of(second, "kept")["errors"] is None
        assert [one["error"] for one in call(second, "GET", ASKED).body["errors"]] == told
        assert call(second, "GET", "/v1/sessions/kept?errors=x").error["field"] == "errors"


async def test_the_operator_interrupts_describes_and_ends_another_tenants_session(
    broker: RunningBroker,
) -> None:
    acme, name = made(broker, tenant="acme"), new_name()
    operator = Broker(broker.url, broker.token)
    async with attached(acme, name) as peer:
        await peer.send({"type": "execute", "id": "long", "code": gate()})
        await peer.until("stream")
        with pytest.raises(UnknownSession):
            operator.interrupt(name)
        assert operator.describe(name, tenant="acme")["cell"]["id"] == "long"
        assert operator.interrupt(name, tenant="acme") == {"interrupted": "long"}
        assert (await peer.until("done", id="long"))["status"] == "interrupted"
    with pytest.raises(NotRunning):
        operator.interrupt(name, tenant="acme")
    assert await AsyncBroker(broker.url, broker.token).describe(name, tenant="acme")
    with pytest.raises(NotRunning):
        await AsyncBroker(broker.url, broker.token).interrupt(name, tenant="acme")
    assert call(acme, "POST", f"/v1/sessions/{name}/interrupt?tenant=default").status == 403
    assert operator.kill(name, tenant="acme", reason="tidied")["reason"] == "tidied"


def test_an_administrator_interrupts_and_runs_nothing(broker: RunningBroker) -> None:
    name, admin = new_name(), made(broker, "admin")
    execute(broker, name, "1")
    answer = call(admin, "POST", f"/v1/sessions/{name}/interrupt")
    assert (answer.status, answer.error["code"]) == (409, "not_running")
    assert call(admin, "POST", f"/v1/sessions/{name}/execute", {"code": "1"}).status == 403


def test_named_kernels_are_measured_alone(broker: RunningBroker) -> None:
    one, other = new_name(), new_name()
    execute(broker, one, "1")
    execute(broker, other, "1")
    kernel = row_of(broker, one)["kernel"]
    body = call(broker, "GET", f"/v1/pools?memory=true&kernels={kernel},nobody").body
    found = [row for pool in body["pools"] for row in pool["kernels"]]
    assert [row["kernel"] for row in found] == [kernel]
    assert found[0]["pss"] >= found[0]["uss"] > 0
    assert found[0]["cpu_seconds"] >= 0
    assert "pss" not in body["broker"]
    answer = call(broker, "GET", f"/v1/pools?kernels={','.join(map(str, range(101)))}")
    assert (answer.status, answer.error["field"]) == (400, "kernels")


def test_a_session_of_another_node_is_described_as_the_store_has_it(
    broker: RunningBroker,
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    name = new_name()
    execute(broker, name, "1 / 0")
    call(broker, "POST", f"/v1/sessions/{name}/restart")
    store = call(broker, "GET", "/v1/pools").body["store"]["url"]
    place = short_dir()
    settings: dict[str, Any] = {"BROKER_REDIS_URL": store, "BROKER_NODE": "second"}
    (place / "broker.toml").write_text(LEAN)
    with start_broker(place, "--config", str(place / "broker.toml"), **settings) as second:
        # Whose token it is, is the store's to say.
        holder = made(broker, "run", "admin")
        there = Broker(second.url, holder.token)
        ask_until(lambda: bool(there.describe(name)["errors"]), "its cell written")
        found = there.describe(name)
        assert (found["node"], found["pid"], found["usage"]) == (node_of(broker), None, None)
        assert (found["limits"], found["attached"]) == (None, None)
        assert [one["error"] for one in found["errors"]] == [DIVIDED]
        history = [(one["generation"], one["reason"]) for one in found["history"]]
        assert history == [(1, "restart"), (2, "")]
        mine = {row["session"] for row in there.sessions(node="second")}
        assert (name in mine, name in {row["session"] for row in there.sessions()}) == (
            False,
            True,
        )
        answer = call(
            second, "POST", f"/v1/sessions/{name}/interrupt", Authorization=f"Bearer {holder.token}"
        )
        assert (answer.status, answer.error["url"]) == (421, broker.url)
    ask_until(lambda: name in broker.sessions(), "the session on its node")
