"""The native protocol: every frame becomes a request or one clear refusal; every event a frame."""

from __future__ import annotations

import json
import math
import tracemalloc
from functools import partial

import msgpack
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker import requests
from broker.errors import BadFrame, BadMessage, ClientError, TooLarge
from broker.faults import Bounds
from broker.protocol import (
    JSON,
    MSGPACK,
    SUBPROTOCOLS,
    Codec,
    codec,
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
from tests.broker.frames import BOUNDS, PLAIN, QUICK, refusal_of


def refused_id(wire: Codec, frame: bytes | str) -> str | None:
    """Return the id of the request in a frame that is refused."""
    refusal = refusal_of(lambda: wire.decode(frame))
    assert refusal is not None
    return refusal.request


def frame_of(wire: Codec, message: object) -> bytes | str:
    packed = msgpack.packb(message) if wire.binary else orjson.dumps(message).decode()
    assert isinstance(packed, bytes | str)
    return packed


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
