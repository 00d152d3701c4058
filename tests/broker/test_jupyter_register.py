"""Which session a kernel's id stands for: of this node, in no time; of others, without haste."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

from broker.jupyter.elsewhere import LASTS, Elsewhere
from broker.jupyter.names import kernel_id, name_of
from broker.jupyter.register import Register
from broker.protocol import OpenQuery
from broker.store import SessionRecord, Store
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.service_fakes import House, MemoryStore

ID = "0f0e0d0c-0b0a-4908-8706-050403020100"


async def opened(house: House, tenant: str, name: str) -> Any:
    session = await house.service.open(tenant, name, OpenQuery())
    await elapse()
    return session


@on_manual_time
async def test_a_session_is_found_by_its_id_for_as_long_as_it_is_there() -> None:
    house = House()
    before = await opened(house, "acme", "before")
    register = Register(house.service)
    chat, made = await opened(house, "acme", "chat"), await opened(house, "acme", name_of(ID))
    found = [register.find("acme", kernel_id(*one.key)) for one in (before, chat, made)]
    assert found == [before, chat, made]
    for one in (before, chat, made):
        await house.service.end(one.key, "closed")
        assert register.find("acme", kernel_id(*one.key)) is None
    again = await opened(house, "acme", "chat")
    assert register.find("acme", kernel_id(*again.key)) is again


@on_manual_time
async def test_an_id_stands_for_nothing_of_another_tenants() -> None:
    house = House()
    register = Register(house.service)
    for name in ("chat", name_of(ID)):
        session = await opened(house, "acme", name)
        assert register.find("other", kernel_id(*session.key)) is None


@on_manual_time
async def test_a_session_that_nobody_waited_for_is_forgotten() -> None:
    house = House()
    house.pool.has_any.clear()
    register = Register(house.service)
    session = await house.service.open("acme", "chat", OpenQuery())
    assert register.find("acme", kernel_id(*session.key)) is session
    await elapse(60.0)  # no kernel came, and there is no client
    assert house.service.sessions == {}
    assert register.find("acme", kernel_id(*session.key)) is None


@on_manual_time
async def test_to_find_one_looks_at_no_other() -> None:
    house = House(most=1000)
    register = Register(house.service)
    for number in range(300):
        await house.service.open("acme", f"chat-{number}", OpenQuery())
    await elapse()
    session = house.service.sessions["acme", "chat-299"]
    house.service.sessions = Untold(house.service.sessions)
    assert register.find("acme", kernel_id(*session.key)) is session
    assert register.find("acme", ID) is None


class Untold(dict[Any, Any]):
    """Sessions that are found by their keys alone."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("all sessions were looked through")

    def values(self) -> Any:
        raise AssertionError("all sessions were looked through")

    items = values


class Records(MemoryStore):
    """A store that counts how often it is read through."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def put(self, name: str, *, node: str = "n2", leased: bool = True) -> None:
        key = "acme", name
        times = 1.0, 1.0, 9e9
        self.records[key] = SessionRecord(
            *key, node, "k", 1, "python", "ready", "", "", *times, leased
        )

    async def sessions(self, tenant: str | None) -> AsyncIterator[SessionRecord]:
        self.looks += 1
        self._answer()
        await asyncio.sleep(0)
        for (owner, _), record in self.records.items():
            if tenant == owner:
                yield record


def looking(store: Records) -> Elsewhere:
    return Elsewhere(cast(Store, store))


@on_manual_time
async def test_a_session_of_another_node_is_found_by_its_id() -> None:
    store = Records()
    store.put("chat")
    store.put("own", node="n1")
    store.put("ended", leased=False)
    elsewhere = looking(store)
    assert await elsewhere.name_of("acme", kernel_id("acme", "chat")) == "chat"
    for name in ("own", "ended", "none"):
        assert await elsewhere.name_of("acme", kernel_id("acme", name)) is None
    assert await elsewhere.name_of("other", kernel_id("acme", "chat")) is None


@on_manual_time
async def test_many_that_ask_at_once_have_the_records_read_through_once() -> None:
    store = Records()
    elsewhere = looking(store)
    await asyncio.gather(*(elsewhere.name_of("acme", ID) for _ in range(100)))
    assert store.looks == 1
    await elapse(LASTS / 2)
    await elsewhere.name_of("acme", ID)
    assert store.looks == 1
    store.put("chat")
    await elapse(LASTS)
    assert await elsewhere.name_of("acme", kernel_id("acme", "chat")) == "chat"
    assert store.looks == 2


@on_manual_time
async def test_a_store_that_is_away_is_asked_no_more_often() -> None:
    store = Records()
    store.put("chat")
    store.down = True
    elsewhere = looking(store)
    for _ in range(3):
        assert await elsewhere.name_of("acme", kernel_id("acme", "chat")) is None
    assert store.looks == 1


@on_manual_time
async def test_who_gives_up_waiting_leaves_the_others_their_answer() -> None:
    store = Records()
    store.put("chat")
    elsewhere = looking(store)
    wanted = kernel_id("acme", "chat")
    first, second = (asyncio.create_task(elsewhere.name_of("acme", wanted)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == "chat"
