"""What a WebSocket's slow requests cost, and when the audit hears of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from tornado.httputil import HTTPServerRequest, RequestStartLine
from tornado.web import Application

from broker.audit import Audit
from broker.errors import UnknownSession
from broker.faults import Bounds
from broker.principal import Principal
from broker.protocol import JsonCodec
from broker.web.native import NativeSocket

START = RequestStartLine("GET", "/", "HTTP/1.0")


class Connection:
    context = None

    def set_close_callback(self, callback: Any) -> None: ...


class Noted(Audit):
    def __init__(self) -> None:
        super().__init__(log=True)
        self.events: list[str] = []

    def record(self, event: str, *_: Any, **more: Any) -> None:
        self.events.append(event)


class Named:
    key = ("acme", "s1")
    name = "s1"


class Slow:
    """A service whose restarts wait until they may end."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.restarts = 0
        self.error: Exception | None = None

    async def restart(self, session: Any, *, keep_files: bool) -> int:
        self.restarts += 1
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return 2


class House:
    def __init__(self) -> None:
        self.service = Slow()
        self.audit = Noted()
        self.bad_frames = 10


class Socket(NativeSocket):
    """A connection that has been attached; what it would send is kept."""

    sent: list[dict[str, Any]]

    def _send(self, frame: bytes) -> None:
        self.sent.append(json.loads(frame))

    async def settle(self) -> None:
        while self._tasks:
            await asyncio.gather(*self._tasks)
            await asyncio.sleep(0)


def connected() -> tuple[Socket, House]:
    house = House()
    request = HTTPServerRequest(start_line=START, connection=cast(Any, Connection()))
    socket = Socket(Application(), request, house=house)
    socket.sent = []
    socket.codec, socket.session = JsonCodec(Bounds()), cast(Any, Named())
    socket.principal, socket._attached = Principal(), True
    return socket, house


def restart(number: int) -> str:
    return json.dumps({"type": "restart", "id": f"r{number}"})


async def test_one_restart_of_a_connection_is_under_way_and_more_are_refused() -> None:
    socket, house = connected()
    for number in range(1000):
        socket.on_message(restart(number))
    assert len(socket._tasks) == 1
    refused = [one for one in socket.sent if one["type"] == "fault"]
    assert len(refused) == 999
    assert {one["code"] for one in refused} == {"queue_full"}
    house.service.may_end.set()
    await socket.settle()
    assert socket.sent[-1] == {"type": "reply", "id": "r0", "generation": 2}
    socket.on_message(restart(1000))
    await socket.settle()
    assert socket.sent[-1] == {"type": "reply", "id": "r1000", "generation": 2}
    assert house.service.restarts == 2


async def test_a_restart_is_noted_when_it_is_done_and_not_before() -> None:
    socket, house = connected()
    socket.on_message(restart(1))
    await asyncio.sleep(0)
    assert house.audit.events == []
    house.service.may_end.set()
    await socket.settle()
    assert house.audit.events == ["restarted"]


async def test_a_restart_that_fails_is_not_noted() -> None:
    socket, house = connected()
    house.service.error = UnknownSession("it has ended")
    house.service.may_end.set()
    socket.on_message(restart(1))
    await socket.settle()
    assert socket.sent[-1]["code"] == "unknown_session"
    assert house.audit.events == []
