"""ZeroMQ's protocol on the kernel's side of one connection: bytes in, messages out. No socket.

ZMTP 3.0 and what clients of 3.1 say in it (rfc.zeromq.org/spec/23 and /37), mechanism NULL, as the
side that listens. Whoever connects is the broker, or a client that its user may use: it is asked
to keep to the protocol, and its messages have no bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

MORE, LONG, COMMAND = 1, 2, 4
GREETING_SIZE = 64
# signature, version 3.0, mechanism, as-server, filler
GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL" + bytes(16) + bytes(32)
MAX_HANDSHAKE = 4096  # bytes of a READY command


class BadPeer(Exception):
    """A connection that does not speak ZMTP 3 as this side needs it."""


def packed(parts: Sequence[bytes]) -> bytes:
    """Return a message of one or more parts as it goes over the wire."""
    out: list[bytes] = []
    last = len(parts) - 1
    for index, part in enumerate(parts):
        size = len(part)
        more = index < last
        if size < 256:
            out.append(bytes((more, size)))
        else:
            out.append(bytes((more | LONG,)) + size.to_bytes(8, "big"))
        out.append(part)
    return b"".join(out)


def command(name: bytes, body: bytes = b"") -> bytes:
    """Return a command frame; together with its name it has less than 256 bytes."""
    return bytes((COMMAND, 1 + len(name) + len(body), len(name))) + name + body


def ready(kind: bytes) -> bytes:
    """Return the READY command of a socket of that kind, such as `ROUTER`."""
    return command(b"READY", _property(b"Socket-Type", kind) + _property(b"Identity", b""))


def _property(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value


def properties(body: bytes) -> dict[bytes, bytes]:
    """Return the properties of a READY command, names in lower case. Raises BadPeer."""
    found, at = {}, 0
    while at < len(body):
        start = at + 1 + body[at]
        size = int.from_bytes(body[start : start + 4], "big")
        found[body[at + 1 : start].lower()] = body[start + 4 : start + 4 + size]
        at = start + 4 + size
    if at != len(body):
        raise BadPeer("properties that end too early")
    return found


class Conversation:
    """What one connection has said so far, and what is to be answered.

    `feed` takes what was read and yields messages, each a list of parts; subscriptions come as
    they do from an XPUB socket: one part, 1 or 0 and the topic. `answers` is to be sent after
    each call, and is then to be cleared.
    """

    def __init__(self, kind: bytes) -> None:
        self._kind = kind
        self._chunks: list[bytes] = []  # of what is not complete
        self._size = 0  # of the chunks
        self._wanted = 0  # bytes that are needed to go on
        self._parts: list[bytes] = []
        self._greeted = False
        self.open = False
        self.identity = b""
        self.answers = bytearray(GREETING)

    def opened(self) -> None:
        """Take the handshake for done."""
        self._greeted = self.open = True

    def feed(self, data: bytes) -> Iterable[list[bytes]]:
        """Take what was read; yield the messages that are complete. Raises BadPeer."""
        self._chunks.append(data)
        self._size += len(data)
        if self._size >= self._wanted:
            yield from self._parse(b"".join(self._chunks))

    def _parse(self, data: bytes) -> Iterable[list[bytes]]:
        at = 0
        if not self._greeted:
            if len(data) < GREETING_SIZE:
                self._keep(data, GREETING_SIZE)
                return
            self._greet(data[:GREETING_SIZE])
            at = GREETING_SIZE
        end = len(data)
        wanted = 2
        while end - at >= 2:
            flags, size, start = data[at], data[at + 1], at + 2
            if flags & LONG:
                start = at + 9
                size = int.from_bytes(data[at + 1 : start], "big")
            if start + size > end:
                wanted = start + size - at if start <= end else start - at
                break
            body = data[start : start + size]
            at = start + size
            if flags & COMMAND:
                if (said := self._command(body)) is not None:
                    yield [said]
            elif not self.open:
                raise BadPeer("a message before the handshake")
            else:
                self._parts.append(body)
                if not flags & MORE:
                    message, self._parts = self._parts, []
                    yield message
        self._keep(data[at:], wanted)
        if not self.open and max(self._size, wanted) > MAX_HANDSHAKE:
            raise BadPeer("a handshake without end")

    def _keep(self, rest: bytes, wanted: int) -> None:
        self._chunks = [rest] if rest else []
        self._size, self._wanted = len(rest), wanted

    def _greet(self, greeting: bytes) -> None:
        if greeting[0] != 0xFF or greeting[9] & 1 == 0 or greeting[10] < 3:
            raise BadPeer("no greeting of ZMTP 3")
        if greeting[12:32] != GREETING[12:32]:
            raise BadPeer("a security mechanism that was not asked for")
        self._greeted = True
        self.answers += ready(self._kind)

    def _command(self, body: bytes) -> bytes | None:
        """Act on a command; return the subscription, if it is one."""
        name, rest = body[1 : 1 + body[0]], body[1 + body[0] :]
        if not self.open:
            if name != b"READY":
                raise BadPeer(f"the command {name!r} in place of READY")
            self.identity = properties(rest).get(b"identity", b"")
            self.open = True
        elif name == b"PING":
            self.answers += command(b"PONG", rest[2:])
        elif name == b"SUBSCRIBE":
            return b"\x01" + rest
        elif name == b"CANCEL":
            return b"\x00" + rest
        return None
