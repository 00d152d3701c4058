"""The operator in other tenants' sessions: each route, who may, and that all of it is noted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from websockets.exceptions import InvalidStatus

from broker.jupyter.names import kernel_id
from broker.web.route import Operation
from broker.web.routes import ROUTES
from tests.jupyter.messages import V1
from tests.jupyter.rest import ask as ask_jupyter
from tests.jupyter.rest import face
from tests.jupyter.sockets import socket
from tests.system.conftest import RunningBroker
from tests.system.peer import Answer, ask_until, attached, call, execute, gate, new_name, open_gate
from tests.system.test_audit import line, lines
from tests.system.test_quotas import refusal
from tests.system.test_tokens import Holder, made

SETTINGS = """
[profiles.python]
preload = []
warm = 2
[tenants.one]
running = 1
"""


@pytest.fixture(scope="module")
def broker(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> Iterator[RunningBroker]:
    directory = short_dir()
    (directory / "broker.toml").write_text(SETTINGS)
    settings = {"BROKER_AUDIT_FILE": str(directory / "audit.log")}
    with start_broker(directory, "--config", str(directory / "broker.toml"), **settings) as running:
        yield running


class Row(NamedTuple):
    """A request about a session, how it ends for the operator, and what the audit calls it."""

    method: str
    path: str
    body: dict[str, Any] | str | None
    status: int
    event: str
    deed: str  # of which the operator's token needs the scope as well
    template: str = ""

    @property
    def operation(self) -> tuple[str, str]:
        return self.method.lower(), f"/v1/sessions/{{session}}{self.template or self.path}"


FILE, REST = "/files/a.txt", "/files/{+path}"
TABLE = [
    Row("GET", "", None, 200, "read", "read"),
    Row("POST", "", {}, 200, "joined", "run"),
    Row("POST", "/execute", {"code": "x"}, 200, "executed", "run"),
    Row("POST", "/call", {"function": "lambda: x"}, 200, "executed", "run"),
    Row("GET", "/notebook", None, 200, "read", "read"),
    Row("GET", "/variables", None, 200, "read", "run"),
    Row("GET", "/files", None, 200, "read", "read"),
    Row("PUT", FILE, "text", 201, "file_written", "run", REST),
    Row("GET", FILE, None, 200, "read", "read", REST),
    Row("HEAD", FILE, None, 200, "read", "read", REST),
    Row("POST", FILE, {"move_to": "b.txt"}, 200, "file_moved", "run", REST),
    Row("DELETE", "/files/b.txt", None, 200, "file_removed", "run", REST),
    Row("POST", "/interrupt", None, 409, "", "end"),
    Row("POST", "/restart", None, 200, "restarted", "run"),
    Row("DELETE", "", None, 200, "killed", "end"),
]
SOCKET = ("get", "/v1/sessions/{session}/ws")


def ask(who: Any, row: Row, session: str, tenant: str = "acme") -> Answer:
    return call(who, row.method, f"/v1/sessions/{session}{row.path}?tenant={tenant}", row.body)


def code_of(answer: Answer) -> str:
    return str(answer.error["code"]) if answer.text else ""


def in_acme(broker: RunningBroker, name: str, code: str = "x = 20") -> Holder:
    holder = made(broker, tenant="acme")
    execute(holder, name, code)
    return holder


def there(broker: RunningBroker, name: str) -> set[str]:
    """Return the tenants that have a session of that name, alive or ended."""
    rows = call(broker, "GET", "/v1/sessions?tenant=*&state=all").body["sessions"]
    return {row["tenant"] for row in rows if row["session"] == name}


def test_the_table_has_each_route_of_a_session_and_all_of_them_take_a_tenant() -> None:
    found: dict[tuple[str, str], Operation] = {
        (method, route.path): operation
        for route in ROUTES
        for method, operation in route.operations.items()
        if "session" in route.names()
    }
    assert set(found) == {*(row.operation for row in TABLE), SOCKET}
    for key, operation in found.items():
        assert "tenant" in operation.queries(), key
    for row in TABLE:
        operation = found[row.operation]
        assert operation.scope == row.deed
        assert row.event in ("", "executed", operation.audited or operation.visited)


def test_whoever_is_turned_away_is_noted_with_what_was_asked_for(broker: RunningBroker) -> None:
    holder = made(broker, tenant="beta")
    assert ask(holder, TABLE[4], "s1").status == 403
    told = line(broker, event="refused", token=holder.id)
    about = ("tenant", "subject", "session", "path")
    assert [told[name] for name in about] == ["beta", "acme", "s1", "/v1/sessions/s1/notebook"]


def test_the_operator_does_in_anothers_session_what_its_tenant_could(broker: RunningBroker) -> None:
    name = new_name()
    in_acme(broker, name)
    for row in TABLE:
        answer = ask(broker, row, name)
        assert answer.status == row.status, (row, answer.text)
    assert there(broker, name) == {"acme"}


def test_all_of_it_is_noted_with_the_tenant(broker: RunningBroker) -> None:
    name = new_name()
    in_acme(broker, name)
    for row in TABLE:
        ask(broker, row, name)
    ask_until(lambda: bool(lines(broker, session=name, event="killed")), "the last line")
    own = {"tenant": "default", "token": "static", "ip": "127.0.0.1", "session": name}
    found = [one for one in lines(broker, **own) if one["event"] != "refused"]
    assert [one["event"] for one in found] == [row.event for row in TABLE if row.event]
    assert {one["subject"] for one in found} == {"acme"}
    told = {(one["method"], one["path"]) for one in found if one["event"] == "read"}
    asked = [row for row in TABLE if row.event == "read"]
    assert told == {(row.method, f"/v1/sessions/{name}{row.path}") for row in asked}


def test_a_look_that_repeats_itself_is_noted_once_in_a_while(broker: RunningBroker) -> None:
    name = new_name()
    holder = in_acme(broker, name)
    for _ in range(3):
        ask(broker, TABLE[0], name)
        call(holder, "GET", f"/v1/sessions/{name}")
    ask(broker, TABLE[-1], name)
    line(broker, event="killed", session=name)
    assert len(lines(broker, event="read", session=name)) == 1


def test_a_list_of_others_is_noted_too(broker: RunningBroker) -> None:
    holder = made(broker, "admin", tenant="default")
    for tenant in ("acme", "*", "default"):
        assert call(holder, "GET", f"/v1/sessions?tenant={tenant}").status == 200
    call(holder, "GET", "/v1/nodes/none?tenant=acme")
    for subject in ("acme", "*"):
        assert line(broker, token=holder.id, subject=subject)["path"] == "/v1/sessions"
    assert len(lines(broker, token=holder.id, event="read")) == 2


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.method} {row.path}")
def test_whoever_is_not_the_operator_learns_nothing(broker: RunningBroker, row: Row) -> None:
    name, absent = new_name(), new_name()
    in_acme(broker, name)
    strangers = [
        made(broker, "run", "watch", "admin", tenant="beta"),
        made(broker, "run", "watch"),  # of the operator's own tenant
        made(broker, "run", "watch", session=name),
    ]
    for who in strangers:
        told = {
            (answer.status, answer.text.replace(session, "NAME"))
            for session in (name, absent)
            if who is not strangers[-1] or session == name
            for answer in [ask(who, row, session)]
        }
        [(status, text)] = told
        assert (status, '"forbidden"' in text or row.method == "HEAD") == (403, True)
    assert ask(strangers[-1], row, absent).status == 404  # it is for the one session, whoever's


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.method} {row.path}")
def test_what_is_not_there_is_not_made(broker: RunningBroker, row: Row) -> None:
    absent = new_name()
    answer = ask(broker, row, absent)
    assert answer.status == 404, answer.text
    assert answer.text == "" or code_of(answer) == "unknown_session"
    assert there(broker, absent) == set()


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.method} {row.path}")
def test_an_operator_needs_the_deeds_own_scope_as_well(broker: RunningBroker, row: Row) -> None:
    name, admin = new_name(), made(broker, "admin")
    in_acme(broker, name)
    if "text" in str(row.body) or row.method == "PUT" or row.path.startswith("/files/"):
        call(broker, "PUT", f"/v1/sessions/{name}{FILE}?tenant=acme", "text")
    answer = ask(admin, row, name)
    if row.deed == "run":
        assert (answer.status, code_of(answer)) == (403, "forbidden")
    else:
        assert answer.status == row.status


@pytest.mark.parametrize("tenant", ["*", "", "a/b", "-a", "a" * 65])
def test_what_is_no_tenant_is_refused_by_name(broker: RunningBroker, tenant: str) -> None:
    answer = call(broker, "GET", f"/v1/sessions/s?tenant={tenant}")
    assert (answer.status, answer.error["field"]) == (400, "tenant")


def test_a_tenant_may_name_itself(broker: RunningBroker) -> None:
    name = new_name()
    holder = in_acme(broker, name)
    bound = made(broker, tenant="acme", session=name)
    for who in (holder, bound):
        assert ask(who, TABLE[2], name).body["result"]["text/plain"] == "20"
    cells = call(holder, "GET", f"/v1/sessions/{name}/notebook").body["cells"]
    assert all("origin" not in cell["metadata"]["broker"] for cell in cells)


def test_a_session_of_the_same_name_is_left_alone(broker: RunningBroker) -> None:
    name = new_name()
    in_acme(broker, name)
    execute(broker, name, "x = 1")
    for tenant, value in (("acme", "20"), ("default", "1")):
        assert ask(broker, TABLE[2], name, tenant).body["result"]["text/plain"] == value


def test_what_the_operator_runs_is_marked_whatever_it_says(broker: RunningBroker) -> None:
    name = new_name()
    holder = in_acme(broker, name)
    path = f"/v1/sessions/{name}/execute?tenant=acme"
    for metadata in ({}, {"origin": "the-chat-itself"}):
        call(broker, "POST", path, {"code": "x", "metadata": metadata})
    cells = call(holder, "GET", f"/v1/sessions/{name}/notebook").body["cells"]
    origins = [cell["metadata"]["broker"].get("origin") for cell in cells]
    assert origins == [None, "operator", "operator"]


@pytest.mark.parametrize("fields", [{"silent": True}, {"store_history": False}])
def test_what_the_operator_runs_is_in_the_transcript_however_it_is_asked_for(
    broker: RunningBroker, fields: dict[str, Any]
) -> None:
    name = new_name()
    holder = in_acme(broker, name)
    path = f"/v1/sessions/{name}"
    call(broker, "POST", f"{path}/execute?tenant=acme", {"code": "print(x)", **fields})
    call(broker, "POST", f"{path}/call?tenant=acme", {"function": "lambda a: a", "args": [1]})
    _, cell, called = call(holder, "GET", f"{path}/notebook").body["cells"]
    for one in (cell, called):
        assert one["metadata"]["broker"]["origin"] == "operator"
    assert (cell["source"], cell["outputs"][0]["text"]) == ("print(x)", "20\n")
    assert called["source"].endswith("\nlambda a: a")


async def test_a_tenant_cannot_pass_for_the_operator(broker: RunningBroker) -> None:
    name, holder = new_name(), made(broker, tenant="acme")
    async with attached(holder, name) as chat:
        await chat.send(
            {"type": "execute", "id": "e", "code": "1", "metadata": {"origin": "operator"}}
        )
        assert "origin" not in await chat.until("started", id="e")
        await chat.until("done", id="e")
    [cell] = call(holder, "GET", f"/v1/sessions/{name}/notebook").body["cells"]
    assert "origin" not in cell["metadata"]["broker"]


async def test_the_operator_follows_and_runs_over_a_socket(broker: RunningBroker) -> None:
    name = new_name()
    holder = in_acme(broker, name)
    async with attached(holder, name) as chat:
        async with attached(broker, name, tenant="acme", mode="watch") as watcher:
            await chat.run("print(x)")
            assert (await watcher.until("stream"))["text"] == "20\n"
            await watcher.send({"type": "execute", "id": "e", "code": "1"})
            assert (await watcher.until("fault", id="e"))["code"] == "forbidden"
        async with attached(broker, name, tenant="acme") as peer:
            assert await peer.value("x * 2") == "40"
            assert (await chat.until("started", code="x * 2"))["origin"] == "operator"
            cells = [{"code": "a = 1"}, {"code": "b = 2"}]
            await peer.send({"type": "batch", "id": "b", "cells": cells})
            await peer.send({"type": "call", "id": "c", "function": "lambda: 3"})
            for kind, about in (("batch", {"id": "b"}), ("call", {"id": "c"})):
                begun = await chat.until("started", **about)
                assert begun["origin"] == "operator", kind
            await peer.until("done", id="c")
            for kind in ("variables", "history"):
                await peer.send({"type": kind, "id": kind})
                await peer.until("reply", id=kind)
            await peer.send({"type": "configure", "id": "env", "env": {"A": "1"}})
            await peer.until("reply", id="env")
            await peer.send({"type": "restart", "id": "again"})
            await peer.until("reply", id="again")
    about = {"session": name, "tenant": "default", "subject": "acme"}
    for event in ("configured", "restarted"):
        line(broker, event=event, **about)
    assert len(lines(broker, event="attached", **about)) == 2
    assert len(lines(broker, event="executed", **about)) == 4
    assert {one["method"] for one in lines(broker, event="read", **about)} == {
        "variables",
        "history",
    }


async def test_who_answers_the_chats_question_is_noted(broker: RunningBroker) -> None:
    name = new_name()
    holder = in_acme(broker, name)
    async with attached(holder, name) as chat, attached(broker, name, tenant="acme") as peer:
        await chat.send({"type": "execute", "id": "asks", "code": "print(input('who? '))"})
        await peer.until("input_request", id="asks")
        await peer.send({"type": "input_reply", "value": "Ann"})
        assert (await chat.until("stream", text="Ann\n"))["id"] == "asks"
        await chat.until("done", id="asks")
    noted = line(broker, event="answered", session=name)
    assert (noted["tenant"], noted["subject"]) == ("default", "acme")
    assert "Ann" not in str(lines(broker, session=name))


@pytest.mark.parametrize("mode", ["run", "watch"])
async def test_no_socket_makes_anothers_session_or_tells_of_it(
    broker: RunningBroker, mode: str
) -> None:
    name, absent = new_name(), new_name()
    in_acme(broker, name)

    async def refusal_of(who: Any, session: str, **query: Any) -> tuple[int, str]:
        with pytest.raises(InvalidStatus) as caught:
            async with attached(who, session, mode=mode, **query):
                pass
        response = caught.value.response
        return response.status_code, json.loads(response.body)["error"]["code"]

    for create in ("true", "false"):
        told = await refusal_of(broker, absent, tenant="acme", create=create)
        assert told == (404, "unknown_session")
    assert there(broker, absent) == set()
    stranger = made(broker, "run", "admin", tenant="beta")
    for session in (name, absent):
        assert await refusal_of(stranger, session, tenant="acme") == (403, "forbidden")
    bound = made(broker, tenant="acme", session=name)
    assert await refusal_of(bound, absent, tenant="acme") == (404, "unknown_session")


async def test_what_the_operator_runs_counts_as_the_sessions_tenants(broker: RunningBroker) -> None:
    first, second, own = new_name(), new_name(), new_name()
    holder = made(broker, tenant="one")
    for name in (first, second):
        execute(holder, name, "x = 1")
    async with attached(broker, first, tenant="one") as peer:
        await peer.send({"type": "execute", "id": "a", "code": gate()})
        await peer.until("stream", text="up\n")
        assert refusal(holder, second)["field"] == "running"
        visit = call(broker, "POST", f"/v1/sessions/{second}/execute?tenant=one", {"code": "1"})
        assert (visit.status, visit.error["field"]) == (429, "running")
        assert execute(broker, own, "1")["status"] == "ok"  # its own tenant's bound is another
        open_gate(call(holder, "GET", f"/v1/sessions/{first}").body["pid"])
        await peer.until("done", id="a")


def test_looking_at_the_files_of_a_session_starts_no_kernel(broker: RunningBroker) -> None:
    name = new_name()
    holder = in_acme(broker, name, "open('a.txt', 'w').write('kept')")
    execute(holder, name, "import os; os._exit(3)")
    found = ask(broker, TABLE[8], name)
    assert (found.status, found.text) == (200, "kept")
    row = call(holder, "GET", f"/v1/sessions/{name}").body
    assert (row["generation"], row["kernel"]) == (1, "")


async def test_a_token_for_the_one_session_opens_it_as_a_kernel(broker: RunningBroker) -> None:
    name, beside = new_name(), new_name()
    holder = in_acme(broker, name)
    execute(holder, beside, "x = 1")
    options = ("--tenant", "acme", "--session", name, "--expires", "1h", "--name", "debugging")
    created = broker.cli("token", "create", *options, "--scope", "run", "--json")
    bound = Holder(broker.url, *(json.loads(created.stdout)[one] for one in ("token", "id")))
    [kernel] = ask_jupyter(bound, "GET", "/api/kernels").body
    assert kernel["id"] == kernel_id("acme", name)
    async with socket(face(broker, bound.token), kernel["id"], V1, "me") as notebook:
        cell = await notebook.execute("print(x * 2 + 2)")
        assert (await notebook.output(cell, "stream"))["content"]["text"] == "42\n"
        assert (await notebook.done(cell))["content"]["status"] == "ok"
    other = kernel_id("acme", beside)
    assert ask_jupyter(bound, "GET", f"/api/kernels/{other}").status == 404
    cells = call(holder, "GET", f"/v1/sessions/{name}/notebook").body["cells"]
    assert cells[-1]["metadata"]["broker"]["origin"] == "jupyter"
    made_by = line(broker, event="token_created", subject=bound.id)
    assert (made_by["tenant"], made_by["token"]) == ("default", "static")
    assert (made_by["speaks_for"], made_by["session"]) == ("acme", name)
    done = line(broker, event="executed", token=bound.id)
    assert (done["tenant"], done["session"]) == ("acme", name)


async def test_a_token_that_only_watches_it_runs_nothing(broker: RunningBroker) -> None:
    name = new_name()
    holder = in_acme(broker, name)
    bound = made(broker, "watch", tenant="acme", session=name)
    id_ = kernel_id("acme", name)
    async with socket(face(broker, bound.token), id_, V1, "me") as notebook:
        execute(holder, name, "print('seen')")
        await notebook.until(
            lambda one: one["content"].get("text") == "seen\n", "what the chat prints"
        )
    assert ask_jupyter(bound, "POST", f"/api/kernels/{id_}/restart").status == 403


def test_the_operators_own_token_has_no_kernels_of_others(broker: RunningBroker) -> None:
    name = new_name()
    in_acme(broker, name)
    for query in ("", "?tenant=acme"):
        told = ask_jupyter(broker, "GET", f"/api/kernels/{kernel_id('acme', name)}{query}")
        assert told.status == 404
