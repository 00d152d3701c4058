"""The rows of an execution: how long it takes, what it costs, how soon its output comes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil

from tests.bench.lab import FLOOR, GATEWAY, OURS, SERVER, STOCK, ZMQ, Contestant, Lab, Samples
from tests.bench.ours import Session
from tests.bench.rows import CODE, Against, row

BLOCK = 10  # executions in a row, before it is the next one's turn
CHUNK = 50  # executions whose processor time is one sample
SLICE = 1.0  # s of work that is one sample of a rate
PICTURE = 100_000  # bytes
TEXT = 1_000_000  # characters
CODES = {
    "print": "print('x')",
    "stdout": f"print('x' * {TEXT})",
    "display": (
        "import os\nfrom IPython.display import Image, display\n"
        f"display(Image(b'\\x89PNG\\r\\n\\x1a\\n' + os.urandom({PICTURE}), format='png'))"
    ),
    "exception": "1/0",
    "cell": (Path(__file__).parent / "sample.txt").read_text(encoding="utf-8"),
}
TICKING = "import time\nfor i in range(20):\n    print(i, flush=False)\n    time.sleep(0.005)"


async def contestants(
    lab: Lab, stack: contextlib.AsyncExitStack, code: str, *, servers: bool = True
) -> dict[str, Contestant]:
    """Return everybody's way to run the code once, in milliseconds."""
    found: dict[str, Contestant] = {}
    if lab.takes_part(OURS):
        broker = await lab.broker()
        session = await stack.enter_async_context(broker.attach(f"trip-{lab.count()}"))
        stack.push_async_callback(session.ask, "close")
        found[OURS] = whole(code, lambda: session.ask("execute", code=code))
    if lab.takes_part(GATEWAY) and servers:
        for name in (GATEWAY, SERVER):
            server = await (lab.gateway() if name == GATEWAY else lab.jupyter_server())
            kernel = await server.create()
            stack.push_async_callback(server.delete, kernel)
            attached = await stack.enter_async_context(server.attach(kernel))
            found[name] = whole(code, lambda attached=attached: collect(attached.messages(code)))
    if lab.takes_part(ZMQ):
        stock = await stack.enter_async_context(lab.stock())

        async def raw() -> float:
            return 1000 * stock.execute(code)

        found[ZMQ] = raw
    return found


async def collect(messages: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [message async for message in messages]


def whole(code: str, execute: Callable[[], Awaitable[Sequence[dict[str, Any]]]]) -> Contestant:
    """Return a contestant that gives the execution's milliseconds, with nothing left out.

    Who drops text under load is quick. Raises Incomplete.
    """

    async def measure() -> float:
        began = perf_counter()
        messages = await execute()
        elapsed = 1000 * (perf_counter() - began)
        if code == CODES["stdout"] and (got := sum(map(text_length, messages))) <= TEXT:
            raise Incomplete(f"{got} of {TEXT} characters arrived")
        return elapsed

    return measure


class Incomplete(RuntimeError):
    """Some of the output did not arrive."""


def text_length(message: dict[str, Any]) -> int:
    """Return the characters of a piece of output, in our words or in Jupyter's; of others, 0."""
    if message.get("type") == "stream":
        return len(message["text"])
    return len(message["content"]["text"]) if message.get("msg_type") == "stream" else 0


@row(
    f"execute `{CODE}`, round trip over WebSocket",
    Against(ZMQ, ratio=1 / 0.45),
    Against(GATEWAY, ratio=12),
    Against(SERVER),
    Against(FLOOR, ratio=0.5),
    unit="ms",
    rounds=300,
    quick=60,
)
async def round_trip(lab: Lab, rounds: int) -> Samples:
    """The floor is a stretch: at the most twice that."""
    async with contextlib.AsyncExitStack() as stack:
        found = await contestants(lab, stack, CODE)
        if lab.takes_part(FLOOR):
            floor = await lab.floor()

            async def least() -> float:
                return 1000 * await floor.execute(CODE)

            found[FLOOR] = least
        return await lab.interleave(found, rounds=rounds, warmup=2, block=BLOCK)


@row(
    f"execute `{CODE}` after a pause of 50 ms, when caches have cooled",
    Against(ZMQ),
    Against(FLOOR),
    unit="ms",
    rounds=60,
    quick=20,
)
async def after_a_pause(lab: Lab, rounds: int) -> Samples:
    async with contextlib.AsyncExitStack() as stack:
        found = await contestants(lab, stack, CODE, servers=False)
        floor = await lab.floor()

        async def least() -> float:
            return 1000 * await floor.execute(CODE)

        def rested(measure: Contestant) -> Contestant:
            async def measured() -> float:
                await asyncio.sleep(0.05)
                return await measure()

            return measured

        return await lab.interleave(
            {name: rested(one) for name, one in (found | {FLOOR: least}).items()}, rounds=rounds
        )


def enter(name: str, title: str) -> None:
    """Make a row of one kind of snippet."""

    async def measure(lab: Lab, rounds: int) -> Samples:
        async with contextlib.AsyncExitStack() as stack:
            found = await contestants(lab, stack, CODES[name])
            return await lab.interleave(found, rounds=rounds, block=BLOCK)

    measure.__name__ = f"round_trip_{name}"
    row(title, Against(ZMQ), Against(GATEWAY), Against(SERVER), unit="ms", rounds=60, quick=20)(
        measure
    )


enter("print", "execute `print('x')`")
enter("stdout", "execute a cell that prints 1 MB")
enter("display", "execute a cell that displays a picture of 100 KB")
enter("exception", "execute `1/0`, with its traceback")
enter("cell", f"execute a cell of {CODES['cell'].count(chr(10))} lines, as models write them")


def processor_seconds(pids: list[int]) -> float:
    """Return what the threads of these processes have used, exact to the nanosecond.

    The first field of /proc/<pid>/task/<tid>/schedstat (proc(5)); threads that ended do not count.
    """
    return sum(
        int((task / "schedstat").read_text().split()[0])
        for pid in pids
        for task in Path(f"/proc/{pid}/task").iterdir()
    ) / 1e9  # fmt: skip


@row(
    f"processor time of one `{CODE}`, kernel and server together",
    Against(STOCK),
    Against(GATEWAY),
    Against(OURS, ours_at_most=2.5),
    unit="ms",
    rounds=12,
    quick=4,
)
async def processor_time(lab: Lab, rounds: int) -> Samples:
    """Of the stock kernel, the kernel's alone: nothing stands before it."""
    async with contextlib.AsyncExitStack() as stack:
        found = await contestants(lab, stack, CODE)
        found.pop(SERVER, None)
        pids: dict[str, list[int]] = {}
        if OURS in found:
            broker = await lab.broker()
            pids[OURS] = [broker.pid, (await broker.session(f"trip-{lab.counted}"))["pid"]]
        if GATEWAY in found:
            gateway = psutil.Process((await lab.gateway()).pid)
            pids[GATEWAY] = [gateway.pid, *(child.pid for child in gateway.children())]
        if ZMQ in found:
            stock = await stack.enter_async_context(lab.stock())

            async def raw() -> float:
                return stock.execute(CODE)

            del found[ZMQ]
            found[STOCK], pids[STOCK] = raw, [stock.pid]

        def spent(name: str, execute: Contestant) -> Contestant:
            async def measure() -> float:
                before = processor_seconds(pids[name])
                for _ in range(CHUNK):
                    await execute()
                return 1000 * (processor_seconds(pids[name]) - before) / CHUNK

            return measure

        return await lab.interleave(
            {name: spent(name, execute) for name, execute in found.items()}, rounds=rounds
        )


def enter_rate(sessions: int, peers: bool) -> None:
    """Make a row of a number of sessions that all run one snippet after the other."""

    async def measure(lab: Lab, rounds: int) -> Samples:
        async with contextlib.AsyncExitStack() as stack:
            found: dict[str, list[Callable[[], Awaitable[object]]]] = {}
            broker = await lab.broker()
            found[OURS] = []
            for _ in range(sessions):
                session = await stack.enter_async_context(broker.attach(f"rate-{lab.count()}"))
                stack.push_async_callback(session.ask, "close")
                await session.execute(CODE)
                found[OURS].append(lambda session=session: session.execute(CODE))
            if peers and lab.takes_part(GATEWAY):
                gateway = await lab.gateway()
                found[GATEWAY] = []
                for _ in range(sessions):
                    kernel = await gateway.create()
                    stack.push_async_callback(gateway.delete, kernel)
                    one = await stack.enter_async_context(gateway.attach(kernel))
                    found[GATEWAY].append(lambda one=one: one.execute(CODE))
            return await lab.interleave(
                {name: rate(each) for name, each in found.items()}, rounds=rounds
            )

    measure.__name__ = f"throughput_{sessions}"
    against = Against(GATEWAY) if peers else Against(OURS)
    row(
        f"executions per second over {sessions} session{'s'[: sessions - 1]}, one client process",
        against,
        unit="/s",
        rounds=5,
        quick=2,
        more_is_better=True,
    )(measure)


def rate(workers: list[Callable[[], Awaitable[object]]]) -> Contestant:
    """Return a contestant that has all of them work for a while, and counts."""

    async def measure() -> float:
        done, began = 0, perf_counter()

        async def work(execute: Callable[[], Awaitable[object]]) -> None:
            nonlocal done
            while perf_counter() - began < SLICE:
                await execute()
                done += 1

        await asyncio.gather(*map(work, workers))
        return done / (perf_counter() - began)

    return measure


enter_rate(1, peers=True)
enter_rate(10, peers=True)
enter_rate(50, peers=False)


@row(
    "first byte of a cell that prints and goes on",
    Against(GATEWAY),
    Against(OURS, ours_at_most=25),
    unit="ms",
    rounds=30,
    quick=8,
)
async def first_byte(lab: Lab, rounds: int) -> Samples:
    return await streaming(lab, rounds, "import time\nprint('x')\ntime.sleep(0.1)", arrival)


@row(
    "longest time without text from a cell that prints each 5 ms",
    Against(GATEWAY),
    unit="ms",
    rounds=20,
    quick=5,
)
async def gap(lab: Lab, rounds: int) -> Samples:
    return await streaming(lab, rounds, TICKING, largest_gap)


def arrival(began: float, times: list[float]) -> float:
    return times[0] - began


def largest_gap(began: float, times: list[float]) -> float:
    return max(after - before for before, after in pairwise([began, *times]))


async def streaming(
    lab: Lab, rounds: int, code: str, figure: Callable[[float, list[float]], float]
) -> Samples:
    """Measure something of the times at which text arrived."""

    async with contextlib.AsyncExitStack() as stack:
        ways: dict[str, Callable[[], AsyncIterator[dict[str, object]]]] = {}
        if lab.takes_part(OURS):
            broker = await lab.broker()
            session = await stack.enter_async_context(broker.attach(f"stream-{lab.count()}"))
            stack.push_async_callback(session.ask, "close")
            ways[OURS] = lambda: ours(session, code)
        if lab.takes_part(GATEWAY):
            gateway = await lab.gateway()
            kernel = await gateway.create()
            stack.push_async_callback(gateway.delete, kernel)
            attached = await stack.enter_async_context(gateway.attach(kernel))
            ways[GATEWAY] = lambda: attached.messages(code)

        def timing(way: Callable[[], AsyncIterator[dict[str, object]]]) -> Contestant:
            async def measure() -> float:
                return 1000 * figure(*await streaming_times(way()))

            return measure

        return await lab.interleave(
            {name: timing(way) for name, way in ways.items()}, rounds=rounds
        )


async def streaming_times(
    messages: AsyncIterator[dict[str, object]],
) -> tuple[float, list[float]]:
    """Return when it began, and when each piece of text arrived, in seconds."""
    began = perf_counter()
    return began, [
        perf_counter()
        async for message in messages
        if (message.get("msg_type") or message.get("type")) == "stream"
    ]


def ours(session: Session, code: str) -> AsyncIterator[dict[str, object]]:
    return session.events("execute", code=code)
