"""A session's files outlive its kernels, and nothing but the session."""

from __future__ import annotations

import pytest

from broker.adoption import Label
from broker.errors import AtCapacity, NoWorkspace, StoreUnavailable
from broker.protocol import OpenQuery
from broker.workspaces import hold
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.service_fakes import Files, House, SilentKernel
from tests.broker.session_fakes import FakeClient
from tests.broker.test_service import KEY, Survivors, opened


def files(house: House) -> list[str]:
    return [kernel.workspace.workspace_id for kernel in house.pool.given]


@on_manual_time
async def test_the_next_kernel_of_a_session_has_the_files_of_the_last() -> None:
    house = House()
    session = await opened(house)
    house.pool.given[0].exited.set_result("oom")
    await elapse(1.0)
    assert session.kernel is None
    house.service.need_kernel(session)
    await elapse()
    assert (files(house), house.pool.dropped) == (["files of k1"] * 2, [])
    assert await house.service.restart(session) == 3
    assert (files(house), house.pool.dropped) == (["files of k1"] * 3, [])


@on_manual_time
async def test_a_restart_without_files_gets_an_empty_workspace() -> None:
    house = House()
    session = await opened(house)
    await house.service.restart(session, keep_files=False)
    assert (files(house), house.pool.dropped) == (["files of k1", "files of k2"], ["files of k1"])
    assert session.workspace is house.pool.given[1].workspace


@on_manual_time
async def test_a_session_takes_its_files_along() -> None:
    house = House()
    await opened(house)
    await house.service.end(KEY, "closed")
    assert house.pool.dropped == ["files of k1"]
    await opened(house)
    assert files(house)[-1] == "files of k2"


@on_manual_time
async def test_a_session_that_lost_its_kernel_takes_its_files_along() -> None:
    house = House()
    await opened(house)
    house.pool.given[0].exited.set_result("oom")
    await elapse(1.0)
    await house.service.end(KEY, "idle")
    assert house.pool.dropped == ["files of k1"]


@on_manual_time
async def test_files_stay_when_no_kernel_can_be_had_for_them() -> None:
    house = House()
    session = await opened(house)
    session.attach(FakeClient())
    house.pool.error = AtCapacity("no room")
    with pytest.raises(AtCapacity):
        await house.service.restart(session)
    house.pool.error = None
    assert house.pool.dropped == []
    house.service.need_kernel(session)
    await elapse()
    assert files(house) == ["files of k1"] * 2


@on_manual_time
async def test_a_kernel_that_was_never_bound_leaves_no_files() -> None:
    house = House()
    house.store.down = True
    session = await house.service.open(*KEY, OpenQuery())
    await elapse()
    assert (house.pool.dropped, session.workspace) == (["files of k1"], None)


@on_manual_time
async def test_files_stay_when_the_store_is_away_at_a_restart() -> None:
    house = House()
    session = await opened(house)
    house.store.down = True
    with pytest.raises(StoreUnavailable):
        await house.service.restart(session)
    assert house.pool.dropped == []
    house.store.down = False
    house.store.records.clear()
    house.service.need_kernel(session)
    await elapse()
    assert files(house)[-1] == "files of k1"


@on_manual_time
async def test_an_adopted_session_has_its_files() -> None:
    house, kernel = House(), SilentKernel("k9")
    await house.service.adopt("python", Survivors((kernel, Label(*KEY, 2).text)))
    session = house.service.sessions[KEY]
    assert session.workspace is kernel.workspace
    await house.service.restart(session)
    assert (files(house), house.pool.dropped) == (["files of k9"], [])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("newest_first", [True, False])
def test_of_two_kernels_of_a_session_the_older_takes_no_files_of_the_newer_along(
    shared: bool, newest_first: bool
) -> None:
    @on_manual_time
    async def scene() -> None:
        house = House()
        old, new = SilentKernel("k1"), SilentKernel("k2")
        if shared:
            new.workspace = Files("files of k1")  # another descriptor of the same
        found = [(old, Label(*KEY, 1).text), (new, Label(*KEY, 2).text)]
        await house.service.adopt("python", Survivors(*(found[::-1] if newest_first else found)))
        await elapse()
        assert house.service.sessions[KEY].kernel is new
        assert house.pool.discarded == ["k1"]
        assert house.pool.dropped == ([] if shared else ["files of k1"])

    scene()


@pytest.mark.parametrize("may_start", [True, False])
def test_who_may_only_look_at_files_starts_no_kernel_for_them(may_start: bool) -> None:
    @on_manual_time
    async def scene() -> None:
        house = House()
        house.pool.error = AtCapacity("no room")
        session = await house.service.open(*KEY, OpenQuery())
        session.attach(FakeClient())
        await elapse()
        house.pool.error = None
        with pytest.raises(NoWorkspace):
            await hold(house.service, KEY, may_start=may_start)
        assert len(house.pool.given) == may_start

    scene()
