"""What one run shares: the programs under measurement, the clock's order, the machine's state."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

from tests.bench import gateway as kernel_gateway
from tests.bench import ours
from tests.bench.floor import Floor, floor
from tests.bench.stock import StockKernel, stock_kernel

OURS = "broker"
UNSHUT = "no sandbox"
WITH_CGROUP = "with its cgroup"
UNDISTURBED = "undisturbed"
GATEWAY = "Kernel Gateway"
SERVER = "jupyter_server"
FLOOR = "the floor"
STOCK = "stock ipykernel"
ZMQ = "stock ipykernel, raw ZMQ"

Start = Callable[[Path, Path], contextlib.AbstractAsyncContextManager[kernel_gateway.Gateway]]
Contestant = Callable[[], Awaitable[float]]
Samples = dict[str, list[float]]


class Lab:
    """Starts each program when a row first asks for it; `stack` ends them with the run."""

    def __init__(
        self,
        directory: Path,
        stack: contextlib.AsyncExitStack,
        *,
        side: str,
        advance: Callable[[str], None],
    ) -> None:
        self.directory = directory
        self.stack = stack
        self.side = side
        self.advance = advance
        self._broker: ours.Broker | None = None
        self._unshut: ours.Broker | None = None
        self._servers: dict[str, kernel_gateway.Gateway] = {}
        self._floor: Floor | None = None
        self._rooms = 0
        self.counted = 0
        self.kept: dict[str, Any] = {}  # what several rows take from one measurement

    def room(self) -> Path:
        """Make a directory with a short path: Unix socket paths end at 107 bytes."""
        self._rooms += 1
        room = self.directory / str(self._rooms)
        room.mkdir()
        return room

    def count(self) -> int:
        """Return a number that no other session's name has."""
        self.counted += 1
        return self.counted

    def takes_part(self, contestant: str) -> bool:
        """Return whether this run measures the contestant (`--side`)."""
        return self.side == "both" or (contestant == OURS) == (self.side == "ours")

    async def broker(self) -> ours.Broker:
        if self._broker is None:
            self.advance("starting the broker")
            self._broker = await self.stack.enter_async_context(ours.broker(self.room()))
        return self._broker

    async def unshut_broker(self) -> ours.Broker:
        """Return a broker whose kernels have no sandbox."""
        if self._unshut is None:
            self.advance("starting a broker without a sandbox")
            started = ours.broker(self.room(), isolation="none")
            self._unshut = await self.stack.enter_async_context(started)
        return self._unshut

    async def gateway(self) -> kernel_gateway.Gateway:
        return await self._server(GATEWAY, kernel_gateway.gateway)

    async def jupyter_server(self) -> kernel_gateway.Gateway:
        return await self._server(SERVER, kernel_gateway.jupyter_server)

    async def _server(self, name: str, start: Start) -> kernel_gateway.Gateway:
        if name not in self._servers:
            self.advance(f"starting {name} (first run: installing it)")
            python = await kernel_gateway.environment()
            self._servers[name] = await self.stack.enter_async_context(start(python, self.room()))
        return self._servers[name]

    async def floor(self) -> Floor:
        """Return the least that a system like this must do."""
        if self._floor is None:
            self._floor = await self.stack.enter_async_context(floor(self.room()))
        return self._floor

    def stock(self) -> contextlib.AbstractAsyncContextManager[StockKernel]:
        """Return a stock kernel, which lives as long as the block that enters it."""
        return stock_kernel(self.room())

    async def interleave(
        self,
        contestants: Mapping[str, Contestant],
        *,
        rounds: int,
        warmup: int = 1,
        block: int = 1,
    ) -> Samples:
        """Measure in turns, A B A B, so that a change of the machine's mood meets everyone.

        A contestant returns what it measured: its own preparation is not on its clock. With a
        `block`, each turn is so many measurements in a row: in the first, what is needed is no
        longer in the processor's caches.
        """
        samples: Samples = {name: [] for name in contestants}
        for turn in range(-warmup, rounds // block):
            for name, measure in contestants.items():
                for _ in range(block):
                    value = await measure()
                    if turn >= 0:
                        samples[name].append(value)
            self.advance(f"{max(turn + 1, 0) * block}/{rounds}")
        return samples


@dataclasses.dataclass(frozen=True)
class Mood:
    """The processor's time since boot, in ticks, and how many programs wanted it."""

    total: int
    idle: int
    steal: int
    load: float

    @classmethod
    def now(cls) -> Mood:
        # proc(5): user nice system idle iowait irq softirq steal, then guest, already in user.
        fields = [int(text) for text in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        return cls(sum(fields), fields[3] + fields[4], fields[7], os.getloadavg()[0])

    def since(self, earlier: Mood) -> dict[str, float]:
        """Return the shares of time in percent between two moods, and the load now."""
        ticks = max(self.total - earlier.total, 1)
        return {
            "steal_percent": round(100 * (self.steal - earlier.steal) / ticks, 1),
            "idle_percent": round(100 * (self.idle - earlier.idle) / ticks, 1),
            "load_1m": round(self.load, 2),
        }


def pace() -> float:
    """Return in ms how long a million additions take: by it, one hour compares with another."""

    def once() -> float:
        began = perf_counter()
        sum(number + 1 for number in range(1_000_000))
        return 1000 * (perf_counter() - began)

    return min(once() for _ in range(3))


def machine() -> dict[str, object]:
    """Return what a reader needs to know about where the figures come from."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    names = ("ipykernel", "ipython", "pyzmq", "tornado", "websockets", "numpy", "pandas")
    return {
        "processor": models[0] if models else platform.machine(),
        "processors": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in names} | peer_versions(),
    }


def peer_versions() -> dict[str, str]:
    """Return the peers' pinned versions, from the lock file."""
    pins = dict(
        line.rstrip(" \\").split("==")
        for line in kernel_gateway.LOCK.read_text().splitlines()
        if "==" in line and not line.startswith(" ")
    )
    return {name: pins[name] for name in ("jupyter-kernel-gateway", "jupyter-server")}
