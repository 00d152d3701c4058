"""The client for asyncio: `AsyncBroker` and `AsyncSession`, the twins of those in `sync`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .aio_files import AsyncFiles
from .door import Door, Row
from .errors import BrokerError, ConnectionLost, SessionGone
from .files import Files
from .find import Place, find
from .result import Event, Result, collect, collect_answer
from .socket import closed_error, connect_options, opening_error
from .wire import LAST, Limits, Link, socket_url

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection


class AsyncBroker:
    """A broker, found as `find` says: by arguments, the environment, or the local server's file."""

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        state_dir: str | Path | None = None,
    ) -> None:
        self.place: Place = find(url, token, state_dir)
        self._door = Door(self.place)

    def session(
        self, name: str, profile: str | None = None, *, limits: Limits | None = None
    ) -> AsyncSession:
        """Return a session by name; it starts, or is joined, at its first use.

        `limits` lowers the profile's bounds: `memory`, `processes`, `cpu`, `cpu_time`,
        `execution_timeout`, such as {"memory": "256M", "cpu_time": 5}.
        """
        return AsyncSession(self.place, name, profile, limits)

    async def execute(
        self,
        code: str,
        *,
        profile: str | None = None,
        timeout: float | None = None,
        limits: Limits | None = None,
    ) -> Result:
        """Run code in a fresh kernel that is gone afterwards."""
        return collect_answer(
            await asyncio.to_thread(self._door.execute, code, profile, timeout, limits)
        )

    async def sessions(self, *, state: str | None = None, idle: float | None = None) -> list[Row]:
        """Return a row per session: those in one state, or idle for so many seconds."""
        return await asyncio.to_thread(lambda: list(self._door.sessions(state=state, idle=idle)))

    def files(self, name: str) -> AsyncFiles:
        """Return the files of a session that is there already."""
        return AsyncFiles(Files(self._door, name))

    async def kill(self, name: str, *, reason: str | None = None) -> Row:
        """End a session's kernel; raises UnknownSession."""
        return await asyncio.to_thread(self._door.kill, name, reason)

    async def notebook(self, name: str) -> Row:
        """Return what a session has run, also one that has ended, as a notebook (nbformat 4.5)."""
        return await asyncio.to_thread(self._door.notebook, name)

    async def variables(self, name: str, names: Sequence[str] | None = None) -> Row:
        """Return a live session's variables, without attaching to it."""
        return await asyncio.to_thread(self._door.variables, name, names)

    async def drain(self, node: str, *, keep: bool = False, undo: bool = False) -> Row:
        """Empty the node that answers; see `Broker.drain`."""
        return await asyncio.to_thread(lambda: self._door.drain(node, keep=keep, undo=undo))

    async def status(self, *, memory: bool = False) -> Row:
        """Return the nodes, the pools and their kernels, with their memory when asked."""
        return await asyncio.to_thread(lambda: self._door.status(memory=memory))


class AsyncSession:
    """One session's connection. Leaving the `async with` block lets go of the session and keeps it.

    Its methods may be called from several tasks of one loop; executions run in the order of
    their calls. A connection that was lost is made anew by the next call.
    """

    def __init__(
        self,
        place: Place,
        name: str,
        profile: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.name = name
        self.profile = profile
        self.limits = limits
        self._place = place
        self._link = Link()
        self._attaching = asyncio.Lock()
        self._socket: ClientConnection | None = None
        self._stack = AsyncExitStack()
        self._reader: asyncio.Task[None] | None = None

    @property
    def generation(self) -> int:
        """Return the generation last heard of; 0 before the first."""
        return self._link.generation

    @property
    def files(self) -> AsyncFiles:
        """Return the session's files; the session starts, or is joined, at their first use."""
        return AsyncFiles(Files(Door(self._place), self.name), self.attach)

    async def execute(
        self,
        code: str,
        *,
        timeout: float | None = None,
        on_event: Callable[[Event], object] | None = None,
        **options: Any,
    ) -> Result:
        """Run code and return what came of it; see `Session.execute`."""
        events: list[Event] = []
        async with aclosing(self._ask("execute", code=code, timeout=timeout, **options)) as coming:
            async for event in coming:
                events.append(event)
                if on_event is not None:
                    on_event(event)
        return collect(events)

    async def stream(
        self,
        code: str,
        *,
        timeout: float | None = None,
        **options: Any,
    ) -> AsyncGenerator[Event, None]:
        """Run code and yield its events as they come, `done` last; see `Session.stream`."""
        async with aclosing(self._ask("execute", code=code, timeout=timeout, **options)) as coming:
            async for event in coming:
                yield event

    async def interrupt(self, target: str | None = None) -> Any:
        """Interrupt what runs, or only `target`; raises NotRunning when it does not run."""
        return await self._answer("interrupt", target=target)

    async def cancel(self, target: str) -> Any:
        """Take the execution `target` (an event's `id`) out of the queue; raises NotRunning."""
        return await self._answer("cancel", target=target)

    async def complete(self, code: str, cursor: int | None = None) -> Any:
        """Return how the code may go on at the cursor, its end by default.

        `matches` go from `cursor_start` to `cursor_end`. Raises KernelBusy.
        """
        return await self._answer(
            "complete", code=code, cursor=len(code) if cursor is None else cursor
        )

    async def inspect(self, code: str, cursor: int | None = None) -> Any:
        """Return what is known of the name at the cursor: `found`, `data` by MIME type."""
        return await self._answer(
            "inspect", code=code, cursor=len(code) if cursor is None else cursor
        )

    async def variables(
        self, names: Sequence[str] | None = None, *, most: int | None = None
    ) -> Any:
        """Return the session's variables, also while it runs; raises KernelBusy."""
        return await self._answer("variables", names=None if names is None else [*names], max=most)

    async def history(self, most: int | None = None) -> Any:
        """Return the last cells that have run: `cells`, the newest last."""
        return await self._answer("history", max=most)

    async def notebook(self) -> Row:
        """Return what the session has run as a notebook (nbformat 4.5)."""
        return await asyncio.to_thread(Door(self._place).notebook, self.name)

    async def restart(self, *, keep_files: bool = True) -> Any:
        """Give the session a new kernel: generation + 1, no variables, its files or none."""
        return await self._answer("restart", keep_files=keep_files)

    async def close(self) -> Any:
        """End the session: its kernel is gone. `detach()` keeps it."""
        try:
            return await self._answer("close")
        except SessionGone:
            return None  # someone else was faster
        finally:
            await self.detach()

    async def ping(self) -> None:
        """Return once the broker has answered."""
        await self._answer("ping")

    async def attach(self) -> None:
        """Connect now rather than at the first use; raises what the broker refuses with."""
        await self._attached()

    async def detach(self) -> None:
        """Disconnect, and keep the session; an execution goes on without us."""
        async with self._attaching:
            await self._drop()

    async def __aenter__(self) -> Self:
        await self.attach()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.detach()

    async def _answer(self, kind: str, **fields: Any) -> Any:
        event: Event = {}
        async with aclosing(self._ask(kind, **fields)) as coming:
            async for event in coming:  # noqa: B007 - the last one is the answer
                pass
        return {k: v for k, v in event.items() if k not in ("type", "id", "seq")}

    async def _ask(self, kind: str, **fields: Any) -> AsyncGenerator[Event, None]:
        from websockets.exceptions import ConnectionClosed

        inbox: asyncio.Queue[Event | BrokerError] = asyncio.Queue()
        socket = await self._attached()
        request_id, frame = self._link.request(kind, inbox.put_nowait, **fields)
        try:
            await socket.send(frame)
            while True:
                event = await inbox.get()
                if isinstance(event, BrokerError):
                    raise event
                yield event
                if event.get("type") == LAST.get(kind, "reply"):
                    return
        except ConnectionClosed as error:
            raise closed_error(error) from error
        finally:
            self._link.forget(request_id)

    async def _attached(self) -> ClientConnection:
        async with self._attaching:
            if self._reader is not None and self._reader.done():
                await self._drop()
            return self._socket or await self._connect()

    async def _connect(self) -> ClientConnection:
        from websockets.asyncio.client import connect
        from websockets.exceptions import WebSocketException

        url = socket_url(self._place.url, self.name, profile=self.profile, limits=self.limits)
        stack = AsyncExitStack()
        try:
            socket = await stack.enter_async_context(
                connect(url, **connect_options(self._place.token))
            )
        except (OSError, WebSocketException) as error:
            raise opening_error(self._place.url, error) from error
        self._link.subprotocol = socket.subprotocol
        self._socket, self._stack = socket, stack
        # A task, so that a session left alone does not fall behind and is not let go for it.
        self._reader = asyncio.create_task(self._read(socket), name=f"broker-{self.name}")
        return socket

    async def _read(self, socket: ClientConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        error: BrokerError = ConnectionLost("the connection was lost")
        try:
            while True:
                self._link.receive(await socket.recv())
        except ConnectionClosed as closed:
            error = closed_error(closed)
        except ValueError as broken:
            error = ConnectionLost(f"the broker sent what is no event: {broken}")
            await socket.close(1002)
        finally:
            self._link.lost(error)

    async def _drop(self) -> None:
        reader, stack = self._reader, self._stack
        self._socket, self._reader, self._stack = None, None, AsyncExitStack()
        await stack.aclose()
        if reader is not None:
            await reader  # the socket has ended, and so has its last `recv`
