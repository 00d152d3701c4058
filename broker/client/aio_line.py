"""A connection that is made anew when it is lost, read by a task: the twin of `line`."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

from .backoff import Backoff, next_url
from .errors import BrokerError, ConnectionLost, SessionElsewhere
from .line import HOPS, Address
from .patience import USUAL, Patience
from .place import Following
from .result import Event
from .resume import Asked, Link
from .socket import ANSWER, Outage, closed_error, connect_options, opening_error
from .wire import Deliver

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection


GIVE_UP = 1.0  # s for saying that nobody waits for an execution any more


class AsyncDialler:
    """Opens sockets to wherever the session is served."""

    def __init__(
        self,
        home: str,
        address: Address,
        token: str,
        *,
        reconnect: float,
        ping_interval: float,
        patience: Patience = USUAL,
    ) -> None:
        self._home = self._url = home
        self._address = address
        self._patience = patience
        self._options = connect_options(token, ping_interval, patience.answer)
        self.backoff = Backoff(reconnect, clock=time.monotonic, uniform=random.uniform)

    async def open(self, after: int | None) -> ClientConnection:
        """Return a connection. Raises what the broker refuses with, or NoServer."""
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        try:
            # Whoever has it closes it, which is all that leaving the context would do.
            with self._patience.awaiting(self._url):
                opening = connect(self._address(self._url, after), **self._options)
                return await AsyncExitStack().enter_async_context(opening)
        except (OSError, WebSocketException) as error:
            raise opening_error(self._url, error) from error

    async def first(self, after: int | None = None) -> ClientConnection:
        """Return a connection as `open` does, following where the session is said to be."""
        self.backoff.worked()
        for _ in range(HOPS):
            try:
                return await self.open(after)
            except SessionElsewhere as error:
                if not error.url:
                    raise
                self._turn(error)
        return await self.open(after)

    async def again(self, error: BrokerError, after: int) -> ClientConnection:
        """Return a connection after one was lost; raises the last error to give up."""
        outage = Outage(self.backoff.total)
        while (delay := self.backoff.wait(error)) is not None:
            self._turn(error)
            await asyncio.sleep(delay)
            try:
                socket = await self.open(after)
            except BrokerError as failed:
                error = failed
                outage.goes_on(error)
            else:
                outage.ends()
                return socket
        raise error

    def _turn(self, error: BrokerError) -> None:
        self._url = next_url(self._home, self._url, error)


class AsyncLine:
    """One session's connection, made anew for as long as its dialler tries; see `Line`."""

    def __init__(self, name: str, dialler: AsyncDialler, *, patience: float = ANSWER) -> None:
        self.link = Link()
        self._patience = patience
        self._name = name
        self._dialler = dialler
        self._lock = asyncio.Lock()
        self._socket: ClientConnection | None = None
        self._reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect unless that was done; raises what the broker refuses with."""
        async with self._lock:
            if self._reader is None or self._reader.done():
                socket = await self._dialler.first()
                self._use(socket, again=False)
                # A task, so that a session left alone does not fall behind, and is not let go.
                self._reader = asyncio.create_task(self._run(socket), name=f"broker-{self._name}")
            # Also where somebody has connected, and was cancelled before that was done.
            refusal = await self._configure() if self.link.lacks_surroundings else None
        if refusal is not None:
            await self.close()
            raise refusal

    async def _configure(self) -> BrokerError | None:
        """Set what is around all that is asked for; return why that is refused."""
        answers: asyncio.Queue[Event | BrokerError] = asyncio.Queue()
        around = self.link.around
        try:
            asked = self.link.request("configure", answers.put_nowait, again=True, **around)
        except BrokerError as error:
            return error
        try:
            async with asyncio.timeout(self._patience):
                await self.send(asked)
                answer = await answers.get()
        except TimeoutError:
            return ConnectionLost("the broker does not answer")
        finally:
            self.link.forget(asked.id)
        if not isinstance(answer, BrokerError):
            self.link.surrounded(asked.socket)
        # Where the connection was lost, the next one sets it.
        elif not isinstance(answer, ConnectionLost):
            return answer
        return None

    async def ask(self, kind: str, deliver: Deliver, **fields: Any) -> Asked:
        """Send a request, now or as soon as there is a connection."""
        asked = await self.request(kind, deliver, **fields)
        await self.send(asked)
        return asked

    async def request(self, kind: str, deliver: Deliver, **fields: Any) -> Asked:
        """Open a request, which is to be sent at once, before anything else is waited for."""
        await self.open()
        return self.link.request(kind, deliver, **fields)

    async def abandon(self, asked: Asked) -> None:
        """Have an execution of ours cancelled, or interrupted, if that can be said now.

        Both are asked for: of a batch, some cells wait while one runs. What does not apply is
        refused, and changes nothing.
        """
        if not asked.sent:
            return
        with suppress(BrokerError, TimeoutError):
            async with asyncio.timeout(GIVE_UP):
                for kind in ("cancel", "interrupt"):
                    told = self.link.request(kind, lambda _: None, target=asked.id)
                    await self.send(told)

    async def send(self, asked: Asked) -> None:
        """Send an open request; one that is cancelled meanwhile may have left all the same."""
        from websockets.exceptions import ConnectionClosed

        if asked.socket is not None:
            try:
                await asked.socket.send(asked.frame)
            except (ConnectionClosed, OSError):
                pass  # whoever reads it finds out, and knows what became of the request
            except BaseException:
                self.link.forget(asked.id)
                raise

    async def close(self) -> None:
        """Disconnect; open requests are told ConnectionLost."""
        async with self._lock:
            reader, self._reader = self._reader, None
            if reader is not None:
                reader.cancel()
                await asyncio.wait([reader])
            socket, self._socket = self._socket, None
            if socket is not None:
                await socket.close()

    def _use(self, socket: ClientConnection, *, again: bool) -> None:
        self._socket = socket
        self.link.connected(socket, socket.subprotocol, again=again)
        self._dialler.backoff.joined()

    async def _run(self, socket: ClientConnection) -> None:
        error: BrokerError = ConnectionLost("the connection was given up")
        try:
            while True:
                failed = await self._read(socket)
                self.link.dropped(failed)
                socket = await self._dialler.again(failed, self.link.place.last)
                self._use(socket, again=True)
        except BrokerError as last:
            error = last
        finally:
            self.link.lost(error)

    async def _read(self, socket: ClientConnection) -> BrokerError:
        """Take in what comes until the connection ends; return why it did."""
        from websockets.exceptions import ConnectionClosed

        place, backoff = self.link.place, self._dialler.backoff
        try:
            while True:
                frame = await socket.recv()
                before, frames = place.last, self.link.receive(frame)
                for each in frames:
                    await socket.send(each)
                if place.last != before:
                    backoff.worked()
        except ConnectionClosed as closed:
            return closed_error(closed)
        except BrokerError as elsewhere:
            await socket.close()
            return elsewhere
        except (ValueError, OSError) as broken:
            await socket.close(1002)
            return ConnectionLost(f"the broker sent what cannot be followed: {broken}")


async def watch(dialler: AsyncDialler, after: int | None) -> AsyncGenerator[Event, None]:
    """Yield every event of a session, followed through all reconnections.

    Raises what the broker refuses with, or the end of the session.
    """
    from websockets.exceptions import ConnectionClosed

    following = Following(after)
    socket = await dialler.first(after)
    try:
        while True:
            dialler.backoff.joined()
            error: BrokerError
            try:
                while True:
                    event = following.receive(await socket.recv())
                    if event is not None:
                        dialler.backoff.worked()
                        yield event
            except ConnectionClosed as closed:
                error = closed_error(closed)
            except ValueError as broken:
                await socket.close(1002)
                error = ConnectionLost(f"the broker sent what cannot be followed: {broken}")
            socket = await dialler.again(error, following.place.last)
            following.joining = True
    finally:
        await socket.close()
