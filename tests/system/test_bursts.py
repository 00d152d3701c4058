"""Many new sessions at once: nobody is refused, and the pool is ready for as many again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import RunningBroker, StartBroker
from tests.system.peer import ask_until, attached, call, metric, new_name

BURST = 50


@pytest.fixture
def idle(start_broker: StartBroker, short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    """A broker with the settings that it has by itself, but for the imports."""
    with start_broker(short_dir(), "--preload", "json") as running:
        yield running


async def test_a_burst_of_fifty_new_sessions_is_served_and_raises_the_target(
    idle: RunningBroker,
) -> None:
    least = pool_of(idle)["target"]
    async with AsyncExitStack() as stack:

        async def first_result() -> object:
            peer = await stack.enter_async_context(attached(idle, new_name()))
            events = await peer.run("6 * 7")
            return next(event["data"]["text/plain"] for event in events if "data" in event)

        answers = await asyncio.gather(*(first_result() for _ in range(BURST)))
        assert answers == ["42"] * BURST
        pool = pool_of(idle)
        assert pool["bound"] == BURST
        assert least < pool["target"] <= 32
        assert metric(idle, "broker_pool_target", profile="python") > least
        assert " TARGET " in idle.cli("status").stdout
    ask_until(lambda: pool_of(idle)["warm"] > least, "the pool is ready for more than before")


def pool_of(broker: RunningBroker) -> dict[str, Any]:
    """Return the one pool's row."""
    [pool] = call(broker, "GET", "/v1/pools").body["pools"]
    return dict(pool)
