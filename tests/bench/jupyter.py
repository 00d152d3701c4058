"""The rows of the Jupyter face: how soon a live session answers there, and what the face costs."""

from __future__ import annotations

import contextlib
from time import perf_counter

from broker.jupyter.names import kernel_id
from tests.bench import ours
from tests.bench.gateway import Gateway
from tests.bench.lab import OURS, SERVER, Contestant, Lab, Samples
from tests.bench.rows import CODE, Against, row
from tests.bench.trips import BLOCK, collect, contestants

NATIVE = "the native WebSocket"
AGAIN = "a kernel opened before"


@row(
    "a Jupyter WebSocket on a live kernel → first reply",
    Against(SERVER, ratio=20, ours_at_most=10),
    Against(AGAIN),
    unit="ms",
    rounds=40,
    quick=6,
)
async def jupyter_open(lab: Lab, rounds: int) -> Samples:
    """From the handshake on, to the reply to a kernel_info_request on a fresh connection.

    Ours is what users have: each time a chat's own session, which nobody has opened in Jupyter
    before; and beside it, as at the server, a kernel that is opened again and again.
    """
    async with contextlib.AsyncExitStack() as stack:
        found: dict[str, Contestant] = {}
        for name, server in await servers(lab):
            kernel = await server.create()
            stack.push_async_callback(server.delete, kernel)
            async with server.attach(kernel) as attached:
                await attached.execute(CODE)  # it is up

            async def opened(server: Gateway = server, kernel: str = kernel) -> float:
                return await first_reply(server, kernel)

            found[AGAIN if name == OURS else name] = opened
        if lab.takes_part(OURS):
            found = {OURS: await chats(lab), **found}
        return await lab.interleave(found, rounds=rounds)


async def first_reply(server: Gateway, kernel: str) -> float:
    """Return the ms from the handshake on to the first reply."""
    began = perf_counter()
    async with server.attach(kernel) as attached:
        async for message in attached.asked("kernel_info_request", {}):
            if message["msg_type"] == "kernel_info_reply":
                return 1000 * (perf_counter() - began)
    raise ConnectionError("no reply")


async def chats(lab: Lab) -> Contestant:
    """Return what opens the kernel of a new chat, once that has run a cell."""
    broker = await lab.broker()
    server = as_jupyter(broker)

    async def opened() -> float:
        await broker.warm()
        name = f"chat-{lab.count()}"
        async with broker.attach(name) as chat:
            await chat.execute(CODE)
            await broker.warm()  # the refill's work is not on the clock
            elapsed = await first_reply(server, kernel_id("default", name))
            await chat.ask("close")
        return elapsed

    return opened


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
        found.append((OURS, as_jupyter(await lab.broker())))
    if lab.takes_part(SERVER):
        found.append((SERVER, await lab.jupyter_server()))
    return found


def as_jupyter(broker: ours.Broker) -> Gateway:
    """Return a broker as the Jupyter server that it is as well."""
    return Gateway(f"{broker.url}/jupyter", broker.pid, broker.headers)
