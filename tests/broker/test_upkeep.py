"""Leases, uses and ends in time, on a clock set by hand and a store in memory."""

from __future__ import annotations

import asyncio

import pytest

from broker.errors import StoreUnavailable
from broker.protocol import OpenQuery
from broker.requests import Execute
from broker.upkeep import END_PATIENCE, Upkeep
from kernels.state import SessionState
from tests.broker.pool_fakes import elapse, now, on_manual_time
from tests.broker.service_fakes import House
from tests.broker.session_fakes import FakeClient
from tests.broker.test_service import KEY, opened

LEASE = 15.0


def upkeep(house: House) -> Upkeep:
    return Upkeep(house.service, lease=LEASE, describe=house.node, clock=now)


@on_manual_time
async def test_leases_and_the_node_are_renewed_every_third_of_a_lease() -> None:
    house = House()
    async with upkeep(house):
        await opened(house)
        assert (house.store.renewals, house.store.own is not None) == (1, True)
        await elapse(LEASE + 0.1)
        assert house.store.renewals == 4
    assert house.store.own is None


@on_manual_time
async def test_a_session_that_has_moved_is_given_up() -> None:
    house, client = House(), FakeClient()
    async with upkeep(house):
        session = await opened(house)
        session.attach(client)
        house.store.lost.add(KEY)
        await elapse(LEASE / 3 + 0.1)
        assert client.ends[0][0] == 4409
        assert (house.pool.discarded, house.service.sessions) == (["k1"], {})
        assert session.state is SessionState.CLOSED


@on_manual_time
async def test_a_session_that_was_restarted_during_a_renewal_keeps_its_new_kernel() -> None:
    house = House()
    async with upkeep(house):
        session = await opened(house)
        house.store.hold_renewals.clear()
        await elapse(LEASE / 3)
        assert await house.service.restart(session) == 2
        house.store.hold_renewals.set()
        await elapse()
        assert house.service.sessions[KEY] is session
        assert (session.state, session.kernel) == (SessionState.READY, house.pool.given[1])
        assert house.pool.discarded == ["k1"]


@on_manual_time
async def test_a_session_whose_kernel_died_during_a_renewal_gets_another() -> None:
    house, client = House(), FakeClient()
    async with upkeep(house):
        session = await opened(house)
        session.attach(client)
        house.store.hold_renewals.clear()
        await elapse(LEASE / 3)
        house.pool.given[0].exited.set_result("exit 3")
        await elapse(0.1)
        house.store.hold_renewals.set()
        await elapse()
        assert (client.ends, house.service.sessions) == ([], {KEY: session})
        session.work.submit(Execute(id="a", code="1"), client)
        await elapse()
        assert (session.generation, session.lost_reason) == (2, "exit 3")


@on_manual_time
async def test_a_restart_before_it_is_given_up_is_the_sessions_own_business() -> None:
    house = House()
    async with upkeep(house):
        session = await opened(house)
        house.store.lost.add(KEY)
        async with session.gate:
            restarting = asyncio.create_task(house.service.restart(session))
            await elapse(LEASE / 3)
        assert await restarting == 2
        await elapse()
        assert house.service.sessions[KEY] is session
        assert session.kernel is house.pool.given[1]


@on_manual_time
async def test_a_gate_that_is_held_does_not_hold_up_the_renewals() -> None:
    house = House()
    async with upkeep(house):
        session = await opened(house)
        house.store.lost.add(KEY)
        async with session.gate:
            await elapse(LEASE + 0.1)
            assert house.store.renewals == 4
        await elapse()
        assert (house.pool.discarded, house.service.sessions) == (["k1"], {})


@on_manual_time
async def test_a_one_shot_that_ends_during_a_renewal_leaves_nothing_behind() -> None:
    house = House()
    async with upkeep(house):
        async with house.service.once("acme", OpenQuery()):
            await elapse()
            house.store.hold_renewals.clear()
            await elapse(LEASE / 3)
        house.store.hold_renewals.set()
        await elapse(1.0)
        assert house.store.records == {}


@on_manual_time
async def test_a_use_is_written_behind_in_one_go() -> None:
    house = House()
    async with upkeep(house):
        for index in range(3):
            await opened(house, ("acme", f"s{index}"))
        assert house.store.touched == []
        await elapse(1.0)
        assert sorted(row.session for row in house.store.touched) == ["s0", "s1", "s2"]
        assert {row.generation for row in house.store.touched} == {1}


@on_manual_time
async def test_a_use_that_could_not_be_written_is_written_later() -> None:
    house, client = House(), FakeClient()
    async with upkeep(house):
        first, second = await opened(house), await opened(house, ("acme", "other"))
        house.store.down = True
        await elapse(1.0)
        assert house.store.touched == []
        first.attach(client)
        first.work.submit(Execute(id="a", code="1"), client)
        house.store.down = False
        house.service.executed(first, "ok", 0.1)
        await elapse(1.0)
        states = {row.session: row.state for row in house.store.touched}
        assert states == {"chat": "busy", "other": str(second.state)}


@on_manual_time
async def test_a_use_that_could_not_be_written_waits_for_no_other_use() -> None:
    house = House()
    async with upkeep(house):
        await opened(house)
        house.store.down = True
        await elapse(1.0)
        house.store.down = False
        await elapse(LEASE / 3)
        assert [row.session for row in house.store.touched] == ["chat"]


@on_manual_time
async def test_no_use_tells_of_an_end_before_the_release_does() -> None:
    house = House()
    async with upkeep(house):
        session = await opened(house)
        async with session.gate:
            ending = asyncio.create_task(house.service.end(KEY, "killed"))
            await elapse(1.0)
            assert {row.state for row in house.store.touched} == {"ready"}
        await ending
    assert {row.state for row in house.store.touched} == {"ready"}


@on_manual_time
async def test_uses_not_yet_written_are_written_at_the_end() -> None:
    house = House()
    async with upkeep(house):
        await opened(house)
    assert [row.session for row in house.store.touched] == ["chat"]


@on_manual_time
async def test_a_store_that_is_away_at_the_end_does_not_keep_it_from_ending() -> None:
    house = House()
    async with upkeep(house):
        await opened(house)
        house.store.down = True


@on_manual_time
async def test_a_node_does_not_begin_without_its_store() -> None:
    house = House()
    house.store.down = True
    async with upkeep(house) as kept:
        session = await opened(house)
        assert not kept.store_reachable
        assert session.state is SessionState.OPENING  # it may be back before leases are in doubt


@on_manual_time
async def test_sessions_suspend_before_their_lease_can_end_and_go_on_when_the_store_is_back() -> (
    None
):
    house, client = House(), FakeClient()
    async with upkeep(house) as kept:
        session = await opened(house)
        session.attach(client)
        house.store.down = True
        await elapse(LEASE * 2 / 3 - 0.1)
        assert session.state is SessionState.READY
        await elapse(LEASE / 3)
        assert session.state is SessionState.SUSPENDED
        assert not kept.store_reachable
        with pytest.raises(StoreUnavailable):
            session.work.submit(Execute(id="a", code="1"), client)
        assert house.pool.discarded == []
        house.store.down = False
        await elapse(LEASE / 3)
        assert (session.state, kept.store_reachable) == (SessionState.READY, True)
        assert session.kernel is house.pool.given[0]


@on_manual_time
async def test_a_renewal_that_hangs_suspends_the_sessions_in_time() -> None:
    house = House()
    async with upkeep(house) as kept:
        session = await opened(house)
        house.store.hold_renewals.clear()
        await elapse(LEASE * 2 / 3 - 0.1)
        assert session.state is SessionState.READY
        await elapse(0.2)
        assert (session.state, kept.store_reachable) == (SessionState.SUSPENDED, False)
        house.store.hold_renewals.set()
        await elapse(LEASE / 3)
        assert (session.state, kept.store_reachable) == (SessionState.READY, True)


@on_manual_time
async def test_the_store_is_out_of_reach_from_the_first_renewal_that_failed() -> None:
    house = House()
    async with upkeep(house) as kept:
        session = await opened(house)
        house.store.down = True
        await elapse(LEASE / 3 + 0.1)
        assert (session.state, kept.store_reachable) == (SessionState.READY, False)
        house.store.down = False
        await elapse(LEASE / 3)
        assert kept.store_reachable


@on_manual_time
async def test_a_node_record_that_cannot_be_written_is_no_failed_renewal() -> None:
    house = House()
    async with upkeep(house) as kept:
        await opened(house)
        other = await opened(house, ("acme", "other"))
        house.store.no_nodes = True
        house.store.lost.add(KEY)
        await elapse(LEASE)
        assert (kept.store_reachable, other.state) == (True, SessionState.READY)
        assert house.service.sessions == {other.key: other}


# Ends in time


@on_manual_time
async def test_a_session_that_became_busy_meanwhile_is_not_ended() -> None:
    house, client = House(idle_timeout=3600.0), FakeClient()
    first, second = await opened(house), await opened(house, ("acme", "other"))
    second.attach(client)
    for session in (first, second):
        session.work.last_used -= 7200.0
    async with upkeep(house):
        async with first.gate:
            await elapse()
            assert first.state is SessionState.CLOSED
            second.work.submit(Execute(id="a", code="1"), client)
        await elapse()
        assert (client.ends, house.service.sessions) == ([], {second.key: second})


@on_manual_time
async def test_an_end_that_hangs_keeps_no_other_session_from_its_own() -> None:
    house = House(idle_timeout=3600.0)
    first, second = await opened(house), await opened(house, ("acme", "other"))
    for session in (first, second):
        session.work.last_used -= 7200.0
    async with upkeep(house), first.gate:
        await elapse(END_PATIENCE - 0.1)
        assert house.service.sessions == {second.key: second}
        await elapse(0.2)
        assert house.service.sessions == {}
