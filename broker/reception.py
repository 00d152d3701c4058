"""Who waits for a kernel, and how the wait ends: with one, with a refusal, or because they left.

On a full node sessions wait in turns: each tenant has a queue of its own, with a bound, and those
who wait are told their place.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from broker.adoption import ServiceKernel
from broker.callers import Asker
from broker.claims import changed_meanwhile
from broker.pool import Pool
from broker.session import Session


class Reception:
    """Fetches kernels for sessions.

    `timeout` is how long one waits, in seconds; `may_wait` how many sessions of a tenant may wait
    for others to end.
    """

    def __init__(self, timeout: float, may_wait: Callable[[str], int]) -> None:
        self._timeout = timeout
        self._may_wait = may_wait
        self._waiting: dict[Session, asyncio.Timeout] = {}
        self._queued: set[Session] = set()  # those of them that wait for others to end

    async def kernel_for(self, session: Session, pool: Pool[Any]) -> ServiceKernel:
        """Return a kernel of the pool. Raises what that refuses, or SessionLost by `dismiss`."""
        try:
            async with asyncio.timeout(None) as self._waiting[session]:
                return await self._acquire(session, pool)
        except TimeoutError:
            raise changed_meanwhile(session.state) from None
        finally:
            del self._waiting[session]
            self._queued.discard(session)

    def dismiss(self, session: Session) -> None:
        """End a session's wait at once, if it waits; nothing is claimed for it yet."""
        if (waiting := self._waiting.get(session)) and not waiting.expired():
            waiting.reschedule(0)

    def left(self, session: Session) -> None:
        """End the wait of a session that nobody follows and nothing was asked of, in the queue."""
        if session in self._queued and not session.busy:
            self.dismiss(session)

    async def _acquire(self, session: Session, pool: Pool[Any]) -> ServiceKernel:
        told = partial(self._told, session)
        asker = Asker(session.tenant, self._may_wait(session.tenant), told)
        kernel: ServiceKernel
        if session.workspace is not None:
            kernel = await pool.acquire_with(session.workspace, timeout=self._timeout, asker=asker)
        else:
            kernel = await pool.acquire(timeout=self._timeout, asker=asker)
        return kernel

    def _told(self, session: Session, position: int) -> None:
        self._queued.add(session)
        session.work.waits(position)
        if not session.audience.clients:
            self.left(session)  # they went before it was known that this would take its time
