"""Keep a profile's kernels: some warm ahead of need, never over the cap, each used once.

`policy.decide()` says what to do; this file does it, on every event and at every deadline. Memory
(`stock`) is changed first and in one piece, the I/O comes after.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Generic, Self

from broker import policy, refusals
from broker.callers import NOBODY, Asker, Caller, Callers
from broker.errors import BrokerError, ProfileBroken
from broker.metrics import Metrics
from broker.policy import Budget, Demand, PoolLimits, PoolView, next_attempt, startable
from broker.stock import (
    SHOWN,
    K,
    KernelRow,
    KernelSource,
    Life,
    PooledKernel,
    PoolSnapshot,
    Start,
    Stock,
)
from kernels.state import KernelState

__all__ = ["Budget", "KernelRow", "KernelSource", "Pool", "PoolSnapshot", "PooledKernel"]

logger = logging.getLogger(__name__)


class Pool(Generic[K]):
    """The kernels of one profile, kept within `limits` while its `async with` lasts.

    Leaving it ends every kernel. `clock` is monotonic; its seconds are as long as the event loop's.
    """

    def __init__(
        self,
        profile: str,
        source: KernelSource[K],
        limits: PoolLimits,
        *,
        clock: Callable[[], float] = time.monotonic,
        budget: Budget | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        self.profile = profile
        self.limits = limits
        self.source = source
        self._clock = clock
        self._budget = budget
        self._metrics = metrics
        self._stock: Stock[K] = Stock(profile, clock)
        self._callers: Callers[K] = Callers(  # nobody waits for any kernel while one is warm
            profile, changed=self.wake, abandoned=self._abandoned
        )
        self._watchers: list[asyncio.Future[None]] = []  # of ready()
        self._tasks: set[asyncio.Task[None]] = set()  # starts and stops under way
        self._unexplained: set[str] = set()  # bound kernels that ended; their session knows why
        self._demand = Demand()
        self._failures = 0  # in a row
        self._failed_at = 0.0
        self._error = ""
        self._start_failures = 0  # ever
        self._was_ready = False
        self._closed = False
        self._event = asyncio.Event()
        self._reconciler: asyncio.Task[None] | None = None
        if metrics is not None:
            metrics.watch_pool(profile, SHOWN, self._stock.count, lambda: self.target)

    def __repr__(self) -> str:
        counts = [(self._stock.count(state), state) for state in SHOWN]
        shown = ", ".join(f"{count} {state}" for count, state in counts if count)
        return f"<Pool {self.profile}: {shown or 'empty'} / {self.limits.cap}>"

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    def start(self) -> None:
        """Come to the target, and stay there."""
        if self._budget is not None:
            self._budget.join(self)
        self._reconciler = self._own(self._reconcile())
        self._reconciler.add_done_callback(self._reconciler_ended)

    async def stop(self) -> None:
        """End every kernel; what waits for one is told."""
        self._closed = True
        if self._reconciler is not None:
            self._reconciler.cancel()
        self._fail_waiting(refusals.closing(self.profile))
        for start in list(self._stock.starts):
            self._stock.cancel(start)
            if start.task is not None:
                start.task.cancel()
        for life in list(self._stock.lives.values()):
            self._stop(life, "closing")
        while self._tasks:  # an exit seen meanwhile adds its own
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._budget is not None:
            self._budget.leave(self)

    async def acquire(self, *, timeout: float, asker: Asker = NOBODY) -> K:
        """Hand out a kernel for good: the oldest warm one at once, else the next to come up.

        The caller says `bound()` when it has given the kernel its session, or `discard()`. Raise
        ProfileBroken while kernels cannot start, AtCapacity when none can and the asker may not
        wait for another to go, or none did in `timeout` seconds, Draining when the pool is closing.
        """
        while not self._closed and (life := self._stock.oldest()) is not None:
            # No await on this way: a first answer waits for nobody.
            if not life.kernel.exited.done():
                self._demand = self._demand.claimed(self._clock())
                return self._claim(life)
            self._exited(life, life.kernel.exited)  # it died a moment ago
        full = self._refuse_if_hopeless(asker)
        self._demand = self._demand.claimed(self._clock())
        return await self._callers.wait(timeout, asker, full=full)

    async def acquire_with(self, workspace: object, *, timeout: float, asker: Asker = NOBODY) -> K:
        """Start a kernel on a workspace that another one has left; else as `acquire()`.

        A warm kernel, which has a workspace of its own, makes way if there is no room beside it.
        """
        full = self._refuse_if_hopeless(asker)
        return await self._callers.wait_direct(workspace, timeout, asker, full=full)

    def bound(self, kernel: K) -> None:
        """Note that the kernel has its session; the refill, which waited for that, goes on."""
        if self._stock.bound(kernel.kernel_id):
            self.wake()

    async def discard(self, kernel: K, reason: str = "discarded") -> None:
        """End a kernel and wait until it is gone; one that has died already is cleaned up.

        `reason` is what its end counts as.
        """
        life = self._stock.lives.get(kernel.kernel_id)
        if life is not None:  # the end goes on when the caller is cancelled
            await asyncio.shield(self._stop(life, reason))
            return
        if kernel.kernel_id in self._unexplained:
            self._unexplained.remove(kernel.kernel_id)
            self._count_exit(reason)
        await kernel.close()

    def adopt(self, kernel: K, *, bound: bool) -> None:
        """Take in a live kernel of an earlier broker, over the cap if need be."""
        life = self._stock.came_up(kernel, "adopted")
        kernel.exited.add_done_callback(partial(self._exited, life))
        if bound:
            self._stock.claim(life, "adopted")
        else:
            self._offer(life)
        self.wake()

    async def ready(self) -> None:
        """Wait until the warm target, or what there is room for, has been reached once.

        Raise ProfileBroken as soon as a start has failed, Draining when the pool is closing.
        """
        if self._was_ready:
            return
        if self._closed:
            raise refusals.closing(self.profile)
        if self._failures:
            raise self._broken()
        watcher: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers.append(watcher)
        await watcher

    def snapshot(self) -> PoolSnapshot:
        """Return the pool as it is now."""
        retry_at = next_attempt(self._failures, self._failed_at, self.limits)
        return self._stock.snapshot(
            self.view(),
            self.limits,
            target=self.target,
            error=self._error,
            retry_in=None if retry_at is None else max(0.0, retry_at - self._clock()),
            start_failures=self._start_failures,
        )

    @property
    def target(self) -> int:
        """Return how many warm kernels there are to be now; it follows how fast they go."""
        return self._demand.target(self.limits, self._clock())

    def view(self) -> PoolView:
        """Return what the policy needs to know of this pool; the node's part is Budget's."""
        asked = self._callers.waiting, self._callers.direct
        return self._stock.view(*asked, self._failures, self._failed_at, self._demand)

    def wake(self) -> None:
        """Have the pool look at itself again soon."""
        self._event.set()

    # What the reconciler does

    async def _reconcile(self) -> None:
        while True:
            self._event.clear()
            view = self._complete_view()
            decision = policy.decide(view, self.limits, self._clock())
            for life in self._stock.youngest(decision.stop):
                self._stop(life, "spare")
            for _ in range(decision.direct):
                if caller := self._callers.next_direct():
                    self._begin(*caller)
            for _ in range(decision.start):
                self._begin()
            reached = view.warm >= self.limits.warm
            if reached or not (view.starting or view.failures or startable(view, self.limits)):
                self._was_ready = True
                self._settle_watchers(None)
            if self._budget is not None:
                took_turn = decision.starts and bool(view.waiting or view.direct)
                self._budget.publish(self, self.view(), took_turn=took_turn)
            delay = None if decision.wake_at is None else decision.wake_at - self._clock()
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._event.wait()

    def _begin(self, caller: Caller[K] | None = None, workspace: object = None) -> None:
        start = self._stock.begin(self._failures, promised=caller is not None)
        start.task = self._own(self._launch(start, caller, workspace))

    async def _launch(self, start: Start, caller: Caller[K] | None, workspace: object) -> None:
        try:
            async with asyncio.timeout(self.limits.start_timeout):
                if caller is None:
                    kernel = await self.source.launch()
                else:
                    kernel = await self.source.launch(workspace=workspace)
                    kernel.keep_workspace = True  # whatever becomes of it
        except BaseException as error:
            unwanted = start.state is KernelState.STOPPING
            words = refusals.words(error, self.limits.start_timeout)
            self._stock.fail(start, "closing" if unwanted else words)
            if caller is None and not unwanted:
                self._start_failed(start.failures, words)
            elif caller is not None:
                at_fault = refusals.closing if unwanted else partial(refusals.unusable, why=words)
                self._direct_failed(caller, at_fault(self.profile))
            if not isinstance(error, Exception):
                raise
            return
        life = self._stock.came_up(kernel, "started", start)
        kernel.exited.add_done_callback(partial(self._exited, life))
        if life.state is KernelState.STOPPING:  # it came up although its start was cancelled
            life.task = start.task
            await self._close(life)
            return
        self._failures = 0
        self._error = ""
        self._demand = self._demand.made(self._clock() - start.since)
        if caller is None:
            self._offer(life)
        elif caller.done():
            self._stop(life, "its caller left")
        else:
            caller.set_result(self._claim(life))
        self.wake()

    def _start_failed(self, failures: int, words: str) -> None:
        # Starts that were under way together and fail together are one failure in a row.
        self._failures = max(self._failures, failures + 1)
        self._failed_at = self._clock()
        self._error = words
        self._start_failures += 1
        if self._metrics is not None:
            self._metrics.pool_start_failed(self.profile)
        logger.warning("pool=%s start failed: %s", self.profile, words)
        if self._stock.starts:  # one of the others may come up yet
            self._settle_watchers(self._broken())
        else:
            self._fail_waiting(self._broken())
        self.wake()

    def _direct_failed(self, caller: Caller[K], error: BrokerError) -> None:
        # It may be the workspace's own fault, which says nothing of the profile: no back-off.
        logger.warning("pool=%s %s", self.profile, error)
        if not caller.done():
            caller.set_exception(error)
        self.wake()

    def _offer(self, life: Life[K]) -> None:
        caller = self._callers.next()
        if caller is None:
            self._stock.offer(life)
        else:
            caller.set_result(self._claim(life))

    def _claim(self, life: Life[K]) -> K:
        self._stock.claim(life, "claimed", binding=True)
        self.wake()
        return life.kernel

    def _stop(self, life: Life[K], cause: str) -> asyncio.Task[None]:
        if life.task is None or life.task.done():  # done, and still here: the close failed
            if life.state is not KernelState.STOPPING:
                self._stock.stop(life, cause)
            life.task = self._own(self._close(life))
            self.wake()
        return life.task

    async def _close(self, life: Life[K]) -> None:
        try:
            await life.kernel.close()
        except Exception:
            # Only its exit tells that it is gone: until then it counts against the cap.
            logger.exception("pool=%s kernel=%s: close", self.profile, life.kernel.kernel_id)
        else:
            self._gone(life, "stopped")

    def _exited(self, life: Life[K], exited: asyncio.Future[str]) -> None:
        self._gone(life, "unknown" if exited.cancelled() else exited.result())

    def _gone(self, life: Life[K], reason: str) -> None:
        before, age = life.state, self._clock() - life.since
        if before is KernelState.DEAD:
            return
        self._stock.gone(life, reason)
        if before is KernelState.BOUND:
            self._unexplained.add(life.kernel.kernel_id)
        else:
            self._count_exit(life.cause or reason)
        if before is KernelState.WARM:
            life.task = self._own(self._close(life))  # its sockets are still there
            if age < self.limits.settle:
                self._start_failed(life.failures, f"died {age:.1f} s after it came up: {reason}")
        self.wake()

    def _count_exit(self, reason: str) -> None:
        if self._metrics is not None:
            self._metrics.kernel_exited(self.profile, reason)

    def _own(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _reconciler_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # A fault of ours: say so at once, rather than let every caller wait its time out.
            logger.critical("pool=%s the reconciler ended", self.profile, exc_info=error)
            self._closed = True
            self._fail_waiting(refusals.closing(self.profile))

    # What callers are told

    def _abandoned(self, kernel: K) -> None:
        # Handed to someone who is gone: it was bound, so it is never warm again.
        life = self._stock.lives.get(kernel.kernel_id)
        if life is not None:
            self._stop(life, "its caller left")

    def _refuse_if_hopeless(self, asker: Asker) -> bool:
        """Return whether somebody has to leave before this one gets a kernel."""
        if self._closed:
            raise refusals.closing(self.profile)
        retry_at = next_attempt(self._failures, self._failed_at, self.limits)
        if retry_at is not None and not self._stock.starts and self._clock() < retry_at:
            raise self._broken()
        view = self._complete_view()
        spare = 0 if self._budget is None else self._budget.reclaimable(self)
        full = not policy.can_serve_another(view, self.limits, spare)
        return full and self._callers.check(asker, view, self.limits.cap)

    def _broken(self) -> ProfileBroken:
        return refusals.broken(self.profile, self._error, self.snapshot().retry_in or 0.0)

    def _complete_view(self) -> PoolView:
        view = self.view()
        return view if self._budget is None else self._budget.complete(view, self)

    def _fail_waiting(self, error: BrokerError) -> None:
        self._callers.fail(error)
        self._settle_watchers(error)

    def _settle_watchers(self, error: BrokerError | None) -> None:
        watchers, self._watchers = self._watchers, []
        for watcher in (one for one in watchers if not one.done()):
            watcher.set_exception(error) if error else watcher.set_result(None)
