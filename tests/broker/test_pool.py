from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.callers import Asker
from broker.errors import AtCapacity, Draining, ProfileBroken
from broker.metrics import Metrics
from broker.policy import Budget, PoolLimits, PoolView
from broker.pool import Pool
from broker.stock import Stock
from tests.broker.pool_fakes import FakeKernel, FakeSource, elapse, now, on_manual_time


def make(
    source: FakeSource,
    *,
    budget: Budget | None = None,
    metrics: Metrics | None = None,
    warm: int = 2,
    cap: int = 4,
    **limits: Any,
) -> Pool[FakeKernel]:
    loop = asyncio.get_running_loop()
    bounds = PoolLimits(warm=warm, cap=cap, **limits)
    return Pool("python", source, bounds, clock=loop.time, budget=budget, metrics=metrics)


@on_manual_time
async def test_the_warm_target_is_reached_and_kept_after_a_claim() -> None:
    async with make(FakeSource(), warm=3) as pool:
        await pool.ready()
        kernel = await pool.acquire(timeout=1)
        assert kernel.kernel_id == "k1"
        assert pool.snapshot().warm == 2
        pool.bound(kernel)
        await elapse(1)
        assert repr(pool) == "<Pool python: 3 warm, 1 bound / 4>"


@on_manual_time
async def test_a_warm_kernel_is_handed_out_without_giving_way() -> None:
    async with make(FakeSource()) as pool:
        await pool.ready()
        with pytest.raises(StopIteration) as handed:
            pool.acquire(timeout=1).send(None)
        assert handed.value.value.kernel_id == "k1"


@on_manual_time
async def test_refill_waits_while_a_claimed_kernel_is_being_bound() -> None:
    source = FakeSource()
    async with make(source, bind_pause=2) as pool:
        await pool.ready()
        await elapse()
        kernel = await pool.acquire(timeout=1)
        await elapse(1.5)
        assert len(source.launched) == 2
        pool.bound(kernel)
        await elapse()
        assert len(source.launched) == 3


@on_manual_time
async def test_a_binding_without_end_does_not_hold_the_refill_back_for_ever() -> None:
    async with make(FakeSource(), bind_pause=2) as pool:
        await pool.ready()
        await pool.acquire(timeout=1)
        await elapse(2.5)
        assert pool.snapshot().warm == 2


@on_manual_time
async def test_bindings_that_overlap_without_end_do_not_either() -> None:
    async with make(FakeSource(), warm=2, cap=99, bind_pause=2) as pool:
        await pool.ready()
        bound = []
        for _ in range(20):  # one each half second, each a second and a half on its way
            bound.append(await pool.acquire(timeout=1))
            if len(bound) > 3:
                pool.bound(bound[-4])
            await elapse(0.5)
        assert pool.snapshot().binding == 3
        assert pool.snapshot().warm >= 2


@pytest.mark.parametrize(
    ("view", "state"),
    [
        (PoolView(warm=2), "ok"),
        (PoolView(warm=2, failures=1), "ok"),
        (PoolView(warm=1, failures=1), "backoff"),
        (PoolView(warm=2, failures=1, waiting=1), "backoff"),
        (PoolView(warm=2, failures=1, direct=1), "backoff"),
        (PoolView(warm=1, starting=1), "ok"),
    ],
)
def test_a_pool_is_in_a_back_off_while_it_wants_kernels_and_they_fail(
    view: PoolView, state: str
) -> None:
    stock: Stock[FakeKernel] = Stock("python", lambda: 0.0)
    shown = stock.snapshot(view, PoolLimits(), target=2, error="", retry_in=None, start_failures=0)
    assert shown.state == state


@on_manual_time
async def test_the_target_follows_the_claims_and_falls_back_with_time() -> None:
    async with make(FakeSource(), warm=2, warm_most=10, cap=40, max_starting=4) as pool:
        await pool.ready()
        for claimed in [asyncio.create_task(pool.acquire(timeout=5)) for _ in range(8)]:
            pool.bound(await claimed)
        assert pool.target == pool.snapshot().target == 9
        await elapse(3)
        assert (pool.snapshot().warm, pool.snapshot().bound) == (8, 8)
        await elapse(30)
        assert 2 < pool.snapshot().warm == pool.target < 8
        await elapse(90)
        assert (pool.snapshot().warm, pool.target) == (2, 2)


@on_manual_time
async def test_no_kernel_is_made_ahead_while_a_caller_waits() -> None:
    source = FakeSource(held=True)
    async with make(source, warm=2, cap=9, max_starting=4) as pool:
        for _ in range(2):
            await elapse()
            source.up()
        await pool.ready()
        claimed = [await pool.acquire(timeout=5) for _ in range(2)]
        waiting = asyncio.create_task(pool.acquire(timeout=5))
        await elapse()
        for kernel in claimed:
            pool.bound(kernel)
        await elapse()
        assert len(source.pending) == 1
        source.up()
        pool.bound(await waiting)
        await elapse()
        assert len(source.pending) == 2


@on_manual_time
async def test_callers_are_served_in_order_when_nothing_is_warm() -> None:
    async with make(FakeSource(), warm=0) as pool:
        kernels = await asyncio.gather(*(pool.acquire(timeout=1) for _ in range(3)))
        assert [kernel.kernel_id for kernel in kernels] == ["k1", "k2", "k3"]


@on_manual_time
async def test_a_full_pool_refuses_at_once_and_says_when_to_come_again() -> None:
    async with make(FakeSource(), cap=2) as pool:
        await pool.ready()
        for _ in range(2):
            await pool.acquire(timeout=1)
        before = now()
        with pytest.raises(
            AtCapacity, match="no room for a kernel of profile python: 2"
        ) as refused:
            await pool.acquire(timeout=30)
        assert refused.value.retry_after > 0
        assert now() == before


@on_manual_time
async def test_a_caller_waits_for_a_kernel_that_is_on_its_way_out() -> None:
    async with make(FakeSource(), warm=1, cap=1) as pool:
        await pool.ready()
        first = await pool.acquire(timeout=1)
        first.may_close.clear()
        leaving = asyncio.create_task(pool.discard(first))
        coming = asyncio.create_task(pool.acquire(timeout=10))
        await elapse(1)
        assert not coming.done()
        assert pool.snapshot().stopping == 1
        first.may_close.set()
        await leaving
        assert (await coming).kernel_id == "k2"


@on_manual_time
async def test_a_caller_whose_time_is_up_is_told_so() -> None:
    async with make(FakeSource(held=True)) as pool:
        with pytest.raises(AtCapacity, match="came up within 5 s"):
            await pool.acquire(timeout=5)
        assert pool.snapshot().waiting == 0


@on_manual_time
async def test_a_caller_who_found_no_room_is_told_that_and_not_of_a_slow_kernel() -> None:
    async with make(FakeSource(), warm=0, cap=1) as pool:
        await pool.acquire(timeout=1)
        with pytest.raises(AtCapacity, match=r"are in use, and none of .* came free within 5 s"):
            await pool.acquire(timeout=5, asker=Asker("t", 1))


@on_manual_time
async def test_a_kernel_handed_to_a_caller_that_left_is_ended_not_reused() -> None:
    source = FakeSource(held=True)
    async with make(source, warm=0) as pool:
        coming = asyncio.create_task(pool.acquire(timeout=5))
        await elapse()
        # Due right after the hand-over, and before the caller runs again.
        source.when_up = lambda: asyncio.get_running_loop().call_soon(coming.cancel)
        source.up()
        with pytest.raises(asyncio.CancelledError):
            await coming
        await elapse()
        assert [kernel.kernel_id for kernel in source.kernels] == ["k1"]
        assert source.alive == set()
        assert pool.snapshot().kernels == ()


@on_manual_time
async def test_a_warm_kernel_that_dies_is_replaced_and_cleaned_up() -> None:
    source = FakeSource()
    async with make(source) as pool:
        await pool.ready()
        await elapse(60)
        source.kernels[0].die("signal SIGKILL")
        assert (await pool.acquire(timeout=1)).kernel_id == "k2"
        await elapse(5)
        assert source.kernels[0].closed
        assert pool.snapshot().warm == 2
        assert pool.snapshot().state == "ok"


@on_manual_time
async def test_kernels_that_die_young_are_started_with_growing_pauses() -> None:
    source = FakeSource()
    async with make(source, warm=1) as pool:
        await pool.ready()
        for pause in (0.5, 1, 2, 4):
            source.kernels[-1].die("exit 1")
            died = now()
            await elapse(pause + 0.2)
            assert source.launched[-1] == pytest.approx(died + pause)
        source.kernels[-1].die("exit 1")
        await elapse()
        assert "died 0.1 s after it came up: exit 1" in pool.snapshot().error


@on_manual_time
async def test_a_broken_profile_does_not_spin() -> None:
    source = FakeSource(seconds=0)
    source.error = OSError("No module named 'nmupy'")
    async with make(source) as pool:
        await elapse(600)
        assert len(source.launched) < 20
        gaps = [b - a for a, b in zip(source.launched[1:], source.launched[2:], strict=False)]
        assert gaps[:4] == pytest.approx([0.5, 1, 2, 4])
        assert gaps[-1] == pytest.approx(60)
        shown = pool.snapshot()
        assert (shown.state, shown.error) == ("backoff", "No module named 'nmupy'")
        assert shown.retry_in is not None
        assert 0 < shown.retry_in <= 60
        assert shown.start_failures == len(source.launched)


@on_manual_time
async def test_acquire_fails_fast_while_kernels_cannot_start() -> None:
    source = FakeSource()
    source.error = OSError("No module named 'nmupy'")
    async with make(source) as pool:
        waited = asyncio.create_task(pool.acquire(timeout=30))
        with pytest.raises(ProfileBroken, match=r"No module named 'nmupy'; next attempt in 0\.5 s"):
            await waited
        before = now()
        with pytest.raises(ProfileBroken, match=r"python cannot start.*next attempt in"):
            await pool.acquire(timeout=30)
        assert now() == before
        source.error = None
        await elapse(1)
        assert (await pool.acquire(timeout=1)).kernel_id == "k1"
        assert (pool.snapshot().state, pool.snapshot().error) == ("ok", "")


@on_manual_time
async def test_a_warm_kernel_is_handed_out_although_starts_fail() -> None:
    source = FakeSource(held=True)
    async with make(source) as pool:
        await elapse()
        source.up()
        await elapse()
        source.fail("no memory")
        await elapse()
        assert pool.snapshot().state == "backoff"
        assert (await pool.acquire(timeout=1)).kernel_id == "k1"


@on_manual_time
async def test_ready_raises_at_the_first_failure() -> None:
    source = FakeSource()
    source.error = OSError("no such interpreter")
    async with make(source) as pool:
        with pytest.raises(ProfileBroken, match="no such interpreter"):
            await pool.ready()
        with pytest.raises(ProfileBroken, match="no such interpreter"):
            await pool.ready()


@on_manual_time
async def test_a_start_that_never_answers_has_failed() -> None:
    async with make(FakeSource(held=True), start_timeout=60) as pool:
        with pytest.raises(ProfileBroken, match="no answer within 60 s"):
            await pool.ready()


@on_manual_time
async def test_a_kernel_that_cannot_be_closed_counts_until_it_is_gone() -> None:
    async with make(FakeSource(), warm=1, cap=1) as pool:
        await pool.ready()
        kernel = await pool.acquire(timeout=1)
        kernel.close_error = OSError("stuck")
        await pool.discard(kernel)
        assert pool.snapshot().stopping == 1
        kernel.close_error = None
        await pool.discard(kernel)
        assert pool.snapshot().stopping == 0


@on_manual_time
async def test_a_discarded_kernel_ends_although_its_caller_is_cancelled() -> None:
    async with make(FakeSource()) as pool:
        await pool.ready()
        kernel = await pool.acquire(timeout=1)
        kernel.may_close.clear()
        leaving = asyncio.create_task(pool.discard(kernel))
        await elapse()
        leaving.cancel()
        kernel.may_close.set()
        await elapse()
        assert kernel.exited.done()


@on_manual_time
async def test_the_end_of_a_pool_ends_every_kernel_and_every_start() -> None:
    source = FakeSource()
    async with make(source, warm=3) as pool:
        await pool.ready()
        await pool.acquire(timeout=1)
        source.held = True
        await elapse(3)
        assert source.pending
    assert source.processes() == 0
    with pytest.raises(Draining):
        await pool.acquire(timeout=1)


@on_manual_time
async def test_kernels_of_an_earlier_broker_are_adopted_warm_or_bound() -> None:
    heir = FakeSource("heir", held=True)
    kernel, spare = FakeKernel("bound"), FakeKernel("spare")
    after = make(heir)
    after.adopt(kernel, bound=True)
    after.adopt(spare, bound=False)
    with pytest.raises(ValueError, match="already"):
        after.adopt(kernel, bound=True)
    async with after:
        await elapse()
        assert repr(after) == "<Pool python: 1 warm, 1 starting, 1 bound / 4>"
        assert await after.acquire(timeout=1) is spare


@on_manual_time
async def test_callers_are_told_when_the_pool_ends() -> None:
    async with make(FakeSource(held=True)) as pool:
        coming = asyncio.create_task(pool.acquire(timeout=10))
        await elapse()
    with pytest.raises(Draining, match="closing"):
        await coming


# A kernel on a workspace that is there already


@on_manual_time
async def test_a_kernel_on_a_workspace_is_started_for_it_and_leaves_the_warm_ones() -> None:
    files = object()
    async with make(FakeSource(), warm=2) as pool:
        await pool.ready()
        kernel = await pool.acquire_with(files, timeout=5)
        assert kernel.workspace is files
        assert kernel.keep_workspace
        assert repr(pool) == "<Pool python: 2 warm, 1 bound / 4>"


@on_manual_time
async def test_a_warm_kernel_makes_way_for_it_and_none_that_is_bound() -> None:
    async with make(FakeSource(), warm=2, cap=2) as pool:
        await pool.ready()
        kernels = [await pool.acquire_with(object(), timeout=5) for _ in range(2)]
        assert len({kernel.kernel_id for kernel in kernels}) == 2
        with pytest.raises(AtCapacity, match="2 of at most 2"):
            await pool.acquire_with(object(), timeout=5)
        await pool.discard(kernels[0])
        await pool.acquire_with(object(), timeout=5)


@on_manual_time
async def test_another_pools_spare_kernel_makes_way_for_it() -> None:
    budget = Budget(3)
    async with (
        make(FakeSource("idle"), budget=budget, warm=3) as idle,
        make(FakeSource("asked"), budget=budget, warm=0) as asked,
    ):
        await idle.ready()
        kernel = await asked.acquire_with(object(), timeout=5)
        assert kernel.kernel_id == "asked1"
        assert idle.snapshot().warm == 2


@on_manual_time
async def test_a_start_on_a_workspace_that_fails_is_told_and_keeps_the_files() -> None:
    source = FakeSource()
    async with make(source, warm=1) as pool:
        await pool.ready()
        source.error = OSError("no")
        with pytest.raises(ProfileBroken, match="no"):
            await pool.acquire_with(object(), timeout=5)
        assert pool.snapshot().warm == 1


@on_manual_time
async def test_one_waits_for_its_start_beside_a_warm_kernel_that_others_get() -> None:
    source = FakeSource(held=True)
    async with make(source, warm=2) as pool:
        await elapse()
        source.up()
        await elapse()
        source.fail("no memory")
        await elapse(0.6)  # the next attempt is on its way, and none beside it
        restart = asyncio.create_task(pool.acquire_with(object(), timeout=5))
        await elapse()
        assert (pool.snapshot().warm, pool.snapshot().waiting) == (1, 1)
        assert (await pool.acquire(timeout=1)).kernel_id == "k1"
        source.up()
        await elapse()
        source.held = False
        source.up()
        assert (await restart).kernel_id == "k3"


@on_manual_time
async def test_a_kernel_whose_caller_left_meanwhile_ends_and_keeps_the_files() -> None:
    source = FakeSource(held=True)
    async with make(source, warm=0) as pool:
        with pytest.raises(AtCapacity, match="within 1 s"):
            await pool.acquire_with(object(), timeout=1)
        source.up()
        await elapse()
        [kernel] = source.kernels
        assert kernel.exited.done()
        assert kernel.keep_workspace
        source.held = False
        leaving = asyncio.create_task(pool.acquire_with(object(), timeout=1))
        await elapse(0.05)
        leaving.cancel()
        await elapse(1)
        assert source.processes() == 0


@on_manual_time
async def test_the_end_of_a_pool_is_told_to_those_who_wait_for_a_kernel_of_their_own() -> None:
    source = FakeSource(held=True)
    async with make(source, warm=0) as pool:
        coming = [asyncio.create_task(pool.acquire_with(object(), timeout=9)) for _ in range(3)]
        await elapse()
    for one in coming:
        with pytest.raises(Draining, match="closing"):
            await one
    assert source.processes() == 0


@on_manual_time
async def test_a_caller_gets_the_place_of_another_pools_spare_kernel() -> None:
    budget = Budget(4)
    idle, asked = FakeSource("idle"), FakeSource("asked")
    async with (
        make(idle, budget=budget, warm=4) as pool,
        make(asked, budget=budget, warm=2) as other,
    ):
        await elapse(5)
        total = pool.snapshot().warm + other.snapshot().warm
        assert total == 4
        held = [await other.acquire(timeout=5) for _ in range(4)]
        assert len({kernel.kernel_id for kernel in held}) == 4
        assert idle.alive == set()
        with pytest.raises(AtCapacity, match="the node is full"):
            await pool.acquire(timeout=5)
        await other.discard(held[0])
        await elapse(5)
        assert idle.processes() + asked.processes() == 4


@on_manual_time
async def test_metrics_count_states_exits_and_failures() -> None:
    metrics, source = Metrics(), FakeSource()
    async with make(source, metrics=metrics) as pool:
        await pool.ready()
        kernel = await pool.acquire(timeout=1)
        kernel.die("signal SIGKILL")  # its session knows why, and tells a moment later
        await elapse(0.1)
        assert b"broker_kernel_exits_total{" not in metrics.render()[0]
        for _ in range(2):
            await pool.discard(kernel, "timeout")
        await elapse(5)
        next(one for one in source.kernels if not one.exited.done()).die("signal SIGSEGV")
        await elapse(10)
        await pool.discard(await pool.acquire(timeout=1), "killed by operator")
        await elapse(5)
        source.error = OSError("no")
        await pool.discard(await pool.acquire(timeout=1))
        await elapse(1)
        text, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    for line in (
        b'broker_kernels{profile="python",state="warm"} 1.0',
        b'broker_kernels{profile="python",state="bound"} 0.0',
        b'broker_kernel_exits_total{profile="python",reason="signal"} 1.0',
        b'broker_kernel_exits_total{profile="python",reason="timeout"} 1.0',
        b'broker_kernel_exits_total{profile="python",reason="killed"} 1.0',
        b'broker_kernel_exits_total{profile="python",reason="discarded"} 1.0',
        b'broker_pool_start_failures_total{profile="python"} 2.0',
    ):
        assert line in text
