"""The wire format: what is packed is parsed, and nothing else is."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.errors import BadFrame
from kernels.messages import DELIMITER, Message, Signer

SIGNER = Signer(b"key")
STAMP = {"msg_id": "a_1", "date": "2026-01-01T00:00:00+00:00", "session": "a"}

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
