"""A client that may say anything: raw frames, raw HTTP; and what processes show from outside."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

import msgpack
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.system.described import check_answer, check_event

JSON = "broker.v1.json"
MSGPACK = "broker.v1.msgpack"
TIMEOUT = 60.0

Event = dict[str, Any]

# A cell that runs this says `{word}` and waits for `open_gate`; a sandbox shares no file with us.
_GATE = """import signal, time
_gate = []
signal.signal(signal.SIGUSR1, lambda *_: _gate.append(1))
print({word!r} + "\\n", end="", flush=True)
while not _gate: time.sleep(0.02)
"""


def gate(word: str = "up") -> str:
    """Return code that prints the word and then waits until its gate is opened."""
    return _GATE.format(word=word)


def open_gate(pid: int) -> None:
    """Let the cell go on that waits in the kernel with this process id."""
    os.kill(pid, signal.SIGUSR1)


class Place(Protocol):
    """Where a broker is."""

    @property
    def url(self) -> str: ...
    @property
    def token(self) -> str: ...


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def error(self) -> dict[str, Any]:
        found = self.body["error"]
        assert isinstance(found, dict)
        return found


def call(
    broker: Place,
    method: str,
    path: str,
    body: bytes | str | Mapping[str, Any] | None = None,
    **headers: str,
) -> Answer:
    """Make one HTTP request; the path is sent as it is."""
    parts = urlsplit(broker.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT)
    if isinstance(body, Mapping):
        body = json.dumps(body)
    try:
        headers = {"Authorization": f"Bearer {broker.token}", **headers}
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        answer = Answer(response.status, response.headers, response.read().decode())
        media = response.headers.get("Content-Type", "")
        check_answer(method, path, answer.status, media, answer.text)
        return answer
    finally:
        connection.close()


def execute(broker: Place, session: str, code: str, **fields: Any) -> dict[str, Any]:
    """Run code over HTTP and return the answer's body."""
    answer = call(broker, "POST", f"/v1/sessions/{session}/execute", {"code": code, **fields})
    assert answer.status == 200, answer.text
    body: dict[str, Any] = answer.body
    return body


def value_of(broker: Place, session: str, code: str) -> str | None:
    """Return the text of an expression's value in a session."""
    result = execute(broker, session, code)["result"]
    return None if result is None else str(result["text/plain"])


def metric(broker: Place, name: str, **labels: str) -> float:
    """Return one metric's value; with fewer labels than it has, the sum."""
    total = 0.0
    for line in call(broker, "GET", "/metrics").text.splitlines():
        series, _, number = line.rpartition(" ")
        found, _, rest = series.partition("{")
        if found == name and all(f'{key}="{value}"' in rest for key, value in labels.items()):
            total += float(number)
    return total


def ask_until(ask: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Ask the broker again and again, without a pause, until it says yes."""
    deadline = time.monotonic() + seconds
    while not ask():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"


def new_name(prefix: str = "s") -> str:
    """Return a session name that no other test has."""
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


class Peer:
    """One WebSocket to a session. Events are kept in the order they came."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.events: list[Event] = []

    async def send(self, frame: bytes | str | Mapping[str, Any]) -> None:
        """Send a frame as it is, or a message in the connection's codec."""
        if isinstance(frame, Mapping):
            frame = msgpack.packb(frame) if self.is_binary else json.dumps(frame)
        await self.socket.send(frame)

    @property
    def is_binary(self) -> bool:
        return self.socket.subprotocol == MSGPACK

    async def next(self) -> Event:
        """Return the next event."""
        async with asyncio.timeout(TIMEOUT):
            frame = await self.socket.recv()
        assert isinstance(frame, bytes if self.is_binary else str)
        event: Event = msgpack.unpackb(frame) if self.is_binary else json.loads(frame)
        check_event(event)
        self.events.append(event)
        return event

    async def until(self, kind: str, **fields: Any) -> Event:
        """Return the first event from now on of that type and with those fields."""
        while True:
            event = await self.next()
            if event["type"] == kind and all(event.get(key) == fields[key] for key in fields):
                return event

    async def run(self, code: str, **fields: Any) -> list[Event]:
        """Run code; return its events up to `done`."""
        request_id = str(fields.setdefault("id", uuid.uuid4().hex))
        await self.send({"type": "execute", "code": code, **fields})
        events: list[Event] = []
        while True:
            event = await self.next()
            if event.get("id") == request_id:
                events.append(event)
                if event["type"] in ("done", "fault"):
                    return events

    async def value(self, code: str) -> str | None:
        """Return the text of an expression's value."""
        for event in await self.run(code):
            if event["type"] == "result":
                return str(event["data"]["text/plain"])
        return None

    async def closed(self) -> tuple[int, str]:
        """Read on until the broker closes; return its close code and reason."""
        with pytest.raises(ConnectionClosed) as ended:
            await self.until("the end")
        frame = ended.value.rcvd
        assert frame is not None, "the connection was cut, not closed"
        return frame.code, frame.reason


@asynccontextmanager
async def attached(
    broker: Place,
    session: str,
    *,
    subprotocols: list[str] | None = None,
    token: str | None = None,
    options: Mapping[str, Any] | None = None,
    **query: Any,
) -> AsyncIterator[Peer]:
    """Yield a raw client of a session."""
    asked = f"?{urlencode(query)}" if query else ""
    url = f"{broker.url.replace('http', 'ws', 1)}/v1/sessions/{session}/ws{asked}"
    given: dict[str, Any] = {
        "subprotocols": [JSON] if subprotocols is None else subprotocols or None,
        "additional_headers": {"Authorization": f"Bearer {token or broker.token}"},
        "compression": None,
        "proxy": None,
        "max_size": None,
        "open_timeout": TIMEOUT,
        "close_timeout": 2,
        **(options or {}),
    }
    async with connect(url, **given) as socket:
        yield Peer(socket)


class PeakMemory:
    """How far a process's resident memory rises while the block lasts, in MiB."""

    def __init__(self, pid: int) -> None:
        self._directory = Path(f"/proc/{pid}")
        self._before = 0.0
        self.grown = 0.0

    def __enter__(self) -> PeakMemory:
        (self._directory / "clear_refs").write_text("5")  # proc(5): resets the peak
        self._before = self._read("VmHWM")
        return self

    def __exit__(self, *_: object) -> None:
        self.grown = self._read("VmHWM") - self._before

    def _read(self, name: str) -> float:
        for line in (self._directory / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
        raise AssertionError(f"no {name}")


def child_of(pid: int, word: str) -> psutil.Process:
    """Return the one process below `pid` whose program's name contains the word."""
    children = psutil.Process(pid).children(recursive=True)
    found = [child for child in children if word in Path(child.exe()).name]
    assert len(found) == 1, f"{word}: {found}"
    return found[0]


def steady(broker: Place) -> None:
    """Wait until every pool has as many warm kernels as it wants: no descriptors come or go."""

    def is_steady() -> bool:
        pools = call(broker, "GET", "/v1/pools").body["pools"]
        return all(p["warm"] == p["target"] and not p["starting"] + p["stopping"] for p in pools)

    ask_until(is_steady, "pools at their targets")


def row_of(broker: Place, session: str) -> dict[str, Any]:
    """Return a session's row of the listing."""
    answer = call(broker, "GET", f"/v1/sessions/{session}")
    assert answer.status == 200, answer.text
    row: dict[str, Any] = answer.body
    return row
