"""What takes its time is bounded, and nobody takes all the room there is."""

from __future__ import annotations

import asyncio

import pytest

from broker.errors import AtCapacity
from broker.web.places import Places, Turns


def test_no_tenant_takes_all_places() -> None:
    places = Places(3, 2)
    places.take("acme")
    places.take("acme")
    with pytest.raises(AtCapacity, match="share"):
        places.take("acme")
    places.take("other")
    with pytest.raises(AtCapacity, match="this node"):
        places.take("third")
    places.give_back("acme")
    places.take("third")
    for tenant in ("acme", "other", "third"):
        places.give_back(tenant)
    assert not places._taken


async def test_a_tenant_waits_behind_its_own_and_others_do_not() -> None:
    turns, may_end, at_work = Turns(4, 2), asyncio.Event(), []

    async def work(tenant: str) -> None:
        async with turns.of(tenant):
            at_work.append(tenant)
            await may_end.wait()

    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(work("acme"))
        await asyncio.sleep(0)
        group.create_task(work("other"))
        await asyncio.sleep(0)
        assert at_work == ["acme", "acme", "other"]
        may_end.set()
    assert len(at_work) == 11
    assert not turns._own
