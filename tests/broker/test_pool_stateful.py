from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.callers import Asker
from broker.errors import AtCapacity, ProfileBroken
from broker.policy import Budget, PoolLimits
from broker.pool import Pool
from tests.broker.pool_fakes import FakeKernel, FakeSource, ManualLoop, elapse


class PoolsOfANode(RuleBasedStateMachine):
    """Two pools on one node, and everything that can happen to them, in any order."""

    ROOM = 5
    LIMITS = PoolLimits(warm=2, warm_most=3, cap=3, max_starting=2)
    which = st.integers(0, 1)
    askers = st.builds(Asker, st.sampled_from("xy"), st.sampled_from([0, 2]))

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=ManualLoop)
        self.handed: list[set[str]] = [set(), set()]
        self.held: list[list[FakeKernel]] = [[], []]
        self.calls: list[list[asyncio.Task[FakeKernel]]] = [[], []]
        self.runner.run(self.begin())

    async def begin(self) -> None:
        budget = Budget(self.ROOM)
        clock = asyncio.get_running_loop().time
        self.sources = [FakeSource("a", held=True), FakeSource("b", held=True)]
        self.pools = [
            Pool(source.name, source, self.LIMITS, clock=clock, budget=budget)
            for source in self.sources
        ]
        for pool in self.pools:
            await pool.__aenter__()
        await elapse()

    def happen(self, act: Callable[[], object], seconds: float = 0.001) -> None:
        async def acted() -> None:
            act()
            await elapse(seconds)
            self.collect()

        self.runner.run(acted())

    def collect(self) -> None:
        for side in (0, 1):
            for call in [call for call in self.calls[side] if call.done()]:
                self.calls[side].remove(call)
                if call.cancelled() or call.exception() is not None:
                    assert call.cancelled() or isinstance(
                        call.exception(), (AtCapacity, ProfileBroken)
                    )
                    continue
                kernel = call.result()
                assert kernel.kernel_id not in self.handed[side], "handed out twice"
                self.handed[side].add(kernel.kernel_id)
                self.held[side].append(kernel)

    @rule(side=which, asker=askers)
    def somebody_asks(self, side: int, asker: Asker) -> None:
        pool = self.pools[side]
        self.happen(lambda: self.call(side, pool.acquire(timeout=20, asker=asker)))

    @rule(side=which, asker=askers)
    def a_session_restarts(self, side: int, asker: Asker) -> None:
        pool = self.pools[side]
        self.happen(lambda: self.call(side, pool.acquire_with(object(), timeout=20, asker=asker)))

    def call(self, side: int, work: Coroutine[Any, Any, FakeKernel]) -> None:
        self.calls[side].append(asyncio.get_running_loop().create_task(work))

    @rule(side=which, index=st.integers(0, 9))
    def somebody_leaves(self, side: int, index: int) -> None:
        if self.calls[side]:
            call = self.calls[side][index % len(self.calls[side])]
            self.happen(call.cancel)

    @rule(side=which, index=st.integers(0, 1))
    def a_kernel_comes_up(self, side: int, index: int) -> None:
        if index < len(self.sources[side].pending):
            self.happen(lambda: self.sources[side].up(index))

    @rule(side=which, index=st.integers(0, 1))
    def a_start_fails(self, side: int, index: int) -> None:
        if index < len(self.sources[side].pending):
            self.happen(lambda: self.sources[side].fail("no", index))

    @rule(side=which, index=st.integers(0, 9), leaves=st.booleans())
    def a_kernel_comes_up_as_its_caller_leaves(self, side: int, index: int, leaves: bool) -> None:
        def leave() -> None:
            if leaves and self.calls[side]:
                call = self.calls[side][index % len(self.calls[side])]
                asyncio.get_running_loop().call_soon(call.cancel)

        if self.sources[side].pending:
            self.sources[side].when_up = leave
            self.happen(self.sources[side].up)
            self.sources[side].when_up = lambda: None

    @rule(side=which, index=st.integers(0, 9))
    def a_kernel_dies(self, side: int, index: int) -> None:
        alive = [k for k in self.sources[side].kernels if not k.exited.done()]
        if alive:
            self.happen(lambda: alive[index % len(alive)].die("exit 1"))

    @precondition(lambda self: self.held[0] or self.held[1])
    @rule(index=st.integers(0, 9), discard=st.booleans())
    def a_session_binds_or_ends(self, index: int, discard: bool) -> None:
        every = [(side, kernel) for side in (0, 1) for kernel in self.held[side]]
        side, kernel = every[index % len(every)]
        if not discard:
            self.happen(lambda: self.pools[side].bound(kernel))
            return
        self.held[side].remove(kernel)
        self.runner.run(self.pools[side].discard(kernel))

    @rule(seconds=st.sampled_from([0.3, 1, 3, 30, 90]))
    def time_passes(self, seconds: float) -> None:
        self.happen(lambda: None, seconds)

    @invariant()
    def the_caps_hold(self) -> None:
        counts = [source.processes() for source in self.sources]
        assert max(counts) <= self.LIMITS.cap
        assert sum(counts) <= self.ROOM
        assert all(len(s.pending) <= self.LIMITS.max_starting for s in self.sources)

    @invariant()
    def no_tenant_waits_more_than_it_may_for_others_to_go(self) -> None:
        for pool in self.pools:
            assert pool.view().waiting + pool.view().direct <= self.ROOM + 2 * 2

    @invariant()
    def a_bound_kernel_is_never_warm_again(self) -> None:
        for pool, handed in zip(self.pools, self.handed, strict=True):
            warm = {row.kernel_id for row in pool.snapshot().kernels if row.state == "warm"}
            assert not warm & handed

    @invariant()
    def nobody_whom_any_kernel_serves_waits_beside_a_warm_one(self) -> None:
        for pool in self.pools:  # a restart's is made for it, and it waits for that beside others
            assert pool.view().warm == 0 or pool.view().waiting == 0

    @invariant()
    def what_is_counted_is_what_is_there(self) -> None:
        for pool, source in zip(self.pools, self.sources, strict=True):
            rows, view = pool.snapshot().kernels, pool.view()
            counted = Counter(row.state for row in rows)
            assert view.warm == counted["warm"]
            assert view.bound == counted["bound"]
            assert view.stopping == counted["stopping"]
            assert view.starting == len(source.pending)
            assert 0 <= view.binding <= view.bound
            assert 0 <= view.promised <= view.starting

    def teardown(self) -> None:
        try:
            self.runner.run(self.quiet())
        finally:
            self.runner.close()

    async def quiet(self) -> None:
        for source in self.sources:
            source.held = False
            for index in range(len(source.pending)):
                source.up(index)
        await elapse(200)
        self.collect()
        assert self.calls == [[], []], "a caller hangs"
        for side in (0, 1):
            for kernel in self.held[side]:
                await self.pools[side].discard(kernel)
        await elapse(200)
        shown = [pool.snapshot() for pool in self.pools]
        assert [(s.warm, s.bound, s.stopping, s.state) for s in shown] == [(2, 0, 0, "ok")] * 2
        for pool in self.pools:
            await pool.__aexit__()
        assert [source.processes() for source in self.sources] == [0, 0]


TestPoolsOfANode = PoolsOfANode.TestCase
TestPoolsOfANode.settings = settings(max_examples=60, stateful_step_count=40)
