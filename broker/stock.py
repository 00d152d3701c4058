"""Hold what a pool has: each kernel's life in its table's states, and the counts of them.

Memory only: nothing here awaits, so a count is never half changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from broker.policy import Demand, PoolLimits, PoolView
from kernels.spec import Usage
from kernels.state import KERNEL, KernelEvent, KernelState, advance

logger = logging.getLogger(__name__)

SHOWN = (KernelState.WARM, KernelState.STARTING, KernelState.BOUND, KernelState.STOPPING)


class PooledKernel(Protocol):
    """What a pool needs of a kernel."""

    @property
    def kernel_id(self) -> str:
        """Name the kernel, uniquely and for ever."""

    @property
    def pid(self) -> int:
        """Give the process id."""

    @property
    def exited(self) -> asyncio.Future[str]:
        """Resolve with the reason when the process has ended."""

    keep_workspace: bool  # whether its files stay when it ends: they are a session's

    async def close(self) -> None:
        """End the process and wait for its exit; again is allowed."""


K = TypeVar("K", bound=PooledKernel)
K_co = TypeVar("K_co", bound=PooledKernel, covariant=True)


class KernelSource(Protocol[K_co]):
    """Where a pool's kernels come from."""

    @property
    def level(self) -> str:
        """Give the isolation of its kernels, as far as that is known."""

    @property
    def assured(self) -> str:
        """Give the isolation that its kernels will have at the least."""

    @property
    def mode(self) -> str:
        """Give the way in which the sandbox is set up."""

    @property
    def zygote_pid(self) -> int:
        """Give the zygote's process id, 0 while there is none."""

    def used(self) -> Usage:
        """Return what its kernels use in all, where that is counted."""

    async def launch(self, *, workspace: Any = None) -> K_co:
        """Return a ready kernel, with these files or none; leave no other behind if it fails."""

    def drop_workspace(self, workspace: Any) -> None:
        """Remove the files of a kernel that was told to leave them."""

    async def aclose(self) -> None:
        """End; its kernels have ended before."""


@dataclass(slots=True, eq=False)
class Start:
    """A kernel that is starting."""

    failures: int  # failed starts in a row when this one began
    since: float
    promised: bool = False  # to a caller who needs this very one
    state: KernelState = KernelState.STARTING
    task: asyncio.Task[None] | None = None


@dataclass(slots=True, eq=False)
class Life(Generic[K]):
    """A kernel that came up, until its process is seen to have ended."""

    kernel: K
    failures: int  # of its start
    since: float  # when its state began
    state: KernelState
    task: asyncio.Task[None] | None = None  # its stop
    cause: str = ""  # of its stop


@dataclass(frozen=True, slots=True)
class KernelRow:
    """One kernel in a snapshot; `since` is when its state began, by the pool's clock."""

    kernel_id: str
    state: KernelState
    pid: int
    since: float


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """A pool at one moment, for operators."""

    profile: str
    target: int
    cap: int
    starting: int
    warm: int
    bound: int
    binding: int  # of the bound
    stopping: int
    waiting: int  # callers that no kernel was there for
    state: str  # ok, or backoff while kernels are wanted and cannot start
    error: str  # why the last start failed; empty once one has worked
    retry_in: float | None  # seconds to the next attempt
    start_failures: int  # since the pool began
    kernels: tuple[KernelRow, ...]


class Stock(Generic[K]):
    """The kernels of one profile, by state.

    What is asked on every event is counted as it changes: no answer takes longer for the kernels
    there are.
    """

    def __init__(self, profile: str, clock: Callable[[], float]) -> None:
        self._profile = profile
        self._clock = clock
        self.starts: set[Start] = set()
        self.lives: dict[str, Life[K]] = {}  # oldest first
        self._warm: OrderedDict[str, Life[K]] = OrderedDict()  # those to hand out; oldest first
        self._binding: set[str] = set()  # those being bound
        self._binding_since = 0.0  # when there was none of them, last
        self._counts: Counter[str] = Counter()  # by state, of starts and lives
        self._promised = 0  # of those starting

    def begin(self, failures: int, *, promised: bool = False) -> Start:
        """Count a kernel whose start begins."""
        start = Start(failures, self._clock(), promised)
        self.starts.add(start)
        self._counts[start.state] += 1
        self._promised += promised
        return start

    def cancel(self, start: Start) -> None:
        """Note that a start is no longer wanted."""
        before = start.state
        start.state = self._next(before, KernelEvent.STOP, "-", "closing")
        self._recount(before, start.state)
        self._promised -= start.promised

    def fail(self, start: Start, cause: str) -> None:
        """Forget a start that came to nothing."""
        self._forget(start)
        start.state = self._next(start.state, KernelEvent.FAILED, "-", cause)

    def came_up(self, kernel: K, cause: str, start: Start | None = None) -> Life[K]:
        """Count a kernel that is up: from a start, or from an earlier broker.

        It is warm but not yet to be handed out: `offer()` or `claim()` it before anything awaits.
        """
        if kernel.kernel_id in self.lives:
            raise ValueError(f"kernel {kernel.kernel_id} is in the pool already")
        state = KernelState.STARTING
        if start is not None:
            self._forget(start)
            state = start.state
        if state is KernelState.STARTING:
            state = self._next(state, KernelEvent.STARTED, kernel.kernel_id, cause)
        life = Life(kernel, 0 if start is None else start.failures, self._clock(), state)
        self.lives[kernel.kernel_id] = life
        self._counts[state] += 1
        return life

    def offer(self, life: Life[K]) -> None:
        """Have a warm kernel wait for its caller."""
        self._warm[life.kernel.kernel_id] = life

    def oldest(self) -> Life[K] | None:
        """Return the warm kernel to be claimed next; it stays."""
        return next(iter(self._warm.values()), None)

    def youngest(self, count: int) -> list[Life[K]]:
        """Return the warm kernels to be claimed last; they stay."""
        return [life for life, _ in zip(reversed(self._warm.values()), range(count), strict=False)]

    def claim(self, life: Life[K], cause: str, *, binding: bool = False) -> None:
        """Give a kernel away for good; `binding` until it is `bound()`."""
        self._move(life, KernelEvent.BOUND, cause)
        self._warm.pop(life.kernel.kernel_id, None)
        if binding:
            if not self._binding:
                self._binding_since = life.since
            self._binding.add(life.kernel.kernel_id)

    def bound(self, kernel_id: str) -> bool:
        """Note that a claimed kernel has its session; return whether that was news."""
        if kernel_id not in self._binding:
            return False
        self._binding.remove(kernel_id)
        return True

    def stop(self, life: Life[K], cause: str) -> None:
        """Note that a kernel has been told to end."""
        self._move(life, KernelEvent.STOP, cause)
        life.cause = cause
        self._leave(life)

    def gone(self, life: Life[K], reason: str) -> None:
        """Forget a kernel whose process has ended."""
        self._move(life, KernelEvent.EXITED, reason)
        self._leave(life)
        self._counts[life.state] -= 1
        del self.lives[life.kernel.kernel_id]

    def count(self, state: str) -> int:
        """Return how many kernels are in the state."""
        return self._counts[state]

    def view(
        self, waiting: int, direct: int, failures: int, failed_at: float, demand: Demand
    ) -> PoolView:
        """Return what the policy needs to know, but for the node's part."""
        return PoolView(
            starting=self._counts[KernelState.STARTING],
            warm=len(self._warm),
            bound=self._counts[KernelState.BOUND],
            stopping=self._counts[KernelState.STOPPING],
            binding=len(self._binding),
            binding_since=self._binding_since,
            waiting=waiting,
            direct=direct,
            promised=self._promised,
            failures=failures,
            failed_at=failed_at,
            demand=demand,
        )

    def snapshot(
        self,
        view: PoolView,
        limits: PoolLimits,
        *,
        target: int,
        error: str,
        retry_in: float | None,
        start_failures: int,
    ) -> PoolSnapshot:
        """Return the pool as it is, for operators."""
        asked = view.waiting + view.direct
        return PoolSnapshot(
            profile=self._profile,
            target=target,
            cap=limits.cap,
            starting=view.starting,
            warm=view.warm,
            bound=view.bound,
            binding=view.binding,
            stopping=view.stopping,
            waiting=asked,
            state="backoff" if view.failures and (view.warm < target or asked) else "ok",
            error=error,
            retry_in=retry_in,
            start_failures=start_failures,
            kernels=tuple(
                KernelRow(life.kernel.kernel_id, life.state, life.kernel.pid, life.since)
                for life in self.lives.values()
            ),
        )

    def _move(self, life: Life[K], event: KernelEvent, cause: str) -> None:
        before = life.state
        life.state = self._next(before, event, life.kernel.kernel_id, cause)
        life.since = self._clock()
        self._recount(before, life.state)

    def _recount(self, before: str, after: str) -> None:
        self._counts[before] -= 1
        self._counts[after] += 1

    def _forget(self, start: Start) -> None:
        self.starts.discard(start)
        self._counts[start.state] -= 1
        if start.state is KernelState.STARTING:
            self._promised -= start.promised

    def _leave(self, life: Life[K]) -> None:
        self._warm.pop(life.kernel.kernel_id, None)
        self._binding.discard(life.kernel.kernel_id)

    def _next(self, state: KernelState, event: KernelEvent, name: str, cause: str) -> KernelState:
        after = advance(KERNEL, state, event)
        logger.info("pool=%s kernel=%s %s -> %s: %s", self._profile, name, state, after, cause)
        return after
