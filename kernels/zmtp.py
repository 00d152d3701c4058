"""ZeroMQ's protocol on the broker's side of one connection: bytes in, messages out. No socket.

libzmq would do this, but holds every part of a message until its last part comes, and has no bound
on the parts: a kernel that never sends the last one would fill the broker's memory. Here every
size is known to be allowed before a byte of it is kept.

ZMTP 3.0 (rfc.zeromq.org/spec/23), mechanism NULL, as the client: a greeting of 64 bytes from each
side, a READY command from each side, then frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from kernels.errors import BadFrame

MAX_PARTS: Final = 1024  # frames of one message; Jupyter's have 6, a topic, and a few buffers
MAX_COMMAND: Final = 4096  # bytes; READY has a name, a type and an identity
MAX_CONTEXT: Final = 16  # bytes of a PING, ZMTP 3.1

MORE: Final = 1
LONG: Final = 2
COMMAND: Final = 4

GREETING_SIZE: Final = 64
# signature, version 3.0, mechanism, as-server, filler
GREETING: Final = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL" + bytes(16) + bytes(32)
SUBSCRIBE_TO_ALL: Final = b"\x00\x01\x01"  # ZMTP 3.0: a message of one byte, and no topic


def after(count: int) -> bytes:
    """Return a subscription that asks our kernels for all they published after so many messages."""
    return b"\x01\x00after:%d" % count


def frame(flags: int, body: bytes) -> bytes:
    """Return one frame."""
    if len(body) < 256:
        return bytes((flags, len(body))) + body
    return bytes((flags | LONG,)) + len(body).to_bytes(8, "big") + body


def packed(parts: Sequence[bytes]) -> bytes:
    """Return a message of one or more parts."""
    last = len(parts) - 1
    return b"".join([frame(MORE if i < last else 0, part) for i, part in enumerate(parts)])


def ready(kind: str, identity: bytes) -> bytes:
    """Return the READY command of a socket of that kind, such as `DEALER`."""
    body = b"\x05READY" + _property(b"Socket-Type", kind.encode())
    return frame(COMMAND, body + _property(b"Identity", identity) if identity else body)


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value


class Conversation:
    """What one connection has said so far, and what is to be answered.

    `feed` it what was read; take messages by `next` until there is none; send what `answers`
    returns. Keeps no more than one unfinished message, and of what was fed last what is not taken.
    `max_message` bounds the parts of a message together, in bytes; below 0 there is no bound.
    """

    def __init__(self, kind: str, identity: bytes, max_message: int) -> None:
        self._ready = ready(kind, identity) + (SUBSCRIBE_TO_ALL if kind == "SUB" else b"")
        self._max_message = max_message
        self._greeted = False
        self.open = False  # messages may be sent
        self._answers = bytearray(GREETING)
        # Bytes as they were read, for then a part is one slice of them; a bytearray while a frame
        # comes in pieces, for else each piece would copy all of those before it.
        self._buffer: bytes | bytearray = b""
        self._at = 0  # what is before it has been taken
        self._need = GREETING_SIZE  # bytes from there on, before looking again is worth while
        self._parts: list[bytes] = []
        self._size = 0  # of the parts

    def __repr__(self) -> str:
        kept = len(self._buffer) - self._at + self._size
        return f"<Conversation {'open' if self.open else 'greeting'}: {kept} B kept>"

    def feed(self, data: bytes) -> None:
        """Take what was read."""
        if self._at == len(self._buffer):
            self._buffer = data
        else:
            if self._at or isinstance(self._buffer, bytes):
                self._buffer = bytearray(memoryview(self._buffer)[self._at :])
            self._buffer += data
        self._at = 0

    def answers(self) -> bytes:
        """Return what is to be sent by now, once."""
        answers = bytes(self._answers)
        self._answers.clear()
        return answers

    def next(self) -> list[bytes] | None:  # noqa: PLR0912 - see the loop
        """Return the next message, or None before more is fed. Raises BadFrame.

        A message without parts stands for a PING, whose answer is among the `answers`.
        """
        if len(self._buffer) - self._at < self._need:
            if self._at == len(self._buffer):
                self._buffer, self._at = b"", 0  # hundreds of connections wait, each with its last
            return None
        # What was awaited is there: a slice of a bytearray would be copied twice.
        buffer = self._buffer = bytes(self._buffer)
        if not self._greeted:
            self._greet()
        parts, size, at, there = self._parts, self._size, self._at, len(buffer)
        need = 2
        # One loop with everything in it: half of what a small message costs us would be calls.
        while there - at >= need:
            flags = buffer[at]
            if flags > MORE | LONG | COMMAND:
                raise BadFrame(f"frame flags {flags:#x}")
            start = at + 2
            if flags & LONG:
                start = at + 9
                if there < start:
                    need = 9
                    break
                length = int.from_bytes(buffer[at + 1 : start], "big")
            else:
                length = buffer[at + 1]
            # Before a byte of it is waited for.
            if flags & COMMAND or not self.open or 0 <= self._max_message < size + length:
                self._allow(flags, size, length)
            end = start + length
            if there < end:
                need = end - at
                break
            at = end
            if flags & COMMAND:
                self._at, self._need = at, 2
                if self._command(flags, buffer[start:end]):
                    return []
                continue
            if not self.open:
                raise BadFrame("a message before the handshake")
            parts.append(buffer[start:end])
            if not flags & MORE:
                self._at, self._need, self._parts, self._size = at, 2, [], 0
                return parts
            size += length
            if len(parts) >= MAX_PARTS:
                raise BadFrame(f"a message of more than {MAX_PARTS} parts")
        self._at, self._need, self._size = at, need, size
        return None

    def _greet(self) -> None:
        greeting = bytes(self._buffer[:GREETING_SIZE])
        if greeting[0] != 0xFF or greeting[9] & 1 == 0 or greeting[10] < 3:
            raise BadFrame("no greeting of ZMTP 3")
        if greeting[12:32] != GREETING[12:32]:
            raise BadFrame("a security mechanism that was not asked for")
        self._greeted = True
        self._at, self._need = GREETING_SIZE, 2
        self._answers += self._ready

    def _allow(self, flags: int, before: int, size: int) -> None:
        if flags & COMMAND or not self.open:
            if size > MAX_COMMAND:
                raise BadFrame(f"a command of {size} bytes")
        elif 0 <= self._max_message < before + size:
            raise BadFrame(f"a message of {before + size:,} bytes; at most {self._max_message:,}")

    def _command(self, flags: int, body: bytes) -> bool:
        """Act on a command, and tell whether it was a PING."""
        if flags & MORE or self._parts:
            raise BadFrame("a command within a message")
        if not self.open:
            if not body.startswith(b"\x05READY"):
                raise BadFrame(f"the command {body[1:20]!r} in place of READY")
            self.open = True
            return False
        # ZMTP 3.1, which we did not offer; libzmq sends it all the same if told to.
        if not body.startswith(b"\x04PING") or not 7 <= len(body) <= 7 + MAX_CONTEXT:
            raise BadFrame(f"the command {body[1:20]!r}")
        self._answers[:] = frame(COMMAND, b"\x04PONG" + body[7:])  # the newest is enough
        return True
