"""Bad input gets one clear error, and leaves the connection and the session as they were."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
import pytest
from websockets.exceptions import InvalidStatus

from tests.system.conftest import RunningBroker
from tests.system.peer import (
    JSON,
    MSGPACK,
    Peer,
    attached,
    call,
    execute,
    new_name,
    row_of,
    value_of,
)

CODECS = [JSON, MSGPACK]
OVER = (8 << 20) + 1  # bytes; one more than the bound on a frame


@asynccontextmanager
async def unharmed(
    broker: RunningBroker, subprotocol: str = JSON, **query: Any
) -> AsyncIterator[Peer]:
    """Yield a client of a session with a variable; afterwards it is there, on the same socket."""
    name = new_name()
    async with attached(broker, name, subprotocols=[subprotocol], **query) as peer:
        await peer.run("kept = 20")
        yield peer
        assert await peer.value("kept * 2 + 2") == "42"
        [first, *rest] = [event for event in peer.events if event["type"] == "session"]
        assert (first["state"], first["generation"], rest) == ("fresh", 1, [])


def fault(event: dict[str, Any], code: str, field: str | None, *words: str) -> None:
    """Assert that an event is that refusal, and says so in those words."""
    assert event["type"] == "fault", event
    assert (event["code"], event.get("field")) == (code, field), event
    for word in words:
        assert word in event["message"], event


@pytest.mark.parametrize(
    "frame",
    ["not json", "", "{", "[]", "null", "3", '"text"', "{}}", '{"type": NaN}', b'{"type":"ping"}'],
    ids=repr,
)
async def test_a_malformed_json_frame_gets_a_fault_and_the_connection_stays(
    broker: RunningBroker, frame: str | bytes
) -> None:
    async with unharmed(broker) as peer:
        await peer.send(frame)
        fault(await peer.next(), "bad_frame", None)


@pytest.mark.parametrize(
    "frame",
    [b"\xc1", b"", b"\x81", b"\x93\x01\x02\x03", b"\xc0", b"\x80\x80", b"\xd4\x01\x00", "text"],
    ids=repr,
)
async def test_a_malformed_msgpack_frame_gets_a_fault_and_the_connection_stays(
    broker: RunningBroker, frame: str | bytes
) -> None:
    async with unharmed(broker, MSGPACK) as peer:
        await peer.send(frame)
        fault(await peer.next(), "bad_frame", None)


@pytest.mark.parametrize("codec", CODECS)
async def test_an_unknown_field_is_named_and_nothing_runs(
    broker: RunningBroker, codec: str
) -> None:
    async with unharmed(broker, codec) as peer:
        await peer.send({"type": "execute", "id": "a", "code": "kept = 0", "timeuot": 3})
        event = await peer.next()
        fault(event, "bad_message", "timeuot", "did you mean timeout?")
        assert event["id"] == "a"


@pytest.mark.parametrize("codec", CODECS)
async def test_an_unknown_type_is_refused_with_the_known_ones(
    broker: RunningBroker, codec: str
) -> None:
    async with unharmed(broker, codec) as peer:
        await peer.send({"type": "exec", "id": "a", "code": "kept = 0"})
        event = await peer.next()
        fault(event, "bad_message", "type", "execute", "interrupt", "'exec'")
        assert event["id"] == "a"


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"type": "execute", "id": "a"}, "code"),
        ({"type": "execute", "id": "a", "code": 3}, "code"),
        ({"type": "execute", "id": "", "code": "1"}, "id"),
        ({"type": "execute", "id": "a" * 65, "code": "1"}, "id"),
        ({"type": "execute", "code": "1"}, "id"),
        ({"type": "execute", "id": "a", "code": "1", "timeout": 0}, "timeout"),
        ({"type": "execute", "id": "a", "code": "1", "timeout": -1}, "timeout"),
        ({"type": "execute", "id": "a", "code": "1", "timeout": 1e30}, "timeout"),
        ({"type": "execute", "id": "a", "code": "1", "timeout": "3"}, "timeout"),
        ({"type": "execute", "id": "a", "code": "1", "silent": 1}, "silent"),
        ({"type": "cancel", "id": "a"}, "target"),
        ({"type": "ack", "seq": -1}, "seq"),
        ({"type": 3, "id": "a"}, "type"),
        ({"id": "a"}, "type"),
    ],
    ids=str,
)
@pytest.mark.row("fault")
async def test_a_message_that_breaks_a_rule_gets_a_fault_naming_the_field(
    broker: RunningBroker, message: dict[str, Any], field: str
) -> None:
    async with unharmed(broker) as peer:
        await peer.send(message)
        fault(await peer.next(), "bad_message", field)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.row("one incoming frame")
async def test_an_oversize_frame_gets_too_large_and_the_connection_stays(
    broker: RunningBroker, codec: str
) -> None:
    async with unharmed(broker, codec) as peer:
        await peer.send({"type": "execute", "id": "a", "code": "#" * OVER})
        fault(await peer.next(), "too_large", "frame", str(8 << 20))


async def test_a_frame_at_the_bound_is_taken(broker: RunningBroker) -> None:
    frame = {"type": "execute", "id": "a", "code": ""}
    frame["code"] = "#" * ((8 << 20) - len(json.dumps(frame)))
    async with unharmed(broker) as peer:
        await peer.send(frame)
        assert (await peer.until("done", id="a"))["status"] == "ok"


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("depth", [33, 5000])
@pytest.mark.row("nesting of a message")
async def test_too_deep_nesting_is_refused(broker: RunningBroker, codec: str, depth: int) -> None:
    if codec == JSON:
        nested: str | bytes = '{"type":"execute","id":"a","code":"1","metadata":'
        nested += '{"a":' * depth + "1" + "}" * (depth + 1)
    else:
        head = msgpack.packb({"type": "execute", "id": "a", "code": "1"})
        nested = b"\x84" + head[1:] + msgpack.packb("metadata") + b"\x81\xa1a" * depth + b"\x01"
    async with unharmed(broker, codec) as peer:
        await peer.send(nested)
        event = await peer.next()
        assert (event["type"], event["code"]) == ("fault", "bad_message")
        assert "32 levels" in event["message"]


@pytest.mark.row("bad frames in a row")
async def test_ten_bad_frames_in_a_row_close_with_4400(broker: RunningBroker) -> None:
    name = new_name()
    async with attached(broker, name) as peer:
        await peer.run("kept = 20")
        for _ in range(10):
            await peer.send("no")
        # What comes in the same breath is not served any more.
        await peer.send({"type": "execute", "id": "late", "code": "kept = 0"})
        code, reason = await peer.closed()
        assert (code, reason) == (4400, "10 bad frames in a row")
        assert [event["type"] for event in peer.events[-10:]] == ["fault"] * 10
    assert value_of(broker, name, "kept") == "20"
    assert row_of(broker, name)["generation"] == 1


async def test_nine_bad_frames_and_a_good_one_do_not_close(broker: RunningBroker) -> None:
    async with unharmed(broker) as peer:
        for _ in range(3):
            for _ in range(9):
                await peer.send("no")
            await peer.send({"type": "ping", "id": "p"})
            await peer.until("pong", id="p")


async def test_a_duplicate_open_id_is_refused_and_the_first_goes_on(broker: RunningBroker) -> None:
    async with unharmed(broker) as peer:
        await peer.send({"type": "execute", "id": "a", "code": "kept += 0"})
        await peer.send({"type": "execute", "id": "b", "code": "import time; time.sleep(0.2)"})
        await peer.send({"type": "execute", "id": "b", "code": "kept = 0"})
        event = await peer.until("fault")
        fault(event, "bad_message", "id", "'b'")
        assert (await peer.until("done", id="b"))["status"] == "ok"
        # An id may be used again once its request has ended.
        assert (await peer.run("kept", id="b"))[-1]["status"] == "ok"


@pytest.mark.parametrize("offered", [[], ["broker.v9"], ["broker.v1"]], ids=str)
async def test_a_wrong_subprotocol_is_closed_with_4406_and_makes_no_session(
    broker: RunningBroker, offered: list[str]
) -> None:
    name = new_name()
    async with attached(broker, name, subprotocols=offered) as peer:
        code, reason = await peer.closed()
    assert code == 4406
    assert JSON in reason
    assert call(broker, "GET", f"/v1/sessions/{name}").status == 404


async def test_a_wrong_subprotocol_leaves_the_session_as_it_was(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "kept = 20")
    async with attached(broker, name, subprotocols=["chat"]) as peer:
        assert (await peer.closed())[0] == 4406
    assert value_of(broker, name, "kept") == "20"


BAD_NAMES = [
    "a%20b",
    "a%2Fb",
    "%2e%2e",
    "..",
    ".",
    "%C3%A9",
    "a%00b",
    "a" * 129,
    "a%0D%0Ab",
    "{x}",
    "a%2525",
    "%ff",
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize(
    ("method", "rest"),
    [
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/execute"),
        ("POST", "/interrupt"),
        ("POST", "/restart"),
    ],
)
def test_a_bad_session_name_is_http_400_naming_the_rule(
    broker: RunningBroker, name: str, method: str, rest: str
) -> None:
    body = {"code": "1"} if rest == "/execute" else None
    answer = call(broker, method, f"/v1/sessions/{name}{rest}", body)
    assert answer.status == 400
    assert answer.error["code"] == "bad_message"
    assert answer.error["field"] == "session"
    assert "1 to 128 characters of A-Z a-z 0-9 . _ : @ -" in answer.error["message"]


@pytest.mark.parametrize("name", BAD_NAMES)
async def test_a_bad_session_name_is_refused_before_the_upgrade(
    broker: RunningBroker, name: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with attached(broker, name):
            pass
    answer = refused.value.response
    assert answer.status_code == 400
    assert json.loads(answer.body or b"")["error"]["field"] == "session"


@pytest.mark.parametrize(
    "header",
    ["Bearer wrong-wrong-wrong-wrong", "Bearer", "", "Basic YTpi", "Bearer \xe9", "Bearer a b"],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/sessions"),
        ("GET", "/v1/sessions/a%20b"),
        ("DELETE", "/v1/sessions/{name}"),
        ("POST", "/v1/sessions/{name}/execute"),
        ("POST", "/v1/sessions/{name}/restart"),
        ("POST", "/v1/execute"),
        ("GET", "/v1/sessions/{name}/ws"),
        ("GET", "/v1/nodes"),
        ("GET", "/v1/pools"),
        ("GET", "/metrics"),
    ],
)
def test_a_wrong_token_is_http_401_whatever_is_asked(
    broker: RunningBroker, shared_session: str, header: str, method: str, path: str
) -> None:
    path = path.format(name=shared_session)
    answer = call(broker, method, path, {"code": "kept = 0"}, Authorization=header)
    assert answer.status == 401
    assert answer.error["code"] == "unauthorized"
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert value_of(broker, shared_session, "kept") == "20"


@pytest.fixture(scope="module")
def shared_session(shared_broker: RunningBroker) -> str:
    """Name a session with a variable, for tests that must not change it."""
    name = new_name("shared")
    execute(shared_broker, name, "kept = 20")
    return name


async def test_a_wrong_token_is_refused_before_the_upgrade(
    broker: RunningBroker, shared_session: str
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with attached(broker, shared_session, token="wrong-wrong-wrong-wrong"):
            pass
    assert refused.value.response.status_code == 401
    assert value_of(broker, shared_session, "kept") == "20"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("profile=nope", "profile"),
        ("profile=", "profile"),
        ("after=-1", "after"),
        ("after=x", "after"),
        ("after=1e3", "after"),
        ("after=99999999999999999999", "after"),
        ("mode=write", "mode"),
        ("create=maybe", "create"),
        ("creat=true", "creat"),
    ],
)
async def test_a_bad_query_is_http_400_naming_the_field(
    broker: RunningBroker, shared_session: str, query: str, field: str
) -> None:
    parts: dict[str, Any] = dict([query.split("=")])
    for name in (new_name(), shared_session):
        with pytest.raises(InvalidStatus) as refused:
            async with attached(broker, name, **parts):
                pass
        answer = refused.value.response
        assert answer.status_code == 400
        error = json.loads(answer.body or b"")["error"]
        assert (error["code"], error["field"]) == ("bad_message", field)
        assert name == shared_session or call(broker, "GET", f"/v1/sessions/{name}").status == 404
    assert value_of(broker, shared_session, "kept") == "20"


@pytest.mark.parametrize("query", ["limit=x", "limit=-1", "idle=nan", "idle=inf", "limit=1e99"])
def test_a_bad_query_of_the_listing_is_http_400(broker: RunningBroker, query: str) -> None:
    answer = call(broker, "GET", f"/v1/sessions?{query}")
    assert (answer.status, answer.error["field"]) == (400, query.partition("=")[0])


def test_a_session_keeps_its_profile_and_an_unknown_one_is_refused(
    broker: RunningBroker, shared_session: str
) -> None:
    path = f"/v1/sessions/{shared_session}/execute"
    for where in (path, "/v1/execute"):
        answer = call(broker, "POST", where, {"code": "kept = 0", "profile": "nope"})
        assert (answer.status, answer.error["field"]) == (400, "profile")
        assert "known: python" in answer.error["message"]
    assert value_of(broker, shared_session, "kept") == "20"


async def test_opening_without_create_is_404_and_makes_nothing(broker: RunningBroker) -> None:
    name = new_name()
    with pytest.raises(InvalidStatus) as refused:
        async with attached(broker, name, create="false"):
            pass
    assert refused.value.response.status_code == 404
    assert call(broker, "GET", f"/v1/sessions/{name}").status == 404


async def test_a_watcher_may_not_execute(broker: RunningBroker, shared_session: str) -> None:
    async with attached(broker, shared_session, mode="watch") as peer:
        for request in (
            {"type": "execute", "code": "kept = 0"},
            {"type": "interrupt"},
            {"type": "restart"},
            {"type": "close"},
        ):
            await peer.send({"id": "a", **request})
            fault(await peer.until("fault"), "forbidden", None, "mode=run")
    assert value_of(broker, shared_session, "kept") == "20"


DEEP = b'{"code": "1", "metadata": %s1%s' % (b'{"a":' * 40, b"}" * 41)
BODIES: list[tuple[bytes, int, str, str | None]] = [
    (b"", 400, "bad_frame", None),
    (b"code", 400, "bad_frame", None),
    (b"{", 400, "bad_frame", None),
    (b"\xff\xfe", 400, "bad_frame", None),
    (b'{"code": "\\ud800"}', 400, "bad_frame", None),
    (b"[1]", 400, "bad_frame", None),
    (b"null", 400, "bad_frame", None),
    (b"{}", 400, "bad_message", "code"),
    (b'{"code": null}', 400, "bad_message", "code"),
    (b'{"code": ["1"]}', 400, "bad_message", "code"),
    (b'{"code": "1", "cod": 1}', 400, "bad_message", "cod"),
    (b'{"code": "1", "id": "a"}', 400, "bad_message", "id"),
    (b'{"code": "1", "timeout": 0}', 400, "bad_message", "timeout"),
    (b'{"code": "1", "timeout": 1e308}', 400, "bad_message", "timeout"),
    (b'{"code": "1", "metadata": 3}', 400, "bad_message", "metadata"),
    (b'{"code": "1", "profile": ""}', 400, "bad_message", "profile"),
    (DEEP, 400, "bad_message", "metadata"),
    (b'{"code": "1", "metadata": ' + b"[" * 100_000, 400, "bad_message", None),
    (b'{"code": "' + b"#" * OVER + b'"}', 413, "too_large", "frame"),
]


@pytest.mark.parametrize("case", BODIES, ids=lambda case: repr(case[0])[:40])
def test_a_broken_body_gets_one_clear_error(
    broker: RunningBroker, shared_session: str, case: tuple[bytes, int, str, str | None]
) -> None:
    body, status, code, field = case
    for path in (f"/v1/sessions/{shared_session}/execute", "/v1/execute"):
        answer = call(broker, "POST", path, body)
        assert (answer.status, answer.error["code"]) == (status, code), answer.text[:300]
        if field is not None or code == "bad_frame":
            assert answer.error.get("field") == field
        assert len(answer.text) < 600
    assert value_of(broker, shared_session, "kept") == "20"


def test_a_body_far_over_the_bound_is_refused_unread(
    broker: RunningBroker, shared_session: str
) -> None:
    path = f"/v1/sessions/{shared_session}/execute"
    answer = call(broker, "POST", path, b"", **{"Content-Length": str(1 << 40)})
    assert answer.status in (400, 413)
    assert value_of(broker, shared_session, "kept") == "20"


def test_no_route_and_no_method_are_told_as_json(broker: RunningBroker) -> None:
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("GET", "/console/nothing", 404),
        ("PUT", "/v1/sessions", 405),
        ("POST", "/v1/sessions//execute", 404),
        ("GET", "/v1/sessions/a/ws", 426),
        ("DELETE", f"/v1/sessions/{new_name()}", 404),
        ("POST", f"/v1/sessions/{new_name()}/interrupt", 404),
        ("POST", f"/v1/sessions/{new_name()}/restart", 404),
    ):
        answer = call(broker, method, path)
        assert answer.status == status, (method, path, answer)
        assert answer.error["message"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"])
@pytest.mark.parametrize("headers", [{}, {"Connection": "Upgrade", "Upgrade": "websocket"}])
def test_a_socket_is_asked_for_by_get_alone(
    broker: RunningBroker, method: str, headers: dict[str, str]
) -> None:
    name = new_name()
    answer = call(broker, method, f"/v1/sessions/{name}/ws", **headers)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET")
    assert "Upgrade" not in answer.headers
    if method != "HEAD":
        assert answer.error["code"] == "unknown_method"
    assert call(broker, "GET", f"/v1/sessions/{name}").status == 404


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("x = = 1", "SyntaxError"),
        ("def f(:", "SyntaxError"),
        ("if True:\nprint(1)", "IndentationError"),
        ("'''open", "SyntaxError"),
        ("\x00", "SyntaxError" if sys.version_info >= (3, 11, 4) else "ValueError"),
        ("%%nomagic\n1", None),
        ("(" * 5000, "SyntaxError"),
        ("1 +" + "+" * 20_000 + "1", None),
    ],
    ids=lambda value: repr(value)[:20],
)
async def test_code_that_is_not_python_is_an_error_of_the_code(
    broker: RunningBroker, code: str, error: str | None
) -> None:
    async with unharmed(broker) as peer:
        events = await peer.run(code)
        assert events[-1]["type"] == "done"
        assert events[-1]["status"] == "error", events[-1]
        told = [event for event in events if event["type"] == "error"]
        if error is not None:
            assert [event["name"] for event in told] == [error]
            assert "\x1b" not in json.dumps(told)


@pytest.mark.parametrize(
    "raw", ["%00", "a%0Ab", "a%0D%0Ab", "%1B[31m", "%7F", "%C2%85", "%E2%80%A8"]
)
def test_a_reason_that_would_break_a_line_is_refused(broker: RunningBroker, raw: str) -> None:
    name = new_name()
    execute(broker, name, "kept = 20")
    answer = call(broker, "DELETE", f"/v1/sessions/{name}?reason={raw}")
    assert (answer.status, answer.error["field"]) == (400, "reason")
    assert value_of(broker, name, "kept") == "20"


async def test_a_long_reason_in_any_script_ends_a_session_cleanly(broker: RunningBroker) -> None:
    # A WebSocket's close reason has room for 123 bytes, not characters.
    from urllib.parse import quote

    name = new_name()
    async with attached(broker, name) as peer:
        await peer.run("kept = 20")
        pid = row_of(broker, name)["pid"]
        answer = call(broker, "DELETE", f"/v1/sessions/{name}?reason={quote('é' * 300)}")
        assert answer.status == 200
        code, reason = await peer.closed()
        assert code == 4404
        assert set(reason) == {"é"}
    assert row_of(broker, name)["state"] == "closed"
    pools = call(broker, "GET", "/v1/pools").body["pools"]
    assert pid not in [kernel["pid"] for pool in pools for kernel in pool["kernels"]]
