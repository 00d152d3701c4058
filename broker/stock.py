"""Hold what a pool has: each kernel's life in its table's states, and the counts of them.

Memory only: nothing here awaits, so a count is never half changed.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from broker.policy import PoolLimits, PoolView
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
    claimed_at: float | None = None  # while it is being bound
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
    waiting: int  # callers of acquire()
    state: str  # ok, or backoff
    error: str  # why the last start failed; empty once one has worked
    retry_in: float | None  # seconds to the next attempt
    start_failures: int  # since the pool began
    kernels: tuple[KernelRow, ...]


class Stock(Generic[K]):
    """The kernels of one profile, by state."""

    def __init__(self, profile: str, clock: Callable[[], float]) -> None:
        self._profile = profile
        self._clock = clock
        self.starts: set[Start] = set()
        self.lives: dict[str, Life[K]] = {}  # oldest first
        self.warm: deque[Life[K]] = deque()  # of those, the ones to hand out; oldest first

    def begin(self, failures: int, *, promised: bool = False) -> Start:
        """Count a kernel whose start begins."""
        start = Start(failures, promised)
        self.starts.add(start)
        return start

    def cancel(self, start: Start) -> None:
        """Note that a start is no longer wanted."""
        start.state = self._next(start.state, KernelEvent.STOP, "-", "closing")

    def fail(self, start: Start, cause: str) -> None:
        """Forget a start that came to nothing."""
        self.starts.discard(start)
        start.state = self._next(start.state, KernelEvent.FAILED, "-", cause)

    def came_up(self, kernel: K, cause: str, start: Start | None = None) -> Life[K]:
        """Count a kernel that is up: from a start, or from an earlier broker.

        It is warm but not yet to be handed out: `offer()` or `claim()` it before anything awaits.
        """
        if kernel.kernel_id in self.lives:
            raise ValueError(f"kernel {kernel.kernel_id} is in the pool already")
        state = KernelState.STARTING
        if start is not None:
            self.starts.discard(start)
            state = start.state
        if state is KernelState.STARTING:
            state = self._next(state, KernelEvent.STARTED, kernel.kernel_id, cause)
        life = Life(kernel, 0 if start is None else start.failures, self._clock(), state)
        self.lives[kernel.kernel_id] = life
        return life

    def offer(self, life: Life[K]) -> None:
        """Have a warm kernel wait for its caller."""
        self.warm.append(life)

    def claim(self, life: Life[K], cause: str) -> None:
        """Give a kernel away for good."""
        self._move(life, KernelEvent.BOUND, cause)

    def stop(self, life: Life[K], cause: str) -> None:
        """Note that a kernel has been told to end."""
        was_warm = life.state is KernelState.WARM
        self._move(life, KernelEvent.STOP, cause)
        life.cause = cause
        life.claimed_at = None
        if was_warm and life in self.warm:
            self.warm.remove(life)

    def gone(self, life: Life[K], reason: str) -> None:
        """Forget a kernel whose process has ended."""
        if life.state is KernelState.WARM and life in self.warm:
            self.warm.remove(life)
        self._move(life, KernelEvent.EXITED, reason)
        life.claimed_at = None
        del self.lives[life.kernel.kernel_id]

    def count(self, state: str) -> int:
        """Return how many kernels are in the state."""
        states = [start.state for start in self.starts]
        return sum(each == state for each in [*states, *(li.state for li in self.lives.values())])

    def view(self, waiting: int, direct: int, failures: int, failed_at: float) -> PoolView:
        """Return what the policy needs to know, but for the node's part."""
        lives = self.lives.values()
        counts = Counter(life.state for life in lives)
        counts.update(start.state for start in self.starts)
        return PoolView(
            starting=counts[KernelState.STARTING],
            warm=tuple(life.kernel.kernel_id for life in self.warm),
            bound=counts[KernelState.BOUND],
            stopping=counts[KernelState.STOPPING],
            binding=tuple(life.claimed_at for life in lives if life.claimed_at is not None),
            waiting=waiting,
            direct=direct,
            promised=sum(
                start.promised and start.state is KernelState.STARTING for start in self.starts
            ),
            failures=failures,
            failed_at=failed_at,
        )

    def snapshot(
        self,
        view: PoolView,
        limits: PoolLimits,
        *,
        error: str,
        retry_in: float | None,
        start_failures: int,
    ) -> PoolSnapshot:
        """Return the pool as it is, for operators."""
        return PoolSnapshot(
            profile=self._profile,
            target=limits.warm,
            cap=limits.cap,
            starting=view.starting,
            warm=len(view.warm),
            bound=view.bound,
            binding=len(view.binding),
            stopping=view.stopping,
            waiting=view.waiting,
            state="backoff" if view.failures else "ok",
            error=error,
            retry_in=retry_in,
            start_failures=start_failures,
            kernels=tuple(
                KernelRow(life.kernel.kernel_id, life.state, life.kernel.pid, life.since)
                for life in self.lives.values()
            ),
        )

    def _move(self, life: Life[K], event: KernelEvent, cause: str) -> None:
        life.state = self._next(life.state, event, life.kernel.kernel_id, cause)
        life.since = self._clock()

    def _next(self, state: KernelState, event: KernelEvent, name: str, cause: str) -> KernelState:
        after = advance(KERNEL, state, event)
        logger.info("pool=%s kernel=%s %s -> %s: %s", self._profile, name, state, after, cause)
        return after
