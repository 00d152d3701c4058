"""What comes by HTTP: names of sessions, queries, bodies."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.bounds import ASKED
from broker.errors import BadFrame, BadMessage, BadSessionName, ClientError, TooLarge
from broker.protocol import (
    OpenQuery,
    check_session_name,
    execute_body,
    open_query,
)
from broker.requests import (
    Execute,
    ExecuteBody,
)
from tests.broker.frames import BOUNDS, QUICK, refusal_of


@pytest.mark.parametrize("name", ["a", "chat-42", "A.b_c:d@e-f", "...", "x" * 128])
def test_a_session_name_within_the_rule_is_taken(name: str) -> None:
    assert check_session_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "a b", "é", "a\n", "\n", "x" * 129, "a{b}", "٣", "x" * 9999]
)
def test_a_session_name_outside_the_rule_is_refused_with_the_rule(name: str) -> None:
    with pytest.raises(BadSessionName, match="1 to 128 characters of A-Z a-z 0-9") as caught:
        check_session_name(name)
    assert caught.value.field == "session"
    assert len(caught.value.message) < 250


@given(st.text(max_size=140))
@QUICK
def test_a_session_name_is_taken_whole_or_refused(name: str) -> None:
    try:
        assert check_session_name(name) == name
        assert name.isascii()
        assert 1 <= len(name) <= 128
    except BadSessionName:
        pass


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({}, OpenQuery()),
        ({"token": "secret"}, OpenQuery()),
        (
            {"profile": "data", "after": "0", "mode": "watch", "create": "false"},
            OpenQuery(profile="data", after=0, mode="watch", create=False),
        ),
        ({"after": str(2**63 - 1), "mode": "run", "create": "1"}, OpenQuery(after=2**63 - 1)),
        ({"after": "007", "create": "0"}, OpenQuery(after=7, create=False)),
        (
            {"memory": "256M", "processes": "40", "cpu": "0.5", "cpu_time": "5s"},
            OpenQuery(limits={"memory": 256 << 20, "processes": 40, "cpu": 0.5, "cpu_time": 5.0}),
        ),
        ({"execution_timeout": "90"}, OpenQuery(limits={"execution_timeout": 90.0})),
    ],
)
def test_a_query_says_how_to_attach(args: dict[str, str], expected: OpenQuery) -> None:
    assert open_query(args) == expected


@pytest.mark.parametrize(
    ("args", "field", "text"),
    [
        ({"profile": ""}, "profile", "expected 1 to 64 characters"),
        ({"profile": "x" * 65}, "profile", "expected 1 to 64 characters"),
        ({"after": "-1"}, "after", "expected a sequence number, got '-1'"),
        ({"after": ""}, "after", "expected a sequence number"),
        ({"after": "٣"}, "after", "expected a sequence number"),
        ({"after": "1_0"}, "after", "expected a sequence number"),
        ({"after": "9" * 19}, "after", "expected a sequence number up to"),
        ({"after": "9" * 9999}, "after", "expected a sequence number"),
        ({"mode": "look"}, "mode", "expected run or watch, got 'look'"),
        ({"create": "no"}, "create", "expected true or false, got 'no'"),
        ({"memory": "much"}, "memory", "expected a size such as 512K, 8M, 1G or a number of bytes"),
        ({"memory": "1K"}, "memory", "expected 32M to 16T; got '1K'"),
        ({"processes": "1.5"}, "processes", "expected a whole number; got '1.5'"),
        ({"cpu": "-1"}, "cpu", "expected a number such as 1 or 0.5; got '-1'"),
        ({"cpu_time": ""}, "cpu_time", "expected a duration"),
        ({"execution_timeout": ""}, "execution_timeout", "expected a bound, got nothing"),
        ({"memroy": "1G"}, "memroy", "no such query parameter; did you mean memory?"),
        ({"profil": "x"}, "profil", "no such query parameter; did you mean profile?"),
        ({"q": "x"}, "q", "no such query parameter; known: profile, after"),
    ],
)
def test_a_wrong_query_parameter_is_named(args: dict[str, str], field: str, text: str) -> None:
    with pytest.raises(BadMessage) as caught:
        open_query(args)
    assert caught.value.field == field
    assert text in caught.value.message


@given(st.dictionaries(st.sampled_from(["profile", "after", "mode", "create", *ASKED]), st.text()))
@QUICK
def test_any_query_is_taken_or_refused(args: dict[str, str]) -> None:
    refusal = refusal_of(lambda: open_query(args))
    assert refusal is None or refusal.field in args


def test_a_body_is_an_execute_without_id_and_type() -> None:
    body = execute_body(b'{"code": "x", "timeout": 2, "profile": "data"}', BOUNDS)
    assert body == ExecuteBody(code="x", timeout=2.0, profile="data")
    assert body.request("1") == Execute(id="1", code="x", timeout=2.0)
    shared = set(Execute.__struct_fields__) - {"id"}
    assert set(ExecuteBody.__struct_fields__) - {"profile"} == shared


def test_every_field_of_a_body_reaches_the_request() -> None:
    sent = {
        "code": "x",
        "timeout": 2.5,
        "stop_on_error": False,
        "store_history": False,
        "silent": True,
        "metadata": {"a": 1},
    }
    request = execute_body(orjson.dumps(sent), BOUNDS).request("1")
    assert {name: getattr(request, name) for name in sent} == sent


@pytest.mark.parametrize(
    ("data", "error", "text"),
    [
        (b"", BadFrame, 'expected JSON such as {"code": "1 + 1"}'),
        (b"{", BadFrame, "not JSON"),
        (b"\xff", BadFrame, "not JSON"),
        (b"[]", BadFrame, "a message is a map; this is a list"),
        (b"{}", BadMessage, "code: missing; this request needs it"),
        (b'{"code": 1}', BadMessage, "code: expected str, got int"),
        (b'{"code": "", "id": "1"}', BadMessage, "id: no such field of this request"),
        (b'{"code": "", "type": "execute"}', BadMessage, "type: no such field of this request"),
        (b'{"code": "", "profile": ""}', BadMessage, "profile: expected str of length >= 1"),
        (b" " * 100_001, TooLarge, "over the bound of 100000"),
    ],
)
def test_a_wrong_body_is_refused_clearly(data: bytes, error: type[ClientError], text: str) -> None:
    with pytest.raises(error) as caught:
        execute_body(data, BOUNDS)
    assert text in caught.value.message


@given(st.binary(max_size=200))
@QUICK
def test_any_body_is_a_request_or_a_refusal(data: bytes) -> None:
    refusal = refusal_of(lambda: execute_body(data, BOUNDS))
    assert refusal is None or refusal.message
