"""Many sessions busy at once, each client checking that nothing is lost, doubled or out of order.

The work is a chat's: cells that wait for something and print meanwhile, short ones, tables, plots,
errors, much text. Every so often a client leaves and comes back with the last number it saw.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import msgpack
import psutil
from websockets.asyncio.client import ClientConnection

from tests.bench.client import socket
from tests.bench.ours import MSGPACK, Broker

QUICK = "1+1"
WAIT = (
    "import time\nfor tick in range(5):\n    time.sleep({pause:.2f})\n    print(tick, flush=True)"
)
# Cell, and its share: what models write runs for a while and waits, most of the time.
MIX: tuple[tuple[str, float], ...] = (
    (WAIT, 0.62),
    (QUICK, 0.2),
    ("for line in range(200): print('line', line)", 0.08),
    ("import pandas as pd\npd.DataFrame({'a': range(50), 'b': 1.5}).groupby('a').sum()", 0.05),
    ("{}['no such key']", 0.04),
    ("import matplotlib.pyplot as plt\nplt.plot([1, 3, 2]);", 0.01),
)
PAUSE = (0.25, 1.0)  # s, between two of the five lines that a cell prints while it waits
ACKNOWLEDGE = 50  # events
LEAVE = 0.01  # of the executions are followed by a reconnect
SOLO = 300  # executions of QUICK before the crowd comes
EVERY = 5.0  # s between two looks at the broker's memory
OPENING = 4  # sessions being opened at once
BEGIN = 10.0  # s, within which all begin: what a crowd does in one instant, the overload shows
PATIENCE = 60.0  # s for an answer; what takes longer hangs


@dataclass
class Record:
    """What the clients have seen."""

    quick: list[float] = field(default_factory=list)  # ms of each QUICK
    executions: int = 0
    events: int = 0
    reconnects: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[float, float]] = field(default_factory=list)  # s, MB of the broker


class Chat:
    """One session's client."""

    def __init__(self, broker: Broker, name: str, record: Record, seed: int) -> None:
        self._broker = broker
        self._name = name
        self._record = record
        self._chance = random.Random(seed)  # noqa: S311 - the same work for the same seed
        self._seq = self._acknowledged = 0
        self._count = 0
        self._done: set[str] = set()

    async def open(self, stack: contextlib.AsyncExitStack) -> ClientConnection:
        """Connect; what came since the last number seen is told first."""
        url = f"{self._broker.url}/v1/sessions/{self._name}/ws"
        if self._seq:
            url += f"?after={self._seq}"
        return await stack.enter_async_context(socket(url, self._broker.headers, [MSGPACK]))

    async def live(self, until: Callable[[], bool]) -> None:
        """Execute one cell after the other."""
        await asyncio.sleep(self._chance.uniform(0, BEGIN))
        codes, shares = zip(*MIX, strict=True)
        while not until():
            async with contextlib.AsyncExitStack() as stack:
                connection = await self.open(stack)
                while not until():
                    code = self._chance.choices(codes, shares)[0]
                    if code is WAIT:
                        code = code.format(pause=self._chance.uniform(*PAUSE))
                    await self.execute(connection, code)
                    if self._chance.random() < LEAVE:
                        self._record.reconnects += 1
                        break

    async def execute(self, connection: ClientConnection, code: str) -> float:
        """Run one cell and check its events; return the milliseconds it took."""
        self._count += 1
        request_id = f"r{self._count}"
        began = perf_counter()
        message = {"type": "execute", "id": request_id, "code": code, "stop_on_error": False}
        await connection.send(msgpack.packb(message))
        started = False
        async with asyncio.timeout(PATIENCE):
            while True:
                event = msgpack.unpackb(await connection.recv())
                self.check(event)
                if event.get("id") != request_id:
                    continue
                if event["type"] == "started":
                    started = True
                elif event["type"] in ("done", "fault"):
                    break
                elif not started and event["type"] != "queued":
                    self._record.wrong.append(f"{self._name}: {event['type']} before `started`")
        took = 1000 * (perf_counter() - began)
        self._record.executions += 1
        self._record.statuses[event.get("status", "fault")] += 1
        if event["type"] == "fault":
            self._record.wrong.append(f"{self._name}: {event}")
        if code == QUICK:
            self._record.quick.append(took)
        if self._seq >= self._acknowledged + ACKNOWLEDGE:
            self._acknowledged = self._seq
            await connection.send(msgpack.packb({"type": "ack", "seq": self._seq}))
        return took

    def check(self, event: dict[str, Any]) -> None:
        """Note an event that is lost, doubled, out of order, or about an execution that is over."""
        self._record.events += 1
        seq, kind = event.get("seq"), event["type"]
        if seq is None:
            return
        # On attaching, the session is described with the number that was last.
        if kind == "session" and seq <= self._seq:
            if event.get("missed"):
                self._record.wrong.append(f"{self._name}: missed {event['missed']}")
            return
        if seq != self._seq + 1:
            self._record.wrong.append(f"{self._name}: {kind} is {seq} after {self._seq}")
        self._seq = seq
        if (about := event.get("id")) is not None:
            if about in self._done:
                self._record.wrong.append(f"{self._name}: {kind} after the `done` of {about}")
            if kind == "done":
                self._done.add(about)


async def soak(
    broker: Broker, sessions: int, seconds: float, *, progress: Callable[[str], None]
) -> tuple[Record, Record]:
    """Keep so many sessions busy for so long; return what was seen alone, and in the crowd."""
    alone, crowd = Record(), Record()
    async with contextlib.AsyncExitStack() as stack:
        chat = Chat(broker, "alone", alone, 0)
        connection = await chat.open(stack)
        for _ in range(SOLO):
            await chat.execute(connection, QUICK)
    del alone.quick[:20]  # everything cold
    chats = [Chat(broker, f"busy-{number}", crowd, number) for number in range(sessions)]
    gate = asyncio.Semaphore(OPENING)

    async def warm(chat: Chat) -> None:
        async with gate, contextlib.AsyncExitStack() as stack:
            await chat.execute(await chat.open(stack), QUICK)

    await asyncio.gather(*map(warm, chats))
    crowd.quick.clear()
    began = perf_counter()
    watch = asyncio.create_task(_watch(broker.pid, crowd, began, seconds, progress))
    try:
        await asyncio.gather(*(one.live(lambda: perf_counter() - began > seconds) for one in chats))
    finally:
        watch.cancel()
    return alone, crowd


async def _watch(
    pid: int, record: Record, began: float, seconds: float, progress: Callable[[str], None]
) -> None:
    process = psutil.Process(pid)
    while True:
        at = perf_counter() - began
        record.memory.append((at, process.memory_full_info().uss / 1e6))
        progress(f"{at:.0f}/{seconds:.0f} s, {record.executions} executions")
        await asyncio.sleep(EVERY)


def growth(memory: list[tuple[float, float]], settled: float = 60.0) -> float:
    """Return by how many MB per minute the memory grew from `settled` s on: a line through it."""
    late = [(at / 60, size) for at, size in memory if at >= settled]
    if len(late) < 2:
        return 0.0
    mean_at = sum(at for at, _ in late) / len(late)
    mean = sum(size for _, size in late) / len(late)
    spread = sum((at - mean_at) ** 2 for at, _ in late)
    return sum((at - mean_at) * (size - mean) for at, size in late) / spread
