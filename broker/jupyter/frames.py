"""The two framings of Jupyter's kernel WebSockets: bytes to requests, messages to bytes. Pure.

`v1.kernel.websocket.jupyter.org`: binary frames; little-endian numbers of 8 bytes, first how many
offsets there are, then the offsets; between one and the next lie the channel's name, header, parent
header, metadata, content, and each buffer. Its parts are the kernel's own, and pass as they are.

The legacy one, for who offers no subprotocol: a text frame of one JSON object; with buffers a
binary frame, of big-endian numbers of 4 bytes (how many parts, the offset of each), that object,
and each buffer.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Final

import orjson

from broker.errors import BadFrame, BadMessage, BrokerError, TooLarge
from broker.faults import Bounds, over_size
from broker.loading import load_json
from kernels.messages import MAX_HEADER, MAX_METADATA, MAX_NAME, MAX_NESTED, Message, nested

Json = dict[str, Any]

V1: Final = "v1.kernel.websocket.jupyter.org"
CHANNELS: Final = ("shell", "control", "stdin", "iopub")
MAX_BUFFERS: Final = 256  # of one message
PARTS: Final = 4  # header, parent header, metadata, content
EMPTY: Final = b"{}"
REFUSALS: Final = (BadFrame, BadMessage, TooLarge)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client sends: a request, or the answer to one of the kernel's.

    `header_bytes` is the parent header of all that will answer it.
    """

    channel: str
    type: str  # such as `execute_request`
    msg_id: str
    header: Json
    header_bytes: bytes
    metadata: Json
    content: Json
    content_bytes: bytes
    buffers: tuple[bytes, ...] = ()

    @property
    def size(self) -> int:
        """Return the bytes of what it carries."""
        return len(self.content_bytes) + sum(map(len, self.buffers))

    def bare(self) -> Asked:
        """Return it without what it carries."""
        return replace(self, header={}, metadata={}, content={}, content_bytes=EMPTY, buffers=())


class Packet:
    """A message on its way to clients, put into each framing at most once.

    Its parts are header, parent header, metadata and content, as JSON.
    """

    __slots__ = (
        *("_legacy", "_text", "_v1", "buffers", "channel", "content", "header", "metadata"),
        *("msg_id", "parent", "type"),
    )

    def __init__(
        self,
        channel: str,
        parts: tuple[bytes, bytes, bytes, bytes],
        buffers: Sequence[bytes] = (),
        *,
        msg_id: str,
        msg_type: str,
    ) -> None:
        self.channel, self.type, self.msg_id = channel, msg_type, msg_id
        self.header, self.parent, self.metadata, self.content = parts
        self.buffers = buffers
        self._v1: bytes | None = None
        self._text: bytes | None = None
        self._legacy: bytes | None = None

    @classmethod
    def of(cls, channel: str, message: Message, parent: bytes | None = None) -> Packet:
        """Return a kernel's message, with another parent header if one is given."""
        header, own, metadata = message.parts
        parts = (header, parent or own, metadata, message.content_bytes)
        msg_id, kind = message.header.get("msg_id"), message.type
        msg_id = msg_id if isinstance(msg_id, str) else ""
        return cls(channel, parts, message.buffers, msg_id=msg_id, msg_type=kind)

    @property
    def size(self) -> int:
        """Return its bytes, about."""
        size = len(self.header) + len(self.parent) + len(self.metadata) + len(self.content)
        return size + sum(map(len, self.buffers)) if self.buffers else size

    def settle(self) -> None:
        """Take no more memory than the message does: it is to be kept for a while."""
        self._v1 = self._text = self._legacy = None

    @property
    def v1(self) -> bytes:
        """Return it as a binary frame of the newer framing."""
        if self._v1 is None:
            parts = [
                *(self.channel.encode(), self.header, self.parent, self.metadata, self.content),
                *self.buffers,
            ]
            number = len(parts) + 1
            offsets = [8 * (1 + number)]
            for part in parts:
                offsets.append(offsets[-1] + len(part))
            head = struct.pack(f"<{1 + number}Q", number, *offsets)
            self._v1 = b"".join([head, *parts])
        return self._v1

    @property
    def text(self) -> bytes:
        """Return it as a text frame of the older framing, which has no room for buffers."""
        if self._text is None:
            name, kind = orjson.dumps(self.msg_id), orjson.dumps(self.type)
            self._text = b"".join(
                (
                    *(b'{"header":', self.header, b',"msg_id":', name, b',"msg_type":', kind),
                    *(b',"parent_header":', self.parent, b',"metadata":', self.metadata),
                    *(b',"content":', self.content, b',"buffers":[],"channel":"'),
                    *(self.channel.encode(), b'"}'),
                )
            )
        return self._text

    @property
    def legacy(self) -> bytes:
        """Return it in the older framing: a text frame's bytes, or with buffers a binary frame."""
        if not self.buffers:
            return self.text
        if self._legacy is None:
            parts = [self.text, *self.buffers]
            offsets = [4 * (1 + len(parts))]
            for part in parts[:-1]:
                offsets.append(offsets[-1] + len(part))
            head = struct.pack(f"!{1 + len(parts)}I", len(parts), *offsets)
            self._legacy = b"".join([head, *parts])
        return self._legacy


def decode_v1(frame: bytes | str, bounds: Bounds) -> Asked:
    """Return what a frame of the newer framing asks. Raises BadFrame, BadMessage, TooLarge."""
    if isinstance(frame, str):
        raise BadFrame("text; the frames of this subprotocol are binary")
    if len(frame) > bounds.max_frame:
        raise over_size(len(frame), bounds)
    parts = _split(frame, "<", 8, ends=True)
    if len(parts) < 1 + PARTS:
        raise BadFrame(f"{len(parts)} parts; a message has at least {1 + PARTS}")
    channel, header, _, metadata, content, *buffers = parts
    return _asked(
        channel.decode(errors="replace"),
        _object(header, "header", MAX_HEADER, bounds),
        _object(metadata, "metadata", MAX_METADATA, bounds),
        _object(content, "content", bounds.max_frame, bounds),
        buffers,
    )


def decode_legacy(frame: bytes | str, bounds: Bounds) -> Asked:
    """Return what a frame of the older framing asks. Raises BadFrame, BadMessage, TooLarge.

    What clients leave out is filled in: the channel is `shell`, buffers are those of the frame, and
    `msg_id` and `msg_type` may stand beside the header alone.
    """
    if len(frame) > bounds.max_frame:
        raise over_size(len(frame), bounds)
    buffers: list[bytes] = []
    text: bytes | str = frame
    if isinstance(frame, bytes):
        text, *buffers = _split(frame, "!", 4, ends=False)
    message = _loaded(text, bounds)
    if not isinstance(message, dict):
        raise BadFrame("not one JSON object")
    header = message.get("header")
    header = dict(header) if isinstance(header, dict) else {}
    for name in ("msg_id", "msg_type"):
        if name not in header and name in message:
            header[name] = message[name]
    channel = message.get("channel")
    return _asked(
        channel if isinstance(channel, str) else "shell",
        header,
        _fields(message.get("metadata")),
        _fields(message.get("content")),
        buffers,
    )


def _asked(
    channel: str, header: Json, metadata: Json, content: Json, buffers: Sequence[bytes]
) -> Asked:
    if channel not in CHANNELS:
        raise BadMessage(f"channel: expected one of {', '.join(CHANNELS)}", field="channel")
    for name in ("msg_id", "msg_type"):
        value = header.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME:
            raise BadMessage(f"{name}: expected text of 1 to {MAX_NAME} characters", field=name)
    try:
        header_bytes, content_bytes = orjson.dumps(header), orjson.dumps(content)
        size = len(orjson.dumps(metadata))
    except TypeError:  # orjson writes fewer levels than it reads
        raise BadMessage("nested too deep") from None
    _check_size(len(header_bytes), "header", MAX_HEADER)
    _check_size(size, "metadata", MAX_METADATA)
    kind, msg_id = header["msg_type"], header["msg_id"]
    return Asked(
        *(channel, kind, msg_id, header, header_bytes, metadata, content, content_bytes),
        buffers=tuple(buffers),
    )


def _split(frame: bytes, order: str, width: int, *, ends: bool) -> list[bytes]:
    """Return the parts of a binary frame; `ends` tells that an offset more says where all ends."""
    letter = "Q" if width == 8 else "I"
    if len(frame) < 2 * width:
        raise BadFrame("a binary frame too short for its offsets")
    (number,) = struct.unpack_from(f"{order}{letter}", frame)
    if not 1 <= number <= MAX_BUFFERS + 2 + PARTS or width * (1 + number) > len(frame):
        raise BadFrame(f"a binary frame that says that it has {number} offsets")
    offsets = list(struct.unpack_from(f"{order}{number}{letter}", frame, width))
    if not ends:
        offsets.append(len(frame))
    begin, end = offsets[0], offsets[-1]
    if begin < width * (1 + number) or end > len(frame) or offsets != sorted(offsets):
        raise BadFrame("a binary frame with offsets out of order or out of it")
    return [frame[here:there] for here, there in pairwise(offsets)]


def _loaded(data: bytes | str, bounds: Bounds) -> object:
    """Return what a text of JSON holds, if it is not made to take long."""
    if len(data) > MAX_NESTED:
        packed = data if isinstance(data, bytes) else data.encode(errors="surrogatepass")
        if nested(packed, MAX_NESTED) > MAX_NESTED or packed.count(b",") > bounds.max_in_all:
            raise TooLarge(
                f"more than {MAX_NESTED:,} arrays, objects and members, or too many items"
            )
    return load_json(data, bounds)


def _object(data: bytes, what: str, most: int, bounds: Bounds) -> Json:
    _check_size(len(data), what, most)
    try:
        value = _loaded(data, bounds)
    except BrokerError as refusal:
        refusal.field = refusal.field or what
        raise
    if not isinstance(value, dict):
        raise BadMessage(f"{what}: not a JSON object", field=what)
    return value


def _check_size(size: int, what: str, most: int) -> None:
    if size > most:
        raise TooLarge(f"{what}: {size:,} bytes; at most {most:,}", field=what)


def _fields(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def made(
    channel: str,
    msg_type: str,
    content: Mapping[str, Any] | bytes,
    *,
    msg_id: str,
    date: str,
    parent: bytes = EMPTY,
) -> Packet:
    """Return a message that we say in a kernel's place; `date` is ISO 8601 text."""
    header = {
        "msg_id": msg_id,
        "msg_type": msg_type,
        "username": "",
        "session": "broker",
        "date": date,
        "version": "5.3",
    }
    packed = content if isinstance(content, bytes) else orjson.dumps(content)
    parts = (orjson.dumps(header), parent, EMPTY, packed)
    return Packet(channel, parts, msg_id=msg_id, msg_type=msg_type)
