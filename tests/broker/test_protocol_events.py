"""What leaves: any event in either format, whatever a kernel has put into it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgpack
import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.faults import Bounds
from broker.protocol import (
    JSON,
    MSGPACK,
    SUBPROTOCOLS,
    Codec,
    choose_subprotocol,
    codec,
)
from broker.roles import Envelope
from tests.broker.frames import BOUNDS, PLAIN, QUICK


def read(wire: Codec, frame: bytes) -> Any:
    return msgpack.unpackb(frame) if wire.binary else orjson.loads(frame)


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
