"""ZeroMQ's protocol from the hands of somebody who need not keep to it."""

from __future__ import annotations

import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.errors import BadFrame
from kernels.zmtp import (
    COMMAND,
    GREETING,
    GREETING_SIZE,
    LONG,
    MAX_COMMAND,
    MAX_PARTS,
    MORE,
    Conversation,
    frame,
    packed,
    ready,
)

BOUND = 10_000
HELLO = GREETING + ready("ROUTER", b"")


def greeted(kind: str = "DEALER", *, bound: int = BOUND) -> Conversation:
    conversation = Conversation(kind, b"me", bound)
    conversation.feed(HELLO)
    assert conversation.next() is None
    assert conversation.open
    conversation.answers()
    return conversation


def messages(conversation: Conversation, data: bytes) -> list[list[bytes]]:
    conversation.feed(data)
    return list(iter(conversation.next, None))


def kept(conversation: Conversation) -> int:
    """Count the bytes that wait for more of their message."""
    return int(repr(conversation).split()[-3])


def test_the_greeting_is_that_of_the_specification() -> None:
    assert len(GREETING) == GREETING_SIZE
    assert GREETING[:12] == b"\xff\0\0\0\0\0\0\0\0\x7f\x03\x00"
    assert GREETING[12:] == b"NULL".ljust(20, b"\0") + b"\0" * 32


def test_each_side_greets_then_is_ready_then_subscribes() -> None:
    conversation = Conversation("SUB", b"", BOUND)
    assert conversation.answers() == GREETING
    assert messages(conversation, GREETING) == []
    assert conversation.answers() == b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03SUB\0\x01\x01"
    assert not conversation.open
    assert messages(conversation, ready("XPUB", b"")) == []
    assert conversation.open
    assert conversation.answers() == b""


def test_a_dealer_says_its_identity_and_subscribes_to_nothing() -> None:
    conversation = Conversation("DEALER", b"me", BOUND)
    messages(conversation, GREETING)
    assert conversation.answers() == GREETING + ready("DEALER", b"me")
    assert ready("DEALER", b"me").endswith(b"\x08Identity\0\0\0\x02me")


parts = st.lists(st.binary(max_size=600), min_size=1, max_size=6)


@given(st.lists(parts, max_size=5), st.data())
def test_what_is_packed_comes_out_however_it_is_cut(
    sent: list[list[bytes]], data: st.DataObject
) -> None:
    stream = HELLO + b"".join(packed(one) for one in sent)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=6).map(sorted))
    conversation = Conversation("DEALER", b"me", BOUND)
    got = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += messages(conversation, stream[begin:end])
    assert got == sent
    assert kept(conversation) == 0


def test_it_comes_out_byte_by_byte() -> None:
    conversation = Conversation("DEALER", b"me", BOUND)
    got = []
    for byte in HELLO + packed([b"a" * 300, b"", b"b"]):
        got += messages(conversation, bytes([byte]))
    assert got == [[b"a" * 300, b"", b"b"]]


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_any_bytes_are_messages_or_a_bad_frame_and_little_is_kept(chunks: list[bytes]) -> None:
    for conversation in (greeted(bound=200), Conversation("DEALER", b"", 200)):
        try:
            for chunk in chunks:
                for message in messages(conversation, chunk):
                    assert sum(map(len, message)) <= 200
                assert kept(conversation) <= MAX_COMMAND + 200 + 9
        except BadFrame:
            pass


def test_nothing_is_kept_of_what_was_taken() -> None:
    conversation = greeted()
    large = packed([b"a" * BOUND])
    before = sys.getrefcount(large)
    assert messages(conversation, large) == [[b"a" * BOUND]]
    assert sys.getrefcount(large) == before


hostile_frames = st.builds(
    lambda flags, size, body: bytes([flags]) + size + body,
    st.integers(0, 8),
    st.binary(min_size=1, max_size=1) | st.integers(0, 2**64 - 1).map(lambda n: n.to_bytes(8)),
    st.binary(max_size=60),
)


@given(st.lists(hostile_frames, max_size=20))
def test_any_frames_are_messages_or_a_bad_frame(frames: list[bytes]) -> None:
    try:
        for one in frames:
            for message in messages(greeted(), one):
                assert sum(map(len, message)) <= BOUND
    except BadFrame:
        pass


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\n".ljust(64),
        bytes(64),
        b"\xff" * 64,
        b"\x01\x00".ljust(64, b"\0"),  # ZMTP 1
        GREETING[:10] + b"\x02" + GREETING[11:],
        GREETING[:12] + b"CURVE".ljust(20, b"\0") + GREETING[32:],
        GREETING[:12] + b"NULLS".ljust(20, b"\0") + GREETING[32:],
        GREETING + packed([b"message before READY"]),
        GREETING + frame(COMMAND, b"\x05ERROR\x03no!"),
        GREETING + frame(COMMAND, b""),
        GREETING + frame(COMMAND | MORE, b"\x05READY"),
        GREETING + bytes([COMMAND | LONG]) + (MAX_COMMAND + 1).to_bytes(8, "big"),
        GREETING + bytes([LONG]) + (1 << 40).to_bytes(8, "big"),
    ],
)
def test_another_beginning_is_a_bad_frame(hello: bytes) -> None:
    with pytest.raises(BadFrame):
        messages(Conversation("DEALER", b"me", BOUND), hello)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (bytes([LONG]) + (BOUND + 1).to_bytes(8, "big"), "10,001 bytes; at most 10,000"),
        (b"\x02" + b"\xff" * 8, "18,446,744,073,709,551,615 bytes"),
        (frame(MORE, b"x" * 9_900) + b"\x01\x65", "10,001 bytes; at most"),
        (frame(MORE, b"") * (MAX_PARTS + 1), "more than 1024 parts"),
        (frame(MORE, b"a") + frame(COMMAND, b"\x04PING\0\0"), "within a message"),
        (b"\x08\x00", "flags 0x8"),
        (b"\xff" * 9, "flags 0xff"),
        (frame(COMMAND, b"\x05READY"), "READY"),
        (frame(COMMAND, b"\x04PONG"), "PONG"),
        (frame(COMMAND, b""), "the command"),
        (frame(COMMAND, b"\x04PING"), "PING"),
        (frame(COMMAND, b"\x04PING" + b"x" * 19), "PING"),
        (bytes([COMMAND | LONG]) + (MAX_COMMAND + 1).to_bytes(8, "big"), "a command of 4097"),
    ],
)
def test_what_is_too_much_or_out_of_place_is_a_bad_frame_at_once(data: bytes, says: str) -> None:
    with pytest.raises(BadFrame, match=says):
        messages(greeted(), data)


def test_a_message_at_the_bound_is_taken() -> None:
    whole = [b"x" * (BOUND - 5), b"yyyyy"]
    assert messages(greeted(), packed(whole)) == [whole]
    most = [b""] * MAX_PARTS
    assert messages(greeted(), packed(most)) == [most]


def test_a_long_message_in_small_pieces_is_copied_a_few_times_and_not_once_a_piece() -> None:
    conversation = greeted(bound=64 << 20)
    piece = bytes(4 << 10)
    conversation.feed(bytes((LONG,)) + (8192 * len(piece)).to_bytes(8, "big"))
    began = time.process_time()
    for _ in range(8191):  # with a copy of all that came before, this is 128 GiB
        conversation.feed(piece)
        assert conversation.next() is None
    conversation.feed(piece + packed([b"next"]))
    assert time.process_time() - began < 5
    assert conversation.next() == [bytes(32 << 20)]
    assert conversation.next() == [b"next"]
    assert kept(conversation) == 0


def test_without_a_bound_size_is_free_but_parts_are_not() -> None:
    conversation = greeted(bound=-1)
    assert messages(conversation, packed([b"x" * 1_000_000])) == [[b"x" * 1_000_000]]
    with pytest.raises(BadFrame, match="parts"):
        messages(conversation, frame(MORE, b"") * (MAX_PARTS + 1))


def test_a_ping_is_answered_once_however_many_come() -> None:
    conversation = greeted()
    pings = b"".join(frame(COMMAND, b"\x04PING\0\x0a" + bytes([n])) for n in range(100))
    assert messages(conversation, pings) == [[]] * 100
    assert conversation.answers() == frame(COMMAND, b"\x04PONG" + bytes([99]))
