"""The broker for threads: sessions, and what is asked of it beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from .calls import call_fields, execute_fields, returned
from .door import Door, Row
from .files import Files
from .find import Place, find
from .functions import Function
from .losses import OnLost
from .patience import USUAL, Patience
from .result import Result, collect_answer
from .resume import RECONNECT
from .sync import Session
from .wire import Limits


class Broker:
    """A broker, found as `find` says: by arguments, the environment, or the local server's file.

    Nothing is connected until something is asked; `patience` is for its answers. Safe to share
    between threads.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        state_dir: str | Path | None = None,
        patience: Patience = USUAL,
    ) -> None:
        self._begin(replace(find(url, token, state_dir), patience=patience))

    def _begin(self, place: Place) -> None:
        self.place = place
        self._door = Door(place)

    @classmethod
    def at(cls, place: Place) -> Self:
        """Return the broker at a place that is known: nothing is looked for."""
        broker = cls.__new__(cls)
        broker._begin(place)
        return broker

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
    ) -> Session:
        """Return a session by name; it starts, or is joined, at its first use.

        `limits` lowers the profile's bounds: `memory`, `processes`, `cpu`, `cpu_time`,
        `execution_timeout`, such as {"memory": "256M", "cpu_time": 5}. `reconnect` and `on_lost`
        are those of `Session`; `env` and `cwd` are set as `configure` does, at its first use.
        `tenant` is for the operator: another tenant's session is joined, and never made.
        """
        options: dict[str, Any] = {"reconnect": reconnect, "on_lost": on_lost}
        session = Session(self.place, name, profile, limits, tenant=tenant, **options)
        session._line.link.surround(env, cwd)
        return session

    def execute(
        self,
        code: str,
        *,
        profile: str | None = None,
        timeout: float | None = None,
        limits: Limits | None = None,
        **options: Any,
    ) -> Result:
        """Run code in a fresh kernel that is gone afterwards.

        `options` are `inputs`, `env` and `cwd`, as of `Session.execute`.
        """
        fields = execute_fields(options.pop("inputs", None), **options)
        return collect_answer(self._door.execute(code, profile, timeout, limits, fields))

    def call(
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
        return returned(collect_answer(self._door.call_function(fields, _limits)), is_json=True)

    def sessions(
        self,
        *,
        state: str | None = None,
        idle: float | None = None,
        tenant: str | None = None,
        node: str | None = None,
        profile: str | None = None,
        sort: str | None = None,
    ) -> Iterator[Row]:
        """Yield a row per session: those in one state, idle for so many seconds, of one node …

        `tenant` is for the operator, "*" for all; others see their own. `sort` is one of `name`,
        `tenant`, `state`, `used`, `idle`, `cell`, `cpu`, `memory`.
        """
        filters = {"state": state, "idle": idle, "tenant": tenant, "node": node}
        return self._door.sessions(**filters, profile=profile, sort=sort)

    def describe(self, name: str, *, tenant: str | None = None) -> Row:
        """Return all there is to tell of a session: limits, use, generations, last errors.

        Raises UnknownSession.
        """
        return self._door.describe(name, tenant)

    def interrupt(self, name: str, *, tenant: str | None = None) -> Row:
        """Interrupt what a session runs, without attaching to it; raises NotRunning."""
        return self._door.interrupt(name, tenant)

    def files(self, name: str, *, tenant: str | None = None) -> Files:
        """Return the files of a session that is there already."""
        return Files(self._door, name, tenant=tenant)

    def kill(self, name: str, *, reason: str | None = None, tenant: str | None = None) -> Row:
        """End a session's kernel; raises UnknownSession."""
        return self._door.kill(name, reason, tenant)

    def notebook(self, name: str, *, tenant: str | None = None) -> Row:
        """Return what a session has run, also one that has ended, as a notebook (nbformat 4.5)."""
        return self._door.notebook(name, tenant)

    def variables(
        self, name: str, names: Sequence[str] | None = None, *, tenant: str | None = None
    ) -> Row:
        """Return a live session's variables, without attaching to it."""
        return self._door.variables(name, names, tenant)

    def drain(self, node: str, *, keep: bool = False, undo: bool = False) -> Row:
        """Empty the node that answers: it takes no new sessions, and ends each that is idle.

        `keep` lets idle sessions live until they end by themselves; `undo` ends the draining.
        """
        return self._door.drain(node, keep=keep, undo=undo)

    def status(self, *, memory: bool = False) -> Row:
        """Return the nodes, the pools and their kernels, with their memory when asked."""
        return self._door.status(memory=memory)
