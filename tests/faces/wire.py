"""A client of Jupyter's REST API and of its WebSocket, in both framings, that may say anything."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import struct
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

V1 = "v1.kernel.websocket.jupyter.org"
LEGACY = "legacy"
TIMEOUT = 30.0  # s
PARTS = ("header", "parent_header", "metadata", "content")

Message = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a Jupyter server is: its base URL, and the token."""

    url: str
    token: str

    @property
    def socket_url(self) -> str:
        return self.url.replace("http", "ws", 1)


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text) if self.text else None

    def raise_for_status(self) -> None:
        assert self.status < 400, f"{self.status} {self.text}"


def call(
    place: Place,
    method: str,
    path: str,
    body: object = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Make one request. Without headers, the token is in `Authorization`, as `token`."""
    parts = urlsplit(place.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT)
    try:
        sent = {"Authorization": f"token {place.token}"} if headers is None else headers
        data = None if body is None else json.dumps(body)
        connection.request(method, parts.path + path, data, sent)
        answer = connection.getresponse()
        fields = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, fields, answer.read().decode())
    finally:
        connection.close()


async def asked(
    place: Place,
    method: str,
    path: str,
    body: object = None,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Make one request beside the sockets."""
    return await asyncio.to_thread(call, place, method, path, body, headers)


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


@dataclass
class Socket:
    """One WebSocket to a kernel; what came is kept in the order it came."""

    connection: ClientConnection
    session: str
    came: list[Message] = field(default_factory=list)
    closed_with: int | None = None
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def framing(self) -> str:
        return self.connection.subprotocol or LEGACY

    async def read(self) -> None:
        """Take in what comes until the connection is closed."""
        try:
            async for frame in self.connection:
                if self.framing == V1:
                    assert isinstance(frame, bytes)
                    message = from_v1_frame(frame)
                else:
                    message = from_legacy_frame(frame)
                    # Clients look at these, beside the header.
                    assert message.pop("msg_type") == message["header"]["msg_type"]
                    assert message.pop("msg_id") == message["header"]["msg_id"]
                await self._note(message)
        except ConnectionClosed:
            pass
        finally:
            self.closed_with = self.connection.close_code
            await self._note(None)

    async def _note(self, message: Message | None) -> None:
        async with self._news:
            if message is not None:
                self.came.append(message)
            self._news.notify_all()

    async def send(
        self,
        channel: str,
        kind: str,
        content: Message,
        *,
        buffers: Sequence[bytes] = (),
        parent: Message | None = None,
    ) -> str:
        """Send a message as it should be; return its id."""
        message_id = uuid.uuid4().hex
        header = {
            "msg_id": message_id,
            "msg_type": kind,
            "session": self.session,
            "username": "tester",
            "date": "2020-01-01T00:00:00Z",
            "version": "5.4",
        }
        message = {"header": header, "parent_header": parent or {}, "metadata": {}}
        message |= {"content": content, "buffers": list(buffers)}
        if self.framing == V1:
            await self.connection.send(v1_frame(channel, message))
        else:
            await self.connection.send(legacy_frame(message | {"channel": channel}))
        return message_id

    async def send_as_it_is(self, message: Message) -> str:
        """Send JSON with whatever it lacks; return its id."""
        await self.connection.send(json.dumps(message))
        return str(message["header"]["msg_id"])

    async def until(self, wanted: Callable[[Message], bool], what: str) -> Message:
        """Return the first message of that kind that came, or comes."""
        seen = 0
        async with self._news:
            try:
                async with asyncio.timeout(TIMEOUT):
                    while True:
                        for message in self.came[seen:]:
                            if wanted(message):
                                return message
                        seen = len(self.came)
                        if self.closed_with is not None:
                            raise AssertionError(f"closed before {what}")
                        await self._news.wait()
            except TimeoutError:
                told = [(one["channel"], one["header"]["msg_type"]) for one in self.came[-20:]]
                raise AssertionError(f"no {what}; the last that came: {told}") from None

    async def until_closed(self) -> int | None:
        """Wait until the server closes; return its close code."""
        async with asyncio.timeout(TIMEOUT), self._news:
            await self._news.wait_for(lambda: self.closed_with is not None)
        return self.closed_with

    async def reply(self, message_id: str) -> Message:
        """Return the reply to a request."""

        def is_reply(message: Message) -> bool:
            return (
                message["parent_header"].get("msg_id") == message_id
                and message["channel"] in ("shell", "control")
            )  # fmt: skip

        return await self.until(is_reply, f"reply to {message_id}")

    async def output(self, message_id: str, kind: str) -> Message:
        """Return the first message of a type that was published about a request."""

        def is_it(message: Message) -> bool:
            return (
                message["channel"] in ("iopub", "stdin")
                and message["header"]["msg_type"] == kind
                and message["parent_header"].get("msg_id") == message_id
            )

        return await self.until(is_it, f"{kind} of {message_id}")

    async def idle(self, message_id: str) -> None:
        """Wait until all was published about a request."""

        def is_it(message: Message) -> bool:
            return (
                message["header"]["msg_type"] == "status"
                and message["content"]["execution_state"] == "idle"
                and message["parent_header"].get("msg_id") == message_id
            )

        await self.until(is_it, f"idle of {message_id}")

    async def done(self, message_id: str) -> Message:
        """Wait for the reply to a request and for its idle; return the reply."""
        answer = await self.reply(message_id)
        await self.idle(message_id)
        return answer

    async def execute(self, code: str, **content: Any) -> str:
        """Send code and return its message's id."""
        asked = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        asked |= {"user_expressions": {}, "stop_on_error": True}
        return await self.send("shell", "execute_request", asked | content)

    async def run(self, code: str, **content: Any) -> Message:
        """Run code to its end and return the reply."""
        return await self.done(await self.execute(code, **content))


@asynccontextmanager
async def socket(
    place: Place, kernel: str, framing: str, session: str | None = None
) -> AsyncIterator[Socket]:
    """Open a WebSocket to a kernel; it is closed with the block."""
    name = uuid.uuid4().hex if session is None else session
    query = f"?session_id={name}" if name else ""
    offered = [Subprotocol(V1)] if framing == V1 else None
    async with connect(
        f"{place.socket_url}/api/kernels/{kernel}/channels{query}",
        additional_headers={"Authorization": f"token {place.token}"},
        subprotocols=offered,
        max_size=None,
        proxy=None,
        close_timeout=2,
    ) as connection:
        one = Socket(connection, name)
        assert one.framing == framing
        reader = asyncio.create_task(one.read())
        try:
            yield one
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
