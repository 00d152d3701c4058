"""What one message costs is bounded before it arises: its lists and maps, and what is in them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import msgpack
import orjson
import pytest

from broker.errors import BadFrame, TooLarge
from broker.faults import Bounds
from broker.protocol import JSON, MSGPACK, SUBPROTOCOLS, Codec, codec, execute_body
from broker.requests import Execute

MIB = 1 << 20
EXECUTE = {"type": "execute", "id": "one", "code": "1"}


def frame_of(wire: Codec, inputs: object) -> bytes | str:
    message = {**EXECUTE, "inputs": inputs}
    return msgpack.packb(message) if wire.binary else orjson.dumps(message).decode()


@contextmanager
def at_most(size: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


@pytest.mark.row("items of all lists and maps in a message")
@pytest.mark.parametrize("name", SUBPROTOCOLS)
def test_the_items_of_a_message_are_bounded_together_at_their_number_exactly(name: str) -> None:
    # The message has 4 fields, `inputs` 2 or 3 of its own.
    wire = codec(name, Bounds(max_items=50, max_in_all=4 + 2 + 100))
    wire.decode(frame_of(wire, {"a": [1] * 50, "b": {str(n): 1 for n in range(50)}}))
    for inputs in ({"a": [1] * 50, "b": [1] * 50, "c": 1}, {"a": [[1] * 49] * 3}):
        with pytest.raises(TooLarge, match="of more than 106 items together") as caught:
            wire.decode(frame_of(wire, inputs))
        assert caught.value.request == "one"


@pytest.mark.row("lists and maps in a message")
@pytest.mark.parametrize("name", SUBPROTOCOLS)
def test_the_lists_and_maps_of_a_message_are_bounded_at_their_number_exactly(name: str) -> None:
    wire = codec(name, Bounds(max_nested=20))  # the message, `inputs`, its list, and 17 in that
    wire.decode(frame_of(wire, {"a": [[]] * 9 + [{}] * 8}))
    with pytest.raises(TooLarge, match="more than 20 lists and maps") as caught:
        wire.decode(frame_of(wire, {"a": [[]] * 9 + [{}] * 9}))
    assert caught.value.request == "one"


def test_a_posted_body_has_the_same_bounds() -> None:
    body = {"code": "1", "inputs": {"a": [[]] * 18}}
    with pytest.raises(TooLarge, match="more than 20 lists and maps"):
        execute_body(orjson.dumps(body), Bounds(max_nested=20))
    execute_body(orjson.dumps(body), Bounds(max_nested=21))


@pytest.mark.parametrize("name", SUBPROTOCOLS)
def test_a_frame_of_lists_without_end_is_refused_before_it_is_all_decoded(name: str) -> None:
    wire = codec(name, Bounds())
    frame = frame_of(wire, {f"a{at}": [[]] * 300_000 for at in range(8)})
    with at_most(60 * MIB), pytest.raises(TooLarge) as caught:  # all of it takes 134 MiB and more
        wire.decode(frame)
    assert caught.value.request == "one"


def test_a_frame_of_items_without_end_is_refused_before_it_is_all_decoded() -> None:
    wire = codec(MSGPACK, Bounds())
    frame = frame_of(wire, {f"a{at}": [1] * MIB for at in range(7)})
    with at_most(40 * MIB), pytest.raises(TooLarge):  # all of it takes 56 MiB
        wire.decode(frame)


def test_what_only_claims_to_be_long_allocates_nothing() -> None:
    frame = b"\xdd\x00\x00\x40\x00" * 900 + b" " * (1 << 14)
    with at_most(MIB), pytest.raises(BadFrame, match="has fewer items than it says"):
        codec(MSGPACK, Bounds()).decode(frame)


@pytest.mark.parametrize("name", SUBPROTOCOLS)
def test_brackets_in_code_are_no_lists(name: str) -> None:
    wire = codec(name, Bounds(max_nested=20))
    code = "[{" * 1000 + '"\\" ['
    message = {**EXECUTE, "code": code, "inputs": {"a": ["[" * 100, '"[', {"[": "\\"}]}}
    frame = msgpack.packb(message) if wire.binary else orjson.dumps(message).decode()
    request = wire.decode(frame)
    assert isinstance(request, Execute)
    assert (request.code, request.inputs) == (code, message["inputs"])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"type": "execute", "id": "x", "inputs": %s}', "x"),
        (' { "id" : "é\\u0041" , "a": %s}', "éA"),
        ('{"code": "\\"id\\": [", "n": -1.5e3, "t": true, "z": null, "id": "7", "a": %s}', "7"),
        ('{"id": 7, "a": %s}', None),
        ('{"id": "", "a": %s}', None),
        ('{"a": %s, "id": "late"}', None),  # behind what is not read
        ("%s", None),
    ],
)
def test_the_id_of_json_that_is_not_decoded_is_read_up_to_what_nests(
    text: str, found: str | None
) -> None:
    with pytest.raises(TooLarge) as caught:
        codec(JSON, Bounds(max_nested=20)).decode(text % str([[]] * 30))
    assert caught.value.request == found


@pytest.mark.parametrize("value", [[[]] * 30_000, {str(n): [] for n in range(30_000)}])
def test_an_id_that_is_none_is_not_decoded_once_more(value: object) -> None:
    frame = msgpack.packb({"id": value})
    wire = codec(MSGPACK, Bounds(max_items=20_000))
    with at_most(MIB), pytest.raises(TooLarge) as caught:
        wire.decode(frame)
    assert caught.value.request is None
