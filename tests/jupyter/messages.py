"""Jupyter's messages, as its clients send them, and both framings of its WebSocket."""

from __future__ import annotations

import itertools
import json
import struct
import uuid
from collections.abc import Sequence
from typing import Any

V1 = "v1.kernel.websocket.jupyter.org"
LEGACY = "legacy"
PARTS = ("header", "parent_header", "metadata", "content")

Message = dict[str, Any]


def request(
    kind: str,
    content: Message,
    session: str,
    *,
    buffers: Sequence[bytes] = (),
    parent: Message | None = None,
) -> Message:
    """Make a message as it should be, with an id of its own."""
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": kind,
        "session": session,
        "username": "tester",
        "date": "2020-01-01T00:00:00Z",
        "version": "5.4",
    }
    message = {"header": header, "parent_header": parent or {}, "metadata": {}}
    return {**message, "content": content, "buffers": list(buffers)}


def execution(code: str, **content: Any) -> Message:
    """Return the content of a request to run code."""
    asked = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
    return asked | {"user_expressions": {}, "stop_on_error": True} | content


def is_about(message: Message, message_id: str) -> bool:
    """Tell whether a message answers the one with that id, or was published for it."""
    return bool(message["parent_header"].get("msg_id") == message_id)


def is_idle(message: Message) -> bool:
    """Tell whether a message says that all was published about its request."""
    told = message["content"].get("execution_state")
    return bool(message["header"]["msg_type"] == "status" and told == "idle")


def is_reply(message: Message) -> bool:
    """Tell whether a message is the reply to its request."""
    return message["channel"] in ("shell", "control")


def v1_frame(channel: str, message: Message) -> bytes:
    """Lay a message out: the number of offsets, the offsets, the channel, the parts, the buffers.

    All numbers are 64 bits, little endian; the last offset is where the message ends.
    """
    parts = [channel.encode(), *(json.dumps(message[name]).encode() for name in PARTS)]
    parts += message["buffers"]
    offsets = [8 * (len(parts) + 2)]
    for part in parts:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f"<{len(offsets) + 1}Q", len(offsets), *offsets) + b"".join(parts)


def from_v1_frame(frame: bytes) -> Message:
    (count,) = struct.unpack_from("<Q", frame)
    offsets = struct.unpack_from(f"<{count}Q", frame, 8)
    assert offsets[-1] == len(frame)
    pairs = itertools.pairwise(offsets)
    channel, *parts = (frame[start:end] for start, end in pairs)
    message: Message = {name: json.loads(part) for name, part in zip(PARTS, parts[:4], strict=True)}
    return message | {"channel": channel.decode(), "buffers": parts[4:]}


def legacy_frame(message: Message) -> str | bytes:
    """Give JSON; where there are buffers, behind a table of 32 bit offsets, big endian."""
    buffers = message.get("buffers")
    if not buffers:
        return json.dumps(message)
    text = json.dumps({name: value for name, value in message.items() if name != "buffers"})
    parts = [text.encode(), *buffers]
    offsets = [4 * (len(parts) + 1)]
    for part in parts[:-1]:
        offsets.append(offsets[-1] + len(part))
    return struct.pack(f">{len(parts) + 1}I", len(parts), *offsets) + b"".join(parts)


def from_legacy_frame(frame: str | bytes) -> Message:
    if isinstance(frame, str):
        message: Message = json.loads(frame)
        return message
    (count,) = struct.unpack_from(">I", frame)
    offsets = [*struct.unpack_from(f">{count}I", frame, 4), len(frame)]
    text, *buffers = (frame[start:end] for start, end in itertools.pairwise(offsets))
    message = json.loads(text)
    return message | {"buffers": buffers}
