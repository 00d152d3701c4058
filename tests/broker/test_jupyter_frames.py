"""Both framings of Jupyter's WebSockets, read and written; and whatever else a stranger sends."""

from __future__ import annotations

import json
import struct
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BadFrame, BadMessage, BrokerError, TooLarge
from broker.faults import Bounds
from broker.jupyter.frames import (
    REFUSALS,
    Asked,
    Packet,
    decode_legacy,
    decode_v1,
    made,
)
from broker.jupyter.translation import evaluated

BOUNDS = Bounds(max_frame=1 << 16)
HEADER = {"msg_id": "m-1", "msg_type": "comm_msg", "session": "s", "username": "", "version": "5.3"}


def v1(*parts: bytes) -> bytes:
    """Return a frame as jupyter_server writes one."""
    number = len(parts) + 1
    offsets = [8 * (1 + number)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"<{1 + number}Q", number, *offsets) + b"".join(parts)


def legacy(message: Any, *buffers: bytes) -> bytes:
    """Return a binary frame as jupyter_server writes one."""
    parts = [json.dumps(message).encode(), *buffers]
    offsets = [4 * (1 + len(parts))]
    for part in parts[:-1]:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"!{1 + len(parts)}I", len(parts), *offsets) + b"".join(parts)


def packet(*buffers: bytes) -> Packet:
    parts = (orjson.dumps(HEADER), b'{"msg_id":"p"}', b'{"a":1}', b'{"text":"\xc3\xa9"}')
    return Packet("iopub", parts, buffers, msg_id="m-1", msg_type="comm_msg")


def test_the_newer_framing_is_jupyter_servers() -> None:
    one = packet(b"\0\xff", b"")
    parts = (b"iopub", one.header, one.parent, one.metadata, one.content, b"\0\xff", b"")
    assert one.v1 == v1(*parts)


def test_the_older_framing_is_one_json_object() -> None:
    assert json.loads(packet().legacy) == {
        "header": HEADER,
        "msg_id": "m-1",
        "msg_type": "comm_msg",
        "parent_header": {"msg_id": "p"},
        "metadata": {"a": 1},
        "content": {"text": "é"},
        "buffers": [],
        "channel": "iopub",
    }


def test_the_older_framing_carries_buffers_behind_that() -> None:
    frame = packet(b"\0\xff", b"abc").legacy
    number, *offsets = struct.unpack_from("!4I", frame)
    assert number == 3
    assert json.loads(frame[offsets[0] : offsets[1]])["msg_id"] == "m-1"
    assert [frame[offsets[1] : offsets[2]], frame[offsets[2] :]] == [b"\0\xff", b"abc"]


@pytest.mark.parametrize("buffers", [(), (b"\0\xff", b"", b"x" * 100)])
def test_what_a_client_sends_is_read_in_both(buffers: tuple[bytes, ...]) -> None:
    content = {"code": "1", "deep": [{"a": [1, 2.5, None]}]}
    parts = [b"control", *(orjson.dumps(one) for one in (HEADER, {}, {"m": 1}, content)), *buffers]
    message = {"channel": "control", "header": HEADER, "parent_header": {}, "metadata": {"m": 1}}
    of_legacy = decode_legacy(legacy(message | {"content": content}, *buffers), BOUNDS)
    of_v1 = decode_v1(v1(*parts), BOUNDS)
    assert of_v1 == of_legacy
    assert (of_v1.channel, of_v1.type, of_v1.msg_id) == ("control", "comm_msg", "m-1")
    assert of_v1.content == orjson.loads(of_v1.content_bytes) == content
    assert (of_v1.metadata, of_v1.buffers) == ({"m": 1}, buffers)


@pytest.mark.parametrize(
    "message",
    [
        {"header": HEADER, "content": {"code": "1"}},
        {"header": HEADER, "content": {"code": "1"}, "buffers": {}, "metadata": None},
        {"header": {}, **HEADER, "content": {"code": "1"}, "buffers": [], "parent_header": []},
        {"header": HEADER | {"date": ""}, "content": {"code": "1"}, "channel": "shell"},
    ],
)
def test_what_clients_leave_out_is_filled_in(message: dict[str, Any]) -> None:
    asked = decode_legacy(json.dumps(message), BOUNDS)
    assert (asked.channel, asked.type, asked.content) == ("shell", "comm_msg", {"code": "1"})


BAD_V1: dict[str, tuple[Any, type[Exception]]] = {
    "text": ("{}", BadFrame),
    "empty": (b"", BadFrame),
    "no offsets": (struct.pack("<2Q", 0, 0), BadFrame),
    "more offsets than bytes": (struct.pack("<2Q", 2**63, 16), BadFrame),
    "an offset behind the end": (struct.pack("<3Q", 2, 24, 2**60), BadFrame),
    "offsets out of order": (struct.pack("<4Q", 3, 40, 32, 32) + b"12345678", BadFrame),
    "an offset in the head": (struct.pack("<3Q", 2, 0, 24), BadFrame),
    "too few parts": (v1(b"shell", b"{}"), BadFrame),
    "no JSON": (v1(b"shell", b"{", b"{}", b"{}", b"{}"), BadFrame),
    "no object": (v1(b"shell", b"[]", b"{}", b"{}", b"{}"), BadMessage),
    "no msg_id": (v1(b"shell", b'{"msg_type":"a"}', b"{}", b"{}", b"{}"), BadMessage),
    "a long msg_type": (
        v1(b"shell", orjson.dumps({"msg_id": "a", "msg_type": "b" * 257}), b"{}", b"{}", b"{}"),
        BadMessage,
    ),
    "too deep to write": (
        v1(b"shell", orjson.dumps(HEADER), b"{}", b"{}", b'{"a":' * 500 + b"1" + b"}" * 500),
        BadMessage,
    ),
    "a large header": (
        v1(b"shell", orjson.dumps(HEADER | {"x": "y" * 65536}), b"{}", b"{}", b"{}"),
        TooLarge,
    ),
}


@pytest.mark.parametrize("case", BAD_V1)
def test_what_is_no_message_is_refused_in_the_newer_framing(case: str) -> None:
    frame, error = BAD_V1[case]
    with pytest.raises(error):
        decode_v1(frame, Bounds(max_frame=1 << 20) if case == "a large header" else BOUNDS)


@pytest.mark.parametrize(
    "frame",
    [
        *("", "[]", "{", '{"header": {"msg_id": "a"}}', '{"header": {"msg_id": 1, "msg_type": 2}}'),
        *(b"", b"\0\0\0\1", struct.pack("!2I", 1, 8) + b"[]", struct.pack("!3I", 2, 12, 2**31)),
        "x" * (BOUNDS.max_frame + 1),
    ],
)
def test_what_is_no_message_is_refused_in_the_older_framing(frame: bytes | str) -> None:
    with pytest.raises(REFUSALS):
        decode_legacy(frame, BOUNDS)


@given(st.binary(max_size=400) | st.text(max_size=200))
def test_any_frame_is_read_or_refused(frame: bytes | str) -> None:
    for decode in (decode_v1, decode_legacy):
        try:
            assert isinstance(decode(frame, BOUNDS), Asked)
        except BrokerError as refusal:
            assert isinstance(refusal, REFUSALS)  # noqa: PT017 - either outcome is right


@given(
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 200), max_size=8),
    st.binary(max_size=100),
)
def test_any_offsets_are_followed_or_refused(number: int, offsets: list[int], rest: bytes) -> None:
    frames = (
        (decode_v1, struct.pack(f"<{1 + len(offsets)}Q", number, *offsets) + rest),
        (
            decode_legacy,
            struct.pack(f"!{1 + len(offsets)}I", number % 2**32, *(one % 2**32 for one in offsets))
            + rest,
        ),
    )
    for decode, frame in frames:
        try:
            decode(frame, BOUNDS)
        except BrokerError as refusal:
            assert isinstance(refusal, REFUSALS)  # noqa: PT017 - likewise


CONTENTS = st.dictionaries(
    st.text(max_size=10),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=10,
    ),
    max_size=5,
)


@given(CONTENTS, st.lists(st.binary(max_size=50), max_size=4))
def test_what_is_written_is_read_again(content: dict[str, Any], buffers: list[bytes]) -> None:
    said = made("shell", "comm_msg", content, msg_id="m", date="2026-01-01T00:00:00+00:00")
    said.buffers = buffers
    read = decode_legacy(said.legacy if buffers else said.legacy.decode(), BOUNDS)
    assert read == decode_v1(said.v1, BOUNDS)
    assert (read.content, list(read.buffers)) == (content, buffers)


def test_who_takes_text_alone_gets_a_message_without_its_buffers() -> None:
    assert json.loads(packet(b"\0").text) == json.loads(packet().legacy)


@pytest.mark.parametrize("many", ['"k{}":1', "[]", "1"])
def test_what_would_take_long_to_read_is_refused_unread(many: str) -> None:
    members = ",".join(many.replace("{}", str(number)) for number in range(2_000_000))
    inside = members if ":" in many else f'"a":[{members}]'
    text = f'{{"header": {json.dumps(HEADER)}, "content": {{{inside}}}}}'
    with pytest.raises(TooLarge):
        decode_legacy(text, Bounds(max_frame=64 << 20))


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({"command": "evaluate", "arguments": {"expression": "x()"}}, "x()"),
        ({"command": "setVariable", "arguments": {"value": "y"}}, "y"),
        ({"command": "evaluate", "arguments": {"expression": 1}}, ""),
        ({"command": "evaluate", "arguments": []}, ""),
        ({"command": "next", "arguments": {"expression": "x"}}, ""),
        ({"command": ["evaluate"]}, ""),
    ],
)
def test_code_that_the_debugger_is_to_run_is_known(content: dict[str, Any], code: str) -> None:
    assert evaluated(content) == code
