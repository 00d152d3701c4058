"""The Jupyter wire format as frames: pack, sign, parse. Never a socket, never a clock.

Jupyter messaging, "The Wire Protocol": identities, `<IDS|MSG>`, an HMAC over the four JSON
frames that follow, then header, parent header, metadata, content, and raw buffers.

A kernel has its own key, so a signature says only that no other kernel sent it. What costs more to
decode than its bytes suggest is refused before it is decoded.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from kernels.errors import BadFrame

DELIMITER = b"<IDS|MSG>"
PROTOCOL_VERSION = "5.4"
EMPTY = b"{}"
BLOCK: Final = 64  # bytes that SHA-256 takes at once
MAX_HEADER: Final = 64 << 10  # bytes of a header; ours, which come back as parents, have 300
MAX_METADATA: Final = 256 << 10  # bytes
# As MAX_NESTED, of a header and of metadata: these are decoded before anyone knows what for.
HEADER_NESTED: Final = 1000
METADATA_NESTED: Final = 10_000
INT_LIMIT: Final = 2.0**63
MAX_DIGITS: Final = 4301  # of an integer, with its sign; sys.get_int_max_str_digits()
MAX_SLOW: Final = 64 << 10  # bytes of JSON that orjson refuses and that is looked at once more
MAX_NAME: Final = 256  # characters of a message type, or of an id
# Arrays, objects and their members in one frame: a decoded one takes up to 100 times its bytes,
# and as much time as hundreds of bytes of text.
MAX_NESTED: Final = 200_000


def _up_to(marks: bytes) -> re.Pattern[bytes]:
    """Match up to and with the next: strings are passed over, and nothing is ever tried twice."""
    text = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
    return re.compile(rb'(?:[^"' + marks + rb"]++|" + text + rb")*+[" + marks + rb"]", re.DOTALL)


_CONTAINER: Final = _up_to(rb"{\[")
_CONTAINER_OR_MEMBER: Final = _up_to(rb"{\[:")

Json = dict[str, Any]


class Message:
    """One message from a kernel. `content` is decoded when it is first read.

    `type` is the message type, such as `stream`, and `parent_id` the id of the request that it
    belongs to; each is empty if the kernel sent none. `parts` are the header, the parent header and
    the metadata as they came.
    """

    __slots__ = (
        *("_content", "_heavy", "buffers", "content_bytes"),
        *("header", "metadata", "parent", "parent_id", "parts", "type"),
    )

    def __init__(
        self,
        header: Json,
        parent: Json,
        metadata: Json,
        content_bytes: bytes,
        buffers: Sequence[bytes],
        *,
        parts: tuple[bytes, bytes, bytes] = (EMPTY, EMPTY, EMPTY),
    ) -> None:
        self.header = header
        self.parent = parent
        self.type = _name(header.get("msg_type"))
        self.parent_id = _name(parent.get("msg_id"))
        self.metadata = metadata
        self.content_bytes = content_bytes
        self.buffers = buffers
        self.parts = parts
        self._content: Json | None = None
        self._heavy: bool | None = None

    @property
    def content(self) -> Json:
        """Return the decoded content. Raises BadFrame if it is no JSON object, or `is_heavy`."""
        if self._content is None:
            if self.is_heavy:
                raise BadFrame(f"content: more than {MAX_NESTED:,} arrays, objects and members")
            self._content = _object(self.content_bytes, "content", len(self.content_bytes))
        return self._content

    @property
    def is_heavy(self) -> bool:
        """Tell whether the content has more structure than will be decoded."""
        if self._heavy is None:
            size = len(self.content_bytes)
            self._heavy = size > MAX_NESTED and nested(self.content_bytes, MAX_NESTED) > MAX_NESTED
        return self._heavy

    def __repr__(self) -> str:
        return f"<Message {self.type} for {self.parent_id or '-'}, {len(self.content_bytes)} B>"


class Signer:
    """Sign and check frames with one kernel's key (bytes of any length, never empty)."""

    def __init__(self, key: bytes) -> None:
        if not key:
            raise ValueError("an empty key would switch signatures off")
        # RFC 2104, with what depends on the key alone done once: H(K ^ opad, H(K ^ ipad, text)).
        if len(key) > BLOCK:
            key = hashlib.sha256(key).digest()
        padded = key.ljust(BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))
        # A kernel puts the same parent on all that it says about one request.
        self._parent_bytes, self._parent = EMPTY, Json()

    def sign(self, parts: Sequence[bytes]) -> bytes:
        """Return the hex digest over the four JSON frames."""
        inner, outer = self._inner.copy(), self._outer.copy()
        for part in parts:
            inner.update(part)
        outer.update(inner.digest())
        return outer.hexdigest().encode()

    def pack(
        self,
        msg_type: str,
        content: Mapping[str, Any] | bytes,
        *,
        msg_id: str,
        date: str,
        session: str,
        metadata: Mapping[str, Any] | None = None,
        parent: Mapping[str, Any] | None = None,
        subshell: str | None = None,
    ) -> list[bytes]:
        """Return the frames of one request, without buffers.

        `date` is ISO 8601 text, `session` the sender's id, and `subshell` that of the subshell that
        is to serve it (JEP 91). `content` may be packed already.
        """
        header: Json = {
            "msg_id": msg_id,
            "msg_type": msg_type,
            "session": session,
            "username": "",
            "date": date,
            "version": PROTOCOL_VERSION,
        }
        if subshell is not None:
            header["subshell_id"] = subshell
        parts = [
            orjson.dumps(header),
            orjson.dumps(parent) if parent else EMPTY,
            orjson.dumps(metadata) if metadata else EMPTY,
            content if isinstance(content, bytes) else orjson.dumps(content),
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
        if parent != self._parent_bytes:
            self._parent = _object(parent, "parent header", MAX_HEADER, HEADER_NESTED)
            self._parent_bytes = parent
        return Message(
            _object(header, "header", MAX_HEADER, HEADER_NESTED),
            self._parent,
            _object(metadata, "metadata", MAX_METADATA, METADATA_NESTED)
            if metadata != EMPTY
            else {},
            content,
            frames[at + 6 :],
            parts=(header, parent, metadata),
        )


def nested(data: bytes, enough: int, *, members: bool = True) -> int:
    """Count the arrays, objects and members of a JSON text; stop when there are more than enough.

    Where a cheaper bound on them is not above `enough`, that is returned.
    """
    most = len(data)
    if most > enough:
        most = sum(map(data.count, (b"{", b"[", b":") if members else (b"{", b"[")))
    if most <= enough:
        return most
    following = _CONTAINER_OR_MEMBER if members else _CONTAINER
    count = at = 0  # they may stand in strings, as those of HTML do
    while count <= enough and (found := following.match(data, at)):
        at = found.end()
        count += 1
    return count


def _name(value: object) -> str:
    return value if isinstance(value, str) and len(value) <= MAX_NAME else ""


def _with_large_numbers(data: bytes) -> object:
    """Return JSON that has integers beyond what a float can hold, as text; None if that is not it.

    Smaller ones beyond 64 bits become floats, as orjson makes them. Of short texts only: it takes a
    hundred times as long.
    """
    if len(data) > MAX_SLOW:
        return None

    def integer(digits: str) -> float | int | str:
        if len(digits) > MAX_DIGITS:
            raise ValueError("more digits than Python would print")
        value = float(digits)
        return digits if math.isinf(value) else int(digits) if abs(value) < INT_LIMIT else value

    try:
        value = json.loads(data, parse_int=integer, parse_float=_finite, parse_constant=_finite)
        # Halves of surrogate pairs, which it takes, are refused here.
        return orjson.loads(orjson.dumps(value))
    except (ValueError, TypeError, RecursionError):
        return None


def _finite(digits: str) -> float:
    if not math.isfinite(value := float(digits)):
        raise ValueError(f"{digits} is not JSON")
    return value


def _object(data: bytes, what: str, most: int, enough: int = 0) -> Json:
    if len(data) > most:
        raise BadFrame(f"{what}: {len(data):,} bytes; at most {most:,}")
    if len(data) > enough > 0 and nested(data, enough) > enough:
        raise BadFrame(f"{what}: more than {enough:,} arrays, objects and members")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        value = _with_large_numbers(data)
        if value is None:
            raise BadFrame(f"{what}: {error}") from None
    if not isinstance(value, dict):
        raise BadFrame(f"{what} is no object")
    return value
