"""One session, for asyncio: `AsyncSession`, the twin of the one in `sync`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self

from .aio_files import AsyncFiles
from .aio_line import AsyncDialler, AsyncLine, watch
from .aio_serving import AsyncToolServer
from .calls import (
    BatchResult,
    Cell,
    batch_fields,
    call_fields,
    collect_batch,
    execute_fields,
    heard_async,
    returned,
)
from .door import Door, Row
from .errors import BrokerError, SessionGone
from .files import Files
from .find import Place
from .functions import Function
from .inputs import answering_async
from .losses import OnLost, check_state
from .result import Event, Result, collect
from .resume import RECONNECT
from .socket import PING_INTERVAL
from .wire import RUNS, Limits, socket_url


class AsyncSession:
    """One session's connection. Leaving the `async with` block lets go of the session and keeps it.

    Its methods may be called from several tasks of one loop; executions run in the order of
    their calls. A connection that was lost is made anew, and what is lost all the same is raised,
    as `Session` does.
    """

    def __init__(
        self,
        place: Place,
        name: str,
        profile: str | None = None,
        limits: Limits | None = None,
        *,
        tenant: str | None = None,
        reconnect: float = RECONNECT,
        on_lost: OnLost = "result",
        ping_interval: float = PING_INTERVAL,
    ) -> None:
        self.name = name
        self.tenant = tenant
        self.profile = profile
        self.limits = limits
        self.on_lost = on_lost
        self._place = place
        self._reconnect = reconnect
        self._ping_interval = ping_interval
        self.tools = AsyncToolServer(
            place,
            lambda: socket_url(place.url, name, profile=profile, limits=limits, tenant=tenant),
        )
        self._line = AsyncLine(name, self._dialler())

    @property
    def generation(self) -> int:
        """Return the generation last heard of; 0 before the first."""
        return self._line.link.generation

    @property
    def files(self) -> AsyncFiles:
        """Return the session's files; the session starts, or is joined, at their first use."""
        files = Files(Door(self._place), self.name, tenant=self.tenant)
        return AsyncFiles(files, self.attach)

    async def execute(
        self,
        code: str,
        *,
        timeout: float | None = None,
        on_event: Callable[[Event], object] | None = None,
        **options: Any,
    ) -> Result:
        """Run code and return what came of it; see `Session.execute`.

        Where the waiting is cancelled, the code is interrupted, or does not begin; likewise of
        `batch` and `call`. What `stream` runs goes on.
        """
        asking = self._stream(code, timeout=timeout, **options)
        result = collect(await heard_async(asking, on_event))
        return check_state(result, self.on_lost, self._line.link)

    async def stream(
        self, code: str, *, timeout: float | None = None, **options: Any
    ) -> AsyncGenerator[Event, None]:
        """Run code and yield its events as they come, `done` last; see `Session.stream`."""
        async with aclosing(self._stream(code, timeout=timeout, stays=True, **options)) as coming:
            async for event in coming:
                yield event

    async def _stream(
        self, code: str, *, stays: bool = False, **options: Any
    ) -> AsyncGenerator[Event, None]:
        on_input, inputs = options.pop("on_input", None), options.pop("inputs", None)
        fields = execute_fields(inputs, **options)
        asking = self._ask("execute", stays=stays, code=code, **fields)
        async with (
            aclosing(asking),
            aclosing(answering_async(asking, on_input, self._line)) as coming,
        ):
            async for event in coming:
                yield event

    async def batch(
        self,
        cells: Iterable[Cell],
        *,
        stop_on_error: bool = True,
        on_event: Callable[[Event], object] | None = None,
    ) -> BatchResult:
        """Run cells one after the other; see `Session.batch`."""
        fields = batch_fields(cells, stop_on_error=stop_on_error)
        batch = collect_batch(await heard_async(self._ask_unheard("batch", **fields), on_event))
        for result in batch:
            check_state(result, self.on_lost, self._line.link)
        return batch

    async def call(
        self,
        function: Function,
        /,
        *args: Any,
        _timeout: float | None = None,
        _env: Mapping[str, str] | None = None,
        _cwd: str | None = None,
        _on_event: Callable[[Event], object] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call a function in the session, and return what it returns; see `Session.call`."""
        options = {"timeout": _timeout, "env": _env, "cwd": _cwd}
        asking = self._ask_unheard("call", **call_fields(function, args, kwargs, **options))
        return returned(
            check_state(
                collect(await heard_async(asking, _on_event)), self.on_lost, self._line.link
            )
        )

    async def configure(
        self, env: Mapping[str, str | None] | None = None, cwd: str | None = None
    ) -> None:
        """Set what is around all that is asked for from now on; see `Session.configure`."""
        await self._answer("configure", env=env, cwd=cwd)
        self._line.link.surround(env, cwd)

    async def watch(self, after: int | None = None) -> AsyncGenerator[Event, None]:
        """Yield every event of the session, whoever caused it; see `Session.watch`.

        It ends with the loop over it; `detach()` does not end it.
        """
        async with aclosing(watch(self._dialler(watch=True), after)) as coming:
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
        return await asyncio.to_thread(Door(self._place).notebook, self.name, self.tenant)

    async def restart(self, *, keep_files: bool = True) -> Any:
        """Give the session a new kernel: generation + 1, no variables, its files or none."""
        answer = await self._answer("restart", keep_files=keep_files)
        self._line.link.known_loss = answer["generation"]
        return answer

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
        await self._line.open()

    async def detach(self) -> None:
        """Disconnect, and keep the session; an execution goes on without us."""
        await self.tools.close()
        await self._line.close()

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

    async def _ask(
        self, kind: str, *, stays: bool = False, **fields: Any
    ) -> AsyncGenerator[Event, None]:
        """Ask, and yield the answers; what runs `stays` when whoever waits for it is cancelled."""
        inbox: asyncio.Queue[Event | BrokerError] = asyncio.Queue()
        asked = await self._line.request(kind, inbox.put_nowait, **fields)
        try:
            await self._line.send(asked)
            while True:
                event = await inbox.get()
                if isinstance(event, BrokerError):
                    raise event
                yield event
                if asked.ends_with(event):
                    asked.check()
                    return
        except (asyncio.CancelledError, GeneratorExit):
            task = asyncio.current_task()
            if kind in RUNS and not stays and task is not None and task.cancelling():
                self._line.link.forget(asked.id)
                await self._line.abandon(asked)
            raise
        finally:
            self._line.link.forget(asked.id)

    async def _ask_unheard(self, kind: str, **fields: Any) -> AsyncGenerator[Event, None]:
        """Ask for what runs, and tell it that no input comes."""
        async with (
            aclosing(self._ask(kind, **fields)) as asking,
            aclosing(answering_async(asking, None, self._line)) as coming,
        ):
            async for event in coming:
                yield event

    def _dialler(self, *, watch: bool = False) -> AsyncDialler:
        def address(url: str, after: int | None) -> str:
            asked: dict[str, Any] = {"after": after, "watch": watch, "tenant": self.tenant}
            if not watch:
                asked |= {"profile": self.profile, "limits": self.limits}
            return socket_url(url, self.name, **asked)

        return AsyncDialler(
            self._place.url,
            address,
            self._place.token,
            reconnect=self._reconnect,
            ping_interval=self._ping_interval,
            patience=self._place.patience,
        )
