"""Who waits for a kernel, and how the wait ends: with one, with a refusal, or because they left."""

from __future__ import annotations

import asyncio
from typing import Any

from broker.adoption import ServiceKernel
from broker.claims import changed_meanwhile
from broker.pool import Pool
from broker.session import Session


class Reception:
    """Fetches kernels for sessions. `timeout` is how long one waits, in seconds."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._waiting: dict[Session, asyncio.Timeout] = {}

    async def kernel_for(self, session: Session, pool: Pool[Any]) -> ServiceKernel:
        """Return a kernel of the pool. Raises what that refuses, or SessionLost by `dismiss`."""
        try:
            async with asyncio.timeout(None) as self._waiting[session]:
                return await self._acquire(session, pool)
        except TimeoutError:
            raise changed_meanwhile(session.state) from None
        finally:
            del self._waiting[session]

    def dismiss(self, session: Session) -> None:
        """End a session's wait at once, if it waits; nothing is claimed for it yet."""
        if waiting := self._waiting.get(session):
            waiting.reschedule(0)

    async def _acquire(self, session: Session, pool: Pool[Any]) -> ServiceKernel:
        kernel: ServiceKernel
        if session.workspace is not None:
            kernel = await pool.acquire_with(session.workspace, timeout=self._timeout)
        else:
            kernel = await pool.acquire(timeout=self._timeout)
        return kernel
