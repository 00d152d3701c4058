"""Tokens of a real broker: what each opens, what ends with it, and that none is kept or told."""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import jwt
import pytest
from websockets.exceptions import InvalidStatus

from broker.tokens import FRESH
from tests.system.conftest import RunningBroker
from tests.system.peer import Answer, attached, call, execute, gate, new_name, row_of
from tests.system.test_http import Stream, left_alone


@dataclass
class Holder:
    """Somebody with a token of their own."""

    url: str
    token: str
    id: str


def made(broker: RunningBroker, *scopes: str, **fields: Any) -> Holder:
    body = {"scopes": list(scopes) or ["run"], **fields}
    answer = call(broker, "POST", "/v1/tokens", body)
    assert answer.status == 201, answer.text
    return Holder(broker.url, answer.body["token"], answer.body["id"])


def revoke(broker: RunningBroker, holder: Holder) -> Answer:
    return call(broker, "DELETE", f"/v1/tokens/{holder.id}")


@contextmanager
def refused(status: int, code: str) -> Iterator[None]:
    with pytest.raises(InvalidStatus) as caught:
        yield
    assert caught.value.response.status_code == status
    assert json.loads(caught.value.response.body)["error"]["code"] == code


@pytest.mark.row("GET /v1/tokens", "POST /v1/tokens", "DELETE /v1/tokens/{id}")
def test_a_token_works_over_http_until_it_is_revoked(broker: RunningBroker) -> None:
    holder, name = made(broker), new_name()
    assert execute(holder, name, "6 * 7")["result"]["text/plain"] == "42"
    assert revoke(broker, holder).body["revoked"] is True
    answer = call(holder, "POST", f"/v1/sessions/{name}/execute", {"code": "1"})
    assert (answer.status, answer.error["code"]) == (401, "unauthorized")
    assert revoke(broker, holder).status == 404


def test_tenants_do_not_see_each_others_sessions(broker: RunningBroker) -> None:
    name, tenant = new_name(), new_name()
    acme, other = made(broker, tenant=tenant), made(broker, tenant="other")
    execute(acme, name, "x = 1")
    execute(other, name, "x = 2")
    assert execute(acme, name, "x")["result"]["text/plain"] == "1"
    mine = call(acme, "GET", "/v1/sessions").body["sessions"]
    assert [(row["tenant"], row["session"]) for row in mine] == [(tenant, name)]
    third = made(broker, tenant="third")
    for method in ("GET", "DELETE"):
        answer = call(third, method, f"/v1/sessions/{name}")
        assert (answer.status, answer.error["code"]) == (404, "unknown_session")
    for holder in (acme, other):
        assert call(holder, "DELETE", f"/v1/sessions/{name}").status == 200


async def test_a_bound_token_opens_its_session_and_finds_no_other(broker: RunningBroker) -> None:
    name, beside = new_name(), new_name()
    execute(broker, beside, "x = 1")
    holder = made(broker, session=name)
    async with attached(holder, name) as peer:
        assert await peer.value("6 * 7") == "42"
    with refused(404, "unknown_session"):
        async with attached(holder, beside):
            pass
    assert call(holder, "GET", f"/v1/sessions/{beside}").status == 404
    assert call(holder, "POST", f"/v1/sessions/{beside}/execute", {"code": "1"}).status == 404
    assert call(holder, "POST", "/v1/execute", {"code": "1"}).status == 403
    listed = call(holder, "GET", "/v1/sessions").body["sessions"]
    assert [row["session"] for row in listed] == [name]


async def test_a_watch_token_sees_everything_and_changes_nothing(broker: RunningBroker) -> None:
    name, holder = new_name(), made(broker, "watch")
    execute(broker, name, "x = 1")
    with refused(403, "forbidden"):
        async with attached(holder, name):
            pass
    with refused(404, "unknown_session"):
        async with attached(holder, new_name(), mode="watch"):
            pass
    async with attached(holder, name, mode="watch") as watcher:
        execute(broker, name, "print('seen')")
        assert (await watcher.until("stream"))["text"] == "seen\n"
        await watcher.send({"type": "execute", "id": "e", "code": "1"})
        assert (await watcher.until("fault", id="e"))["code"] == "forbidden"
    assert call(holder, "GET", f"/v1/sessions/{name}").status == 200
    for method, path in (
        ("DELETE", f"/v1/sessions/{name}"),
        ("POST", f"/v1/sessions/{name}/restart"),
        ("POST", f"/v1/sessions/{name}/interrupt"),
        ("POST", "/v1/execute"),
    ):
        answer = call(holder, method, path, {"code": "1"} if "execute" in path else None)
        assert (answer.status, answer.error["code"]) == (403, "forbidden"), path


@pytest.mark.parametrize("path", ["/v1/nodes", "/v1/pools", "/metrics"])
def test_what_tells_of_the_node_is_for_its_operator(broker: RunningBroker, path: str) -> None:
    for holder in (made(broker, "run"), made(broker, "admin", tenant="acme")):
        answer = call(holder, "GET", path)
        assert (answer.status, answer.error["code"]) == (403, "forbidden")
    assert call(made(broker, "admin"), "GET", path).status == 200


def test_an_administrator_makes_tokens_for_its_own_tenant_alone(broker: RunningBroker) -> None:
    admin = made(broker, "admin", tenant="acme")
    for tenant, status in ((None, 201), ("acme", 201), ("other", 403), ("default", 403)):
        answer = call(admin, "POST", "/v1/tokens", {"scopes": ["run"], "tenant": tenant})
        assert answer.status == status, answer.text
    assert call(made(broker), "POST", "/v1/tokens", {"scopes": ["run"]}).status == 403
    tenants = {row["tenant"] for row in call(admin, "GET", "/v1/tokens").body["tokens"]}
    assert tenants == {"acme"}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"", 400, None),
        (b"[]", 400, None),
        (b'{"scopes": ["root"]}', 400, "scopes"),
        (b'{"scopes": ["run"], "expires_in": "x"}', 400, "expires_in"),
        (b'{"scopes": ["run"], "name": "' + b"x" * 20_000 + b'"}', 413, "body"),
    ],
)
def test_a_bad_grant_is_one_clear_refusal(
    broker: RunningBroker, body: bytes, status: int, field: str | None
) -> None:
    answer = call(broker, "POST", "/v1/tokens", body)
    assert (answer.status, answer.error.get("field")) == (status, field)


async def test_a_socket_is_closed_with_4401_when_its_token_expires(broker: RunningBroker) -> None:
    holder = made(broker, expires_in=1)
    async with attached(holder, new_name()) as peer:
        assert await peer.value("6 * 7") == "42"
        assert await peer.closed() == (4401, "the token has expired")
    assert call(holder, "GET", "/v1/sessions").status == 401


async def test_a_socket_is_closed_with_4401_when_its_token_is_revoked(
    broker: RunningBroker,
) -> None:
    holder, kept, name = made(broker), made(broker), new_name()
    async with attached(kept, name) as stays, attached(holder, name) as peer:
        await peer.run("x = 6")
        revoke(broker, holder)
        assert await peer.closed() == (4401, "the token was revoked")
        assert await stays.value("x * 7") == "42"


async def test_a_stream_is_cut_with_a_last_line_when_its_token_is_revoked(
    broker: RunningBroker,
) -> None:
    holder, name = made(broker), new_name()
    with closing(Stream(holder, f"/v1/sessions/{name}/execute", gate())) as stream:
        lines = iter(stream)
        assert [next(lines)["type"] for _ in range(2)] == ["started", "stream"]
        revoke(broker, holder)
        (last,) = lines
    assert (last["type"], last["code"]) == ("fault", "unauthorized")
    assert last["message"] == "the token was revoked"
    async with attached(broker, name, after=0) as peer:  # nobody waits for it
        assert (await peer.until("done"))["status"] == "interrupted"


@pytest.mark.parametrize("path", ["/v1/execute", "/v1/sessions/{}/execute"])
def test_an_execution_that_is_waited_for_is_answered_401_when_its_token_ends(
    broker: RunningBroker, path: str
) -> None:
    holder = made(broker, expires_in=2)
    code = "import time\nwhile True: time.sleep(0.1)"
    answer = call(holder, "POST", path.format(new_name()), {"code": code})
    assert (answer.status, answer.error["message"]) == (401, "the token has expired")


async def test_a_stream_that_nobody_reads_is_cut_all_the_same(broker: RunningBroker) -> None:
    holder, name = made(broker), new_name()
    execute(broker, name, "import time\nfrom IPython.display import display\nx = 'x' * 4_000_000")
    code = "for _ in range(12): display({'text/x': x}, raw=True)\nwhile True: time.sleep(0.1)"
    with closing(left_alone(holder, name, code, "application/x-ndjson")):
        async with attached(broker, name, after=0) as peer:
            for _ in range(12):
                await peer.until("display")
            revoke(broker, holder)
            assert (await peer.until("done"))["status"] == "interrupted"


def test_the_operator_sees_and_ends_the_sessions_of_any_tenant(broker: RunningBroker) -> None:
    holder, name = made(broker, tenant="acme"), new_name()
    execute(holder, name, "x = 1")
    listed = json.loads(broker.cli("ls", "--tenant", "acme", "--json").stdout)["sessions"]
    assert name in {row["session"] for row in listed}
    for who in (holder, made(broker, "admin", tenant="other")):
        for method in ("GET", "DELETE"):
            answer = call(who, method, f"/v1/sessions/{name}?tenant=default")
            assert (answer.status, answer.error["code"]) == (403, "forbidden")
    assert call(broker, "GET", f"/v1/sessions/{name}").status == 404
    assert call(broker, "GET", f"/v1/sessions/{name}?tenant=a/b").error["field"] == "tenant"
    killed = broker.cli("kill", name, "--tenant", "acme")
    assert killed.stdout == f"{name}: generation 1 ended\n", killed.stderr
    assert row_of(holder, name)["state"] == "closed"


async def test_a_token_revoked_on_another_node_ends_within_seconds(
    broker: RunningBroker,
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    store = f"unix://{broker.state_dir}/valkey.sock"
    flags = ("--redis-url", store, "--node", "second", "--warm", "1", "--preload", "")
    holder = made(broker)
    with start_broker(short_dir(), *flags) as second:
        there = Holder(second.url, holder.token, holder.id)
        async with attached(there, new_name()) as peer:
            assert await peer.value("6 * 7") == "42"
            revoke(broker, holder)
            began = time.monotonic()
            assert await peer.closed() == (4401, "the token was revoked")
            assert time.monotonic() - began < 2 * FRESH
        assert call(there, "GET", "/v1/sessions").status == 401


@pytest.mark.parametrize(
    "token",
    [
        "x" * 8192,
        "x" * 8193,
        "kbt_" + "A" * 43,
        "kbt_" + "a" * 64,
        "kbt_" + "é" * 43,
        "a.b.c",
        "eyJhbGciOiJub25lIn0.eyJ0ZW5hbnQiOiJkZWZhdWx0In0.",
        "....",
        "\x00\x01\x7f",
        "\xff\xfe",
        "{}",
        "",
    ],
)
def test_what_is_no_token_is_401_and_leaves_no_trace(broker: RunningBroker, token: str) -> None:
    before = broker.log.count("Traceback")
    parts = urlsplit(broker.url)
    with closing(http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)) as bare:
        bare.request("GET", f"/v1/sessions?token={quote(token)}")
        assert bare.getresponse().status == 401
    if token.isascii() and token.isprintable():
        assert call(Holder(broker.url, token, ""), "GET", "/v1/sessions").status == 401
    assert broker.log.count("Traceback") == before


def test_a_token_is_shown_once_and_kept_nowhere(broker: RunningBroker) -> None:
    holder = made(broker, name="secret one")
    execute(holder, new_name(), "1")
    listed = call(broker, "GET", "/v1/tokens").text
    assert holder.id in listed
    revoke(broker, holder)
    secret = holder.token.removeprefix("kbt_")
    assert secret not in listed
    assert secret not in broker.log
    for file in broker.state_dir.rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes(), file


def test_tokens_from_the_command_line(broker: RunningBroker) -> None:
    arguments = ("--tenant", "acme", "--scope", "run", "--scope", "watch", "--session", "s-1")
    created = broker.cli("token", "create", *arguments, "--expires", "30d", "--name", "of bob")
    assert created.returncode == 0, created.stderr
    token = created.stdout.strip()
    assert re.fullmatch("kbt_[0-9a-f]{64}", token)  # some clients write addresses in small letters
    assert "run watch for tenant acme, session s-1 alone, for 29d 23h" in created.stderr
    listed = broker.cli("token", "list", "--json")
    [row] = [one for one in json.loads(listed.stdout)["tokens"] if one["name"] == "of bob"]
    assert (row["tenant"], row["scopes"], row["session"]) == ("acme", ["run", "watch"], "s-1")
    assert row["id"] in broker.cli("token", "list").stdout
    assert execute(Holder(broker.url, token, ""), "s-1", "6 * 7")["status"] == "ok"
    assert broker.cli("token", "revoke", row["id"]).stdout == f"{row['id']}: revoked\n"
    again = broker.cli("token", "revoke", row["id"])
    assert again.returncode == 1
    assert "`broker token list` shows the tokens" in again.stderr
    assert call(Holder(broker.url, token, ""), "GET", "/v1/sessions").status == 401
    made_json = json.loads(broker.cli("token", "create", "--json").stdout)
    assert made_json["scopes"] == ["run"]
    denied = broker.cli("token", "list", "--token", made_json["token"])
    assert denied.returncode == 1
    assert "takes the scope admin; the token has run" in denied.stderr


SECRET = "a-secret-of-at-least-32-characters!"


async def test_signed_tokens_are_taken_by_the_key_of_the_settings(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    settings = {"BROKER_JWT_SECRET": SECRET, "BROKER_JWT_LEEWAY": "0"}
    with start_broker(short_dir(), "--warm", "1", "--preload", "", **settings) as broker:

        def signed(key: str = SECRET, lasts: float = 60, **claims: Any) -> Holder:
            told = {"tenant": "acme", "scope": "run", "exp": time.time() + lasts, **claims}
            return Holder(broker.url, jwt.encode(told, key, "HS256"), "")

        holder, name = signed(session="s-1"), new_name()
        assert execute(holder, "s-1", "6 * 7")["result"]["text/plain"] == "42"
        assert call(holder, "GET", f"/v1/sessions/{name}").status == 404
        assert call(holder, "GET", "/v1/nodes").status == 403
        answer = call(signed("x" * 32), "GET", "/v1/sessions")
        assert (answer.status, answer.error["code"]) == (401, "unauthorized")
        assert call(signed(lasts=-1), "GET", "/v1/sessions").status == 401
        async with attached(signed(lasts=2, session="s-1"), "s-1") as peer:
            assert await peer.closed() == (4401, "the token has expired")
        shown = broker.cli("config", "--json")
        assert SECRET not in broker.log + shown.stdout
