"""The way out of one WebSocket: frames that come in one turn leave in one write.

RFC 6455, 5.2: a server's frame is FIN and opcode, a length in one of three forms, and the payload,
unmasked. Compression is never negotiated, so no frame has an extension's bits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from tornado.iostream import IOStream, StreamClosedError

TEXT, BINARY = 1, 2
FIN = 0x80
AT_ONCE = 64 << 10  # bytes; with more than that, a write of its own costs nothing by comparison


def head(opcode: int, size: int) -> bytes:
    """Return what stands before a payload of `size` bytes, which is one whole message."""
    if size < 126:
        return bytes((FIN | opcode, size))
    if size < 1 << 16:
        return bytes((FIN | opcode, 126)) + size.to_bytes(2, "big")
    return bytes((FIN | opcode, 127)) + size.to_bytes(8, "big")


class Outbox:
    """Gather frames by `put` and write them by `flush`, which whoever puts them must call.

    `unread` counts the bytes that the socket has not taken; `drained` is called when there are
    fewer. Once the stream is closed, everything is dropped.
    """

    def __init__(self, stream: IOStream, opcode: int, drained: Callable[[], None]) -> None:
        self._stream = stream
        self._opcode = opcode
        self._drained = drained
        self._parts: list[bytes] = []
        self._size = 0  # of the parts
        self.unread = 0

    def __repr__(self) -> str:
        return f"<Outbox {self._size} B gathered, {self.unread} B unread>"

    def put(self, payload: bytes) -> None:
        """Gather a message; so much that it cannot be called a few is written at once."""
        self._parts += (head(self._opcode, len(payload)), payload)
        self._size += len(payload)
        if self._size >= AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Write what has been gathered."""
        if not self._parts:
            return
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        stream = self._stream
        if stream.closed():
            return
        sent = 0
        if not stream.writing():
            # Straight to the socket: a stream's write makes a future, and copies.
            try:
                sent = stream.socket.send(data)
            except OSError:  # it is full; or it is broken, which the stream will find as well
                sent = 0
            if sent == len(data):
                return
        left = len(data) - sent
        try:
            written = stream.write(memoryview(data)[sent:])
        except StreamClosedError:
            return
        self.unread += left
        written.add_done_callback(partial(self._written, left))

    def _written(self, size: int, _written: asyncio.Future[None]) -> None:
        self.unread -= size
        self._drained()
