"""Jupyter's messages as this kernel writes and reads them: jupyter_client's session, made short.

What is the same in each message is packed once: the header but for its type and number, the
parent, and empty parts. Signatures, and the refusal of a message that comes twice, are as there.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Container
from datetime import UTC, datetime
from hmac import compare_digest
from typing import Any

from jupyter_client._version import protocol_version
from jupyter_client.jsonutil import extract_dates
from jupyter_client.session import DELIM, Session

from .publish import pack

EMPTY = b"{}"
JSON_PARTS = 4  # header, parent header, metadata, content

Json = dict[str, Any]


class KernelSession(Session):
    """The sending and the reading end of a kernel's messages."""

    _parent: tuple[Any, bytes] = (None, EMPTY)

    def begin(self, key: bytes) -> None:
        """Become the session of this process: a name, a key, a count of its own."""
        self.session = str(uuid.uuid4())  # sets `bsession` too
        self.key = key
        self.pid = os.getpid()
        self.message_count = 0
        self.digest_history = set()

    def send(  # noqa: PLR0917 - jupyter_client's parameters
        self,
        stream: Any,
        msg_or_type: Any,
        content: Any = None,
        parent: Any = None,
        ident: Any = None,
        buffers: Any = None,
        track: bool = False,
        header: Any = None,
        metadata: Any = None,
    ) -> Any:
        """Send a message through anything that has `send_multipart`; return it."""
        if isinstance(msg_or_type, dict):
            message = msg_or_type
            buffers = buffers or message.get("buffers")
        else:
            message = self.msg(msg_or_type, content, parent, header, metadata)
        if os.getpid() != self.pid:
            return None  # a forked child is no kernel
        frames = self.serialize(message, ident)
        if buffers:
            frames += map(_bytes, buffers)
        if stream is not None:
            stream.send_multipart(frames)
        return message

    def answer(
        self, stream: Any, frames: list[bytes], content: Json, known: Container[str]
    ) -> None:
        """Answer a request of which there is nothing but the frames, if it is of a known type.

        Any other gets no reply, as from every kernel of Jupyter's.
        Raises ValueError, TypeError or KeyError if they are none, or are not signed.
        """
        idents, parts = self.feed_identities(frames)
        if len(parts) <= JSON_PARTS or parts[0] != self.sign(parts[1 : JSON_PARTS + 1]):
            raise ValueError("no message, or one with a wrong signature")
        header = json.loads(parts[1])
        kind = header["msg_type"]
        if kind in known and kind.endswith("_request"):
            reply = kind.removesuffix("request") + "reply"
            self.send(stream, reply, content, {"header": header}, idents)

    def msg_header(self, msg_type: str) -> Json:
        """Return a header."""
        return {
            "msg_id": self.msg_id,
            "msg_type": msg_type,
            "username": self.username,
            "session": self.session,
            "date": datetime.now(UTC),
            "version": protocol_version,
        }

    def serialize(self, msg: Json, ident: Any = None) -> list[bytes]:
        """Return the frames of a message, but for its buffers."""
        content = msg.get("content")
        if isinstance(content, str):
            content = content.encode()
        elif not isinstance(content, bytes):
            content = pack(content) if content else EMPTY
        metadata = msg["metadata"]
        parts = [
            pack(msg["header"]),
            self._packed_parent(msg["parent_header"]),
            pack(metadata) if metadata else EMPTY,
            content,
        ]
        frames = list(ident) if isinstance(ident, list) else [] if ident is None else [ident]
        return [*frames, DELIM, self.sign(parts), *parts]

    def _packed_parent(self, parent: Any) -> bytes:
        """Return a parent header packed; all messages about one request have the same."""
        if not parent:
            return EMPTY
        last, data = self._parent
        if last is not parent:
            data = pack(parent)
            self._parent = (parent, data)
        return data

    def feed_identities(self, msg_list: Any, copy: bool = True) -> tuple[Any, Any]:
        """Split the identities off. Raises ValueError."""
        at = msg_list.index(DELIM)
        return msg_list[:at], msg_list[at + 1 :]

    def deserialize(self, msg_list: Any, content: bool = True, copy: bool = True) -> Json:
        """Return a message from its frames, checked. Raises ValueError, TypeError or KeyError."""
        if len(msg_list) <= JSON_PARTS:
            raise TypeError(f"a message of {len(msg_list)} parts")
        signature, header, parent, metadata, body = msg_list[: JSON_PARTS + 1]
        if self.auth is not None:
            if not signature or signature in self.digest_history:
                raise ValueError("a message that is not signed, or comes twice")
            if not compare_digest(signature, self.sign([header, parent, metadata, body])):
                raise ValueError("a message with a wrong signature")
            if content:
                self._add_digest(signature)
        head = _dated(json.loads(header))
        if content:
            self._parent = (head, header)  # of all that will be said about it
        return {
            "header": head,
            "msg_id": head["msg_id"],
            "msg_type": head["msg_type"],
            "parent_header": _dated(json.loads(parent)) if parent != EMPTY else {},
            "metadata": json.loads(metadata) if metadata != EMPTY else {},
            "content": json.loads(body) if content else body,
            "buffers": [memoryview(frame) for frame in msg_list[JSON_PARTS + 1 :]],
        }


def _dated(header: Json) -> Json:
    """Return a header with its date as one. Its other fields are text."""
    date = header.get("date")
    if isinstance(date, str):
        try:
            header["date"] = datetime.fromisoformat(date)
        except ValueError:
            header = extract_dates(header)
    return header


def _bytes(buffer: Any) -> bytes:
    """Return what a buffer holds. Raises TypeError, or ValueError for one in pieces."""
    view = memoryview(buffer)
    if not view.contiguous:
        raise ValueError("a buffer that is not contiguous")
    return bytes(view)
