"""What one run shares: the programs under measurement, the clock's order, the machine's state."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version
from pathlib import Path

from tests.bench import gateway as kernel_gateway
from tests.bench import ours
from tests.bench.stock import StockKernel, stock_kernel

OURS = "broker"
UNSHUT = "no sandbox"
WITH_CGROUP = "with its cgroup"
UNDISTURBED = "undisturbed"
GATEWAY = "Kernel Gateway"
STOCK = "stock ipykernel"
ZMQ = "stock ipykernel, raw ZMQ"

Contestant = Callable[[], Awaitable[float]]
Samples = dict[str, list[float]]
CACHE = Path(__file__).parents[2] / ".cache" / "bench-venv"


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
        self._gateway: kernel_gateway.Gateway | None = None
        self._rooms = 0

    def room(self) -> Path:
        """Make a directory with a short path: Unix socket paths end at 107 bytes."""
        self._rooms += 1
        room = self.directory / str(self._rooms)
        room.mkdir()
        return room

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
        if self._gateway is None:
            self.advance("starting Kernel Gateway (first run: installing it)")
            python = await kernel_gateway.environment(CACHE)
            started = kernel_gateway.gateway(python, self.room())
            self._gateway = await self.stack.enter_async_context(started)
        return self._gateway

    def stock(self) -> contextlib.AbstractAsyncContextManager[StockKernel]:
        """Return a stock kernel, which lives as long as the block that enters it."""
        return stock_kernel(self.room())

    async def interleave(
        self, contestants: Mapping[str, Contestant], *, rounds: int, warmup: int = 1
    ) -> Samples:
        """Measure in turns, A B A B, so that a change of the machine's mood meets everyone.

        A contestant returns what it measured: its own preparation is not on its clock.
        """
        samples: Samples = {name: [] for name in contestants}
        for turn in range(-warmup, rounds):
            for name, measure in contestants.items():
                value = await measure()
                if turn >= 0:
                    samples[name].append(value)
            self.advance(f"{max(turn + 1, 0)}/{rounds}")
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
