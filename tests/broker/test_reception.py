"""Who waits for a kernel, and is told that there is none to wait for."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.errors import BrokerError
from broker.reception import Reception
from kernels.state import SessionState


class Opening:
    """A session that waits for its first kernel, and is ended meanwhile."""

    tenant, workspace, state = "acme", None, SessionState.CLOSED


class NoKernels:
    """A pool that never has one."""

    async def acquire(self, **_: Any) -> None:
        await asyncio.Event().wait()


async def test_a_wait_that_is_ended_twice_ends_once() -> None:
    session: Any = Opening()
    pool: Any = NoKernels()
    reception = Reception(60, lambda _: 1)
    waiting = asyncio.create_task(reception.kernel_for(session, pool))
    await asyncio.sleep(0)
    reception.dismiss(session)
    await asyncio.sleep(0)  # it is being told, and has not heard it yet
    reception.dismiss(session)
    with pytest.raises(BrokerError):
        await waiting
