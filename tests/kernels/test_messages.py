"""The wire format: what is packed is parsed, and nothing else is."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.errors import BadFrame
from kernels.messages import (
    DELIMITER,
    MAX_HEADER,
    MAX_METADATA,
    MAX_NAME,
    MAX_NESTED,
    Message,
    Signer,
    nested,
)

SIGNER = Signer(b"key")
STAMP: dict[str, Any] = {"msg_id": "a_1", "date": "2026-01-01T00:00:00+00:00", "session": "a"}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
objects = st.dictionaries(st.text(max_size=10), json_values, max_size=4)


def signed(*parts: bytes, prefix: list[bytes] | None = None, rest: tuple[bytes, ...] = ()) -> Any:
    return [*(prefix or []), DELIMITER, SIGNER.sign(parts), *parts, *rest]


def test_what_is_packed_is_parsed() -> None:
    frames = SIGNER.pack("execute_request", {"code": "1"}, **STAMP, metadata={"m": 1})
    message = SIGNER.parse(frames)
    assert message.type == "execute_request"
    assert message.content == {"code": "1"}
    assert message.metadata == {"m": 1}
    assert message.parent == {}
    assert message.parent_id == ""
    assert message.header["msg_id"] == "a_1"
    assert message.buffers == []


@given(content=objects, metadata=objects, parent=objects)
def test_any_objects_survive_the_way(
    content: dict[str, Any], metadata: dict[str, Any], parent: dict[str, Any]
) -> None:
    frames = SIGNER.pack("x", content, **STAMP, metadata=metadata, parent=parent)
    message = SIGNER.parse([b"identity", *frames, b"buffer"])
    assert (message.content, message.metadata, message.parent) == (content, metadata, parent)
    assert message.buffers == [b"buffer"]


def test_identities_and_buffers_stand_around_the_message() -> None:
    frames = signed(b"{}", b"{}", b"{}", b"{}", prefix=[b"id", b"topic"], rest=(b"1", b"2"))
    assert SIGNER.parse(frames).buffers == [b"1", b"2"]


@given(key=st.binary(min_size=1, max_size=200), parts=st.lists(st.binary(max_size=300), max_size=5))
def test_the_signature_is_that_of_rfc_2104(key: bytes, parts: list[bytes]) -> None:
    expected = hmac.new(key, b"".join(parts), hashlib.sha256).hexdigest()
    assert Signer(key).sign(parts) == expected.encode()


def test_each_message_has_its_own_parent_though_one_is_decoded_once() -> None:
    one, other = b'{"msg_id": "1"}', b'{"msg_id": "2"}'
    bad = b"[]"
    told = []
    for parent in (one, one, other, b"{}", one, bad, bad, one, other):
        try:
            told.append(SIGNER.parse(signed(b"{}", parent, b"{}", b"{}")).parent_id)
        except BadFrame:
            told.append("bad")
    assert told == ["1", "1", "2", "", "1", "bad", "bad", "1", "2"]


HEAVY = b'{"a": [%s0]}'


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([], "no delimiter"),
        ([b"a", b"b"], "no delimiter"),
        ([DELIMITER], "0 frames"),
        ([DELIMITER, b"", b"{}", b"{}", b"{}"], "4 frames"),
        ([DELIMITER, b"", b"{}", b"{}", b"{}", b"{}"], "wrong signature"),
        ([DELIMITER, b"\xff" * 64, b"{}", b"{}", b"{}", b"{}"], "wrong signature"),
        ([DELIMITER, Signer(b"other").sign([b"{}"] * 4), *[b"{}"] * 4], "wrong signature"),
        (signed(b"", b"{}", b"{}", b"{}"), "header: "),
        (signed(b"[]", b"{}", b"{}", b"{}"), "header is no object"),
        (signed(b"{}", b"1", b"{}", b"{}"), "parent header is no object"),
        (signed(b"{}", b"{}", b"null", b"{}"), "metadata is no object"),
        (signed(b"{}", b"{}", b"\xff", b"{}"), "metadata: "),
        (signed(b"[" * 10_000, b"{}", b"{}", b"{}"), "header: "),
        (signed(HEAVY % (b"[]," * 1000), b"{}", b"{}", b"{}"), "header: more than 1,000 arrays"),
        (signed(b"{}", HEAVY % (b"[]," * 1000), b"{}", b"{}"), "parent header: more than 1,000"),
        (signed(b"{}", b"{}", HEAVY % (b"[]," * 10_000), b"{}"), "metadata: more than 10,000"),
    ],
)
def test_anything_else_is_a_bad_frame(frames: list[bytes], says: str) -> None:
    with pytest.raises(BadFrame, match=says):
        SIGNER.parse(frames)


@pytest.mark.parametrize("content", [b"", b"[]", b"nope", b"\xff", b"{" * 10_000])
def test_bad_content_is_found_when_it_is_read(content: bytes) -> None:
    message = SIGNER.parse(signed(b"{}", b"{}", b"{}", content))
    with pytest.raises(BadFrame, match="content"):
        _ = message.content


@pytest.mark.parametrize("value", [b"1", b"null", b"[]", b"{}"])
def test_names_that_are_no_text_are_empty(value: bytes) -> None:
    header, parent = b'{"msg_type": ' + value + b"}", b'{"msg_id": ' + value + b"}"
    message = SIGNER.parse(signed(header, parent, b"{}", b"{}"))
    assert message.type == ""
    assert message.parent_id == ""
    assert "for -" in repr(message)


LONG = b'{"a": "' + b"x" * MAX_METADATA + b'"}'


@pytest.mark.parametrize(
    ("header", "parent", "metadata", "says"),
    [
        (LONG[:-MAX_HEADER] + b'"}', b"{}", b"{}", "header: .* at most 65,536"),
        (b"{}", LONG, b"{}", "parent header: .* at most 65,536"),
        (b"{}", b"{}", LONG, "metadata: .* at most 262,144"),
    ],
)
def test_a_header_too_long_is_refused_before_it_is_decoded(
    header: bytes, parent: bytes, metadata: bytes, says: str
) -> None:
    with pytest.raises(BadFrame, match=says):
        SIGNER.parse(signed(header, parent, metadata, b"{}"))


@pytest.mark.parametrize(
    "value",
    [
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e999",
        b"9" * 5000,
        b'"\\ud800"',
        b'"\xed\xa0\x80"',
        b'"\xff"',
        b'"\x00"',
        b"'a'",
        b"[" * 1025 + b"]" * 1025,
        b"0x1",
        b"01",
        b'"',
        b"{} {}",
    ],
)
def test_what_is_no_json_is_refused_wherever_it_stands(value: bytes) -> None:
    text = b'{"a": ' + value + b"}"
    for at in range(3):
        parts = [b"{}"] * 4
        parts[at] = text
        with pytest.raises(BadFrame):
            SIGNER.parse(signed(*parts))
    with pytest.raises(BadFrame):
        _ = SIGNER.parse(signed(b"{}", b"{}", b"{}", text)).content


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (7, 7),
        (-(2**62), -(2**62)),
        (10**30, 1e30),
        (10**400, str(10**400)),
        (-(10**400), str(-(10**400))),
    ],
)
def test_integers_that_no_float_holds_come_as_text(number: int, expected: object) -> None:
    text = b'{"number": %d, "beside": %d, "float": 0.5}' % (number, 10**309)
    message = SIGNER.parse(signed(b"{}", b"{}", b"{}", text))
    assert message.content == {"number": expected, "beside": str(10**309), "float": 0.5}


def test_a_key_that_comes_twice_has_its_last_value() -> None:
    message = SIGNER.parse(signed(b'{"msg_type": "a", "msg_type": "b"}', b"{}", b"{}", b"{}"))
    assert message.type == "b"


def test_names_of_any_length_are_bounded() -> None:
    for length, kept in ((MAX_NAME, True), (MAX_NAME + 1, False)):
        name = b"x" * length
        header, parent = b'{"msg_type": "' + name + b'"}', b'{"msg_id": "' + name + b'"}'
        message = SIGNER.parse(signed(header, parent, b"{}", b"{}"))
        assert bool(message.type) == bool(message.parent_id) == kept


ITEMS = [b"[]", b"{}", b'{"a":0}', b"[[[[]]]]", b'"a",[]']


@pytest.mark.parametrize("item", ITEMS)
def test_content_of_more_structure_than_text_is_not_decoded(item: bytes) -> None:
    content = b'{"a": [' + b",".join([item] * (MAX_NESTED + 1)) + b"]}"
    message = SIGNER.parse(signed(b"{}", b"{}", b"{}", content))
    assert message.is_heavy
    with pytest.raises(BadFrame, match="more than 200,000"):
        _ = message.content


@pytest.mark.parametrize("text", ["{[:" * 300_000, '\\"{' * 300_000, "\\" * 300_000 + '"[{:'])
def test_text_that_looks_like_structure_is_text(text: str) -> None:
    message = SIGNER.parse(SIGNER.pack("stream", {"text": text}, **STAMP))
    assert not message.is_heavy
    assert message.content == {"text": text}


@given(json_values, st.integers(0, 5))
def test_structure_is_counted_as_it_is_or_seen_to_be_little(value: object, enough: int) -> None:
    def count(value: object) -> int:
        if isinstance(value, dict):
            return 1 + len(value) + sum(map(count, value.values()))
        return 1 + sum(map(count, value)) if isinstance(value, list) else 0

    data = orjson.dumps(value)
    assert (nested(data, enough) > enough) == (count(value) > enough)


@given(st.text('"\\{[:a,]}', max_size=40), st.integers(0, 5))
def test_counting_ends_whatever_the_text(text: str, enough: int) -> None:
    assert 0 <= nested(text.encode(), enough) <= max(enough + 1, len(text))


@pytest.mark.parametrize(
    "data",
    [
        b'"' + b'\\"' * 1_000_000 + b":" * 200_001,
        b'"{' * 1_000_000,
        b'"' + b"\\" * 2_000_001 + b"{" * 200_001,
        b'"' + b"{" * 2_000_000,
    ],
    ids=["escaped quotes", "odd quotes", "backslashes", "no end"],
)
def test_counting_takes_time_in_proportion(data: bytes) -> None:
    began = time.process_time()
    nested(data, MAX_NESTED)
    assert time.process_time() - began < 1.0


def test_changing_any_signed_byte_is_noticed() -> None:
    frames = SIGNER.pack("status", {"a": 1}, **STAMP, parent={"p": 1})
    for index in range(1, len(frames)):
        for at in range(len(frames[index])):
            changed = bytearray(frames[index])
            changed[at] ^= 1
            with pytest.raises(BadFrame, match="wrong signature"):
                SIGNER.parse([*frames[:index], bytes(changed), *frames[index + 1 :]])


frame = st.binary(max_size=40) | st.sampled_from([DELIMITER, b"{}", b"[]", b'{"msg_type": 1}'])


def read(frames: list[bytes]) -> None:
    """Read all of a message; nothing but a Message or BadFrame may come of it."""
    try:
        message = SIGNER.parse(frames)
        assert isinstance(message, Message)
        assert isinstance(message.type, str)
        assert isinstance(message.parent_id, str)
        assert isinstance(message.content, dict)
        assert repr(message)
    except BadFrame:
        pass


@given(st.lists(frame, max_size=10))
def test_any_frames_are_a_message_or_a_bad_frame(frames: list[bytes]) -> None:
    read(frames)


@given(st.lists(frame, min_size=4, max_size=4), st.lists(frame, max_size=3))
def test_any_signed_frames_are_a_message_or_a_bad_frame(
    parts: list[bytes], rest: list[bytes]
) -> None:
    read(signed(*parts, rest=tuple(rest)))


def test_an_empty_key_is_refused() -> None:
    with pytest.raises(ValueError, match="empty key"):
        Signer(b"")
