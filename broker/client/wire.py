"""Frames, requests and who waits for which event. Performs no I/O."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from .errors import BadRequest, BrokerError, from_fault
from .result import Event

MSGPACK = "broker.v1.msgpack"
JSON = "broker.v1.json"
SUBPROTOCOLS = (MSGPACK, JSON)  # best first

# One rich output is bounded to 8 MiB by default; this leaves room for a broker set to more.
MAX_FRAME = 64 * 1024 * 1024

# What ends each kind of request, apart from a fault.
LAST = {"execute": "done", "ping": "pong"}

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
) -> str:
    """Return the WebSocket address of a session on the broker at `url`.

    With `after`, the broker first sends again what came later than that sequence number.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadRequest(f"not an http(s) address: {url!r}", code="bad_message", field="url")
    asked = {"profile": profile, "after": after, **(limits or {})}
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


class Link:
    """One attached session: its open requests, and what is known of its kernel.

    Thread-safe. What arrives for an open request goes to its `deliver`; what other clients of the
    session caused is dropped. Each request's events are bounded by the broker's own bounds on an
    execution's output, so that nothing here needs one.
    """

    def __init__(self) -> None:
        self.subprotocol: str | None = None
        self.generation = 0
        self.seq = 0  # the last sequence number seen
        # The broker refuses an id that another client of the session has open.
        self._prefix = os.urandom(8).hex()
        self._made = 0
        self._open: dict[str, tuple[str, Deliver]] = {}
        self._silent: list[str] = []  # requests of which nothing has been heard, oldest first
        self._news: deque[Event] = deque(maxlen=8)  # told before an execution could hear of it
        self._lock = threading.Lock()

    def request(self, kind: str, deliver: Deliver, **fields: Any) -> tuple[str, bytes | str]:
        """Open a request; return its id and the frame to send."""
        with self._lock:
            self._made += 1
            request_id = f"{self._prefix}-{self._made}"
            if kind == "execute":
                while self._news:
                    deliver(self._news.popleft())
            self._open[request_id] = (kind, deliver)
            self._silent.append(request_id)
        given = {key: value for key, value in fields.items() if value is not None}
        try:
            message = {"type": kind, "id": request_id, **given}
            return request_id, encode(self.subprotocol, message)
        except (TypeError, ValueError, OverflowError) as error:
            self.forget(request_id)
            raise BadRequest(f"cannot be sent: {error}", code="bad_message") from error

    def forget(self, request_id: str) -> None:
        """Stop delivering to a request; a second time does nothing."""
        with self._lock:
            self._forget(request_id)

    def receive(self, frame: bytes | str) -> None:
        """Take in a frame of the broker; raises ValueError when it is none."""
        event = decode(frame)
        with self._lock:
            if isinstance(seq := event.get("seq"), int):
                self.seq = max(self.seq, seq)
            kind = event.get("type")
            if kind == "session":
                self._session(event)
                return
            request_id = event.get("id")
            if request_id is None and kind == "fault" and self._silent:
                # A frame over the bound is dropped unread: its fault cannot name the request.
                request_id = self._silent[-1]
            asked, deliver = self._open.get(str(request_id), ("", None))
            if deliver is None:
                return
            if request_id in self._silent:
                self._silent.remove(request_id)
            if kind == "fault" or kind == LAST.get(asked, "reply"):
                self._forget(str(request_id))
        deliver(from_fault(event) if kind == "fault" else event)

    def lost(self, error: BrokerError) -> None:
        """Tell each open request that no answer will come."""
        with self._lock:
            waiting = [deliver for _, deliver in self._open.values()]
            self._open.clear()
            self._silent.clear()
        for deliver in waiting:
            deliver(error)

    def _session(self, event: Event) -> None:
        self.generation = int(event.get("generation") or self.generation)
        executing = [deliver for kind, deliver in self._open.values() if kind == "execute"]
        for deliver in executing:
            deliver(event)
        if not executing:
            self._news.append(event)

    def _forget(self, request_id: str) -> None:
        self._open.pop(request_id, None)
        if request_id in self._silent:
            self._silent.remove(request_id)
