"""The rows for which all this is done: a chain of tool calls, each by way of a client, or not."""

from __future__ import annotations

import asyncio
from time import perf_counter

from tests.bench.lab import OURS, Lab, Samples
from tests.bench.rows import Against, row

CALLS = 20
BOUNCED = "each call by way of the client"
TOOL = "import time\ndef tool(x):\n    time.sleep(0.001)\n    return x + 1"
CELL = f"x = 0\nfor _ in range({CALLS}):\n    x = tool(x)\nx"


def enter(delay: int) -> None:
    """Make a row of one delay between client and server, in ms there and back."""

    async def measure(lab: Lab, rounds: int) -> Samples:
        """The delay is waited for by the client, before what it sends: the same for both."""
        broker = await lab.broker()
        async with broker.attach(f"bounced-{lab.count()}") as session:
            await session.execute(TOOL)

            async def ask(code: str) -> str:
                await asyncio.sleep(delay / 1000)
                events = await session.execute(code)
                return str(next(e for e in events if e["type"] == "result")["data"]["text/plain"])

            async def bounced() -> float:
                began, x = perf_counter(), "0"
                for _ in range(CALLS):
                    x = await ask(f"tool({x})")
                assert x == str(CALLS)
                return 1000 * (perf_counter() - began)

            async def together() -> float:
                began = perf_counter()
                assert await ask(CELL) == str(CALLS)
                return 1000 * (perf_counter() - began)

            samples = await lab.interleave({OURS: together, BOUNCED: bounced}, rounds=rounds)
            await session.ask("close")
            return samples

    measure.__name__ = f"bounced_{delay}"
    row(
        f"{CALLS} tool calls, each on the last one's value, {delay} ms to the client and back",
        Against(BOUNCED),
        unit="ms",
        rounds=3,
        quick=1,
    )(measure)


for _delay in (20, 100, 300):
    enter(_delay)
