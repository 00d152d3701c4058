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

from tests.bench import ours
from tests.bench.lab import GATEWAY, OURS, SERVER, STOCK, Contestant, Lab, Samples

if TYPE_CHECKING:
    from kernels.channels import Channels
    from kernels.messages import Message

MEGABYTE = 1e6
CODE = "1+1"
DATA_FRAME = "import pandas as pd\npd.DataFrame({'a': [1, 2], 'b': [3.5, 4.5]})"
BURST = 50
TOGETHER = 8  # kernels whose memory is looked at


@dataclass(frozen=True)
class Against:
    """One comparison: the peer, and what is wanted of the medians (None: shown, not judged)."""

    peer: str
    ratio: float | None = None  # the peer's p50 is at least so many times ours
    ours_at_most: float | None = None  # our p50, in the row's unit
    more_at_most: float | None = None  # our p50 less the peer's, likewise
    tail_at_most: float | None = None  # our p95 is at most so many times the peer's
    p99_at_most: float | None = None  # our p99, in the row's unit
    ours_at_least: float | None = None  # our p50, where more is better


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
    more_is_better: bool = False
    quick_title: str = ""  # where a quick look measures something less


ROWS: dict[str, Row] = {}
Measure = Callable[[Lab, int], Awaitable[Samples]]


def row(
    title: str,
    *against: Against,
    unit: str,
    rounds: int,
    quick: int,
    more_is_better: bool = False,
    quick_title: str = "",
) -> Callable[[Measure], Measure]:
    """Enter a function into the table, under its own name."""

    def enter(measure: Measure) -> Measure:
        name = measure.__name__
        ROWS[name] = Row(
            name, title, unit, rounds, quick, against, measure, more_is_better, quick_title
        )
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
    "new session → first result over WebSocket, warm",
    Against(GATEWAY, ratio=50, ours_at_most=10, p99_at_most=30),
    Against(SERVER),
    unit="ms",
    rounds=40,
    quick=6,
)
async def first_result(lab: Lab, rounds: int) -> Samples:
    return await firsts(lab, rounds, CODE)


@row(
    "new session → `import pandas` and a DataFrame",
    Against(GATEWAY),
    unit="ms",
    rounds=12,
    quick=4,
)
async def first_data_frame(lab: Lab, rounds: int) -> Samples:
    return await firsts(lab, rounds, DATA_FRAME, servers=(GATEWAY,))


async def firsts(
    lab: Lab, rounds: int, code: str, servers: tuple[str, ...] = (GATEWAY, SERVER)
) -> Samples:
    contestants: dict[str, Contestant] = {}
    if lab.takes_part(OURS):
        broker = await lab.broker()
        contestants[OURS] = milliseconds(lambda: broker.first_result(code))
    for name in servers:
        if lab.takes_part(name):
            server = await (lab.gateway() if name == GATEWAY else lab.jupyter_server())
            contestants[name] = milliseconds(lambda server=server: server.first_result(code))
    return await lab.interleave(contestants, rounds=rounds)


@row(
    "new session → first result, nothing warm",
    Against(GATEWAY),
    unit="ms",
    rounds=20,
    quick=5,
)
async def first_result_cold(lab: Lab, rounds: int) -> Samples:
    """The zygote is up, as it is from the broker's start on; the kernel is forked on demand."""
    async with contextlib.AsyncExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        broker = await stack.enter_async_context(ours.broker(lab.room(), warm=0))
        contestants[OURS] = milliseconds(lambda: broker.first_result(CODE))
        if lab.takes_part(GATEWAY):
            gateway = await lab.gateway()
            contestants[GATEWAY] = milliseconds(lambda: gateway.first_result(CODE))
        return await lab.interleave(contestants, rounds=rounds)


def enter_burst(name: str, when: str, spread: float) -> None:
    """Make a row of many new sessions within `spread` seconds."""

    async def measure(lab: Lab, rounds: int) -> Samples:
        """Each time a broker of its own, idle until then, as it comes. A refusal fails the row."""
        samples: list[float] = []

        async def one(broker: ours.Broker, number: int) -> None:
            await asyncio.sleep(spread * number / BURST)
            began = perf_counter()
            async with broker.attach(f"burst-{number}") as session:
                await session.execute(CODE)
                samples.append(1000 * (perf_counter() - began))

        for turn in range(rounds):
            async with ours.broker(lab.room(), warm=None) as broker:
                await broker.warm()
                await asyncio.gather(*(one(broker, number) for number in range(BURST)))
            lab.advance(f"{turn + 1}/{rounds}")
        return {OURS: samples}

    measure.__name__ = name
    row(
        f"new session → first result, {BURST} of them {when}",
        Against(OURS, p99_at_most=1000),
        unit="ms",
        rounds=3,
        quick=1,
    )(measure)


enter_burst("burst", "in one second", 1.0)
enter_burst("burst_at_once", "at the same instant", 0.0)


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


DATA = "numpy, pandas and matplotlib imported"


async def memory(lab: Lab, rounds: int, field: str, preload: tuple[str, ...] | None) -> Samples:
    """Several of each at the same time, so that pages shared among equals count for neither."""
    from kernels.launch import Launcher
    from kernels.spec import KernelSpec

    samples: Samples = {}

    def used(pid: int) -> float:
        return float(getattr(psutil.Process(pid).memory_full_info(), field) / MEGABYTE)

    async with contextlib.AsyncExitStack() as stack:
        if lab.takes_part(OURS):
            spec = KernelSpec(name="bench") if preload is None else KernelSpec(preload=preload)
            launcher = Launcher(spec, lab.room(), isolation="standard", orphan_ttl=5)
            stack.push_async_callback(launcher.aclose)
            await launcher.start()
            kernels = [await launcher.launch() for _ in range(TOGETHER)]
            await asyncio.gather(*(kernel_info(kernel.channels) for kernel in kernels))
            samples[OURS] = [used(kernel.pid) for kernel in kernels]
            for kernel in kernels:
                await kernel.close()
        if lab.takes_part(STOCK):
            stock = []
            for turn in range(rounds):
                one = await stack.enter_async_context(lab.stock())
                if preload is None:
                    one.execute("import numpy, pandas, matplotlib.pyplot")
                stock.append(one)
                lab.advance(f"{turn + 1}/{rounds}")
            samples[STOCK] = [used(one.pid) for one in stock]
    return samples


def enter_memory(field: str, preload: tuple[str, ...] | None, most: float | None) -> None:
    """Make a row of one kind of memory; `most` is in MB."""

    async def measure(lab: Lab, rounds: int) -> Samples:
        return await memory(lab, rounds, field, preload)

    measure.__name__ = f"memory_{field}_{'data' if preload is None else 'bare'}"
    title = f"{field.upper()} of an idle kernel, {DATA if preload is None else 'bare'}"
    row(title, Against(STOCK, ours_at_most=most), unit="MB", rounds=4, quick=2)(measure)


enter_memory("uss", (), None)
enter_memory("uss", None, 10)
enter_memory("pss", (), None)
enter_memory("pss", None, None)


def timed(action: Callable[[], Awaitable[object]]) -> Contestant:
    """Return a contestant that gives the action's milliseconds."""

    async def measure() -> float:
        began = perf_counter()
        await action()
        return 1000 * (perf_counter() - began)

    return measure
