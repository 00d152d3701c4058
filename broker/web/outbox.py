"""The way out of one WebSocket: frames that come in one turn leave in one write.

RFC 6455, 5.2: a server's frame is FIN and opcode, a length in one of three forms, and the payload,
unmasked. Compression is never negotiated, so no frame has an extension's bits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial

from tornado.iostream import IOStream, StreamClosedError

TEXT, BINARY = 1, 2
FIN = 0x80
PIECE = 256 << 10  # bytes that a stream is given to write; or one frame that is larger
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
    fewer. Once the stream is closed, everything is dropped. The stream gets a piece at a time, so
    that what waits behind it can be given up; whoever writes to the stream by another way calls
    `finish` first, or `drop`.
    """

    def __init__(self, stream: IOStream, opcode: int, drained: Callable[[], None]) -> None:
        self._stream = stream
        self._opcode = opcode
        self._drained = drained
        self._parts: list[bytes] = []
        self._size = 0  # of the parts
        self._later: deque[bytes] = deque()  # whole frames, behind what the stream has
        self._writing = 0  # pieces that the stream has
        self.unread = 0

    def __repr__(self) -> str:
        return f"<Outbox {self._size} B gathered, {self.unread} B unread>"

    def put(self, payload: bytes, opcode: int | None = None) -> None:
        """Gather a message; so much that it cannot be called a few is written at once.

        Its frame is of the usual opcode, unless another is given.
        """
        self._parts += (head(opcode or self._opcode, len(payload)), payload)
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
        if self._writing:
            self._later.append(data)
            self.unread += len(data)
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
        self.unread += len(data) - sent
        self._write(memoryview(data)[sent:])

    def finish(self) -> None:
        """Leave everything to the stream; what is written to it by another way comes after it."""
        self.flush()
        while self._later:
            self._write(self._piece())

    def drop(self) -> None:
        """Give up what the stream does not have yet: whole frames."""
        self._parts.clear()
        self._size = 0
        self.unread -= sum(map(len, self._later))
        self._later.clear()

    def _piece(self) -> bytes:
        piece = [self._later.popleft()]
        size = len(piece[0])
        while self._later and size + len(self._later[0]) <= PIECE:
            piece.append(self._later.popleft())
            size += len(piece[-1])
        return b"".join(piece)

    def _write(self, data: memoryview | bytes) -> None:
        try:
            written = self._stream.write(data)
        except StreamClosedError:
            self.unread -= len(data)
            self.drop()
            return
        self._writing += 1
        written.add_done_callback(partial(self._written, len(data)))

    def _written(self, size: int, _written: asyncio.Future[None]) -> None:
        self._writing -= 1
        self.unread -= size
        if self._later and not self._writing:
            self._write(self._piece())
        self._drained()
