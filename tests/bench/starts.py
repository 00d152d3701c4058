"""The rows of a kernel's start: how many can be made, and what one costs the whole machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
from collections.abc import Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from tests.bench.lab import OURS, Lab, Mood, Samples
from tests.bench.rows import Against, kernel_info, row

if TYPE_CHECKING:
    from kernels.launch import Kernel

AT_ONCE = 4  # starts under way: enough to keep all processors busy
BATCH = 30  # kernels of one sample
PATIENCE = 30.0  # s, for one to end
QUIET = 0.05  # of all processors
LOOK = 0.5  # s


@row(
    "kernels made per second and processor, sandboxed",
    Against(OURS, ours_at_least=30),
    unit="/s",
    rounds=5,
    quick=2,
    more_is_better=True,
)
async def starts(lab: Lab, rounds: int) -> Samples:
    return {OURS: [count for count, _ in await batches(lab, rounds)]}


@row(
    "processor time of a kernel's start, of all processes together",
    Against(OURS, ours_at_most=25),
    unit="ms",
    rounds=5,
    quick=2,
)
async def start_cost(lab: Lab, rounds: int) -> Samples:
    """What the machine was busy with meanwhile: with other work on it the figure is too high."""
    return {OURS: [cost for _, cost in await batches(lab, rounds)]}


async def batches(lab: Lab, rounds: int) -> list[tuple[float, float]]:
    """Make kernels in batches; return of each the rate, and the milliseconds of one kernel."""
    if "starts" not in lab.kept:
        lab.kept["starts"] = await make(lab, rounds)
    found: list[tuple[float, float]] = lab.kept["starts"]
    return found


async def make(lab: Lab, rounds: int) -> list[tuple[float, float]]:
    from kernels.launch import Launcher
    from kernels.spec import KernelSpec

    ticks, processors = os.sysconf("SC_CLK_TCK"), os.cpu_count() or 1
    found = []
    await quiet()
    async with contextlib.AsyncExitStack() as stack:
        launcher = Launcher(
            KernelSpec(name="bench"), lab.room(), isolation="standard", orphan_ttl=5
        )
        stack.push_async_callback(launcher.aclose)
        await launcher.start()
        room = asyncio.Semaphore(AT_ONCE)

        async def one() -> Kernel:
            async with room:
                kernel = await launcher.launch()
                await kernel_info(kernel.channels)
                return kernel

        for turn in range(-1, rounds):
            before, began = Mood.now(), perf_counter()
            kernels = await asyncio.gather(*(one() for _ in range(BATCH)))
            elapsed, after = perf_counter() - began, Mood.now()
            busy = (after.total - before.total) - (after.idle - before.idle)
            if turn >= 0:  # the first finds the code of the way itself cold
                found.append((BATCH / elapsed / processors, 1000 * busy / ticks / BATCH))
            await end(kernels)
            lab.advance(f"{max(turn + 1, 0)}/{rounds}")
    return found


async def quiet() -> None:
    """Wait until nothing else uses the processors: what the rows before had started may still end.

    Gives up after PATIENCE: the row says of itself what it means then.
    """
    until = perf_counter() + PATIENCE
    while perf_counter() < until:
        before = Mood.now()
        await asyncio.sleep(LOOK)
        after = Mood.now()
        share = 1 - (after.idle - before.idle) / max(after.total - before.total, 1)
        if share < QUIET:
            return


async def end(kernels: Sequence[Kernel]) -> None:
    """End the kernels, and wait until their memory is free: a later batch does not pay for it."""
    ends = [os.pidfd_open(kernel.pid) for kernel in kernels]
    await asyncio.gather(*(kernel.close() for kernel in kernels))
    for descriptor in ends:
        # A process that has ended makes its descriptor readable, pidfd_open(2).
        await asyncio.to_thread(select.select, [descriptor], [], [], PATIENCE)
        os.close(descriptor)
