"""The way the broker ends: what it has begun is over when it goes on."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from broker.app import _drain


class Busy:
    """A service that is never free, and takes a moment to give up."""

    def __init__(self) -> None:
        self.sessions: dict[str, Any] = {}
        self.began = asyncio.Event()
        self.ended = False

    async def drain(self) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(3):
                await asyncio.sleep(0)
            self.ended = True


@pytest.mark.parametrize("how", ["time", "signal", "cancelled"])
async def test_nothing_of_the_draining_is_left_when_it_is_over(how: str) -> None:
    service, stop = Busy(), asyncio.Event()
    before = asyncio.all_tasks()
    timeout = 0.01 if how == "time" else 60.0
    draining = asyncio.create_task(_drain(cast(Any, service), timeout, stop))
    await asyncio.wait_for(service.began.wait(), 20)
    if how == "signal":
        stop.set()
    elif how == "cancelled":
        draining.cancel()
    await asyncio.wait([draining], timeout=20)
    assert draining.cancelled() is (how == "cancelled")
    assert service.ended
    assert asyncio.all_tasks() == before
