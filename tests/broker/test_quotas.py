"""What a tenant may use: counted exactly, refused with the quota's name and when to try again."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker.errors import QuotaExceeded, UnknownProfile
from broker.quotas import HOUR, Hour, Quotas
from broker.roles import SessionLimits
from broker.settings import Tenant

GIB = 1 << 30


@dataclass(eq=False)
class Place:
    tenant: str = "acme"
    busy: bool = False
    expires: float = 0.0
    limits: SessionLimits = field(default_factory=lambda: SessionLimits(memory=GIB))


class Clock:
    now = 50_000.0

    def __call__(self) -> float:
        return self.now


def quotas(clock: Any = None, **bounds: Any) -> Quotas:
    clock = clock or Clock()
    return Quotas(Tenant(), {"acme": Tenant(**bounds)}, clock=clock, calendar=clock)


# Profiles

THERE = ["data", "python", "r"]


@pytest.mark.parametrize(
    ("allowed", "asked", "chosen"),
    [
        ((), None, "python"),
        ((), "r", "r"),
        (("r", "data"), None, "r"),
        (("r", "python"), None, "r"),
        (("r",), "r", "r"),
        (("gone", "r"), None, "r"),
    ],
)
def test_a_tenant_has_its_own_profiles_and_a_default_among_them(
    allowed: tuple[str, ...], asked: str | None, chosen: str
) -> None:
    assert quotas(profiles=allowed).profile("acme", asked, "python", THERE) == chosen


@pytest.mark.parametrize("asked", ["data", "nope"])
def test_a_profile_of_others_is_as_unknown_as_one_that_is_not_there(asked: str) -> None:
    with pytest.raises(UnknownProfile) as caught:
        quotas(profiles=("r",)).profile("acme", asked, "python", THERE)
    assert caught.value.message == f"no profile {asked!r}; known: r"
    assert caught.value.field == "profile"


# Opening


@pytest.mark.parametrize(
    ("bounds", "open_", "field_"),
    [
        ({}, 1000, None),
        ({"sessions": 2}, 1, None),
        ({"sessions": 2}, 2, "sessions"),
        ({"memory": 3 * GIB}, 2, None),
        ({"memory": 3 * GIB}, 3, "memory"),
        ({"memory": 3 * GIB - 1}, 2, "memory"),
    ],
)
def test_sessions_and_their_memory_are_counted(
    bounds: dict[str, int], open_: int, field_: str | None
) -> None:
    places = [Place() for _ in range(open_)] + [Place("other") for _ in range(9)]
    if field_ is None:
        quotas(**bounds).admit("acme", GIB, places)
    else:
        with pytest.raises(QuotaExceeded) as caught:
            quotas(**bounds).admit("acme", GIB, places)
        assert caught.value.field == field_
        assert caught.value.message.startswith(f"{field_}: ")
    quotas(**bounds).admit("other", GIB, places)


def test_who_has_no_room_is_told_when_the_next_session_ends() -> None:
    places = [Place(expires=50_090.0), Place(expires=50_030.0, busy=True), Place(expires=50_060.0)]
    with pytest.raises(QuotaExceeded) as caught:
        quotas(sessions=3).admit("acme", 1, places)
    assert caught.value.retry_after == 60.0


# Running


def test_as_many_sessions_run_at_once_as_the_quota_says() -> None:
    bound, places = quotas(running=2), [Place() for _ in range(3)]
    for place in places[:2]:
        bound.submit(place)
        place.busy = True
    with pytest.raises(QuotaExceeded) as caught:
        bound.submit(places[2])
    assert caught.value.field == "running"
    bound.submit(places[0])  # what queues behind one's own runs not at once
    places[0].busy = False
    bound.executed(places[0], 0.1)
    bound.submit(places[2])
    places[2].busy = True
    with pytest.raises(QuotaExceeded):
        bound.submit(places[0])


def test_a_submission_that_came_to_nothing_takes_no_place() -> None:
    bound, places = quotas(running=1), [Place() for _ in range(3)]
    for place in places:
        bound.submit(place)  # and was refused for something else: it never gets busy
    places[2].busy = True
    with pytest.raises(QuotaExceeded):
        bound.submit(places[0])


def test_who_runs_nothing_any_more_is_kept_nowhere() -> None:
    bound, place = quotas(running=2), Place(busy=True)
    bound.submit(place)
    place.busy = False
    bound.executed(place, 0.1)
    assert bound._busy == {}


def test_hours_of_many_tenants_are_looked_through_once_in_a_while_only() -> None:
    clock = Clock()
    looks = 0

    class Counted(Hour):
        def total(self, now: float) -> float:
            nonlocal looks
            looks += 1
            return super().total(now)

    bound = Quotas(Tenant(cpu_hour=100.0), clock=clock, calendar=clock)
    bound._hours = {f"t{number}": Counted() for number in range(1500)}
    for hour in bound._hours.values():
        hour.add(clock.now, 1.0)
    looks = 0
    for _ in range(100):
        bound.executed(Place("t1"), 0.1)
    assert looks <= 1500 + 200
    clock.now += HOUR + 120
    bound.executed(Place("t1"), 0.1)
    assert set(bound._hours) == {"t1"}


def test_what_ran_before_this_broker_counts_when_it_is_used() -> None:
    bound = quotas(running=1)
    bound.submit(Place(busy=True))
    adopted = Place(busy=True)
    bound.submit(adopted)  # it runs already: to refuse what waits behind it would gain nothing
    with pytest.raises(QuotaExceeded):
        bound.submit(Place())


# CPU time


def test_cpu_time_is_refused_until_the_hour_has_room_again() -> None:
    clock = Clock()
    bound, place = quotas(clock, cpu_hour=10.0), Place()
    for seconds, cpu in ((0, 4.0), (600, 5.0), (600, 2.0)):
        clock.now += seconds
        bound.submit(place)
        bound.executed(place, cpu)
    with pytest.raises(QuotaExceeded) as caught:
        bound.submit(place)
    assert caught.value.field == "cpu_hour"
    wait = caught.value.retry_after
    assert HOUR - 1200 < wait <= HOUR - 1200 + 60
    clock.now += wait - 0.01
    with pytest.raises(QuotaExceeded):
        bound.submit(place)
    clock.now += 0.02
    bound.submit(place)
    bound.submit(Place("other"))


def test_what_is_left_of_the_hour_is_what_nobody_has_used() -> None:
    clock = Clock()
    bound, place = quotas(clock, cpu_hour=10.0), Place()
    assert (bound.cpu_left(place), bound.cpu_left(Place("other"))) == (10.0, inf)
    bound.executed(place, 4.0)
    assert bound.cpu_left(Place()) == 6.0
    bound.executed(place, 9.0)
    assert bound.cpu_left(place) == 0.0
    clock.now += HOUR + 61
    assert bound.cpu_left(place) == 10.0


@pytest.mark.parametrize("cpu", [None, -5.0, float("nan"), float("inf"), 1e300])
def test_what_no_clock_has_counted_counts_for_nothing(cpu: float | None) -> None:
    bound = quotas(cpu_hour=10.0)
    bound.executed(Place(), cpu)
    bound.submit(Place())


USES = st.lists(st.tuples(st.floats(0, 4000), st.floats(0.01, 50)), max_size=40)


@given(USES, st.floats(1, 200))
@example([(0.0, 30.0), (61.0, 0.1), (61.0, 0.2), (61.0, 30.0)], 30.3)
@settings(max_examples=200)
def test_an_hour_is_never_less_than_what_was_used_in_it_and_is_below_when_it_says(
    uses: list[tuple[float, float]], bound: float
) -> None:
    hour, now, log = Hour(), 0.0, []
    for wait, used in uses:
        now += wait
        hour.add(now, used)
        log.append((now, used))
        exact = sum(one for at, one in log if at > now - HOUR)
        longest = sum(one for at, one in log if at > now - HOUR - 61)
        assert exact - 1e-6 <= hour.total(now) <= longest + 1e-6
        assert len(hour._minutes) <= 62
    if hour.total(now) >= bound:
        when = hour.below_at(bound, now)
        assert now < when <= now + HOUR + 60
        assert hour.total(when) < bound


def test_without_quotas_nothing_is_kept() -> None:
    bound, place = Quotas(), Place()
    bound.submit(place)
    bound.executed(place, 5.0)
    bound.admit("acme", GIB, [place])
    assert (bound._hours, bound._busy) == ({}, {})
