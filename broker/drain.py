"""Emptying a node, so that it can be stopped without anybody's code being cut off.

It takes no new sessions. Kernels cannot move: each session is ended as soon as it runs nothing, and
its clients are closed with 1001, so that they open it on another node, as the next generation. Or
the sessions are kept until they end by themselves.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from broker.errors import BrokerError
from broker.service import CLOSE_AWAY, Service
from broker.session import Session

REASON = "drained"


class Drain:
    """The draining of one service; off until it begins."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ends = False  # sessions that run nothing
        self._ending: set[asyncio.Task[None]] = set()
        service.on_change(self._changed)

    def __repr__(self) -> str:
        return f"<Drain: {'on' if self._service.draining else 'off'}, {self.left} sessions left>"

    @property
    def left(self) -> int:
        """Count the sessions that the node still serves."""
        return len(self._service.sessions)

    def begin(self, *, end_sessions: bool) -> None:
        """Take no new sessions; end those there are, each as soon as it runs nothing, or none."""
        self._service.draining = True
        self._ends = end_sessions
        for session in tuple(self._service.sessions.values()):
            self._changed(session)

    def undo(self) -> None:
        """Take sessions again. Those that were ended stay so."""
        self._service.draining = self._ends = False

    def _changed(self, session: Session) -> None:
        if self._ends and not session.busy and not session.passing:
            # Not now: its last `done` leaves at the end of this turn.
            asyncio.get_running_loop().call_soon(self._end_if_idle, session)

    def _end_if_idle(self, session: Session) -> None:
        here = self._service.sessions.get(session.key) is session
        if self._ends and here and not session.busy:
            task = asyncio.create_task(self._end(session))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _end(self, session: Session) -> None:
        with suppress(BrokerError):  # somebody else has ended it
            await self._service.end(session.key, REASON, code=CLOSE_AWAY)
