"""The rows of the Jupyter face: how soon a live session answers there, and what the face costs."""

from __future__ import annotations

import contextlib
from time import perf_counter

from tests.bench.gateway import Gateway
from tests.bench.lab import OURS, SERVER, Contestant, Lab, Samples
from tests.bench.rows import CODE, Against, row
from tests.bench.trips import BLOCK, collect, contestants

NATIVE = "the native WebSocket"


@row(
    "a Jupyter WebSocket on a live kernel → first reply",
    Against(SERVER, ratio=20, ours_at_most=10),
    unit="ms",
    rounds=40,
    quick=6,
)
async def jupyter_open(lab: Lab, rounds: int) -> Samples:
    """From the handshake on, to the `idle` of a kernel_info_request on a fresh connection."""
    async with contextlib.AsyncExitStack() as stack:
        found: dict[str, Contestant] = {}
        for name, server in await servers(lab):
            kernel = await server.create()
            stack.push_async_callback(server.delete, kernel)
            async with server.attach(kernel) as attached:
                await attached.execute(CODE)  # it is up

            async def opened(server: Gateway = server, kernel: str = kernel) -> float:
                began = perf_counter()
                async with server.attach(kernel) as attached:
                    async for message in attached.asked("kernel_info_request", {}):
                        if message["msg_type"] == "kernel_info_reply":
                            return 1000 * (perf_counter() - began)
                raise ConnectionError("no reply")

            found[name] = opened
        return await lab.interleave(found, rounds=rounds)


@row(
    f"execute `{CODE}` as a Jupyter client, round trip",
    Against(NATIVE, ratio=1 / 1.3),
    Against(SERVER),
    unit="ms",
    rounds=300,
    quick=60,
)
async def jupyter_round_trip(lab: Lab, rounds: int) -> Samples:
    """Both faces of one broker; the client is the same but for the words."""
    async with contextlib.AsyncExitStack() as stack:
        found: dict[str, Contestant] = {}
        for name, server in await servers(lab):
            kernel = await server.create()
            stack.push_async_callback(server.delete, kernel)
            attached = await stack.enter_async_context(server.attach(kernel))

            async def trip(attached=attached) -> float:
                began = perf_counter()
                await collect(attached.messages(CODE))
                return 1000 * (perf_counter() - began)

            found[name] = trip
        if lab.takes_part(OURS):
            found[NATIVE] = (await contestants(lab, stack, CODE, servers=False))[OURS]
        return await lab.interleave(found, rounds=rounds, warmup=2, block=BLOCK)


async def servers(lab: Lab) -> list[tuple[str, Gateway]]:
    """Return who takes part, our broker as the Jupyter server that it is as well."""
    found = []
    if lab.takes_part(OURS):
        broker = await lab.broker()
        found.append((OURS, Gateway(f"{broker.url}/jupyter", broker.pid, broker.headers)))
    if lab.takes_part(SERVER):
        found.append((SERVER, await lab.jupyter_server()))
    return found
