"""How often an answer waits for the session store: once for a new session, else never."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.store.connection import load_script
from tests.system.conftest import RunningBroker, StartBroker
from tests.system.peer import attached, child_of, new_name

CONFIG = '[profiles.python]\npreload = []\nwarm = 2\nwarm_most = 2\n[redis]\nlease = "10m"\n'
CLAIM, TOUCH = (load_script(name).digest for name in ("claim", "touch"))


@pytest.fixture(scope="module")
def calm(start_broker: StartBroker, short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    """A broker that renews no lease while it is looked at."""
    directory = short_dir()
    (directory / "broker.toml").write_text(CONFIG)
    with start_broker(directory, "--config", str(directory / "broker.toml")) as running:
        yield running


@asynccontextmanager
async def overheard(broker: RunningBroker) -> AsyncIterator[Callable[[], Awaitable[list[str]]]]:
    """Give what the store is asked, oldest first; each call returns all that came so far."""
    path = str(broker.state_dir / "valkey.sock")
    async with Redis(unix_socket_path=path) as client, client.monitor() as monitor:

        async def until_now() -> list[str]:
            marker = new_name("marker")
            await client.echo(marker)
            heard: list[str] = []
            async for command in monitor.listen():
                if marker in command["command"]:
                    return heard
                if command["client_type"] != "lua":
                    heard.append(command["command"])
            return heard

        yield until_now


async def test_a_new_session_costs_one_round_trip(calm: RunningBroker) -> None:
    async with overheard(calm) as until_now:
        for _ in range(3):
            name = new_name()
            await until_now()
            async with attached(calm, name) as peer:
                await peer.run("6 * 7")
                asked = [command.split()[:2] for command in await until_now() if name in command]
            # Uses are written behind, by nobody whom an answer waits for.
            behind = (["EVALSHA", TOUCH], ["ZADD", "broker:used"])
            asked = [command for command in asked if command not in behind]
            assert asked == [["EVALSHA", CLAIM]]


async def test_an_execution_waits_for_no_store(calm: RunningBroker) -> None:
    store = child_of(calm.pid, "valkey")
    async with attached(calm, new_name()) as peer:
        await peer.run("x = 6")
        os.kill(store.pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(10):
                events = await peer.run("x * 7")
        finally:
            os.kill(store.pid, signal.SIGCONT)
    assert events[-1]["status"] == "ok"
