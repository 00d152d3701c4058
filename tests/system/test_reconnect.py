"""The Python clients over connections that are cut, swallowed and come back, on a real broker."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from broker.client import AsyncBroker, Broker, Place, Session
from tests.system.conftest import RunningBroker
from tests.system.peer import ask_until, attached, gate, new_name, open_gate, row_of
from tests.system.proxy import proxy

CUTS = 50
# Prints its lines until the gate is opened, and returns how many there were.
CHATTY = gate("up").replace(
    "while not _gate: time.sleep(0.02)",
    "i = 0\nwhile not _gate:\n    print(i, flush=True)\n    i += 1\n    time.sleep(0.004)\ni",
)


def lives(seed: int) -> Callable[[], int | None]:
    """Give each of the first connections a random number of bytes, and the later ones all."""
    chance, made = random.Random(seed), iter(range(10_000))  # noqa: S311 - to be repeated
    return lambda: chance.randint(60, 4000) if next(made) < CUTS else None


def check_whole(events: list[dict[str, Any]], result: Any) -> None:
    """See that every event has come, once and in order, and every line with them."""
    numbers = [event["seq"] for event in events if event["type"] != "session"]
    assert numbers == [*range(numbers[0], numbers[0] + len(numbers))]
    assert [event["type"] for event in events].count("done") == 1
    count = int(result.value)
    assert result.stdout == "up\n" + "".join(f"{i}\n" for i in range(count))
    assert count > CUTS


def test_a_connection_that_is_cut_fifty_times_loses_no_event_and_repeats_none(
    broker: RunningBroker,
) -> None:
    name = new_name()
    events: list[dict[str, Any]] = []
    results: list[Any] = []
    with (
        proxy(broker.url, lives(7)) as between,
        Broker(between.url, broker.token).session(name) as session,
    ):
        runner = threading.Thread(
            target=lambda: results.append(session.execute(CHATTY, on_event=events.append))
        )
        runner.start()
        between.wait_for_cuts(CUTS)
        open_gate(row_of(broker, name)["pid"])
        runner.join(60)
    check_whole(events, results[0])


async def test_the_asyncio_client_loses_no_event_either(broker: RunningBroker) -> None:
    name = new_name()
    events: list[dict[str, Any]] = []
    with proxy(broker.url, lives(8)) as between:
        async with AsyncBroker(between.url, broker.token).session(name) as session:
            running = asyncio.create_task(session.execute(CHATTY, on_event=events.append))
            await asyncio.to_thread(between.wait_for_cuts, CUTS)
            open_gate(row_of(broker, name)["pid"])
            check_whole(events, await running)


def test_a_client_misses_a_broker_that_vanished_without_a_word(broker: RunningBroker) -> None:
    name = new_name()
    with proxy(broker.url) as between:
        place = Place(between.url, broker.token)
        with Session(place, name, ping_interval=0.5) as session:
            coming = session.stream(f"{gate()}\nprint('after')")
            while next(coming)["type"] != "stream":
                pass
            between.swallow()
            open_gate(row_of(broker, name)["pid"])
            assert [event.get("text") for event in coming if event["type"] == "stream"] == [
                "after\n"
            ]


async def test_a_broker_misses_a_client_that_vanished_without_a_word(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    name, often = new_name(), {"BROKER_WIRE_PING_INTERVAL": "1s"}
    with (
        start_broker(short_dir(), "--warm", "1", **often) as broker,
        proxy(broker.url) as between,
    ):
        near = Place(between.url, broker.token)
        async with attached(near, name, options={"ping_interval": None, "close_timeout": 0.1}):
            assert row_of(broker, name)["clients"] == 1
            between.swallow()
            ask_until(lambda: row_of(broker, name)["clients"] == 0, "the client let go", 20)
