"""Addresses and frames. Performs no I/O."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from .errors import BadRequest, BrokerError
from .result import Event

MSGPACK = "broker.v1.msgpack"
JSON = "broker.v1.json"
SUBPROTOCOLS = (MSGPACK, JSON)  # best first

# One rich output is bounded to 8 MiB by default; this leaves room for a broker set to more.
MAX_FRAME = 64 * 1024 * 1024

# What ends each kind of request, apart from a fault.
RUNS = frozenset({"execute", "batch", "call"})  # what runs in the session
LAST = {**dict.fromkeys(RUNS, "done"), "ping": "pong"}

Deliver = Callable[[Event | BrokerError], None]
# Bounds lower than the profile's: `memory` (bytes, or text such as "256M"), `processes`, `cpu`
# (cores), `cpu_time` and `execution_timeout` (seconds, or text such as "90s").
Limits = Mapping[str, str | float]


def session_path(name: str, action: str = "") -> str:
    """Return the path of a session, or of something it can be asked to do."""
    if not name:
        raise BadRequest("a session needs a name", code="bad_message", field="session")
    return f"/v1/sessions/{quote(name, safe=':@')}{action}"


def file_path(name: str, path: str) -> str:
    """Return the path of a file of a session."""
    data = path.encode(errors="surrogateescape")  # a file's name need not be UTF-8
    return session_path(name, f"/files/{quote(data, safe='/')}")


def socket_url(
    url: str,
    name: str,
    *,
    profile: str | None = None,
    after: int | None = None,
    limits: Limits | None = None,
    watch: bool = False,
    create: bool = True,
    tenant: str | None = None,
) -> str:
    """Return the WebSocket address of a session on the broker at `url`.

    With `after`, the broker first sends again what came later than that sequence number. Who only
    watches makes no session; without `create`, nobody does.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadRequest(f"not an http(s) address: {url!r}", code="bad_message", field="url")
    asked = {"tenant": tenant, "profile": profile, "after": after, **(limits or {})}
    if watch:
        asked["mode"] = "watch"
    if watch or not create:
        asked["create"] = "false"
    query = urlencode({key: value for key, value in asked.items() if value is not None})
    scheme = "wss" if parts.scheme == "https" else "ws"
    path = parts.path.rstrip("/") + session_path(name, "/ws")
    return urlunsplit((scheme, parts.netloc, path, query, ""))


def encode(subprotocol: str | None, message: dict[str, Any]) -> bytes | str:
    """Return a request as one frame."""
    if subprotocol == MSGPACK:
        import msgpack  # only a connection needs it: `import broker.client` stays cheap

        return cast("bytes", msgpack.packb(message))
    return json.dumps(message, default=_base64)


def decode(frame: bytes | str) -> Event:
    """Return the event in a frame; raises ValueError for a frame that holds none."""
    if isinstance(frame, str):
        event = json.loads(frame)
    else:
        import msgpack

        event = msgpack.unpackb(frame, strict_map_key=False)
    if not isinstance(event, dict):
        raise ValueError("a frame that holds no map")
    return event


def _base64(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    raise TypeError(f"cannot be sent as JSON: {type(value).__name__}")
