"""More than a node can hold, and comings and goings without end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

import msgpack
import psutil
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.bench.client import socket
from tests.bench.ours import MSGPACK, Broker

PATIENCE = 120.0  # s until the last of a crowd has had its turn


@dataclass
class Overload:
    """What became of a crowd. Milliseconds."""

    finished: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)  # from the request to its refusal
    codes: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


async def overload(broker: Broker, crowd: int) -> Overload:
    """Have a crowd come at one instant, each for one cell of its own session, then it leaves."""
    seen = Overload()

    async def one(number: int) -> None:
        url = f"{broker.url}/v1/sessions/crowd-{number}/ws"
        began = perf_counter()
        try:
            async with socket(url, broker.headers, [MSGPACK]) as connection:
                began = perf_counter()  # of the request: the handshakes of a crowd take their turns
                await connection.send(
                    msgpack.packb({"type": "execute", "id": "r", "code": "sum(range(10**5))"})
                )
                async with asyncio.timeout(PATIENCE):
                    while True:
                        event = msgpack.unpackb(await connection.recv())
                        if event["type"] == "done" or event["type"] == "fault":
                            break
                took = 1000 * (perf_counter() - began)
                if event["type"] == "fault":
                    seen.refused.append(took)
                    seen.codes[event["code"]] += 1
                    return
                seen.finished.append(took)
                if event["status"] != "ok":
                    seen.wrong.append(f"crowd-{number}: {event}")
                await connection.send(msgpack.packb({"type": "close", "id": "c"}))
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        await connection.recv()
        except InvalidStatus as refusal:
            seen.refused.append(1000 * (perf_counter() - began))
            seen.codes[f"HTTP {refusal.response.status_code}"] += 1
        except (TimeoutError, OSError, ConnectionClosed) as error:
            seen.wrong.append(f"crowd-{number}: {type(error).__name__} {error}")

    await asyncio.gather(*map(one, range(crowd)))
    return seen


@dataclass
class Comings:
    """What was left of a broker's resources, before and after."""

    memory: tuple[float, float]  # MB, USS
    descriptors: tuple[int, int]  # beside those of the store's connections, at either end
    seconds: float = 0.0


async def comings_and_goings(
    broker: Broker, attaches: int, sessions: int, *, progress: Callable[[str], None]
) -> Comings:
    """Attach to one session so many times, and open and close so many."""
    await _attach(broker, 200)
    await _sessions(broker, 20)  # what is made once is made by now
    await broker.warm()
    before = _state(broker.pid)
    began = perf_counter()
    for part in range(10):
        await _attach(broker, attaches // 10)
        await _sessions(broker, sessions // 10)
        progress(f"{(part + 1) * 10} %")
    await broker.warm()
    after = _state(broker.pid)
    return Comings((before[0], after[0]), (before[1], after[1]), seconds=perf_counter() - began)


async def _attach(broker: Broker, times: int) -> None:
    async with broker.attach("steady") as kept:
        await kept.execute("1+1")
        gate = asyncio.Semaphore(20)

        async def one() -> None:
            async with gate, broker.attach("steady"):
                pass

        await asyncio.gather(*(one() for _ in range(times)))


async def _sessions(broker: Broker, times: int) -> None:
    gate = asyncio.Semaphore(2)

    async def one(number: int) -> None:
        async with gate, broker.attach(f"passing-{number}") as session:
            await session.execute("1+1")
            await session.ask("close")

    await asyncio.gather(*(one(number) for number in range(times)))


def _state(pid: int) -> tuple[float, int]:
    gc.collect()
    process = psutil.Process(pid)
    # Connections to the store are kept for the next request, a bounded number of them: each one
    # that the store has more, the broker has more.
    [store] = [each for each in process.children(recursive=True) if "valkey" in each.name()]
    return process.memory_full_info().uss / 1e6, process.num_fds() - store.num_fds()
