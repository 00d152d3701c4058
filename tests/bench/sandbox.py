"""The rows of the sandbox: what it costs, and whether neighbours notice what goes on in one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from time import perf_counter
from typing import TYPE_CHECKING

from tests.bench.lab import OURS, UNDISTURBED, UNSHUT, WITH_CGROUP, Contestant, Lab, Samples
from tests.bench.rows import CODE, Against, kernel_info, milliseconds, row

if TYPE_CHECKING:
    from tests.bench.ours import Broker, Session

CYCLES = 3  # of an attack that begins and ends
ATTACKS = {
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "thread bomb": """import threading
while True:
    try: threading.Thread(target=threading.Event().wait).start()
    except RuntimeError: pass""",
    "memory bomb": """import os
while True:
    if os.fork() == 0:
        x = []
        while True: x.append(bytearray(1 << 20))
    os.wait()""",
    "files without end": """import os
n = 0
while True:
    try:
        with open(f'/tmp/{n}', 'wb') as file: file.write(bytes(1 << 20))
        n += 1
    except OSError:
        for name in range(n): os.unlink(f'/tmp/{name}')
        n = 0""",
    "descriptors without end": """import os
held = []
while True:
    try: held.append(os.dup(0))
    except OSError:
        for descriptor in held: os.close(descriptor)
        held.clear()""",
    "CPU hog": """import os
for _ in range(7): os.fork()
while True: pass""",
    "output flood": "while True: print('x' * 4000)",
    "orphan flood": """import os
while True:
    try:
        if os.fork() == 0:
            if os.fork() == 0: os._exit(0)
            os._exit(0)
    except OSError: pass""",
}


@row(
    "fork → kernel answers, in the sandbox",
    Against(UNSHUT, more_at_most=5, ours_at_most=30),
    Against(WITH_CGROUP),
    unit="ms",
    rounds=40,
    quick=8,
)
async def sandbox_cost(lab: Lab, rounds: int) -> Samples:
    """The cgroup is attached when the pool is filled; its cost is shown, and not judged."""
    from kernels.launch import Launcher
    from kernels.spec import KernelSpec

    async with contextlib.AsyncExitStack() as stack:

        async def forker(isolation: str, *without: str) -> Contestant:
            launcher = Launcher(
                KernelSpec(name="bench"),
                lab.room(),
                isolation=isolation,
                orphan_ttl=5,
                without=without,
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

            return milliseconds(forked)

        contestants = {
            OURS: await forker("standard", "cgroup"),
            UNSHUT: await forker("none"),
            WITH_CGROUP: await forker("standard"),
        }
        return await lab.interleave(contestants, rounds=rounds, warmup=3)


@row(
    "new session → first result, sandboxed",
    Against(UNSHUT, more_at_most=1),
    unit="ms",
    rounds=30,
    quick=6,
)
async def sandbox_bind(lab: Lab, rounds: int) -> Samples:
    """Both bind a warm kernel: the sandbox was paid for before."""
    shut, unshut = await lab.broker(), await lab.unshut_broker()
    contestants = {
        OURS: milliseconds(lambda: shut.first_result(CODE)),
        UNSHUT: milliseconds(lambda: unshut.first_result(CODE)),
    }
    return await lab.interleave(contestants, rounds=rounds)


async def beside(lab: Lab, rounds: int, attack: str) -> Samples:
    """Time a neighbour's `1+1` while the attack runs, and before and after it."""
    samples: Samples = {OURS: [], UNDISTURBED: []}
    broker = await lab.broker()
    async with broker.attach("bench-neighbour") as neighbour:
        await neighbour.execute(CODE)
        for cycle in range(CYCLES):
            await broker.warm()
            await repeat(neighbour, rounds // CYCLES, samples[UNDISTURBED])
            async with attacking(broker, f"bench-attacker-{cycle}", ATTACKS[attack]):
                await repeat(neighbour, rounds // CYCLES, samples[OURS])
            lab.advance(f"{cycle + 1}/{CYCLES}")
        await neighbour.ask("close")
    return samples


@contextlib.asynccontextmanager
async def attacking(broker: Broker, name: str, code: str) -> AsyncIterator[None]:
    """Run a hostile cell in a session of its own, and end that session with the block."""
    async with broker.attach(name) as attacker:
        await attacker.begin(code)
        yield
        await broker.kill(name)


async def repeat(session: Session, times: int, into: list[float]) -> None:
    for _ in range(times):
        began = perf_counter()
        await session.execute(CODE)
        into.append(1000 * (perf_counter() - began))


def enter(attack: str) -> None:
    """Make a row of an attack."""

    async def measure(lab: Lab, rounds: int) -> Samples:
        return await beside(lab, rounds, attack)

    measure.__name__ = f"beside_{attack.replace(' ', '_').lower()}"
    row(
        f"`{CODE}` beside a neighbour's {attack}",
        Against(UNDISTURBED, tail_at_most=3),
        unit="ms",
        rounds=240,
        quick=60,
    )(measure)


for _attack in ATTACKS:
    enter(_attack)
