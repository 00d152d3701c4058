"""The broker for asyncio: sessions, and what is asked of it beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from .aio import AsyncSession
from .aio_files import AsyncFiles
from .calls import call_fields, execute_fields, returned
from .door import Door, Row
from .files import Files
from .find import Place, find
from .functions import Function
from .losses import OnLost
from .patience import USUAL, Patience
from .result import Result, collect_answer
from .resume import RECONNECT
from .stay import waited_for
from .wire import Limits


class AsyncBroker:
    """A broker, found as `find` says: by arguments, the environment, or the local server's file.

    Nothing is connected until something is asked; `patience` is for its answers.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        state_dir: str | Path | None = None,
        patience: Patience = USUAL,
    ) -> None:
        self.place: Place = replace(find(url, token, state_dir), patience=patience)
        self._door = Door(self.place)

    def session(
        self,
        name: str,
        profile: str | None = None,
        *,
        tenant: str | None = None,
        limits: Limits | None = None,
        reconnect: float = RECONNECT,
        on_lost: OnLost = "result",
        env: Mapping[str, str | None] | None = None,
        cwd: str | None = None,
    ) -> AsyncSession:
        """Return a session by name; it starts, or is joined, at its first use.

        `limits` lowers the profile's bounds: `memory`, `processes`, `cpu`, `cpu_time`,
        `execution_timeout`, such as {"memory": "256M", "cpu_time": 5}. `reconnect` and `on_lost`
        are those of `Session`; `env` and `cwd` are set as `configure` does, at its first use.
        `tenant` is for the operator: another tenant's session is joined, and never made.
        """
        session = AsyncSession(
            self.place,
            name,
            profile,
            limits,
            tenant=tenant,
            reconnect=reconnect,
            on_lost=on_lost,
        )
        session._line.link.surround(env, cwd)
        return session

    async def execute(
        self,
        code: str,
        *,
        profile: str | None = None,
        timeout: float | None = None,
        limits: Limits | None = None,
        **options: Any,
    ) -> Result:
        """Run code in a fresh kernel that is gone afterwards; see `Broker.execute`.

        Where the waiting is cancelled, the kernel ends at once; likewise of `call`.
        """
        fields = execute_fields(options.pop("inputs", None), **options)
        ask = partial(self._door.execute, code, profile, timeout, limits, fields)
        return collect_answer(await waited_for(lambda stay: ask(stay=stay)))

    async def call(
        self,
        function: Function,
        /,
        *args: Any,
        _profile: str | None = None,
        _timeout: float | None = None,
        _limits: Limits | None = None,
        **kwargs: Any,
    ) -> Any:
        """Call a function in a fresh kernel that is gone afterwards; see `Session.call`."""
        fields = call_fields(function, args, kwargs, profile=_profile, timeout=_timeout)
        ask = partial(self._door.call_function, fields, _limits)
        answer = await waited_for(lambda stay: ask(stay=stay))
        return returned(collect_answer(answer), is_json=True)

    async def sessions(
        self,
        *,
        state: str | None = None,
        idle: float | None = None,
        tenant: str | None = None,
        node: str | None = None,
        profile: str | None = None,
        sort: str | None = None,
    ) -> list[Row]:
        """Return a row per session; see `Broker.sessions`."""
        filters = {"state": state, "idle": idle, "tenant": tenant, "node": node}
        rows = self._door.sessions(**filters, profile=profile, sort=sort)
        return await asyncio.to_thread(list, rows)

    async def describe(self, name: str, *, tenant: str | None = None) -> Row:
        """Return all there is to tell of a session; see `Broker.describe`."""
        return await asyncio.to_thread(self._door.describe, name, tenant)

    async def interrupt(self, name: str, *, tenant: str | None = None) -> Row:
        """Interrupt what a session runs, without attaching to it; raises NotRunning."""
        return await asyncio.to_thread(self._door.interrupt, name, tenant)

    def files(self, name: str, *, tenant: str | None = None) -> AsyncFiles:
        """Return the files of a session that is there already."""
        return AsyncFiles(Files(self._door, name, tenant=tenant))

    async def kill(self, name: str, *, reason: str | None = None, tenant: str | None = None) -> Row:
        """End a session's kernel; raises UnknownSession."""
        return await asyncio.to_thread(self._door.kill, name, reason, tenant)

    async def notebook(self, name: str, *, tenant: str | None = None) -> Row:
        """Return what a session has run, also one that has ended, as a notebook (nbformat 4.5)."""
        return await asyncio.to_thread(self._door.notebook, name, tenant)

    async def variables(
        self, name: str, names: Sequence[str] | None = None, *, tenant: str | None = None
    ) -> Row:
        """Return a live session's variables, without attaching to it."""
        return await asyncio.to_thread(self._door.variables, name, names, tenant)

    async def drain(self, node: str, *, keep: bool = False, undo: bool = False) -> Row:
        """Empty the node that answers; see `Broker.drain`."""
        return await asyncio.to_thread(lambda: self._door.drain(node, keep=keep, undo=undo))

    async def status(self, *, memory: bool = False) -> Row:
        """Return the nodes, the pools and their kernels, with their memory when asked."""
        return await asyncio.to_thread(lambda: self._door.status(memory=memory))
