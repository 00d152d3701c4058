"""The service: who gets which kernel, under which claim, and what is given back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any, cast

import pytest

from broker.adoption import Label
from broker.errors import (
    AtCapacity,
    BadMessage,
    Draining,
    SessionElsewhere,
    SessionLost,
    StoreUnavailable,
    UnknownProfile,
    UnknownSession,
)
from broker.marks import FREE
from broker.pool import Pool
from broker.pools import Pools
from broker.protocol import OpenQuery
from broker.requests import Execute
from broker.session import Session
from broker.store import NodeRecord, SessionRecord
from kernels.messages import Message
from kernels.state import SessionState
from tests.broker.pool_fakes import elapse, now, on_manual_time
from tests.broker.service_fakes import House, SilentKernel
from tests.broker.session_fakes import FakeClient

KEY = ("acme", "chat")
OPEN = OpenQuery()


async def opened(house: House, key: tuple[str, str] = KEY) -> Session:
    session = await house.service.open(*key, OPEN)
    await elapse()
    return session


def foreign(node: str = "n2") -> SessionRecord:
    return SessionRecord(*KEY, node, "k9", 4, "python", "ready", "", "", 1.0, 1.0, 9e9, True)


class Asking:
    """Whoever asks for another kernel in the very moment that one is lost."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def take(self, channel: str, message: Message) -> bool:
        return False

    def bound(self) -> None:
        pass

    def ended(self, reason: str) -> None:
        self._session.host.need_kernel(self._session)

    def close(self) -> None:
        pass


# Opening


@on_manual_time
async def test_many_that_open_one_session_at_once_get_one_kernel() -> None:
    house = House()
    found = await asyncio.gather(*(house.service.open(*KEY, OPEN) for _ in range(9)))
    assert len({id(session) for session in found}) == 1
    await elapse()
    assert len(house.pool.given) == 1
    assert (found[0].generation, found[0].state) == (1, SessionState.READY)


@on_manual_time
async def test_a_kernel_is_labelled_with_its_session_for_the_next_broker() -> None:
    house = House()
    await opened(house)
    [label] = house.pool.given[0].labels
    assert json.loads(label) == {"tenant": "acme", "session": "chat", "generation": 1}


@on_manual_time
async def test_the_pool_refills_after_the_first_answer_or_a_moment() -> None:
    house = House()
    await opened(house)
    assert house.pool.settled == []
    await elapse(1.0)
    assert house.pool.settled == ["k1"]


@on_manual_time
async def test_the_pool_refills_after_the_first_answer_of_each_of_a_sessions_kernels() -> None:
    house = House()
    session = await opened(house)
    house.service.executed(session, "ok", 0.1)
    assert house.pool.settled == ["k1"]
    await house.service.restart(session)
    house.service.executed(session, "ok", 0.1)
    assert house.pool.settled == ["k1", "k2"]


@on_manual_time
async def test_an_unknown_profile_and_an_absent_session_are_refused_and_make_nothing() -> None:
    house = House()
    with pytest.raises(UnknownProfile):
        await house.service.open(*KEY, OpenQuery(profile="absent"))
    with pytest.raises(UnknownSession):
        await house.service.open(*KEY, OpenQuery(create=False))
    await house.service.drain()
    with pytest.raises(Draining):
        await house.service.open(*KEY, OPEN)
    assert (house.service.sessions, house.pool.given) == ({}, [])


@on_manual_time
async def test_a_session_keeps_its_profile() -> None:
    house = House()
    pool = cast(Pool[Any], house.pool)
    house.service.pools = Pools({"python": pool, "other": pool})
    await opened(house)
    with pytest.raises(BadMessage) as refused:
        await house.service.open(*KEY, OpenQuery(profile="other"))
    assert refused.value.field == "profile"
    await house.service.open(*KEY, OpenQuery(profile="python"))


@on_manual_time
async def test_who_watches_or_joins_makes_nothing_and_is_sent_to_where_the_session_is() -> None:
    for query in (OpenQuery(mode="watch"), OpenQuery(joins=True)):
        house = House()
        with pytest.raises(UnknownSession):
            await house.service.open(*KEY, query)
        house.store.records[KEY] = replace(foreign(), leased=False)
        with pytest.raises(UnknownSession):
            await house.service.open(*KEY, query)
        house.store.records[KEY] = foreign()
        with pytest.raises(SessionElsewhere):
            await house.service.open(*KEY, query)
        assert (house.service.sessions, house.pool.given) == ({}, [])


@on_manual_time
async def test_who_watches_what_is_opened_at_the_same_time_joins_it() -> None:
    house = House()
    look = house.store.get

    async def get(tenant: str, session: str) -> Any:
        house.store.get = look
        await house.service.open(*KEY, OpenQuery())
        return await look(tenant, session)

    house.store.get = get
    session = await house.service.open(*KEY, OpenQuery(mode="watch"))
    assert session is house.service.sessions[KEY]


@on_manual_time
async def test_who_watches_a_session_without_a_kernel_waits_for_somebody_who_needs_one() -> None:
    house = House()
    session = await opened(house)
    house.pool.given[0].kill()
    await elapse(1)
    assert await house.service.open(*KEY, OpenQuery(mode="watch")) is session
    await elapse(1)
    assert len(house.pool.given) == 1
    await house.service.open(*KEY, OPEN)
    await elapse(1)
    assert (len(house.pool.given), session.generation) == (2, 2)


@on_manual_time
async def test_a_session_of_another_node_is_refused_with_its_address() -> None:
    house = House()
    house.store.records[KEY] = foreign()
    house.store.others["n2"] = NodeRecord("n2", "http://n2", "1", 1, 0, 0, False, 0.0)
    session, client = await house.service.open(*KEY, OPEN), FakeClient()
    session.attach(client)
    session.work.submit(Execute(id="a", code="1"), client)
    await elapse()
    [(request_id, error)] = client.faults
    assert request_id == "a"
    assert isinstance(error, SessionElsewhere)
    assert (error.node, error.url) == ("n2", "http://n2")
    assert client.ends[0][0] == 4409
    assert (house.service.sessions, house.pool.discarded) == ({}, ["k1"])
    with pytest.raises(SessionElsewhere):
        await house.service.end(KEY, "killed by operator")


@pytest.mark.parametrize("error", [AtCapacity("no room"), StoreUnavailable("away")])
def test_a_session_that_cannot_be_bound_leaves_nothing_behind(error: Any) -> None:
    @on_manual_time
    async def scene() -> None:
        house = House()
        house.pool.error = error if isinstance(error, AtCapacity) else None
        house.store.down = isinstance(error, StoreUnavailable)
        session, client = await house.service.open(*KEY, OPEN), FakeClient()
        session.attach(client)
        session.work.submit(Execute(id="a", code="1"), client)
        await elapse()
        assert [(name, type(fault)) for name, fault in client.faults] == [("a", type(error))]
        session.detach(client)
        await elapse()
        assert house.service.sessions == {}
        assert len(house.pool.discarded) == len(house.pool.given)

    scene()


# Ending


@on_manual_time
async def test_an_ended_session_is_the_next_generation_with_the_reason() -> None:
    house, client = House(), FakeClient()
    (await opened(house)).attach(client)
    assert await house.service.end(KEY, "killed by operator") == 1
    assert client.ends == [(4404, "killed by operator")]
    assert (house.pool.discarded, house.service.sessions) == (["k1"], {})
    again = await opened(house)
    assert (again.generation, again.lost_reason) == (2, "killed by operator")
    await house.service.end(KEY, "idle")
    with pytest.raises(UnknownSession):
        await house.service.end(KEY, "twice")


@on_manual_time
async def test_opening_while_the_old_one_ends_waits_for_its_release() -> None:
    house = House()
    await opened(house)
    ending = asyncio.create_task(house.service.end(KEY, "killed by operator"))
    await asyncio.sleep(0)
    again = await opened(house)
    await ending
    assert (again.generation, again.lost_reason) == (2, "killed by operator")
    assert house.service.sessions[KEY] is again


@on_manual_time
async def test_who_asks_for_a_new_kernel_at_once_is_told_why_the_last_one_ended() -> None:
    house = House()
    session = await opened(house)
    session.tap = Asking(session)
    house.pool.given[0].exited.set_result("exit 3")
    await elapse(1.0)
    assert (session.generation, session.lost_reason) == (2, "exit 3")
    assert house.pool.discarded == ["k1"]  # before there was another: both have the same files


@on_manual_time
async def test_a_release_that_did_not_reach_the_store_is_made_up_for_with_its_reason() -> None:
    house = House()
    session = await opened(house)
    house.store.down = True
    house.pool.given[0].exited.set_result("exit 3")
    await elapse(1.0)
    house.store.down = False
    house.service.need_kernel(session)
    await elapse()
    assert (session.generation, session.lost_reason) == (2, "exit 3")


@on_manual_time
async def test_a_session_ended_while_it_is_being_bound_gives_its_kernel_back() -> None:
    house = House()
    house.store.hold.clear()
    await house.service.open(*KEY, OPEN)
    await elapse()
    ending = asyncio.create_task(house.service.end(KEY, "killed by operator"))
    await elapse()
    house.store.hold.set()
    await ending
    await elapse()
    assert house.pool.discarded == ["k1"]
    assert not house.store.records[KEY].leased
    assert house.service.sessions == {}


@on_manual_time
async def test_nothing_queued_is_sent_once_the_end_was_asked_for() -> None:
    house, client = House(), FakeClient()
    house.store.hold.clear()
    session = await house.service.open(*KEY, OPEN)
    session.attach(client)
    session.work.submit(Execute(id="a", code="1"), client)
    await elapse()
    ending = asyncio.create_task(house.service.end(KEY, "killed by operator"))
    await elapse()
    assert client.ends == [(4404, "killed by operator")]
    house.store.hold.set()
    await ending
    await elapse()
    assert [kernel.channels.sent for kernel in house.pool.given] == [[]]
    assert house.pool.discarded == ["k1"]
    record = house.store.records[KEY]
    assert (record.generation, record.state, record.reason) == (1, "closed", "killed by operator")


@on_manual_time
async def test_a_session_that_waits_for_its_restart_ends_at_once() -> None:
    house = House()
    session = await opened(house)
    house.pool.has_any.clear()
    restarting = asyncio.create_task(house.service.restart(session))
    await elapse()
    began = now()
    assert await house.service.end(KEY, "killed by operator") == 1
    assert now() - began < 0.1
    with pytest.raises(SessionLost):
        await restarting
    house.pool.has_any.set()
    await elapse(10.0)
    assert (len(house.pool.given), house.pool.discarded) == (1, ["k1"])


@on_manual_time
async def test_a_session_that_waits_for_a_kernel_ends_at_once() -> None:
    house, client = House(), FakeClient()
    house.pool.has_any.clear()
    session = await house.service.open(*KEY, OPEN)
    session.attach(client)
    session.work.submit(Execute(id="a", code="1"), client)
    await elapse()
    began = now()
    assert await house.service.end(KEY, "killed by operator") == 0
    assert now() - began < 0.1
    assert client.ends == [(4404, "killed by operator")]
    house.pool.has_any.set()
    await elapse(10.0)
    assert (house.pool.given, house.store.records, house.service.sessions) == ([], {}, {})


@on_manual_time
async def test_a_store_that_is_away_does_not_keep_a_session_from_ending() -> None:
    house = House()
    await opened(house)
    house.store.down = True
    assert await house.service.end(KEY, "killed by operator") == 1
    assert house.pool.discarded == ["k1"]
    house.store.down = False
    # Its claim is still there, and this node's own: it is taken over.
    assert (await opened(house)).generation == 2


@on_manual_time
async def test_a_dead_kernel_is_given_back_and_the_next_one_says_why() -> None:
    house = House()
    session, client = await opened(house), FakeClient()
    session.attach(client)
    house.pool.given[0].exited.set_result("exit 3")
    await elapse(1.0)
    assert house.pool.discarded == ["k1"]
    assert house.store.records[KEY].reason == "exit 3"
    session.work.submit(Execute(id="a", code="1"), client)
    await elapse()
    assert (session.generation, session.lost_reason) == (2, "exit 3")
    assert house.pool.given[1].channels.sent == ["1"]


@on_manual_time
async def test_closing_the_service_ends_every_session_with_1001() -> None:
    house, clients = House(), [FakeClient(), FakeClient()]
    for index, client in enumerate(clients):
        (await opened(house, ("acme", f"s{index}"))).attach(client)
    await house.service.aclose()
    assert [client.ends for client in clients] == [[(1001, "shutdown")]] * 2
    assert sorted(house.pool.discarded) == ["k1", "k2"]


@on_manual_time
async def test_closing_the_service_waits_for_no_binding() -> None:
    house = House()
    house.store.hold.clear()
    session, client = await house.service.open(*KEY, OPEN), FakeClient()
    session.attach(client)
    await elapse()
    began = now()
    await house.service.aclose()
    assert now() - began < 0.1
    assert client.ends == [(1001, "shutdown")]
    assert house.pool.discarded == ["k1"]


@on_manual_time
async def test_a_session_that_cannot_end_does_not_keep_the_others_from_it() -> None:
    house = House()
    for index in range(3):
        await opened(house, ("acme", f"s{index}"))
    house.pool.stuck = "k1"
    await house.service.aclose()
    assert sorted(house.pool.discarded) == ["k2", "k3"]
    assert [record.state for record in house.store.records.values()].count("closed") == 2


# Draining


@on_manual_time
async def test_draining_lasts_until_no_session_is_busy() -> None:
    house, client = House(), FakeClient()
    running, waiting = await opened(house), await opened(house, ("acme", "other"))
    for session in (running, waiting):
        session.attach(client)
        session.work.submit(Execute(id="a", code="1"), client)
    draining = asyncio.create_task(house.service.drain())
    await elapse()
    with pytest.raises(Draining):
        await house.service.open("acme", "new", OPEN)
    await house.service.end(running.key, "killed by operator")
    await elapse()
    assert not draining.done()
    await house.service.end(waiting.key, "killed by operator")
    await elapse()
    assert draining.done()


@on_manual_time
async def test_draining_does_not_wait_for_what_was_refused_a_kernel() -> None:
    house, client = House(), FakeClient()
    house.pool.has_any.clear()
    session = await house.service.open(*KEY, OPEN)
    session.attach(client)
    session.work.submit(Execute(id="a", code="1"), client)
    draining = asyncio.create_task(house.service.drain())
    await elapse()
    assert not draining.done()
    house.pool.error = AtCapacity("no room")
    house.pool.has_any.set()
    await elapse()
    assert draining.done()


# Restarts


@on_manual_time
async def test_a_restart_is_a_new_kernel_and_the_next_generation() -> None:
    house = House()
    session = await opened(house)
    assert await house.service.restart(session) == 2
    await elapse()
    assert house.pool.discarded == ["k1"]
    assert (session.kernel, session.lost_reason) == (house.pool.given[1], "restart")


@on_manual_time
async def test_restarts_at_once_come_one_after_another() -> None:
    house = House()
    session = await opened(house)
    found = await asyncio.gather(*(house.service.restart(session) for _ in range(3)))
    assert found == [2, 3, 4]
    await elapse()
    assert len(house.pool.given) - len(house.pool.discarded) == 1


@on_manual_time
async def test_what_has_ended_or_is_suspended_is_not_restarted() -> None:
    house = House()
    session = await opened(house)
    session.suspend()
    with pytest.raises(StoreUnavailable):
        await house.service.restart(session)
    session.resume()
    ending = asyncio.create_task(house.service.end(KEY, "killed by operator"))
    await asyncio.sleep(0)
    with pytest.raises(UnknownSession):
        await house.service.restart(session)
    await ending
    assert len(house.pool.given) == 1


# One-shots


@pytest.mark.parametrize("dies", [False, True])
def test_a_one_shot_is_remembered_by_nothing(dies: bool) -> None:
    @on_manual_time
    async def scene() -> None:
        house = House()
        async with house.service.once("acme", OpenQuery()):
            await elapse()
            assert len(house.store.records) == 1
            if dies:
                house.pool.given[0].exited.set_result("exit 3")
        await elapse(1.0)
        assert (house.store.records, house.service.sessions) == ({}, {})
        assert house.pool.discarded

    scene()


@on_manual_time
async def test_a_one_shot_that_never_had_a_kernel_leaves_its_slot_free() -> None:
    house = House()
    house.pool.error = AtCapacity("no room")
    client = FakeClient()
    async with house.service.once("acme", OpenQuery()) as session:
        session.attach(client)
        session.audience.emit({"type": "queued", "position": 1})  # so that it has numbers
        await elapse()
        session.detach(client)
        assert house.service.sessions == {}
    marks = house.service.marks
    assert [marks._state(slot) for slot in marks._slot_of.values()] == [FREE]


# Adoption


class Survivors:
    def __init__(self, *found: tuple[SilentKernel, str]) -> None:
        self.found = [*found]

    async def adopt(self) -> list[tuple[Any, str]]:
        return [*self.found]


@on_manual_time
async def test_a_bound_kernel_that_lived_on_is_its_sessions_again() -> None:
    house = House()
    await opened(house)
    label = house.pool.given[0].labels[0]
    record = house.store.records[KEY]
    next_house = House()
    next_house.store.records = {KEY: record}
    kernel = SilentKernel(record.kernel)
    assert await next_house.service.adopt("python", Survivors((kernel, label))) == 1
    session = next_house.service.sessions[KEY]
    assert (session.generation, session.state, session.kernel) == (
        1,
        SessionState.BUSY,
        kernel,
    )  # it may be in the middle of a cell
    assert (session.created, session.work.last_used) == (record.created, record.last_used)
    assert next_house.pool.adopted == [(record.kernel, True)]
    client = FakeClient()
    session.attach(client)
    assert client.events[0]["state"] == "warm"


@pytest.mark.parametrize("order", [[1, 2, 3], [3, 2, 1], [2, 3, 1]])
@pytest.mark.parametrize("together", [True, False])
def test_of_a_sessions_kernels_the_newest_lives_on(order: list[int], together: bool) -> None:
    @on_manual_time
    async def scene() -> None:
        house = House()
        found = [(SilentKernel(f"k{one}"), Label(*KEY, one).text) for one in order]
        parts = [found] if together else [[one] for one in found]
        counts = [await house.service.adopt("python", Survivors(*part)) for part in parts]
        await elapse()
        assert sum(counts) == 1
        session = house.service.sessions[KEY]
        assert session.kernel is not None
        assert (session.generation, session.kernel.kernel_id) == (3, "k3")
        assert sorted(house.pool.discarded) == ["k1", "k2"]

    scene()


@on_manual_time
async def test_a_warm_kernel_that_lived_on_is_warm_again() -> None:
    house = House()
    assert await house.service.adopt("python", Survivors((SilentKernel("k"), ""))) == 0
    assert (house.pool.adopted, house.service.sessions) == ([("k", False)], {})


@pytest.mark.parametrize("label", ["no json", "[]", "{}", '{"tenant": "a", "session": "b"}', "1"])
def test_a_kernel_with_an_unreadable_label_is_ended(label: str) -> None:
    @on_manual_time
    async def scene() -> None:
        house = House()
        assert await house.service.adopt("python", Survivors((SilentKernel("k"), label))) == 0
        await elapse()
        assert (house.pool.discarded, house.service.sessions) == (["k"], {})

    scene()


@on_manual_time
async def test_an_execution_waits_for_nobody_and_asks_nothing_of_the_store() -> None:
    house, client = House(), FakeClient()
    session = await opened(house)
    session.attach(client)
    house.store.down = True
    tasks = asyncio.all_tasks()
    for name in ("a", "b"):
        session.work.submit(Execute(id=name, code="1+1"), client)
        parent = {"msg_id": session.work.request_id}
        receiver = house.pool.given[0].channels.receiver
        assert receiver is not None
        for channel, kind, content in (
            ("iopub", "status", b'{"execution_state":"busy"}'),
            ("iopub", "execute_input", b'{"execution_count":1}'),
            ("shell", "execute_reply", b'{"status":"ok"}'),
            ("iopub", "status", b'{"execution_state":"idle"}'),
        ):
            receiver(channel, Message({"msg_type": kind}, parent, {}, content, ()))
    # Nothing has been awaited since, so nothing can have been waited for; and nobody has begun to.
    assert client.dones == {"a": "ok", "b": "ok"}
    assert asyncio.all_tasks() == tasks
