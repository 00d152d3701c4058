"""Claim, renew, release and touch: each branch of each script, on a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from broker.past import read_generations
from broker.store import Claim, Lease, SessionRecord, Store, Touch

NOW = 1_700_000_000.25
END = NOW + 1800
LEASE = Lease("acme", "chat", 1, "k1", "python", "ready", NOW, NOW + 5, END)


@dataclass
class World:
    """Two nodes on one mapping, and a plain client to look and to break things with."""

    one: Store
    two: Store
    raw: Redis
    prefix: str

    @property
    def session(self) -> str:
        return f"{self.prefix}:session:{{acme/chat}}"

    @property
    def lease(self) -> str:
        return f"{self.prefix}:lease:{{acme/chat}}"

    async def lose_lease(self) -> None:
        """Do what time does to an owner that has stopped renewing."""
        await self.raw.delete(self.lease)

    async def lose_everything(self) -> None:
        await self.raw.delete(self.lease, self.session)

    async def record(self) -> SessionRecord | None:
        return await self.one.get("acme", "chat")


@pytest_asyncio.fixture
async def world(make_store, valkey_url: str, prefix: str) -> AsyncIterator[World]:
    async with Redis.from_url(valkey_url, decode_responses=True) as raw:
        yield World(await make_store("n1"), await make_store("n2"), raw, prefix)


async def claim(
    store: Store, kernel: str = "k1", *, now: float = NOW, expires: float = END
) -> Claim:
    return await store.claim(
        "acme", "chat", kernel=kernel, profile="python", now=now, expires=expires
    )


async def release(store: Store, generation: int = 1, reason: str = "killed", keep: float = 60.0):
    return await store.release("acme", "chat", generation, reason=reason, now=NOW + 9, keep=keep)


# claim


async def test_a_new_session_is_generation_one(world: World) -> None:
    assert await claim(world.one) == Claim("claimed", 1, "n1", "", "", NOW)
    assert await world.record() == SessionRecord(
        "acme", "chat", "n1", "k1", 1, "python", "opening", "", "", NOW, NOW, END, True
    )
    assert await world.raw.get(world.lease) == "n1:1"
    assert 14_000 < await world.raw.pttl(world.lease) <= 15_000
    # It outlives the session's own end by `keep`, so that a late claim still counts on.
    assert 5_390_000 < await world.raw.pttl(world.session) <= 5_400_000


async def test_a_session_without_an_end_is_kept_for_good(world: World) -> None:
    await claim(world.one, expires=0.0)
    assert await world.raw.pttl(world.session) == -1


async def test_a_held_session_names_its_owner_and_generation(world: World) -> None:
    await claim(world.one)
    before = await world.record()
    assert await claim(world.two, "k2", now=NOW + 1) == Claim("held", 1, "n1", "", "", NOW)
    assert await world.record() == before


async def test_a_node_that_claims_what_it_holds_is_told_so(world: World) -> None:
    await claim(world.one)
    assert await claim(world.one, "k2", now=NOW + 1) == Claim("held", 1, "n1", "", "", NOW)


async def test_a_claim_whose_reply_was_lost_is_answered_alike(world: World) -> None:
    first = await claim(world.one)
    assert await claim(world.one, now=NOW + 1) == first
    await world.lose_lease()
    assert await claim(world.one, now=NOW + 2) == first
    assert await world.raw.get(world.lease) == "n1:1"


async def test_a_repeated_take_over_still_says_what_was_lost(world: World) -> None:
    await claim(world.one)
    await world.lose_lease()
    taken = await claim(world.two, "k2", now=NOW + 1)
    assert await claim(world.two, "k2", now=NOW + 2) == taken


async def test_a_lost_lease_is_taken_over_as_the_next_generation(world: World) -> None:
    await claim(world.one)
    await world.lose_lease()
    taken = await claim(world.two, "k2", now=NOW + 99)
    assert taken == Claim("claimed", 2, "n2", "k1", "node_lost", NOW)
    record = await world.record()
    assert record is not None
    assert (record.node, record.kernel, record.generation) == ("n2", "k2", 2)
    assert (record.previous, record.reason, record.created) == ("k1", "node_lost", NOW)


async def test_the_node_itself_takes_over_when_its_own_lease_ran_out(world: World) -> None:
    await claim(world.one)
    await world.lose_lease()
    assert await claim(world.one, "k2") == Claim("claimed", 2, "n1", "k1", "node_lost", NOW)


async def test_a_closed_session_is_reopened_as_the_next_generation_with_its_reason(
    world: World,
) -> None:
    await claim(world.one, expires=0.0)
    await release(world.one, reason="idle")
    later = NOW + 20
    again = await claim(world.two, "k2", now=later, expires=0.0)
    assert again == Claim("claimed", 2, "n2", "k1", "idle", later)
    assert await world.raw.pttl(world.session) == -1  # the closed record's end is lifted


async def test_a_lease_without_a_record_still_holds(world: World) -> None:
    await world.raw.set(world.lease, "name:with:colons:7")
    assert await claim(world.one) == Claim("held", 7, "name:with:colons", "", "", NOW)


async def test_a_lease_of_another_generation_outweighs_a_repeated_claim(world: World) -> None:
    await claim(world.one)
    await world.raw.set(world.lease, "n2:2")
    assert await claim(world.one) == Claim("held", 2, "n2", "", "", NOW)


# renew


async def test_a_renewal_extends_the_lease_and_changes_nothing_else(world: World) -> None:
    await claim(world.one)
    before = await world.record()
    await world.raw.pexpire(world.lease, 1000)
    assert await world.one.renew([LEASE]) == ["ok"]
    assert await world.raw.pttl(world.lease) > 14_000
    assert await world.record() == before


async def test_a_lease_that_ran_out_untaken_is_written_again(world: World) -> None:
    await claim(world.one)
    before = await world.record()
    await world.lose_lease()
    assert await world.one.renew([LEASE]) == ["rewritten"]
    assert await world.record() == before


@pytest.mark.parametrize(("expires", "shortest", "longest"), [(END, 5e6, 5.4e6), (0.0, -1, -1)])
async def test_an_emptied_store_gets_the_whole_claim_again(
    world: World, expires: float, shortest: float, longest: float
) -> None:
    lease = replace(LEASE, generation=3, expires=expires)
    assert await world.one.renew([lease]) == ["rewritten"]
    assert await world.record() == SessionRecord(
        *("acme", "chat", "n1", "k1", 3, "python", "ready", "", ""),
        *(NOW, NOW + 5, expires, True),
    )
    assert await world.raw.get(world.lease) == "n1:3"
    assert shortest <= await world.raw.pttl(world.session) <= longest


async def test_a_record_that_went_alone_is_written_again(world: World) -> None:
    await claim(world.one)
    await world.raw.delete(world.session)
    assert await world.one.renew([LEASE]) == ["rewritten"]
    assert await world.record() is not None


async def test_a_renewal_after_a_take_over_is_lost_and_leaves_the_taker_alone(
    world: World,
) -> None:
    await claim(world.one)
    await world.lose_lease()
    await claim(world.two, "k2")
    before = await world.record()
    assert await world.one.renew([LEASE]) == ["lost"]
    assert await world.record() == before
    assert await world.raw.get(world.lease) == "n2:2"


async def test_a_higher_generation_in_the_lease_alone_is_lost_too(world: World) -> None:
    await world.raw.set(world.lease, "n2:2")
    assert await world.one.renew([LEASE]) == ["lost"]


async def test_a_higher_generation_outlives_its_lease(world: World) -> None:
    await claim(world.one)
    await world.lose_lease()
    await claim(world.two, "k2")
    await world.lose_lease()
    assert await world.one.renew([LEASE]) == ["lost"]


async def test_a_late_renewal_does_not_reopen_a_released_session(world: World) -> None:
    await claim(world.one)
    await release(world.one)
    assert await world.one.renew([LEASE]) == ["lost"]
    assert await world.raw.exists(world.lease) == 0


async def test_the_higher_generation_wins_back_an_emptied_store(world: World) -> None:
    await claim(world.two, "k2", now=NOW + 50)  # after the store was emptied
    assert await world.one.renew([replace(LEASE, generation=3)]) == ["rewritten"]
    newcomer = Lease("acme", "chat", 1, "k2", "python", "ready", NOW + 50, NOW + 50, END)
    assert await world.two.renew([newcomer]) == ["lost"]


@pytest.mark.parametrize(("created", "kernel"), [(NOW + 50, "k0"), (NOW, "k2")])
async def test_of_two_equal_generations_the_older_session_stands(
    world: World, created: float, kernel: str
) -> None:
    await claim(world.two, kernel, now=created)
    newcomer = Lease("acme", "chat", 1, kernel, "python", "ready", created, created, END)
    assert await world.two.renew([newcomer]) == ["ok"]
    assert await world.one.renew([LEASE]) == ["rewritten"]
    assert await world.two.renew([newcomer]) == ["lost"]
    assert await world.one.renew([LEASE]) == ["ok"]


@pytest.mark.parametrize(("created", "kernel"), [(NOW - 50, "k9"), (NOW, "k0")])
async def test_of_two_equal_generations_the_newer_session_gives_way(
    world: World, created: float, kernel: str
) -> None:
    await claim(world.two, kernel, now=created)
    assert await world.one.renew([LEASE]) == ["lost"]
    assert await world.raw.get(world.lease) == "n2:1"


async def test_many_leases_are_renewed_in_order(world: World) -> None:
    leases = [replace(LEASE, session=f"s{at}") for at in range(50)]
    for held in leases[::2]:
        await world.one.claim(
            "acme", held.session, kernel="k1", profile="python", now=NOW, expires=END
        )
    assert await world.one.renew(leases) == ["ok", "rewritten"] * 25
    assert await world.one.renew([]) == []


# release


async def test_a_release_keeps_the_reason_and_clears_the_kernel(world: World) -> None:
    await claim(world.one)
    assert await release(world.one) is True
    assert await world.record() == SessionRecord(
        *("acme", "chat", "n1", "", 1, "python", "closed", "k1", "killed"),
        *(NOW, NOW, NOW + 69, False),
    )
    assert 50_000 < await world.raw.pttl(world.session) <= 60_000


async def test_releasing_twice_keeps_the_first_reason(world: World) -> None:
    await claim(world.one)
    assert await release(world.one, reason="oom") is True
    assert await release(world.one, reason="killed") is True
    record = await world.record()
    assert record is not None
    assert (record.reason, record.previous) == ("oom", "k1")


async def test_a_release_is_fenced_by_a_higher_generation(world: World) -> None:
    await claim(world.one)
    await world.lose_lease()
    await claim(world.two, "k2")
    before = await world.record()
    assert await release(world.one) is False
    assert await world.record() == before


async def test_a_release_is_fenced_by_another_node_of_the_same_generation(world: World) -> None:
    await claim(world.two)
    assert await release(world.one) is False


@pytest.mark.parametrize("lease", ["n2:1", "n2:2", "n1:2"])
async def test_a_release_is_fenced_by_a_lease_alone(world: World, lease: str) -> None:
    await world.raw.set(world.lease, lease)
    assert await release(world.one) is False
    assert await world.raw.get(world.lease) == lease


async def test_a_release_into_an_emptied_store_still_counts(world: World) -> None:
    assert await release(world.one, 4, "oom") is True
    record = await world.record()
    assert record is not None
    assert (record.state, record.generation, record.reason) == ("closed", 4, "oom")
    assert await claim(world.two, "k2") == Claim("claimed", 5, "n2", "", "oom", NOW)


async def test_a_release_overrules_a_lower_generation(world: World) -> None:
    await claim(world.two, "k2")
    assert await release(world.one, 4, "oom") is True
    assert await world.raw.exists(world.lease) == 0


async def test_a_release_that_keeps_nothing_leaves_nothing(world: World) -> None:
    await claim(world.one)
    await world.one.touch([Touch("acme", "chat", 1, "ready", NOW, END)])
    assert await release(world.one, keep=0.0) is True
    assert await world.raw.keys(f"{world.prefix}:*") == []


# touch


async def test_a_touch_writes_use_state_and_end(world: World) -> None:
    await claim(world.one)
    await world.one.touch([Touch("acme", "chat", 1, "busy", NOW + 7, 0.0)])
    record = await world.record()
    assert record is not None
    assert (record.state, record.last_used, record.expires) == ("busy", NOW + 7, 0.0)
    assert await world.raw.pttl(world.session) == -1
    await world.one.touch([Touch("acme", "chat", 1, "ready", NOW + 8, NOW + 68)])
    assert 3_650_000 < await world.raw.pttl(world.session) <= 3_660_000
    # And nothing elsewhere.
    assert {*await world.raw.keys(f"{world.prefix}:*")} == {world.session, world.lease}


@pytest.mark.parametrize("node", ["n1", "n2"])
async def test_a_touch_of_anothers_record_changes_nothing(world: World, node: str) -> None:
    await claim(world.one)
    before = await world.record()
    store, generation = (world.one, 2) if node == "n1" else (world.two, 1)
    await store.touch([Touch("acme", "chat", generation, "busy", NOW + 7, END)])
    assert await world.record() == before


async def test_a_touch_does_not_reopen_a_closed_session(world: World) -> None:
    await claim(world.one)
    await release(world.one)
    before = await world.record()
    await world.one.touch([Touch("acme", "chat", 1, "busy", NOW + 7, END)])
    assert await world.record() == before


async def test_a_touch_makes_no_half_record(world: World) -> None:
    await world.one.touch([Touch("acme", "chat", 1, "busy", NOW + 7, END)])
    assert await world.raw.exists(world.session) == 0
    await world.one.touch([])


# history


async def generations(world: World) -> list[tuple[int, float | None, float | None, str]]:
    found = await world.record()
    assert found is not None
    return [tuple(one) for one in read_generations(found.history)]


async def test_each_generation_that_ends_is_noted_with_its_time_and_reason(world: World) -> None:
    first = await claim(world.one)
    assert first.history == ""
    await release(world.one, reason="oom")
    assert await generations(world) == [(1, NOW, NOW + 9, "oom")]
    second = await claim(world.one, "k2", now=NOW + 20)
    assert [tuple(one) for one in read_generations(second.history)] == await generations(world)
    record = await world.record()
    assert record is not None
    assert record.began == NOW + 20
    await world.lose_lease()
    await claim(world.two, "k3", now=NOW + 30)
    assert await generations(world) == [
        (1, NOW, NOW + 9, "oom"),
        (2, NOW + 20, NOW + 30, "node_lost"),
    ]


async def test_a_generation_is_noted_once_however_often_it_is_released(world: World) -> None:
    await claim(world.one)
    await release(world.one)
    await release(world.one)
    assert len(await generations(world)) == 1


async def test_the_last_sixteen_generations_are_kept(world: World) -> None:
    for number in range(1, 20):
        await claim(world.one, f"k{number}")
        await release(world.one, number)
    assert [one[0] for one in await generations(world)] == list(range(4, 20))


async def test_of_a_claim_that_was_written_again_nobody_knows_when_it_began(world: World) -> None:
    await claim(world.one)
    await world.lose_everything()
    assert await world.one.renew([LEASE]) == ["rewritten"]
    record = await world.record()
    assert record is not None
    assert (record.began, record.history) == (0.0, "")
    await release(world.one)
    assert await generations(world) == [(1, None, NOW + 9, "killed")]
