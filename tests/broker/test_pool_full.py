"""A full node: who waits, for how long, in which order; and who is refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from broker.callers import Asker
from broker.errors import AtCapacity
from broker.policy import Budget, PoolLimits
from broker.pool import Pool
from tests.broker.pool_fakes import FakeKernel, FakeSource, elapse, now, on_manual_time


def make(source: FakeSource, *, budget: Budget | None = None, cap: int = 2) -> Pool[FakeKernel]:
    limits = PoolLimits(warm=0, cap=cap)
    clock = asyncio.get_running_loop().time
    return Pool(source.name, source, limits, clock=clock, budget=budget)


class Crowd:
    """Sessions that want a kernel of a pool, use it for a while, and go."""

    def __init__(self, pool: Pool[FakeKernel]) -> None:
        self.pool = pool
        self.tasks: list[asyncio.Task[None]] = []
        self.served: list[str] = []
        self.refused: list[tuple[str, float]] = []
        self.places: dict[str, list[int]] = {}

    def come(
        self, name: str, *, may_wait: int = 100, stay: float = 1.0, files: bool = False
    ) -> None:
        self.tasks.append(asyncio.create_task(self._visit(name, may_wait, stay, files)))

    async def _visit(self, name: str, may_wait: int, stay: float, files: bool) -> None:
        began = now()
        asker = Asker(name[0], may_wait, self.places.setdefault(name, []).append)
        try:
            if files:
                kernel = await self.pool.acquire_with(object(), timeout=500, asker=asker)
            else:
                kernel = await self.pool.acquire(timeout=500, asker=asker)
        except AtCapacity as error:
            self.refused.append((name, error.retry_after))
            assert now() - began < 0.05
            return
        self.served.append(name)
        self.pool.bound(kernel)
        await elapse(stay)
        await self.pool.discard(kernel)

    async def gone(self) -> None:
        await asyncio.gather(*self.tasks)


@on_manual_time
async def test_a_tenant_that_asks_for_ten_times_as_much_starves_nobody() -> None:
    async with make(FakeSource(), cap=2) as pool:
        crowd = Crowd(pool)
        for at in range(40):
            crowd.come(f"a{at}")
        await elapse(0.01)
        for at in range(4):
            crowd.come(f"b{at}")
            crowd.come(f"c{at}")
        await crowd.gone()
        assert len(crowd.served) == 48
        # Two were on their way when the others came; then each has every third turn.
        others = [at for at, name in enumerate(crowd.served) if name[0] != "a"]
        assert max(others) <= 2 + 12 + 1
        assert crowd.served[-20:] == [f"a{at}" for at in range(20, 40)]
        assert crowd.refused == []


@on_manual_time
async def test_over_the_bound_a_tenant_is_refused_at_once_and_others_are_not() -> None:
    async with make(FakeSource(), cap=1) as pool:
        crowd = Crowd(pool)
        crowd.come("a0")
        await elapse(0.5)
        for at in (1, 2, 3):
            crowd.come(f"a{at}", may_wait=2)
        crowd.come("b0", may_wait=2)
        await elapse(0.001)
        assert [name for name, _ in crowd.refused] == ["a3"]
        assert crowd.refused[0][1] >= 1
        await crowd.gone()
        assert sorted(crowd.served) == ["a0", "a1", "a2", "b0"]


@on_manual_time
async def test_the_words_of_that_refusal_say_how_many_wait() -> None:
    async with make(FakeSource(), cap=1) as pool:
        crowd = Crowd(pool)
        crowd.come("a0")
        crowd.come("a1")
        await elapse(0.5)
        with pytest.raises(AtCapacity, match="1 of this tenant's sessions wait already"):
            await pool.acquire(timeout=1, asker=Asker("a", 1))
        with pytest.raises(AtCapacity, match=r"1 of at most 1 are there$"):
            await pool.acquire(timeout=1)
        await crowd.gone()


@on_manual_time
async def test_who_comes_again_is_told_a_time_that_fits_the_pace() -> None:
    async with make(FakeSource(), cap=1) as pool:
        crowd = Crowd(pool)
        for at in range(12):
            crowd.come(f"{'abc'[at % 3]}{at}", stay=10.0)
        await elapse(80)
        crowd.come("d0", may_wait=0)
        await elapse(0.001)
        [(_, again)] = crowd.refused
        assert 10 < again <= 40
        await crowd.gone()


@on_manual_time
async def test_an_hour_without_a_turn_because_nobody_waited_is_no_pace() -> None:
    async with make(FakeSource(), cap=1) as pool:
        crowd = Crowd(pool)
        crowd.come("a0")
        await crowd.gone()
        await elapse(3600)
        crowd.come("a1")
        crowd.come("b1")
        await elapse(0.5)
        crowd.come("c0", may_wait=0)
        await elapse(0.001)
        assert crowd.refused == [("c0", 1.0)]
        await crowd.gone()


@on_manual_time
async def test_those_who_wait_are_told_their_place_as_it_changes() -> None:
    async with make(FakeSource(), cap=1) as pool:
        crowd = Crowd(pool)
        crowd.come("a0")
        await elapse(0.5)
        for name in ("a1", "a2", "b0"):
            crowd.come(name)
        await elapse(0.06)
        assert crowd.places == {"a0": [], "a1": [1], "a2": [3], "b0": [2]}
        await crowd.gone()
        assert crowd.places == {"a0": [], "a1": [1], "a2": [3, 2, 1], "b0": [2, 1]}


@on_manual_time
async def test_nobody_is_told_a_place_while_there_is_room_for_all() -> None:
    async with make(FakeSource(seconds=3), cap=9) as pool:
        crowd = Crowd(pool)
        for at in range(9):
            crowd.come(f"a{at}")
        await crowd.gone()
        assert not any(crowd.places.values())


@on_manual_time
async def test_who_leaves_makes_the_others_move_up() -> None:
    async with make(FakeSource(), cap=1) as pool:
        crowd = Crowd(pool)
        crowd.come("a0", stay=50)
        await elapse(1)
        crowd.come("a1")
        crowd.come("a2")
        await elapse(1)
        crowd.tasks[1].cancel()
        await elapse(0.1)
        assert crowd.places["a2"] == [2, 1]
        crowd.tasks.pop(1)
        await crowd.gone()


@on_manual_time
async def test_a_session_with_files_waits_in_turn_as_well() -> None:
    async with make(FakeSource(), cap=1) as pool:
        crowd = Crowd(pool)
        crowd.come("a0")
        await elapse(0.5)
        for name in ("a1", "a2", "b0"):
            crowd.come(name, files=True)
        await crowd.gone()
        assert crowd.served == ["a0", "a1", "b0", "a2"]


@pytest.mark.parametrize("first", [0, 1])
def test_profiles_take_turns_on_a_full_node(first: int) -> None:
    async def scene() -> None:
        budget = Budget(1)
        pools = [make(FakeSource(name), budget=budget, cap=9) for name in ("p", "q")]
        async with pools[0], pools[1]:
            crowds = [Crowd(pool) for pool in pools]
            order: list[str] = []
            for crowd in crowds:
                crowd.served = order
            for at in range(20):
                crowds[first].come(f"a{at}")
            await elapse(0.5)
            for at in range(3):
                crowds[1 - first].come(f"b{at}")
            await asyncio.gather(*(crowd.gone() for crowd in crowds))
            assert len(order) == 23
            assert [at for at, name in enumerate(order) if name[0] == "b"] == [1, 3, 5]

    sync: Callable[[], None] = on_manual_time(scene)
    sync()
