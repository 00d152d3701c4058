"""A client of Jupyter's WebSocket, in both framings, that may say anything."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from tests.jupyter.messages import (
    LEGACY,
    V1,
    Message,
    execution,
    from_legacy_frame,
    from_v1_frame,
    is_about,
    is_idle,
    is_reply,
    legacy_frame,
    request,
    v1_frame,
)
from tests.jupyter.rest import TIMEOUT, Place


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
        message = request(kind, content, self.session, buffers=buffers, parent=parent)
        if self.framing == V1:
            await self.connection.send(v1_frame(channel, message))
        else:
            await self.connection.send(legacy_frame(message | {"channel": channel}))
        return str(message["header"]["msg_id"])

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
        return await self.until(
            lambda one: is_about(one, message_id) and is_reply(one), f"reply to {message_id}"
        )

    async def output(self, message_id: str, kind: str) -> Message:
        """Return the first message of a type that was published about a request."""

        def is_it(message: Message) -> bool:
            return (
                message["channel"] in ("iopub", "stdin")
                and message["header"]["msg_type"] == kind
                and is_about(message, message_id)
            )

        return await self.until(is_it, f"{kind} of {message_id}")

    async def idle(self, message_id: str) -> None:
        """Wait until all was published about a request."""
        await self.until(
            lambda one: is_about(one, message_id) and is_idle(one), f"idle of {message_id}"
        )

    async def done(self, message_id: str) -> Message:
        """Wait for the reply to a request and for its idle; return the reply."""
        answer = await self.reply(message_id)
        await self.idle(message_id)
        return answer

    async def execute(self, code: str, **content: Any) -> str:
        """Send code and return its message's id."""
        return await self.send("shell", "execute_request", execution(code, **content))

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
