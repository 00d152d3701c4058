"""What outlived a killed broker is taken up as it was, the cell it was running included."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.system.conftest import RunningBroker
from tests.system.peer import ask_until, attached, call, gate, open_gate, row_of, value_of

PROFILE = """
[profiles.python]
warm = 1
preload = []
"""
SOON_IDLE = '[session]\nidle_timeout = "2s"\n'


async def test_a_cell_that_outlives_the_broker_keeps_its_session_busy(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    directory = short_dir()
    (directory / "broker.toml").write_text(SOON_IDLE + PROFILE)
    flags = ("--config", str(directory / "broker.toml"))
    with start_broker(directory, *flags) as first:
        async with attached(first, "long") as peer:
            code = f"marker = 5\n{gate()}\nmarker += 1"
            await peer.send({"type": "execute", "id": "cell", "code": code})
            await peer.until("stream")
            os.kill(first.pid, signal.SIGKILL)
            first.process.wait(20)
    with start_broker(directory, *flags) as second:
        async with attached(second, "long") as peer:
            state = await peer.until("session")
            assert (state["state"], state["generation"]) == ("warm", 1)
            assert row_of(second, "long")["state"] == "busy"
            await peer.send({"type": "execute", "id": "next", "code": "marker"})
            queued = await peer.until("queued")
            assert (queued["id"], queued["position"]) == ("next", 1)
            # Longer than the idle timeout, and nothing happens: the cell still waits at its gate.
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.5):
                    await peer.next()
            assert row_of(second, "long")["state"] == "busy"
            open_gate(row_of(second, "long")["pid"])
            assert (await peer.until("result"))["data"]["text/plain"] == "6"
            assert (await peer.until("done"))["generation"] == 1
        assert value_of(second, "long", "marker") == "6"


async def test_idleness_goes_on_from_the_last_execution_through_the_brokers_death(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    directory = short_dir()
    (directory / "broker.toml").write_text(PROFILE)
    flags = ("--config", str(directory / "broker.toml"))
    with start_broker(directory, *flags) as first:
        value_of(first, "quiet", "1")
        used = row_of(first, "quiet")["last_used"]
        # At once: what the store is told within a while, it has perhaps not been told yet.
        os.kill(first.pid, signal.SIGKILL)
        first.process.wait(20)
    for _ in range(2):
        with start_broker(directory, *flags) as later:
            ask_until(
                lambda broker=later: row_of(broker, "quiet")["state"] == "ready", "a free kernel"
            )
            assert abs(row_of(later, "quiet")["last_used"] - used) <= 1  # as exact as its mark
            os.kill(later.pid, signal.SIGKILL)
            later.process.wait(20)


async def test_kernels_of_a_killed_zygote_are_adopted_after_a_killed_broker(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    directory = short_dir()
    (directory / "broker.toml").write_text(PROFILE)
    flags = ("--config", str(directory / "broker.toml"))

    def zygote(broker: RunningBroker) -> int:
        return next((row["pid"] for row in call(broker, "GET", "/v1/pools").body["zygotes"]), 0)

    with start_broker(directory, *flags) as first:
        async with attached(first, "kept") as peer:
            await peer.run("x = 20")
            killed = zygote(first)
            os.kill(killed, signal.SIGKILL)
            ask_until(lambda: zygote(first) not in (0, killed), "another zygote")
            os.kill(first.pid, signal.SIGKILL)
            first.process.wait(20)
    with start_broker(directory, *flags) as second:
        assert row_of(second, "kept")["generation"] == 1
        assert value_of(second, "kept", "x * 2 + 2") == "42"
