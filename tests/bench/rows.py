"""The rows: each is one function that says what is measured, against whom, and the target.

A further row is one more function with `@row`; the table, the chart and `--rows` follow from it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import psutil

from tests.bench.lab import GATEWAY, OURS, STOCK, ZMQ, Contestant, Lab, Samples

if TYPE_CHECKING:
    from kernels.channels import Channels
    from kernels.messages import Message

MEGABYTE = 1e6
CODE = "1+1"


@dataclass(frozen=True)
class Against:
    """One comparison: the peer, and what is wanted of the medians (None: shown, not judged)."""

    peer: str
    ratio: float | None = None  # the peer's p50 is at least so many times ours
    ours_at_most: float | None = None  # our p50, in the row's unit
    more_at_most: float | None = None  # our p50 less the peer's, likewise
    tail_at_most: float | None = None  # our p95 is at most so many times the peer's


@dataclass(frozen=True)
class Row:
    """A row: `measure` returns samples per contestant, in `unit`."""

    name: str
    title: str
    unit: str
    rounds: int
    quick_rounds: int
    against: tuple[Against, ...]
    measure: Callable[[Lab, int], Awaitable[Samples]]


ROWS: dict[str, Row] = {}
Measure = Callable[[Lab, int], Awaitable[Samples]]


def row(
    title: str, *against: Against, unit: str, rounds: int, quick: int
) -> Callable[[Measure], Measure]:
    """Enter a function into the table, under its own name."""

    def enter(measure: Measure) -> Measure:
        name = measure.__name__
        ROWS[name] = Row(name, title, unit, rounds, quick, against, measure)
        return measure

    return enter


async def kernel_info(channels: Channels) -> None:
    """Ask one of our kernels what the stock kernel is asked, and wait for the reply."""
    answered = asyncio.get_running_loop().create_future()

    def receive(channel: str, message: Message) -> None:
        if channel == "shell" and message.type == "kernel_info_reply" and not answered.done():
            answered.set_result(None)

    channels.receiver = receive
    channels.send("shell", "kernel_info_request", {})
    async with asyncio.timeout(30):
        await answered
    channels.receiver = None


def milliseconds(seconds: Contestant) -> Contestant:
    async def measure() -> float:
        return 1000 * await seconds()

    return measure


@row(
    "new session → first result over WebSocket",
    Against(GATEWAY, ratio=20, ours_at_most=20),
    unit="ms",
    rounds=30,
    quick=6,
)
async def first_result(lab: Lab, rounds: int) -> Samples:
    contestants: dict[str, Contestant] = {}
    if lab.takes_part(OURS):
        broker = await lab.broker()
        contestants[OURS] = milliseconds(lambda: broker.first_result(CODE))
    if lab.takes_part(GATEWAY):
        gateway = await lab.gateway()
        contestants[GATEWAY] = milliseconds(lambda: gateway.first_result(CODE))
    return await lab.interleave(contestants, rounds=rounds)


@row("start → kernel answers", Against(STOCK, ratio=5), unit="ms", rounds=30, quick=6)
async def launch(lab: Lab, rounds: int) -> Samples:
    """Our fork has the data libraries imported already; the stock kernel imports none."""

    async def stock() -> float:
        began = perf_counter()
        async with lab.stock():
            return perf_counter() - began

    contestants: dict[str, Contestant] = {}
    async with contextlib.AsyncExitStack() as stack:
        if lab.takes_part(OURS):
            from kernels.launch import Launcher
            from kernels.spec import KernelSpec

            launcher = Launcher(
                KernelSpec(name="bench"), lab.room(), isolation="standard", orphan_ttl=5
            )
            stack.push_async_callback(launcher.aclose)
            await launcher.start()

            async def forked() -> float:
                began = perf_counter()
                kernel = await launcher.launch()
                await kernel_info(kernel.channels)
                elapsed = perf_counter() - began
                await kernel.close()
                return elapsed

            contestants[OURS] = milliseconds(forked)
        if lab.takes_part(STOCK):
            contestants[STOCK] = milliseconds(stock)
        return await lab.interleave(contestants, rounds=rounds)


@row(
    "own memory (USS) of an idle kernel, data libraries imported",
    Against(STOCK, ours_at_most=20),
    unit="MB",
    rounds=4,
    quick=2,
)
async def memory(lab: Lab, rounds: int) -> Samples:
    """Several of each at the same time, so that pages shared among equals count for neither."""
    samples: Samples = {}
    async with contextlib.AsyncExitStack() as stack:
        if lab.takes_part(OURS):
            broker = await lab.broker()
            await broker.warm()
            view = await broker.pools()
            kernels = [kernel for pool in view["pools"] for kernel in pool["kernels"]]
            samples[OURS] = [k["uss"] / MEGABYTE for k in kernels if k["state"] == "warm"]
        if lab.takes_part(STOCK):
            stock = []
            for turn in range(rounds):
                kernel = await stack.enter_async_context(lab.stock())
                kernel.execute("import numpy, pandas, matplotlib.pyplot")
                stock.append(kernel)
                lab.advance(f"{turn + 1}/{rounds}")
            samples[STOCK] = [
                psutil.Process(k.pid).memory_full_info().uss / MEGABYTE for k in stock
            ]
    return samples


@row(
    f"execute `{CODE}`, round trip over WebSocket",
    Against(GATEWAY, ratio=5),
    Against(ZMQ),
    unit="ms",
    rounds=300,
    quick=60,
)
async def round_trip(lab: Lab, rounds: int) -> Samples:
    contestants: dict[str, Contestant] = {}
    async with contextlib.AsyncExitStack() as stack:
        if lab.takes_part(OURS):
            broker = await lab.broker()
            session = await stack.enter_async_context(broker.attach("bench-round-trip"))
            stack.push_async_callback(session.ask, "close")
            contestants[OURS] = timed(lambda: session.execute(CODE))
        if lab.takes_part(GATEWAY):
            gateway = await lab.gateway()
            kernel = await gateway.create()
            stack.push_async_callback(gateway.delete, kernel)
            attached = await stack.enter_async_context(gateway.attach(kernel))
            contestants[GATEWAY] = timed(lambda: attached.execute(CODE))
        if lab.takes_part(ZMQ):
            stock = await stack.enter_async_context(lab.stock())

            async def raw() -> float:
                return 1000 * stock.execute(CODE)

            contestants[ZMQ] = raw
        return await lab.interleave(contestants, rounds=rounds, warmup=10)


def timed(action: Callable[[], Awaitable[object]]) -> Contestant:
    """Return a contestant that gives the action's milliseconds."""

    async def measure() -> float:
        began = perf_counter()
        await action()
        return 1000 * (perf_counter() - began)

    return measure
