"""What leaves for one client: whole frames, few writes, and a count of what was not taken."""

from __future__ import annotations

import asyncio
import struct
from typing import Any, cast

import pytest
from tornado.iostream import IOStream, StreamClosedError

from broker.web.outbox import AT_ONCE, BINARY, TEXT, Outbox, head


class FakeStream:
    """Takes `room` bytes at the socket, and keeps the rest until `take_all`."""

    def __init__(self, room: int = 1 << 40) -> None:
        self.room = room
        self.sends: list[bytes] = []
        self.buffer = b""
        self.waiting: list[asyncio.Future[None]] = []
        self.is_closed = False
        self.socket: Any = self

    def closed(self) -> bool:
        return self.is_closed

    def writing(self) -> bool:
        return bool(self.buffer)

    def send(self, data: bytes) -> int:
        if not self.room:
            raise BlockingIOError
        taken = data[: self.room]
        self.room -= len(taken)
        self.sends.append(taken)
        return len(taken)

    def write(self, data: memoryview) -> asyncio.Future[None]:
        if self.is_closed:
            raise StreamClosedError
        self.buffer += data
        self.waiting.append(asyncio.get_running_loop().create_future())
        return self.waiting[-1]

    async def take_all(self) -> None:
        self.sends.append(self.buffer)
        self.buffer, waiting, self.waiting = b"", self.waiting, []
        for future in waiting:
            future.set_result(None)
        await asyncio.gather(*waiting)


class Scene:
    def __init__(self, room: int = 1 << 40, opcode: int = BINARY) -> None:
        self.stream = FakeStream(room)
        self.unread: list[int] = []
        self.outbox = Outbox(
            cast(IOStream, self.stream), opcode, lambda: self.unread.append(self.outbox.unread)
        )


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65_535, b"\x82\x7e\xff\xff"),
        (65_536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        (1 << 24, b"\x82\x7f" + struct.pack("!Q", 1 << 24)),
    ],
)
def test_a_frame_has_the_shortest_length_that_holds_it(size: int, expected: bytes) -> None:
    assert head(BINARY, size) == expected
    assert head(TEXT, size) == b"\x81" + expected[1:]
    scene = Scene()
    scene.outbox.put(bytes(size))
    scene.outbox.flush()
    assert b"".join(scene.stream.sends) == expected + bytes(size)


def test_what_is_put_in_one_turn_leaves_in_one_write() -> None:
    scene = Scene(opcode=TEXT)
    for payload in (b"{}", b"[1]", b"x"):
        scene.outbox.put(payload)
    assert scene.stream.sends == []
    scene.outbox.flush()
    scene.outbox.flush()
    assert scene.stream.sends == [b"\x81\x02{}\x81\x03[1]\x81\x01x"]


def test_so_much_that_it_is_no_few_is_not_kept_back() -> None:
    scene = Scene()
    scene.outbox.put(b"a")
    scene.outbox.put(bytes(AT_ONCE))
    assert len(scene.stream.sends) == 1
    scene.outbox.put(b"b")
    assert len(scene.stream.sends) == 1


async def test_what_the_socket_does_not_take_is_counted_until_it_does() -> None:
    scene = Scene(room=10)
    scene.outbox.put(bytes(range(20)))
    scene.outbox.flush()
    assert scene.outbox.unread == 22 - 10
    scene.stream.room = 1 << 40
    scene.outbox.put(b"later")  # not before what already waits
    scene.outbox.flush()
    assert scene.outbox.unread == 22 - 10 + 7
    assert scene.unread == []
    for _ in range(2):
        await scene.stream.take_all()
        await asyncio.sleep(0)
    assert scene.unread[-1] == scene.outbox.unread == 0
    assert b"".join(scene.stream.sends) == b"\x82\x14" + bytes(range(20)) + b"\x82\x05later"


async def test_a_socket_that_takes_nothing_is_left_to_the_stream() -> None:
    scene = Scene(room=0)
    scene.outbox.put(b"x")
    scene.outbox.flush()
    assert (scene.outbox.unread, scene.stream.buffer) == (3, b"\x82\x01x")


async def test_a_closed_stream_drops_everything() -> None:
    scene = Scene()
    scene.stream.is_closed = True
    scene.outbox.put(b"x")
    scene.outbox.flush()
    assert (scene.outbox.unread, scene.stream.sends, scene.stream.buffer) == (0, [], b"")


async def test_a_stream_has_a_piece_of_whole_frames_and_what_waits_behind_it_can_be_dropped() -> (
    None
):
    scene = Scene(room=0)
    frame = bytes(AT_ONCE)
    for _ in range(9):
        scene.outbox.put(frame)
    one = 10 + AT_ONCE
    assert (scene.outbox.unread, len(scene.stream.buffer)) == (9 * one, one)
    await scene.stream.take_all()
    await asyncio.sleep(0)
    assert len(scene.stream.buffer) == 3 * one  # not over the bound of a piece
    scene.outbox.put(b"gathered")
    scene.outbox.drop()
    assert scene.outbox.unread == 3 * one
    scene.outbox.flush()
    scene.stream.write(memoryview(b"close"))
    await scene.stream.take_all()
    await asyncio.sleep(0)
    sent = head(BINARY, AT_ONCE) + frame
    assert b"".join(scene.stream.sends) == 4 * sent + b"close"
    assert (scene.outbox.unread, scene.stream.buffer) == (0, b"")


async def test_what_is_finished_stands_before_what_is_written_by_another_way() -> None:
    scene = Scene(room=0)
    for payload in (b"a", b"b", bytes(AT_ONCE), b"c"):
        scene.outbox.put(payload)
        scene.outbox.flush()
    scene.outbox.put(b"d")
    scene.outbox.finish()
    scene.stream.write(memoryview(b"close"))
    await scene.stream.take_all()
    await asyncio.sleep(0)
    said = b"".join(scene.stream.sends)
    assert said.startswith(b"\x82\x01a\x82\x01b")
    assert said.endswith(b"\x82\x01c\x82\x01dclose")
    assert scene.outbox.unread == 0


async def test_what_waits_behind_a_stream_that_closes_is_dropped() -> None:
    scene = Scene(room=0)
    for payload in (b"a", b"b"):
        scene.outbox.put(payload)
        scene.outbox.flush()
    scene.stream.is_closed = True
    scene.stream.waiting[0].set_exception(StreamClosedError())
    await asyncio.sleep(0)
    assert scene.outbox.unread == 0
