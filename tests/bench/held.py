"""The rows of many sessions: a thousand of them on one node, and what that does to each figure."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import psutil

from tests.bench import ours
from tests.bench.lab import OURS, Lab, Samples
from tests.bench.rows import CODE, Against, row, timed
from tests.bench.trips import CHUNK, arrival, processor_seconds, streaming_times

STEPS = (1, 10, 100, 1000)
QUICK_STEPS = (1, 10, 100)
AT_ONCE = 4  # sessions being opened
IDLE = 10.0  # s over which an idle broker is watched
BESIDE = "another broker with 1, in turns"  # whatever the hour is like, it meets both
NEEDED = 14 << 30  # bytes of memory for a thousand sessions, with room to spare


class TooSmall(RuntimeError):
    """This machine cannot hold so many sessions."""


def live(count: int) -> str:
    return f"{count:,} live session{'s'[: count - 1]}"


async def held(lab: Lab, rounds: int) -> dict[str, Samples]:
    """Fill a broker step by step, measure at each; done once for all rows.

    Returns samples by figure, and in each by contestant: ours is the last step's. Raises TooSmall.
    """
    if "held" not in lab.kept:
        steps = STEPS if rounds > 10 else QUICK_STEPS
        available = psutil.virtual_memory().available
        if available < NEEDED * steps[-1] // STEPS[-1]:
            raise TooSmall(
                f"{steps[-1]} sessions need {NEEDED >> 30} GiB, {available >> 30} are free"
            )
        lab.kept["held"] = await fill(lab, rounds, steps)
    found: dict[str, Samples] = lab.kept["held"]
    return found


async def fill(lab: Lab, rounds: int, steps: tuple[int, ...]) -> dict[str, Samples]:
    most = steps[-1] + 100
    async with contextlib.AsyncExitStack() as stack:
        broker = await stack.enter_async_context(
            ours.broker(
                lab.room(),
                pool_max_kernels=most,
                profiles_python_cap=most,
            )
        )
        figures: dict[str, Samples] = {}
        sessions: dict[int, ours.Session] = {}
        opening = asyncio.Semaphore(AT_ONCE)

        async def open_one(number: int) -> None:
            async with opening:
                session = await stack.enter_async_context(broker.attach(f"held-{number}"))
                await session.execute(CODE)
                sessions[number] = session

        for step in steps:
            for first in range(len(sessions), step, 50):
                count = min(50, step - first)
                await asyncio.gather(*(open_one(first + number) for number in range(count)))
                lab.advance(f"{len(sessions)}/{steps[-1]} sessions")
            await broker.warm()
            newest = await subject(broker, sessions[step - 1], f"held-{step - 1}")
            subjects = {OURS if step == steps[-1] else live(step): newest}
            if step == steps[-1]:
                other, name = await lab.broker(), f"beside-{lab.count()}"
                session = await stack.enter_async_context(other.attach(name))
                await session.execute(CODE)
                subjects[BESIDE] = await subject(other, session, name)
            for figure, samples in (await growth(lab, subjects, rounds)).items():
                figures.setdefault(figure, {}).update(samples)
        figures["held_memory"] = {OURS: [await memory(broker)]}
        figures["held_idle"] = {OURS: await idle(broker.pid)}
        lab.advance(f"ending {len(sessions)} sessions")
        return figures


@dataclass(frozen=True)
class Subject:
    """One session of a broker, whatever others it holds; each figure is taken once by a call."""

    broker: ours.Broker
    session: ours.Session
    pids: list[int]  # the broker's and the kernel's

    async def round_trip(self) -> float:
        return await timed(lambda: self.session.execute(CODE))()

    async def first_result(self) -> float:
        return 1000 * await self.broker.first_result(CODE)

    async def first_byte(self) -> float:
        code = "import time\nprint('x')\ntime.sleep(0.05)"
        began, times = await streaming_times(self.session.events("execute", code=code))
        return 1000 * arrival(began, times)

    async def processor_time(self) -> float:
        before = processor_seconds(self.pids)
        for _ in range(CHUNK):
            await self.session.execute(CODE)
        return 1000 * (processor_seconds(self.pids) - before) / CHUNK


async def subject(broker: ours.Broker, session: ours.Session, name: str) -> Subject:
    found = Subject(broker, session, [broker.pid, (await broker.session(name))["pid"]])
    await found.processor_time()  # the first one would find everything cold
    return found


async def growth(lab: Lab, subjects: Mapping[str, Subject], rounds: int) -> dict[str, Samples]:
    """Take each figure of all subjects in turns; samples by figure, and in each by subject."""

    async def figure(
        take: Callable[[Subject], Awaitable[float]], rounds: int, block: int = 1
    ) -> Samples:
        contestants = {name: partial(take, each) for name, each in subjects.items()}
        return await lab.interleave(contestants, rounds=rounds, block=block)

    return {
        "round_trip": await figure(Subject.round_trip, 4 * rounds, block=rounds),
        "first_result": await figure(Subject.first_result, rounds // 2),
        "first_byte": await figure(Subject.first_byte, rounds // 2),
        "processor_time": await figure(Subject.processor_time, 4),
    }


async def idle(pid: int) -> list[float]:
    """Return what an idle broker uses, in percent of one processor."""
    found = []
    for _ in range(2):
        before, began = processor_seconds([pid]), perf_counter()
        await asyncio.sleep(IDLE / 2)
        found.append(100 * (processor_seconds([pid]) - before) / (perf_counter() - began))
    return found


async def memory(broker: ours.Broker) -> float:
    """Return the gigabytes of all processes of a broker; pages they share count once (PSS)."""
    total = 0
    for process in await broker.processes():
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_full_info().pss
    return total / 1e9


def enter(figure: str, title: str, unit: str) -> None:
    """Make a row of a figure's growth; at the most by half of what it is with one session."""

    async def measure(lab: Lab, rounds: int) -> Samples:
        return (await held(lab, rounds))[figure]

    measure.__name__ = f"growth_{figure}"
    row(
        f"{title}, with {live(STEPS[-1])}",
        Against(BESIDE, ratio=1 / 1.5),
        Against(live(1), ratio=1 / 1.5),
        *(Against(live(step)) for step in STEPS[1:-1]),
        unit=unit,
        rounds=20,
        quick=8,
        quick_title=f"{title}, with {live(QUICK_STEPS[-1])}",
    )(measure)


enter("round_trip", f"`{CODE}`", "ms")
enter("first_result", "new session → first result", "ms")
enter("first_byte", "first byte", "ms")
enter("processor_time", f"processor time of one `{CODE}`", "ms")


@row(
    f"memory of {STEPS[-1]:,} idle sessions, all processes",
    Against(OURS, ours_at_most=12),
    unit="GB",
    rounds=20,
    quick=8,
    quick_title=f"memory of {QUICK_STEPS[-1]:,} idle sessions, all processes",
)
async def held_memory(lab: Lab, rounds: int) -> Samples:
    return (await held(lab, rounds))["held_memory"]


@row(
    f"broker with {STEPS[-1]:,} idle sessions, share of one processor",
    Against(OURS, ours_at_most=3),
    unit="%",
    rounds=20,
    quick=8,
    quick_title=f"broker with {QUICK_STEPS[-1]:,} idle sessions, share of one processor",
)
async def held_idle(lab: Lab, rounds: int) -> Samples:
    return (await held(lab, rounds))["held_idle"]
