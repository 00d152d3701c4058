"""The Jupyter wire format as frames: pack, sign, parse. Never a socket, never a clock.

Jupyter messaging, "The Wire Protocol": identities, `<IDS|MSG>`, an HMAC over the four JSON
frames that follow, then header, parent header, metadata, content, and raw buffers.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from kernels.errors import BadFrame

DELIMITER = b"<IDS|MSG>"
PROTOCOL_VERSION = "5.4"
EMPTY = b"{}"

Json = dict[str, Any]


class Message:
    """One message from a kernel. `content` is decoded when it is first read."""

    __slots__ = ("_content", "buffers", "content_bytes", "header", "metadata", "parent")

    def __init__(
        self,
        header: Json,
        parent: Json,
        metadata: Json,
        content_bytes: bytes,
        buffers: Sequence[bytes],
    ) -> None:
        self.header = header
        self.parent = parent
        self.metadata = metadata
        self.content_bytes = content_bytes
        self.buffers = buffers
        self._content: Json | None = None

    @property
    def type(self) -> str:
        """Return the message type, such as `stream`; empty if the kernel sent none."""
        value = self.header.get("msg_type", "")
        return value if isinstance(value, str) else ""

    @property
    def parent_id(self) -> str:
        """Return the id of the request this belongs to; empty if there is none."""
        value = self.parent.get("msg_id", "")
        return value if isinstance(value, str) else ""

    @property
    def content(self) -> Json:
        """Return the decoded content. Raises BadFrame if it is no JSON object."""
        if self._content is None:
            self._content = _object(self.content_bytes, "content")
        return self._content

    def __repr__(self) -> str:
        return f"<Message {self.type} for {self.parent_id or '-'}, {len(self.content_bytes)} B>"


class Signer:
    """Sign and check frames with one kernel's key (bytes of any length, never empty)."""

    def __init__(self, key: bytes) -> None:
        if not key:
            raise ValueError("an empty key would switch signatures off")
        self._start = hmac.new(key, digestmod=hashlib.sha256)

    def sign(self, parts: Sequence[bytes]) -> bytes:
        """Return the hex digest over the four JSON frames."""
        digest = self._start.copy()
        for part in parts:
            digest.update(part)
        return digest.hexdigest().encode()

    def pack(
        self,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        msg_id: str,
        date: str,
        session: str,
        metadata: Mapping[str, Any] | None = None,
        parent: Mapping[str, Any] | None = None,
    ) -> list[bytes]:
        """Return the frames of one request. `date` is ISO 8601 text, `session` the sender's id."""
        header = {
            "msg_id": msg_id,
            "msg_type": msg_type,
            "session": session,
            "username": "",
            "date": date,
            "version": PROTOCOL_VERSION,
        }
        parts = [
            orjson.dumps(header),
            orjson.dumps(parent) if parent else EMPTY,
            orjson.dumps(metadata) if metadata else EMPTY,
            orjson.dumps(content),
        ]
        return [DELIMITER, self.sign(parts), *parts]

    def parse(self, frames: Sequence[bytes]) -> Message:
        """Check and decode what a kernel sent. Raises BadFrame on anything else than a message."""
        try:
            at = frames.index(DELIMITER)
        except ValueError:
            raise BadFrame("no delimiter in the message") from None
        if len(frames) < at + 6:
            raise BadFrame(f"{len(frames) - at - 1} frames where a message has at least 5")
        signature, *parts = frames[at + 1 : at + 6]
        if not hmac.compare_digest(self.sign(parts), signature):
            raise BadFrame("wrong signature")
        header, parent, metadata, content = parts
        return Message(
            _object(header, "header"),
            _object(parent, "parent header") if parent != EMPTY else {},
            _object(metadata, "metadata") if metadata != EMPTY else {},
            content,
            frames[at + 6 :],
        )


def _object(data: bytes, what: str) -> Json:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise BadFrame(f"{what}: {error}") from None
    if not isinstance(value, dict):
        raise BadFrame(f"{what} is no object")
    return value
