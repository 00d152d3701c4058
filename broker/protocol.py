"""The native protocol, version 1: frames to requests, events to frames.

A request is decoded in three steps, each with its own refusal: bytes to plain values, in
`broker.loading` (BadFrame, BadMessage, TooLarge); plain values within the bounds (BadMessage,
TooLarge) and to a request's type (BadMessage), in `broker.parsing`. Nothing else is ever raised,
whatever the bytes are.
"""

from __future__ import annotations

import base64
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import msgpack
import orjson

from broker.bounds import ASKED, asked_limits
from broker.errors import BadFrame, BadSessionName
from broker.faults import Bounds, bad_field, clip, unknown_field
from broker.loading import MsgpackLoader, load_json
from broker.parsing import body_of, request_of
from broker.requests import MAX_SEQ, CallBody, ExecuteBody, FileBody, OpenBody, Request

MSGPACK = "broker.v1.msgpack"
JSON = "broker.v1.json"
SUBPROTOCOLS = (MSGPACK, JSON)  # best first


@dataclass(frozen=True, slots=True)
class OpenQuery:
    """How a client attaches to a session. `after` is the last sequence number it has seen.

    `limits` are the bounds it asks for instead of the profile's, by name. Who `joins` attaches to a
    session of this node, and has none made or taken up.
    """

    profile: str | None = None
    after: int | None = None
    mode: Literal["run", "watch"] = "run"
    create: bool = True
    joins: bool = False
    limits: Mapping[str, float] = field(default_factory=dict)


class Codec(Protocol):
    """One subprotocol: how events become frames, and frames requests. Keeps nothing of either."""

    name: str
    binary: bool  # which kind of WebSocket frame it speaks

    def encode(self, event: Mapping[str, object]) -> bytes:
        """Return the event as one frame; text frames as their UTF-8 bytes."""

    def unpacked(self, frame: bytes) -> dict[str, Any]:
        """Return the event in a frame that `encode` returned; of JSON, binary values as text."""

    def decode(self, frame: bytes | str) -> Request:
        """Return the request in a frame; raises BadFrame, BadMessage or TooLarge.

        `request` of what is raised is the request's id, as far as the frame could be read.
        """


class MsgpackCodec:
    """Binary frames, one msgpack map each."""

    name = MSGPACK
    binary = True

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        # One packer for all events: a new one allocates its buffer first. "replace": a lone
        # surrogate out of a kernel must not cost the client its whole event.
        self._packer = msgpack.Packer(unicode_errors="replace")
        self._loader = MsgpackLoader(bounds)

    def encode(self, event: Mapping[str, object]) -> bytes:
        """Return the event as one msgpack map."""
        try:
            packed: bytes = self._packer.pack(event)
        except (TypeError, ValueError, OverflowError):
            self._packer.reset()  # it keeps what it had written before it gave up
            packed = self._packer.pack(_plain(event))
        return packed

    def unpacked(self, frame: bytes) -> dict[str, Any]:
        """Return the event in a frame that `encode` returned."""
        event: dict[str, Any] = msgpack.unpackb(frame, strict_map_key=False)
        return event

    def decode(self, frame: bytes | str) -> Request:
        """Return the request in a binary frame; raises BadFrame, BadMessage or TooLarge."""
        if isinstance(frame, str):
            raise BadFrame(f"{MSGPACK} takes binary frames; this is a text frame")
        return request_of(self._loader.load(frame), self._bounds)


class JsonCodec:
    """Text frames, one JSON object each; binary values of events as {"base64": "…"}."""

    name = JSON
    binary = False

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds

    def encode(self, event: Mapping[str, object]) -> bytes:
        """Return the event as one JSON object in UTF-8."""
        try:
            return orjson.dumps(event, default=_binary_to_json)
        except orjson.JSONEncodeError:
            return orjson.dumps(_plain(event), default=_binary_to_json)

    def unpacked(self, frame: bytes) -> dict[str, Any]:
        """Return the event in a frame that `encode` returned; binary values stay as they are."""
        event: dict[str, Any] = orjson.loads(frame)
        return event

    def decode(self, frame: bytes | str) -> Request:
        """Return the request in a text frame; raises BadFrame, BadMessage or TooLarge."""
        if not isinstance(frame, str):
            raise BadFrame(f"{JSON} takes text frames; this is a binary frame")
        return request_of(load_json(frame, self._bounds), self._bounds, text=True)


@functools.cache
def codec(name: str, bounds: Bounds) -> Codec:
    """Return the codec of a subprotocol, the same one for the same bounds.

    Raises ValueError for a name outside SUBPROTOCOLS.
    """
    if name == MSGPACK:
        return MsgpackCodec(bounds)
    if name == JSON:
        return JsonCodec(bounds)
    raise ValueError(f"no subprotocol {clip(name)!r}; known: {', '.join(SUBPROTOCOLS)}")


def choose_subprotocol(offered: Iterable[str]) -> str | None:
    """Return the best subprotocol among those offered, or None: close with 4406."""
    names = set(offered)
    return next((name for name in SUBPROTOCOLS if name in names), None)


def execute_body(data: bytes, bounds: Bounds) -> ExecuteBody:
    """Return the body of a request to run code; raises BadFrame, BadMessage or TooLarge."""
    return body_of(_posted(data, bounds, '{"code": "1 + 1"}'), ExecuteBody, bounds)


def call_body(data: bytes, bounds: Bounds) -> CallBody:
    """Return the body of a request to call a function; raises as `execute_body` does."""
    return body_of(_posted(data, bounds, '{"function": "f", "args": [1]}'), CallBody, bounds)


def file_body(data: bytes, bounds: Bounds) -> FileBody:
    """Return the body of a request to change a file's name; raises as `execute_body` does."""
    return body_of(_posted(data, bounds, '{"move_to": "b.txt"}'), FileBody, bounds)


def open_body(data: bytes, bounds: Bounds) -> OpenBody:
    """Return the body of a request to open a session; an empty one asks for nothing special."""
    return body_of(load_json(data, bounds) if data else {}, OpenBody, bounds)


def opening_query(body: OpenBody) -> OpenQuery:
    """Return how to open the session that a body asks for; raises BadMessage naming the field."""
    args = {name: str(value) for name, value in body.limits.items()}
    for name in args:
        if name not in ASKED:
            raise unknown_field(name, ASKED, "bound")
    return OpenQuery(profile=body.profile, limits=asked_limits(args))


def _posted(data: bytes, bounds: Bounds, example: str) -> object:
    if not data:
        raise BadFrame(f"the body is empty; expected JSON such as {example}")
    return load_json(data, bounds)


_SESSION_NAME = re.compile(r"[A-Za-z0-9._:@-]{1,128}")


def check_session_name(text: str) -> str:
    """Return the name if it is one; raises BadSessionName naming the rule.

    `.` and `..` are refused as well: URLs and directories give them a meaning of their own.
    """
    if _SESSION_NAME.fullmatch(text) is None or text in {".", ".."}:
        rule = "1 to 128 characters of A-Z a-z 0-9 . _ : @ - (and not . or .. alone)"
        raise BadSessionName(f"session: expected {rule}, got {clip(text)!r}", field="session")
    return text


def open_query(args: Mapping[str, str]) -> OpenQuery:
    """Return how to attach, from the query of the URL; raises BadMessage naming the field.

    `token` and `tenant` may stand there too: who asks, and whose session it is, others say.
    """
    _only(args, "profile", "after", "mode", "create")
    profile = args.get("profile")
    if profile is not None and not 1 <= len(profile) <= 64:
        raise bad_field("profile", "expected 1 to 64 characters")
    text = args.get("after")
    # isdecimal alone would let other scripts' digits through.
    if text is not None and not (text.isascii() and text.isdecimal() and len(text) <= 19):
        raise bad_field("after", f"expected a sequence number, got {clip(text)!r}")
    after = None if text is None else int(text)
    if after is not None and after > MAX_SEQ:
        raise bad_field("after", f"expected a sequence number up to {MAX_SEQ}")
    mode = args.get("mode", "run")
    if mode not in ("run", "watch"):
        raise bad_field("mode", f"expected run or watch, got {clip(mode)!r}")
    create = args.get("create", "true")
    if create not in ("true", "false", "1", "0"):
        raise bad_field("create", f"expected true or false, got {clip(create)!r}")
    return OpenQuery(
        profile=profile,
        after=after,
        mode="watch" if mode == "watch" else "run",
        create=create in ("true", "1"),
        limits=asked_limits(args),
    )


def execute_query(args: Mapping[str, str], profile: str | None) -> OpenQuery:
    """Return how to open the session to run a body's code; raises BadMessage naming the field."""
    _only(args)
    return OpenQuery(profile=profile, limits=asked_limits(args))


def _only(args: Mapping[str, str], *names: str) -> None:
    known = (*names, *ASKED, "token", "tenant")
    for name in args:
        if name not in known:
            raise unknown_field(name, known, "query parameter")


# Events that the encoders refuse: what came out of a kernel may hold anything.

MAX_SENT_DEPTH = 200  # orjson gives up at 254, msgpack later


def _binary_to_json(value: object) -> dict[str, str]:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(value).decode("ascii")}
    raise TypeError(f"{type(value).__name__} is not plain data")


def _plain(value: object, level: int = 0) -> object:
    """Rebuild an event so that both formats can carry it.

    Lone surrogates become `?`, integers beyond 64 bits and all keys become text, and what nests
    deeper than the formats can is left out with a note. What is no data at all stays as it is, for
    the encoder to refuse.
    """
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return str(value) if value.bit_length() <= 4096 else hex(value)  # decimal is quadratic
    if isinstance(value, Mapping | list | tuple) and level == MAX_SENT_DEPTH:
        return f"[nested deeper than {MAX_SENT_DEPTH} levels]"
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item, level + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, level + 1) for item in value]
    return value
