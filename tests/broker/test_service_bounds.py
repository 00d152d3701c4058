"""What a client may ask of its session's bounds, and how long that holds."""

from __future__ import annotations

import pytest

from broker.adoption import Label
from broker.errors import BadMessage
from broker.protocol import OpenQuery
from broker.requests import Execute
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.service_fakes import House, SilentKernel
from tests.broker.session_fakes import FakeClient
from tests.broker.test_service import KEY, Survivors, opened


def asking(**limits: float) -> OpenQuery:
    return OpenQuery(limits=limits)


LOWER = {"memory": 64 << 20, "processes": 40, "cpu": 0.5, "cpu_time": 5.0, "execution_timeout": 9.0}


@on_manual_time
async def test_a_client_may_lower_its_sessions_bounds_for_all_of_its_kernels() -> None:
    house = House()
    session = await house.service.open(*KEY, asking(**LOWER))
    await elapse()
    client = FakeClient()
    session.attach(client)
    assert client.events[0]["limits"] | LOWER == client.events[0]["limits"]
    tree = {name: LOWER[name] for name in ("memory", "processes", "cpu")}
    assert house.pool.given[0].bounds == tree
    await house.service.restart(session)
    assert house.pool.given[1].bounds == tree
    assert (await opened(house)).limits.memory == 64 << 20
    assert (await opened(house, ("acme", "other"))).limits.memory == 1 << 30
    assert house.pool.given[2].bounds == {}


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"memory": 2 << 30}, "memory: at most 1G here; got 2G"),
        ({"processes": 129}, "processes: at most 128 here; got 129"),
        ({"cpu": 1.5}, "cpu: at most 1 here; got 1.5"),
        ({"execution_timeout": 301.0}, "execution_timeout: at most 5m here; got 301s"),
        ({"execution_timeout": 0.0}, "execution_timeout: at most 5m here; got 0s"),
        ({"memory": 64 << 20, "cpu": 2.0}, "cpu: at most 1 here; got 2"),
    ],
)
def test_what_is_over_the_profiles_bound_is_refused_and_makes_nothing(
    limits: dict[str, float], words: str
) -> None:
    @on_manual_time
    async def scene() -> None:
        house = House()
        with pytest.raises(BadMessage) as caught:
            await house.service.open(*KEY, asking(**limits))
        assert str(caught.value) == words
        assert caught.value.field == words.partition(":")[0]
        assert house.service.sessions == {}

    scene()


@on_manual_time
async def test_where_a_profile_has_no_bound_any_is_lower() -> None:
    house = House(execution_timeout=0.0)
    session = await house.service.open(*KEY, asking(execution_timeout=1e6, cpu_time=7.0))
    assert (session.limits.execution_timeout, session.limits.cpu_time) == (1e6, 7.0)


@pytest.mark.parametrize(
    ("level", "held"),
    [
        ("full", set(LOWER)),
        ("standard", {"memory", "cpu_time", "execution_timeout"}),
        ("none", {"execution_timeout"}),
    ],
)
def test_a_bound_that_nothing_would_hold_is_refused(level: str, held: set[str]) -> None:
    @on_manual_time
    async def scene() -> None:
        house = House()
        house.pool.assured = level
        for name, value in LOWER.items():
            if name in held:
                await house.service.open("acme", name, asking(**{name: value}))
            else:
                with pytest.raises(BadMessage, match=f"^{name}: nothing holds .* {level}$"):
                    await house.service.open("acme", name, asking(**{name: value}))
        await elapse()

    scene()


@on_manual_time
async def test_a_session_keeps_its_bounds_whatever_others_ask_for() -> None:
    house = House()
    session = await house.service.open(*KEY, asking(memory=64 << 20))
    await elapse()
    for limits in ({"memory": 65 << 20}, {"cpu": 0.5}):
        with pytest.raises(BadMessage, match="the session has"):
            await house.service.open(*KEY, asking(**limits))
    assert await house.service.open(*KEY, asking(memory=64 << 20, cpu=1.0)) is session
    await house.service.end(KEY, "closed")
    assert (await house.service.open(*KEY, asking(memory=65 << 20))) is not session


@on_manual_time
async def test_a_bound_that_a_fresh_kernel_is_over_already_is_told_and_gives_it_back() -> None:
    house = House()
    client = FakeClient()
    session = await house.service.open(*KEY, asking(memory=1 << 10))
    session.attach(client)
    session.work.submit(Execute(id="a", code="1"), client)
    await elapse()
    [(request, error)] = client.faults
    assert (request, error.field) == ("a", "memory")
    assert "not even a fresh kernel" in str(error)
    assert house.pool.discarded == ["k1"]


@on_manual_time
async def test_an_adopted_session_has_the_bounds_it_asked_for_unless_over_the_new() -> None:
    house = House()
    await house.service.open(*KEY, asking(memory=64 << 20, processes=100))
    await elapse()
    [label] = house.pool.given[0].labels
    for most, processes in ((128, 100), (90, 90)):
        later = House(processes=most)
        await later.service.adopt("python", Survivors((SilentKernel("k"), label)))
        limits = later.service.sessions[KEY].limits
        assert (limits.memory, limits.processes) == (64 << 20, processes)


@on_manual_time
async def test_an_adopted_kernel_is_held_to_its_bounds_or_lives_on_without() -> None:
    label = Label(*KEY, 1, {"memory": 64 << 20, "processes": 100}).text
    for needs, bounds in ((1 << 20, {"memory": 64 << 20, "processes": 100}), (65 << 20, {})):
        kernel, later = SilentKernel("k"), House()
        kernel.needs = needs
        assert await later.service.adopt("python", Survivors((kernel, label))) == 1
        assert kernel.bounds == bounds
