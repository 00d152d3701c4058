"""When sessions end by themselves: idleness, lifetime; and what their next client is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from tests.system.conftest import RunningBroker, StartBroker
from tests.system.peer import ask_until, attached, call, execute, new_name, row_of

LEAN = "[profiles.python]\npreload = []\nwarm = 2\n"
IDLE = 0.7


@pytest.fixture(scope="module")
def idle(start_broker: StartBroker, short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    """A broker that ends sessions after a short while without an execution."""
    settings = LEAN + f"[session]\nidle_timeout = '{int(IDLE * 1000)}ms'\n"
    with start_broker(*configured(short_dir(), settings)) as running:
        yield running


@pytest.fixture(scope="module")
def mortal(start_broker: StartBroker, short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    """A broker that ends every session a short while after it began."""
    settings = LEAN + "[session]\nmax_lifetime = '900ms'\n"
    with start_broker(*configured(short_dir(), settings)) as running:
        yield running


def configured(directory: Path, settings: str) -> tuple[Path, str, str]:
    (directory / "broker.toml").write_text(settings)
    return directory, "--config", str(directory / "broker.toml")


async def test_an_idle_session_ends_and_its_kernel_with_it(idle: RunningBroker) -> None:
    name = new_name()
    async with attached(idle, name) as peer:
        done = (await peer.run("x = 20"))[-1]
        finished = time.time()
        pid = row_of(idle, name)["pid"]
        assert done["expires_at"] == pytest.approx(finished + IDLE, abs=0.3)
        lost = await peer.until("session")
        assert (lost["state"], lost["generation"], lost["reason"]) == ("lost", 1, "idle")
        assert await peer.closed() == (4404, "idle")
        assert time.time() >= done["expires_at"] - 0.01
    ask_until(lambda: row_of(idle, name)["state"] == "closed", "the session closed")
    assert row_of(idle, name)["reason"] == "idle"
    assert not psutil.pid_exists(pid)


async def test_opened_again_after_idling_it_says_so_with_the_next_generation(
    idle: RunningBroker,
) -> None:
    name = new_name()
    async with attached(idle, name) as peer:
        await peer.run("x = 20")
        assert (await peer.closed())[0] == 4404
    async with attached(idle, name) as again:
        first = await again.next()
        assert (first["state"], first["generation"], first["reason"]) == ("lost", 2, "idle")
        assert await again.value("'x' in globals()") == "False"
    body = execute(idle, name, "1")
    assert (body["generation"], body["state"]) == (2, "warm")


async def test_idleness_counts_from_the_end_of_the_last_execution(idle: RunningBroker) -> None:
    name = new_name()
    async with attached(idle, name) as peer:
        began = time.time()
        # Longer than the timeout: a busy session is not idle, and its end starts the clock.
        done = (await peer.run(f"import time; time.sleep({2 * IDLE})"))[-1]
        finished = time.time()
        assert done["status"] == "ok"
        assert finished - began >= 2 * IDLE
        await peer.closed()
        assert time.time() - finished >= IDLE - 0.05


async def test_what_waits_in_the_queue_keeps_a_session_busy(idle: RunningBroker) -> None:
    async with attached(idle, new_name()) as peer:
        for name in "abc":
            code = f"import time; time.sleep({IDLE / 2})"
            await peer.send({"type": "execute", "id": name, "code": code})
        ends = [(await peer.until("done"))["status"] for _ in range(3)]
        assert ends == ["ok"] * 3


async def test_traffic_without_executions_does_not_keep_a_session(idle: RunningBroker) -> None:
    name = new_name()
    async with attached(idle, name) as peer:
        await peer.run("1")
        expires = row_of(idle, name)["expires"]
        for _ in range(20):
            await peer.send({"type": "ping", "id": "p"})
            await peer.until("pong")
        async with attached(idle, name):
            pass
        assert row_of(idle, name)["expires"] == expires
        assert await peer.closed() == (4404, "idle")


def test_an_idle_session_that_nobody_watches_ends_too(idle: RunningBroker) -> None:
    name = new_name()
    execute(idle, name, "1")
    ask_until(lambda: row_of(idle, name)["state"] == "closed", "the session closed")


async def test_a_session_that_never_ran_anything_ends_too(idle: RunningBroker) -> None:
    async with attached(idle, new_name()) as peer:
        assert await peer.closed() == (4404, "idle")


async def test_a_session_ends_at_its_lifetime_however_busy_it_was(mortal: RunningBroker) -> None:
    name = new_name()
    async with attached(mortal, name) as peer:
        created = row_of(mortal, name)["created"]
        events = []
        # Never idle, and never busy for long: its time comes between two executions.
        while not events or events[-1]["type"] != "session":
            with suppress(ConnectionClosed):  # what was said before the end is still to be read
                await peer.send({"type": "execute", "id": "e", "code": "1"})
            events.append(await peer.next())
            while events[-1]["type"] != "done" and events[-1].get("state") != "lost":
                events.append(await peer.next())
        assert events[-1]["reason"] == "lifetime"
        assert await peer.closed() == (4404, "lifetime")
        assert time.time() - created >= 0.85
    async with attached(mortal, name) as again:
        first = await again.next()
        assert (first["state"], first["generation"], first["reason"]) == ("lost", 2, "lifetime")


async def test_a_lifetime_does_not_cut_an_execution_off(mortal: RunningBroker) -> None:
    async with attached(mortal, new_name()) as peer:
        done = (await peer.run("import time; time.sleep(1.2)"))[-1]
        assert done["status"] == "ok"
        assert await peer.closed() == (4404, "lifetime")


def test_the_ends_are_counted_and_leave_no_session(idle: RunningBroker) -> None:
    ask_until(lambda: not call(idle, "GET", "/v1/sessions").body["sessions"], "all sessions ended")
    ask_until(
        lambda: call(idle, "GET", "/v1/pools").body["pools"][0]["bound"] == 0, "all kernels ended"
    )
