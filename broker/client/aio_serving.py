"""The twin of `serving` for asyncio: each call is a task."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

from .errors import BrokerError, ConnectionLost, SessionGone, TryAgain, from_fault
from .find import Place
from .result import Event
from .serving import DELAYS
from .socket import ANSWER, closed_error, connect_options, opening_error
from .tools import Function, Register, failure, may_concern, named, result
from .wire import decode, encode

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection


class AsyncToolServer:
    """Serves functions to the code of one session; see `ToolServer`.

    A coroutine function is awaited, and any other called in a thread.
    """

    def __init__(self, place: Place, address: Callable[[], str]) -> None:
        self._place = place
        self._address = address
        self._register = Register()
        self._turn = asyncio.Lock()  # one registration at a time
        self._answers: dict[str, asyncio.Future[Event]] = {}  # to registrations
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()
        self.error: BrokerError | None = None  # why nothing is served any more

    async def serve(self, *functions: Function, **names: Function) -> list[str]:
        """Let code in the session call these functions, and no others; see `ToolServer.serve`."""
        found = named(functions, names)
        async with self._turn:
            self._register.functions = found
            if self._socket is None or self.error is not None:
                socket = await self._connect()
                reader = asyncio.create_task(self._run(socket), name="broker-tools")
                self._socket, self._reader, self.error = socket, reader, None
            message = self._register.message()
            answer: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
            self._answers[message["id"]] = answer
            try:
                await self._send(self._socket, message)
                async with asyncio.timeout(ANSWER):
                    event = await answer
            except TimeoutError:
                raise ConnectionLost("the tools were not registered") from None
            finally:
                self._answers.pop(message["id"], None)
        if event.get("type") == "fault":
            raise from_fault(event)
        return list(event["tools"])

    async def close(self) -> None:
        """Serve nothing more; calls that run are cancelled."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionLost("the tools were taken back"))
        async with self._turn:  # who connects has done so
            tasks = [*self._calls, *([] if self._reader is None else [self._reader])]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            socket, self._socket = self._socket, None
            if socket is not None:
                await socket.close()

    async def _connect(self) -> ClientConnection:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        try:
            opening = connect(self._address(), **connect_options(self._place.token))
            return await AsyncExitStack().enter_async_context(opening)
        except (OSError, WebSocketException) as error:
            raise opening_error(self._place.url, error) from error

    async def _send(self, socket: ClientConnection, message: Event) -> None:
        from websockets.exceptions import ConnectionClosed

        with suppress(ConnectionClosed, OSError):  # whoever reads finds out
            await socket.send(encode(socket.subprotocol, message))

    async def _run(self, socket: ClientConnection) -> None:
        while True:
            error = await self._read(socket)
            again = await self._again(error)
            if again is None:
                self.error = error
                for answer in self._answers.values():
                    if not answer.done():
                        answer.set_exception(error)
                return
            socket = self._socket = again
            await self._send(socket, self._register.message())

    async def _again(self, error: BrokerError) -> ClientConnection | None:
        if isinstance(error, SessionGone):
            return None
        for delay in DELAYS:
            await asyncio.sleep(delay)
            try:
                return await self._connect()
            except (ConnectionLost, TryAgain):
                continue
            except BrokerError:
                return None
        return None

    async def _read(self, socket: ClientConnection) -> BrokerError:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                await self._take(socket, await socket.recv())
        except ConnectionClosed as closed:
            return closed_error(closed)
        except ValueError as broken:
            await socket.close(1002)
            return ConnectionLost(f"the broker sent what is no event: {broken}")

    async def _take(self, socket: ClientConnection, frame: bytes | str) -> None:
        if not may_concern(frame):
            return
        event = decode(frame)
        kind, name = event.get("type"), str(event.get("id"))
        if kind in ("reply", "fault") and name in self._answers:
            if not self._answers[name].done():
                self._answers[name].set_result(event)
        elif kind == "fault" and event.get("code") == "too_large":
            await self._send(socket, failure(name, from_fault(event)))
        elif (answer := self._register.again(event)) is not None:
            await self._send(socket, answer)
        elif (function := self._register.take(event)) is not None:
            task = asyncio.create_task(self._call(function, event))
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)

    async def _call(self, function: Function, event: Event) -> None:
        call, args, kwargs = str(event["call"]), event["args"], event["kwargs"]
        try:
            if inspect.iscoroutinefunction(function):
                value = await function(*args, **kwargs)
            else:
                value = await asyncio.to_thread(function, *args, **kwargs)
                if inspect.isawaitable(value):
                    value = await value
            answer = result(call, value)
            encode(None, answer)  # what is no plain data fails here
        except Exception as error:
            answer = failure(call, error)
        self._register.note(call, answer)
        if (socket := self._socket) is not None:
            await self._send(socket, answer)
