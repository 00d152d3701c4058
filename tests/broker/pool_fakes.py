"""A loop whose clock is set by hand, and kernels that come up and die when a test says so."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

from kernels.spec import Usage


class Jumping(selectors.SelectSelector):
    """A selector that never waits: where it would, the loop's clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everything waits and no deadline is set"
        self.now += max(0.0, timeout)
        return super().select(0)


class ManualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def now() -> float:
    return asyncio.get_running_loop().time()


async def elapse(seconds: float = 0.001) -> None:
    """Let everything happen that can, then let the clock reach the moment."""
    loop = asyncio.get_running_loop()
    reached = loop.create_future()
    loop.call_later(seconds, reached.set_result, None)
    await reached


def run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=ManualLoop) as runner:
        runner.run(work)


def on_manual_time(test: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def sync() -> None:
        run(test())

    sync.__name__ = test.__name__
    return sync


class FakeKernel:
    keep_workspace = False

    def __init__(self, name: str, workspace: object = None) -> None:
        self.workspace = workspace
        self.kernel_id = name
        self.pid = 1
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.closed = 0
        self.may_close = asyncio.Event()
        self.may_close.set()
        self.close_error: Exception | None = None

    async def close(self) -> None:
        self.closed += 1
        if self.close_error:
            raise self.close_error
        await self.may_close.wait()
        self.die("killed")

    def die(self, reason: str) -> None:
        if not self.exited.done():
            self.exited.set_result(reason)


class FakeSource:
    """Starts that take `seconds`, or until `up()` and `fail()` when they are held."""

    level = assured = "full"
    mode = ""
    zygote_pid = 0

    def __init__(self, name: str = "k", *, seconds: float = 0.1, held: bool = False) -> None:
        self.name = name
        self.seconds = seconds
        self.held = held
        self.error: Exception | None = None
        self.pending: list[asyncio.Future[None]] = []
        self.kernels: list[FakeKernel] = []
        self.launched: list[float] = []
        self.when_up: Callable[[], object] = lambda: None

    def used(self) -> Usage:
        return Usage()

    async def launch(self, *, workspace: object = None) -> FakeKernel:
        self.launched.append(now())
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.pending.append(gate)
        if not self.held:
            asyncio.get_running_loop().call_later(self.seconds, self._settle, gate)
        try:
            await gate
        finally:
            self.pending.remove(gate)
        kernel = FakeKernel(f"{self.name}{len(self.kernels) + 1}", workspace)
        self.kernels.append(kernel)
        self.when_up()
        return kernel

    def _settle(self, gate: asyncio.Future[None]) -> None:
        if gate.done():
            return
        if self.error:
            gate.set_exception(self.error)
        else:
            gate.set_result(None)

    def up(self, index: int = 0) -> None:
        self._settle(self.pending[index])

    def fail(self, message: str, index: int = 0) -> None:
        self.pending[index].set_exception(OSError(message))

    def drop_workspace(self, workspace: object) -> None: ...

    async def aclose(self) -> None: ...

    def processes(self) -> int:
        return len(self.pending) + sum(not kernel.exited.done() for kernel in self.kernels)

    @property
    def alive(self) -> set[str]:
        return {kernel.kernel_id for kernel in self.kernels if not kernel.exited.done()}
