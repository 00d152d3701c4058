"""The native protocol: every frame becomes a request or one clear refusal; every event a frame."""

from __future__ import annotations

import json
import math
import tracemalloc
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker import requests
from broker.bounds import ASKED
from broker.errors import BadFrame, BadMessage, BadSessionName, ClientError, TooLarge
from broker.faults import Bounds
from broker.protocol import (
    JSON,
    MSGPACK,
    SUBPROTOCOLS,
    Codec,
    OpenQuery,
    check_session_name,
    choose_subprotocol,
    codec,
    execute_body,
    open_query,
)
from broker.requests import (
    Ack,
    Batch,
    Call,
    Cancel,
    Cell,
    Close,
    Complete,
    Configure,
    Execute,
    ExecuteBody,
    History,
    InputReply,
    Inspect,
    Interrupt,
    Ping,
    Restart,
    Tool,
    ToolFailure,
    ToolResult,
    Tools,
    Variables,
)
from broker.roles import Envelope

BOUNDS = Bounds(max_frame=100_000, max_depth=32)
QUICK = settings(max_examples=150, deadline=None)


@pytest.fixture(params=SUBPROTOCOLS)
def wire(request: pytest.FixtureRequest) -> Codec:
    return codec(request.param, BOUNDS)


def refusal_of(call: Callable[[], object]) -> ClientError | None:
    """Return how the call was refused; an error that is no refusal passes through."""
    try:
        call()
    except (BadFrame, BadMessage, TooLarge) as refusal:
        return refusal
    return None


def refused_id(wire: Codec, frame: bytes | str) -> str | None:
    """Return the id of the request in a frame that is refused."""
    refusal = refusal_of(lambda: wire.decode(frame))
    assert refusal is not None
    return refusal.request


def frame_of(wire: Codec, message: object) -> bytes | str:
    packed = msgpack.packb(message) if wire.binary else orjson.dumps(message).decode()
    assert isinstance(packed, bytes | str)
    return packed


def read(wire: Codec, frame: bytes) -> Any:
    return msgpack.unpackb(frame) if wire.binary else orjson.loads(frame)


REQUESTS = [
    ({"type": "execute", "id": "1", "code": ""}, Execute(id="1", code="")),
    (
        {"type": "execute", "id": "é" * 64, "code": "x\0", "timeout": 5, "silent": True},
        Execute(id="é" * 64, code="x\0", timeout=5.0, silent=True),
    ),
    (
        {
            "type": "execute",
            "id": "a",
            "code": "1",
            "timeout": None,
            "stop_on_error": False,
            "store_history": False,
            "metadata": {"a": [{"b": [1, None, 2.5, True, "x"]}]},
        },
        Execute(
            id="a",
            code="1",
            stop_on_error=False,
            store_history=False,
            metadata={"a": [{"b": [1, None, 2.5, True, "x"]}]},
        ),
    ),
    ({"type": "interrupt", "id": "i"}, Interrupt(id="i")),
    ({"type": "interrupt", "id": "i", "target": "1"}, Interrupt(id="i", target="1")),
    ({"type": "cancel", "id": "c", "target": "1"}, Cancel(id="c", target="1")),
    (
        {
            "type": "execute",
            "id": "1",
            "code": "x",
            "inputs": {"x": [1]},
            "env": {"A": ""},
            "cwd": "d",
        },
        Execute(id="1", code="x", inputs={"x": [1]}, env={"A": ""}, cwd="d"),
    ),
    (
        {"type": "batch", "id": "b", "cells": [{"code": "1"}, {"code": "2", "timeout": 1.5}]},
        Batch(id="b", cells=[Cell(code="1"), Cell(code="2", timeout=1.5)]),
    ),
    (
        {"type": "call", "id": "c", "function": "f", "args": [1, "a"], "kwargs": {"k": None}},
        Call(id="c", function="f", args=[1, "a"], kwargs={"k": None}),
    ),
    ({"type": "input_reply", "value": "x"}, InputReply(value="x")),
    ({"type": "tool_result", "call": "1", "value": {"a": 1}}, ToolResult(call="1", value={"a": 1})),
    (
        {"type": "tool_result", "call": "1", "error": {"name": "E", "message": "m"}},
        ToolResult(call="1", error=ToolFailure(name="E", message="m")),
    ),
    (
        {"type": "tools", "id": "t", "tools": [{"name": "f", "parameters": {"type": "object"}}]},
        Tools(id="t", tools=[Tool(name="f", parameters={"type": "object"})]),
    ),
    (
        {"type": "complete", "id": "c", "code": "pri", "cursor": 3},
        Complete(id="c", code="pri", cursor=3),
    ),
    ({"type": "inspect", "id": "c", "code": "f", "cursor": 1}, Inspect(id="c", code="f", cursor=1)),
    ({"type": "variables", "id": "v", "names": ["x"]}, Variables(id="v", names=["x"], max=200)),
    ({"type": "history", "id": "h", "max": 5}, History(id="h", max=5)),
    (
        {"type": "configure", "id": "e", "env": {"A": "1", "B": None}},
        Configure(id="e", env={"A": "1", "B": None}),
    ),
    ({"type": "restart", "id": "r"}, Restart(id="r", keep_files=True)),
    ({"type": "restart", "id": "r", "keep_files": False}, Restart(id="r", keep_files=False)),
    ({"type": "close", "id": "c"}, Close(id="c")),
    ({"type": "ack", "seq": 0}, Ack(seq=0)),
    ({"type": "ack", "seq": 2**63 - 1, "id": "a"}, Ack(seq=2**63 - 1, id="a")),
    ({"type": "ping", "id": "p"}, Ping(id="p")),
]


def test_plain_data_may_be_binary_in_either_format() -> None:
    packed = {**EXECUTE, "inputs": {"x": [b"\0\xff", {"deep": b""}]}}
    written = {**EXECUTE, "inputs": {"x": [{"base64": "AP8="}, {"deep": {"base64": ""}}]}}
    expected = Execute(id="1", code="x", inputs={"x": [b"\0\xff", {"deep": b""}]})
    assert codec(MSGPACK, BOUNDS).decode(msgpack.packb(packed)) == expected
    assert codec(JSON, BOUNDS).decode(orjson.dumps(written).decode()) == expected
    wrong = {**EXECUTE, "inputs": {"x": {"base64": "not base64!"}}}
    with pytest.raises(BadMessage, match="inputs: expected base64") as caught:
        codec(JSON, BOUNDS).decode(orjson.dumps(wrong).decode())
    assert caught.value.field == "inputs"


@pytest.mark.parametrize(("message", "expected"), REQUESTS)
def test_a_message_becomes_its_request(wire: Codec, message: object, expected: object) -> None:
    assert wire.decode(frame_of(wire, message)) == expected


def test_every_known_type_has_an_example() -> None:
    assert {message["type"] for message, _ in REQUESTS} == set(requests.REQUESTS)


EXECUTE = {"type": "execute", "id": "1", "code": "x"}
REFUSED = [
    ({}, "type", "type: missing; expected one of execute, batch"),
    ({"type": "exec", "id": "1"}, "type", "type: expected one of execute,"),
    ({"type": None, "id": "1"}, "type", "got null"),
    ({"type": ["execute"], "id": "1"}, "type", "got a list"),
    ({"type": "x" * 9999}, "type", "xxx..."),
    ({"type": "execute", "id": "1"}, "code", "code: missing; type execute needs it"),
    ({"type": "execute", "code": "x"}, "id", "id: missing; type execute needs it"),
    ({"type": "cancel", "id": "c"}, "target", "target: missing; type cancel needs it"),
    ({"type": "ack"}, "seq", "seq: missing; type ack needs it"),
    ({**EXECUTE, "timeuot": 1}, "timeuot", "no such field of type execute; did you mean timeout?"),
    ({**EXECUTE, "a`b": 1}, "a`b", "a`b: no such field of type execute; known: id, code"),
    ({**EXECUTE, "z" * 9999: 1}, "z" * 61 + "...", "no such field"),
    ({"type": "ping", "id": "1", "code": "x"}, "code", "code: no such field of type ping"),
    ({"type": "batch", "id": "b", "cells": []}, "cells", "cells: expected array of length >= 1"),
    ({"type": "batch", "id": "b", "cells": [{}]}, "cells", "cells: code is missing inside"),
    (
        {"type": "batch", "id": "b", "cells": [{"code": "1", "cod": 1}]},
        "cells",
        "cells: no such field inside: cod",
    ),
    ({"type": "call", "id": "c", "function": ""}, "function", "function: expected str of length"),
    (
        {"type": "tools", "id": "t", "tools": [{"name": "a b"}]},
        "tools",
        "tools: expected str matching",
    ),
    ({"type": "variables", "id": "v", "max": 0}, "max", "max: expected int >= 1"),
    (
        {"type": "complete", "id": "c", "code": "", "cursor": -1},
        "cursor",
        "cursor: expected int >= 0",
    ),
    ({**EXECUTE, "env": {"A=B": "x"}}, "env", "env: expected str matching"),
    ({**EXECUTE, "cwd": ""}, "cwd", "cwd: expected str"),
    ({**EXECUTE, "code": 1}, "code", "code: expected str, got int"),
    ({**EXECUTE, "code": None}, "code", "code: expected str, got null"),
    ({**EXECUTE, "id": ""}, "id", "id: expected str of length >= 1"),
    ({**EXECUTE, "id": "x" * 65}, "id", "id: expected str of length <= 64"),
    ({**EXECUTE, "id": 7}, "id", "id: expected str, got int"),
    ({**EXECUTE, "timeout": 0}, "timeout", "timeout: expected float > 0.0"),
    ({**EXECUTE, "timeout": -1.5}, "timeout", "timeout: expected float > 0.0"),
    ({**EXECUTE, "timeout": 1e9}, "timeout", "timeout: expected float <= 604800.0"),
    ({**EXECUTE, "timeout": "5"}, "timeout", "timeout: expected float | null, got str"),
    ({**EXECUTE, "timeout": True}, "timeout", "timeout: expected float | null, got bool"),
    ({**EXECUTE, "silent": 1}, "silent", "silent: expected bool, got int"),
    ({**EXECUTE, "metadata": None}, "metadata", "metadata: expected object, got null"),
    ({**EXECUTE, "metadata": []}, "metadata", "metadata: expected object, got array"),
    ({"type": "ack", "seq": -1}, "seq", "seq: expected int >= 0"),
    ({"type": "ack", "seq": 2**63}, "seq", "seq: expected int <="),
    ({"type": "ack", "seq": 1.5}, "seq", "seq: expected int, got float"),
    ({"type": "interrupt", "id": "1", "target": ""}, "target", "target: expected str of length"),
]


@pytest.mark.parametrize(("message", "field", "text"), REFUSED)
def test_a_wrong_field_is_named_with_its_rule(
    wire: Codec, message: object, field: str, text: str
) -> None:
    with pytest.raises(BadMessage) as caught:
        wire.decode(frame_of(wire, message))
    assert caught.value.field == field
    assert text in caught.value.message
    assert len(caught.value.message) < 300


def test_no_time_without_end_is_a_timeout() -> None:
    for value in (math.nan, math.inf):
        with pytest.raises(BadMessage, match="timeout: expected float"):
            codec(MSGPACK, BOUNDS).decode(msgpack.packb({**EXECUTE, "timeout": value}))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({**EXECUTE, b"code": "x"}, None),
        ({**EXECUTE, "metadata": {b"a": 1}}, "metadata"),
        ({**EXECUTE, "metadata": {"a": [{b"b": 1}]}}, "metadata"),
        ({**EXECUTE, "metadata": {"a": b"b"}}, "metadata"),
        ({**EXECUTE, "code": b"x"}, "code"),
        ({**EXECUTE, b"x": 1}, None),
    ],
)
def test_binary_is_refused_where_text_belongs(message: object, field: str | None) -> None:
    with pytest.raises(BadMessage) as caught:
        codec(MSGPACK, BOUNDS).decode(msgpack.packb(message))
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("name", "frame"),
    [
        (MSGPACK, b""),
        (MSGPACK, b"\xc1"),
        (MSGPACK, b"\x81\xa4type"),
        (MSGPACK, b"\x80\x80"),
        (MSGPACK, b"\x81\x01\x02"),
        (MSGPACK, b"\xa2\xff\xfe"),
        (MSGPACK, b"\xdb\xff\xff\xff\xff"),
        (MSGPACK, msgpack.packb(msgpack.ExtType(5, b""))),
        (MSGPACK, msgpack.packb(msgpack.ExtType(5, b"12345"))),
        (MSGPACK, msgpack.packb(msgpack.Timestamp(1, 1))),
        (MSGPACK, msgpack.packb([1])),
        (MSGPACK, msgpack.packb(None)),
        (MSGPACK, '{"type": "ping", "id": "1"}'),
        (JSON, ""),
        (JSON, "[]"),
        (JSON, "7"),
        (JSON, '{"type": "ping", "id": "1"'),
        (JSON, '{"type": "ping", "id": "1"} x'),
        (JSON, '{"a": NaN}'),
        (JSON, '{"a": 1e999}'),
        (JSON, '"\\ud800"'),
        (JSON, '{"a": "\ud800"}'),
        (JSON, b'{"type": "ping", "id": "1"}'),
    ],
)
def test_bytes_that_are_no_message_are_a_bad_frame(name: str, frame: bytes | str) -> None:
    with pytest.raises(BadFrame) as caught:
        codec(name, BOUNDS).decode(frame)
    assert caught.value.request is None


def nested(levels: int) -> object:
    """Return a value of that many maps and lists inside each other."""
    value: object = {}
    for level in range(levels - 1):
        value = {"a": value} if level % 2 or level == levels - 2 else [value]
    return value


@pytest.mark.parametrize("depth", [2, 3, 32])
def test_nesting_is_bounded_at_its_setting_exactly(depth: int) -> None:
    for name in SUBPROTOCOLS:
        wire = codec(name, Bounds(max_depth=depth))
        wire.decode(frame_of(wire, {**EXECUTE, "metadata": nested(depth - 1)}))
        with pytest.raises(BadMessage, match=f"metadata: nested deeper than {depth} levels"):
            wire.decode(frame_of(wire, {**EXECUTE, "metadata": nested(depth)}))


def test_nesting_beyond_the_parsers_own_bound_says_the_same() -> None:
    with pytest.raises(BadMessage, match="nested deeper than 32 levels"):
        codec(MSGPACK, BOUNDS).decode(b"\x91" * 50_000)
    with pytest.raises(BadMessage, match="nested deeper than 32 levels"):
        codec(JSON, BOUNDS).decode("[" * 40_000 + "]" * 40_000)


@pytest.mark.row("items of one list or map in a message")
def test_a_claimed_length_allocates_nothing_beyond_the_bound() -> None:
    for frame in (b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"):
        with pytest.raises(BadFrame, match="has fewer items than it says"):
            codec(MSGPACK, BOUNDS).decode(frame)
    nested_claims = b"\xdd\x00\x10\x00\x00" * 900  # a million each, within the bound
    tracemalloc.start()
    try:
        with pytest.raises(BadFrame, match="has fewer items than it says"):
            codec(MSGPACK, BOUNDS).decode(nested_claims)
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


def test_a_list_of_ordinary_length_is_taken_in_both_formats() -> None:
    for name in SUBPROTOCOLS:
        wire = codec(name, Bounds())
        rows = list(range(100_000))
        request = wire.decode(frame_of(wire, {**EXECUTE, "inputs": {"rows": rows}}))
        assert isinstance(request, Execute)
        assert request.inputs == {"rows": rows}


@pytest.mark.row("items of one list or map in a message")
def test_a_list_that_is_too_long_is_refused_by_the_id_of_its_request() -> None:
    for name in SUBPROTOCOLS:
        wire = codec(name, Bounds(max_items=10))
        frame = frame_of(wire, {**EXECUTE, "inputs": {"rows": list(range(11))}, "id": "late"})
        assert refused_id(wire, frame) == "late"


@pytest.mark.parametrize("value", [list(range(11)), {str(n): n for n in range(11)}])
def test_both_formats_bound_the_items_of_a_list_or_map(value: object) -> None:
    for name in SUBPROTOCOLS:
        wire = codec(name, Bounds(max_items=10))
        with pytest.raises(TooLarge, match="more than 10 items"):
            wire.decode(frame_of(wire, {**EXECUTE, "metadata": {"a": value}}))
    with pytest.raises(TooLarge, match="more than 10 items"):
        codec(JSON, Bounds(max_items=10)).decode(json.dumps({str(n): n for n in range(11)}))


@pytest.mark.parametrize("filling", ["x", "é", "€", "\U0001f600"])
def test_a_frame_is_bounded_in_bytes_exactly(filling: str) -> None:
    for name in SUBPROTOCOLS:
        wire = codec(name, BOUNDS)
        frame = frame_of(wire, {**EXECUTE, "code": filling * 90})
        size = len(frame.encode() if isinstance(frame, str) else frame)
        codec(name, Bounds(max_frame=size)).decode(frame)
        with pytest.raises(TooLarge, match=f"a message of {size} bytes is over the bound"):
            codec(name, Bounds(max_frame=size - 1)).decode(frame)


def test_a_refused_request_still_names_its_id(wire: Codec) -> None:
    assert refused_id(wire, frame_of(wire, {"type": "exec", "id": "7"})) == "7"
    assert refused_id(wire, frame_of(wire, {"id": "7", "metadata": nested(60)})) == "7"
    for message in ({}, [], {"id": 7}, {"id": ""}, {"id": "x" * 65}):
        assert refused_id(wire, frame_of(wire, message)) is None


@given(st.binary(max_size=300) | st.text(max_size=300))
@example(b"\xdc\x40\x00" * 900)
@QUICK
def test_any_bytes_at_all_are_a_request_or_a_refusal(frame: bytes | str) -> None:
    for name in SUBPROTOCOLS:
        wire = codec(name, Bounds(max_frame=200))
        refusal = refusal_of(partial(wire.decode, frame))
        assert refusal is None or 0 < len(refusal.message) < 400


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
FIELDS = ["type", "id", "code", "timeout", "silent", "metadata", "target", "seq", "x"]
MESSAGES = st.dictionaries(
    st.sampled_from(FIELDS), PLAIN | st.sampled_from(sorted(requests.REQUESTS)), max_size=5
)


@given(MESSAGES)
@QUICK
def test_both_formats_take_and_refuse_the_same_messages(message: dict[str, object]) -> None:
    answers: list[object] = []
    for name in SUBPROTOCOLS:
        wire = codec(name, BOUNDS)
        try:
            answers.append(wire.decode(frame_of(wire, message)))
        except ClientError as refusal:
            answers.append((type(refusal), refusal.message, refusal.field))
    assert answers[0] == answers[1]


@given(st.dictionaries(st.text(max_size=8), PLAIN, max_size=6))
@QUICK
def test_an_event_is_read_back_as_it_was(event: dict[str, object]) -> None:
    for name in SUBPROTOCOLS:
        wire = codec(name, BOUNDS)
        assert read(wire, wire.encode(event)) == event


ANYTHING = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(st.characters(), max_size=4) | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.text(st.characters(), max_size=3) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(["text", "data"]), ANYTHING))
@example({"text": "\ud800", "data": 10**5000})
@example({"text": -(2**63) - 1, "data": {2**64: "a"}})
@QUICK
def test_whatever_a_kernel_printed_can_be_sent(event: dict[str, object]) -> None:
    for name in SUBPROTOCOLS:
        wire = codec(name, BOUNDS)
        msgpack_or_json = wire.encode(event)
        read_back = (
            msgpack.unpackb(msgpack_or_json, strict_map_key=False)
            if wire.binary
            else orjson.loads(msgpack_or_json)
        )
        assert read_back.keys() == event.keys()


def test_an_event_that_cannot_be_packed_as_it_is_leaves_the_codec_as_it_was(wire: Codec) -> None:
    before = wire.encode({"type": "pong", "id": "1"})
    event = {"type": "stream", "text": "a\ud800b", "n": 2**70}
    assert read(wire, wire.encode(event)) == {"type": "stream", "text": "a?b", "n": str(2**70)}
    with pytest.raises(TypeError):
        wire.encode({"type": "result", "data": object()})
    assert wire.encode({"type": "pong", "id": "1"}) == before


def test_what_nests_beyond_the_formats_is_left_out_with_a_note(wire: Codec) -> None:
    value: list[object] = []
    for _ in range(3000):
        value = [value]
    circle: dict[str, object] = {}
    circle["again"] = circle
    for data in (value, circle):
        frame = wire.encode({"type": "result", "data": data})
        assert b"[nested deeper than 200 levels]" in frame
        assert read(wire, frame)["type"] == "result"


class Borrowed(Mapping[str, object]):
    """A mapping that is no dict."""

    def __getitem__(self, key: str) -> object:
        return {"type": "pong"}[key]

    def __iter__(self) -> Any:
        return iter(["type"])

    def __len__(self) -> int:
        return 1


def test_any_mapping_is_an_event(wire: Codec) -> None:
    assert read(wire, wire.encode(Borrowed())) == {"type": "pong"}


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_binary_values_are_binary_in_msgpack_and_base64_in_json(kind: type) -> None:
    event = {"type": "result", "data": {"image/png": kind(b"\x89PNG")}}
    packed = codec(MSGPACK, BOUNDS).encode(event)
    assert msgpack.unpackb(packed)["data"] == {"image/png": b"\x89PNG"}
    text = codec(JSON, BOUNDS).encode(event)
    assert orjson.loads(text)["data"] == {"image/png": {"base64": "iVBORw=="}}


def test_subprotocols_are_chosen_best_first() -> None:
    assert choose_subprotocol(["x", JSON, MSGPACK]) == MSGPACK
    assert choose_subprotocol([JSON]) == JSON
    assert choose_subprotocol(["broker.v2.json"]) is None
    assert choose_subprotocol([]) is None
    with pytest.raises(ValueError, match="no subprotocol"):
        codec("broker.v2.json", BOUNDS)


def test_a_codec_says_its_name_and_its_kind_of_frame() -> None:
    for name, binary in ((MSGPACK, True), (JSON, False)):
        assert codec(name, BOUNDS).name == name
        assert codec(name, BOUNDS).binary is binary
        assert codec(name, BOUNDS) is codec(name, Bounds(max_frame=100_000))


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


def deep(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "data",
    [
        {"text/plain": "2"},
        {"image/png": b"\x89PNG"},
        {"text/plain": "a lone \ud800 surrogate", "n": 2**80, "f": 1.5, "none": None},
        {"deep": deep(100)},
        {"deep": deep(500)},
        {"deep": deep(900)},
    ],
)
@pytest.mark.parametrize("name", SUBPROTOCOLS)
def test_an_event_that_was_kept_packed_is_sent_as_it_would_have_been(
    name: str, data: dict[str, object]
) -> None:
    wire, event = codec(name, Bounds()), {"type": "display", "data": data, "seq": 1}
    at_once = Envelope(event).frame(wire)
    assert Envelope.of(Envelope(event).packed).frame(wire) == at_once
