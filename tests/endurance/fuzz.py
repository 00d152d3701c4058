"""Frames that no honest client sends, thousands of them, each to be answered from the tables.

Three kinds: any bytes at all; messages of the protocol with something changed in them; and bytes
on the socket below, where WebSocket frames are made of them. The broker may refuse, or close with a
code that the protocol names. It may not hang, not answer what was not asked, and not fail.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgpack
import orjson
from websockets.exceptions import ConnectionClosed

from broker import requests
from tests.system.peer import JSON, MSGPACK, Peer, Place, attached, new_name

# Of the protocol, and RFC 6455's own: 1000 after `close`, 1002 and 1007 for frames that are none.
CLOSES = {1000, 1002, 1003, 1007, 1009, 4400, 4404}
FAULTS = {
    *("bad_frame", "bad_message", "too_large", "unknown_session", "forbidden", "quota", "busy"),
    *("queue_full", "capacity", "draining", "store_unavailable", "not_running"),
}
ROUND = 9  # frames between two that are good: ten bad ones in a row would close the connection
PATIENCE = 30.0  # s that an answer may take on a machine with much else to do
# What runs if a changed message still asks for it; nothing here takes long.
CODES = ("1", "x = 1", "1/0", "print('x')", "not python", "", "\0", "\ud800", "'" * 3)
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**63, -(2**63), 2**64 - 1, 1.5, float("nan"), float("inf")),
    *("", "x", "\0", "é" * 70, "x" * 70, "a/b", "../..", b"", b"\xff" * 8, [], {}, [[]], {"a": {}}),
)


@dataclass
class Tally:
    """What came of the frames."""

    frames: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    closes: Counter[int] = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)  # what no table has
    seconds: float = 0.0

    def note(self, event: dict[str, Any]) -> None:
        """Count an answer."""
        if event["type"] == "fault":
            self.faults[event["code"]] += 1
            if event["code"] not in FAULTS:
                self.strange.append(str(event)[:300])

    def closed(self, code: int) -> None:
        """Count a connection's end; `code` is 1006 where it was cut."""
        self.closes[code] += 1
        if code not in CLOSES:
            self.strange.append(f"closed with {code}")

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.frames + other.frames,
            self.faults + other.faults,
            self.closes + other.closes,
            self.strange + other.strange,
            max(self.seconds, other.seconds),
        )


def frames(chance: random.Random, *, binary: bool) -> Iterator[bytes | str]:
    """Give frames without an end, of which most are wrong."""
    while True:
        kind = chance.random()
        if kind < 0.25:
            raw = chance.randbytes(chance.choice((0, 1, 2, 7, 30, 200)))
            yield raw if binary == (chance.random() < 0.95) else raw.decode("latin-1")
            continue
        message = changed(chance, example(chance))
        packed: bytes | str
        try:
            packed = msgpack.packb(message) if binary else orjson.dumps(message).decode()
        except (TypeError, ValueError, OverflowError, UnicodeEncodeError):
            continue
        if kind < 0.5:  # cut, or with some bytes changed
            packed = torn(chance, packed)
        yield packed


def example(chance: random.Random) -> dict[str, Any]:
    """Return a message that might be right, of any type but those that end the session."""
    kind = chance.choice([name for name in requests.REQUESTS if name not in ("close", "restart")])
    message: dict[str, Any] = {"type": kind, "id": f"f{chance.randrange(1 << 40)}"}
    fields = {
        "code": chance.choice(CODES),
        "cells": [{"code": chance.choice(CODES)} for _ in range(chance.randrange(3))],
        "function": chance.choice(("lambda: 1", "print", "no.such", "def f(): return 2", "1 +")),
        "timeout": chance.choice((1, 5.0)),
        "target": "f1",
        "seq": chance.randrange(1000),
        "cursor": chance.randrange(5),
        "tools": [{"name": chance.choice(("f", "g", "1"))}],
        "call": "1",
        "value": chance.choice(VALUES),
        "inputs": {chance.choice(("a", "b", "__c", "1")): chance.choice(VALUES)},
    }
    for name in requests.REQUESTS[kind].__struct_fields__:
        if name in fields and chance.random() < 0.8:
            message[name] = fields[name]
    return message


def changed(chance: random.Random, message: dict[str, Any]) -> dict[Any, Any]:
    """Return the message with a field taken out, put in, or of another kind."""
    new: dict[Any, Any] = dict(message)
    for _ in range(chance.choice((0, 1, 1, 2))):
        act, name = chance.random(), chance.choice(list(new) or ["type"])
        if act < 0.3:
            new.pop(name, None)
        elif act < 0.7:
            new[name] = chance.choice(VALUES)
        elif act < 0.9:
            new[chance.choice(("x", "timeuot", "", "id ", 5, b"k"))] = chance.choice(VALUES)
        else:
            value: Any = 1
            for _ in range(chance.choice((5, 40, 300))):
                value = [value] if chance.random() < 0.5 else {"a": value}
            new[name] = value
    return new


def torn(chance: random.Random, frame: bytes | str) -> bytes | str:
    """Return a frame with its end missing, or some of it exchanged."""
    if not frame:
        return frame
    if chance.random() < 0.5:
        return frame[: chance.randrange(len(frame))]
    at, end = sorted(chance.randrange(len(frame) + 1) for _ in range(2))
    end = min(end, at + 4)
    if isinstance(frame, str):
        return frame[:at] + "".join(chr(chance.randrange(1, 0x500)) for _ in "x") + frame[end:]
    return frame[:at] + chance.randbytes(end - at) + frame[end:]


async def fuzz(broker: Place, count: int, *, seed: int, subprotocol: str) -> Tally:
    """Send so many frames, on as many connections as that takes; return what came of them."""
    chance = random.Random(seed)  # noqa: S311 - the same frames for the same seed
    tally, began = Tally(), time.monotonic()
    name = new_name("fuzz")
    coming = frames(chance, binary=subprotocol == MSGPACK)
    while tally.frames < count:
        async with attached(broker, name, subprotocols=[subprotocol]) as peer:
            try:
                while tally.frames < count:
                    await _round(peer, coming, tally, min(ROUND, count - tally.frames))
            except ConnectionClosed as end:
                tally.closed(end.rcvd.code if end.rcvd else 1006)
    tally.seconds = time.monotonic() - began
    return tally


async def _round(peer: Peer, coming: Iterator[bytes | str], tally: Tally, number: int) -> None:
    """Send some frames and a ping; the pong says that all of them have been dealt with."""
    for _ in range(number):
        tally.frames += 1
        await peer.socket.send(next(coming))
    ping = f"ping-{tally.frames}"
    await peer.send({"type": "ping", "id": ping})
    async with asyncio.timeout(PATIENCE):
        while True:
            frame = await peer.socket.recv()
            event = msgpack.unpackb(frame) if isinstance(frame, bytes) else orjson.loads(frame)
            tally.note(event)
            if event["type"] == "pong" and event.get("id") == ping:
                return


async def fuzz_sockets(broker: Place, count: int, *, seed: int) -> Tally:
    """Send bytes that are no WebSocket frames after a good handshake; each ends the connection."""
    chance = random.Random(seed)  # noqa: S311 - likewise
    tally, began = Tally(), time.monotonic()
    name = new_name("fuzz")
    for _ in range(count):
        reader, writer = await handshake(broker, name)
        tally.frames += 1
        try:
            writer.write(chance.randbytes(chance.choice((2, 6, 14, 100, 1000))))
            await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()  # it may have been the beginning of a frame
            async with asyncio.timeout(PATIENCE):
                await reader.read()
        except ConnectionError:
            pass  # cut: an answer as well
        finally:
            writer.close()
    tally.seconds = time.monotonic() - began
    return tally


async def handshake(
    broker: Place, session: str, subprotocol: str = JSON
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection that has been upgraded, for bytes of one's own."""
    parts = urlsplit(broker.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    lines = (
        f"GET /v1/sessions/{session}/ws HTTP/1.1",
        f"Host: {parts.netloc}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {subprotocol}",
        f"Authorization: Bearer {broker.token}",
    )
    writer.write("\r\n".join((*lines, "", "")).encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 "), head
    return reader, writer
