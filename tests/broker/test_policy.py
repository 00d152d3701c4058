from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy import (
    FADE,
    HEAP_SLACK,
    MARGIN,
    Deadlines,
    Decision,
    Demand,
    PoolLimits,
    PoolView,
    SessionLimits,
    SessionView,
    decide,
    next_attempt,
    session_deadline,
    unserved,
    warm_target,
)

LIMITS = PoolLimits(warm=3, cap=6, max_starting=2)
NOW = 100.0

CASES = {
    "an empty pool starts, two at once": (PoolView(), Decision(2)),
    "a start under way counts": (PoolView(starting=1, warm=1), Decision(1)),
    "at the target there is nothing to do": (PoolView(warm=3), Decision()),
    "never over the cap": (PoolView(bound=5), Decision(1)),
    "a stopping kernel still counts": (PoolView(bound=4, stopping=2), Decision()),
    "adopted over the cap": (PoolView(bound=9), Decision()),
    "more warm than wanted: the youngest go": (
        PoolView(warm=5),
        Decision(0, stop=2),
    ),
    "refill rests while a kernel is being bound": (
        PoolView(warm=2, bound=1, binding=1, binding_since=NOW - 0.5),
        Decision(0, wake_at=NOW + 1.5),
    ),
    "refill rests while several are being bound": (
        PoolView(bound=2, binding=2, binding_since=NOW - 0.5),
        Decision(0, wake_at=NOW + 1.5),
    ),
    "a binding that takes too long no longer holds it back": (
        PoolView(warm=2, bound=1, binding=1, binding_since=NOW - 2),
        Decision(1),
    ),
    "nothing to refill, nothing to wake for": (
        PoolView(warm=3, bound=1, binding=1, binding_since=NOW),
        Decision(),
    ),
    "a caller is served while another kernel is being bound": (
        PoolView(bound=1, binding=1, binding_since=NOW, waiting=1),
        Decision(1, wake_at=NOW + 2),
    ),
    "after a failure nothing starts before its time": (
        PoolView(failures=1, failed_at=NOW - 0.25, waiting=1),
        Decision(0, wake_at=NOW + 0.25),
    ),
    "after a failure one start is tried alone": (
        PoolView(failures=1, failed_at=NOW - 0.5),
        Decision(1),
    ),
    "and no second one beside it": (
        PoolView(failures=1, failed_at=NOW - 0.5, starting=1, waiting=3),
        Decision(),
    ),
    "surplus goes even while starts fail": (
        PoolView(warm=4, failures=1, failed_at=NOW),
        Decision(0, stop=1, wake_at=NOW + 0.5),
    ),
    "a full node starts nothing": (PoolView(room=0, waiting=1), Decision()),
    "a node over its bound starts nothing": (PoolView(room=-3), Decision()),
    "room for one": (PoolView(room=1), Decision(1)),
    "a caller elsewhere on a full node gets a spare kernel's place": (
        PoolView(warm=3, room=0, owed=1),
        Decision(0, stop=1),
    ),
    "unless one is on its way out already": (
        PoolView(warm=3, room=0, owed=1, ending=1),
        Decision(),
    ),
    "or there is room": (PoolView(warm=3, room=1, owed=1), Decision()),
    "the target does not take the room a caller elsewhere needs": (
        PoolView(warm=2, room=1, owed=1),
        Decision(),
    ),
    "the target takes the room beyond that": (
        PoolView(warm=2, room=2, owed=1),
        Decision(1),
    ),
    "a caller whose turn comes after another pool's leaves it the room": (
        PoolView(room=1, waiting=1, ahead=1, owed=1),
        Decision(),
    ),
    "and takes what there is beyond that": (
        PoolView(room=2, waiting=2, ahead=1, owed=5),
        Decision(1),
    ),
    "so does one with a start of its own": (
        PoolView(room=1, direct=1, ahead=1, owed=1),
        Decision(),
    ),
    "a start of a caller's own comes although kernels are warm": (
        PoolView(warm=3, direct=1),
        Decision(direct=1),
    ),
    "and before the target is thought of": (PoolView(warm=1, direct=1), Decision(direct=1)),
    "callers that wait have all the starts": (PoolView(waiting=1), Decision(1)),
    "even if theirs have begun: the target waits": (
        PoolView(waiting=1, starting=1),
        Decision(),
    ),
    "even while another kernel is being bound": (
        PoolView(warm=2, bound=1, binding=1, binding_since=NOW, direct=1),
        Decision(direct=1, wake_at=NOW + 2),
    ),
    "a spare kernel makes way for it": (
        PoolView(warm=3, bound=3, direct=1),
        Decision(0, stop=1),
    ),
    "once": (PoolView(warm=2, bound=3, stopping=1, direct=1), Decision()),
    "on a full node as well": (PoolView(warm=3, room=0, direct=1), Decision(stop=1)),
    "but not while starts fail": (
        PoolView(warm=3, bound=3, direct=1, failures=1, failed_at=NOW),
        Decision(wake_at=NOW + 0.5),
    ),
    "a start promised to one caller does not serve another": (
        PoolView(starting=1, promised=1, waiting=1),
        Decision(1),
    ),
    "no more at once than may start": (PoolView(direct=3, waiting=3), Decision(direct=2)),
}


@pytest.mark.parametrize(("view", "expected"), CASES.values(), ids=CASES.keys())
def test_decision(view: PoolView, expected: Decision) -> None:
    assert decide(view, LIMITS, NOW) == expected


@pytest.mark.parametrize(
    ("failures", "delay"),
    [(1, 0.5), (2, 1.0), (3, 2.0), (7, 32.0), (8, 60.0), (9, 60.0), (100_000, 60.0)],
)
def test_pauses_between_failing_starts_double_up_to_a_bound(failures: int, delay: float) -> None:
    assert next_attempt(failures, NOW, PoolLimits()) == NOW + delay


def test_without_a_failure_there_is_no_pause() -> None:
    assert next_attempt(0, NOW, PoolLimits()) is None


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        (PoolView(waiting=2), 2),
        (PoolView(waiting=2, starting=1), 1),
        (PoolView(waiting=2, stopping=2), 0),
        (PoolView(waiting=2, bound=5), 1),
        (PoolView(waiting=2, failures=1), 0),
        (PoolView(direct=1), 1),
        (PoolView(direct=1, warm=1), 0),  # which makes way
        (PoolView(waiting=1, starting=1, promised=1), 1),
    ],
)
def test_callers_count_as_unserved_while_only_a_new_start_helps(
    view: PoolView, expected: int
) -> None:
    assert unserved(view, LIMITS) == expected


counts = st.integers(0, 6)
demands = st.builds(
    Demand,
    recent=st.floats(0, 1000),
    peak=st.floats(0, 1000),
    at=st.floats(0, 100),
    make=st.floats(0, 60),
)
views = st.builds(
    PoolView,
    starting=counts,
    warm=counts,
    bound=counts,
    stopping=counts,
    binding=st.integers(0, 2),
    binding_since=st.floats(90, 100),
    waiting=counts,
    direct=counts,
    promised=counts,
    failures=st.integers(0, 3),
    failed_at=st.floats(90, 100),
    demand=demands,
    room=st.none() | st.integers(-3, 6),
    owed=counts,
    ahead=counts,
    ending=counts,
)


@given(views)
def test_no_decision_breaks_a_bound(view: PoolView) -> None:
    decision = decide(view, LIMITS, NOW)
    assert decision.start >= 0
    assert 0 <= decision.direct <= view.direct
    if begun := decision.start + decision.direct:
        assert view.total + begun <= LIMITS.cap
        assert view.starting + begun <= LIMITS.max_starting
        assert view.room is None or begun <= view.room
        assert view.room is None or decision.start <= view.room
    assert 0 <= decision.stop <= view.warm
    assert decision.wake_at is None or decision.wake_at > NOW


# The target

FOLLOWING = PoolLimits(warm=4, warm_most=32, cap=64)
MAKE = 0.25  # s


@pytest.mark.parametrize(
    ("rate", "limits", "target"),
    [
        (0, FOLLOWING, 4),
        (3, FOLLOWING, 4),
        (8, FOLLOWING, 10),
        (20, FOLLOWING, 25),
        (50, FOLLOWING, 32),
        (50, PoolLimits(warm=4, warm_most=32, cap=12), 12),
        (50, PoolLimits(warm=4), 4),
        (50, PoolLimits(warm=40, warm_most=32, cap=64), 40),
        (0.3, PoolLimits(warm=0, warm_most=32), 0),
        (0.5, PoolLimits(warm=0, warm_most=32), 1),
    ],
)
def test_the_target_is_what_is_claimed_while_one_is_made(
    rate: float, limits: PoolLimits, target: int
) -> None:
    assert warm_target(rate, MAKE, limits) == target


some_limits = st.builds(
    PoolLimits, warm=st.integers(0, 70), warm_most=st.integers(0, 70), cap=st.integers(1, 70)
)
rates = st.floats(0, 10_000)


@given(some_limits, rates, rates, st.floats(0, 60))
def test_the_target_is_within_its_bounds_and_grows_with_the_rate(
    limits: PoolLimits, one: float, other: float, make: float
) -> None:
    low, high = (warm_target(rate, make, limits) for rate in sorted((one, other)))
    assert limits.warm <= low <= high <= max(limits.warm, min(limits.warm_most, limits.cap))


@given(some_limits, demands, st.floats(0, 600))
def test_the_target_falls_when_it_is_said_to(
    limits: PoolLimits, demand: Demand, later: float
) -> None:
    now = demand.at + later
    target, falls_at = demand.target(limits, now), demand.falls_at(limits, now)
    assert (falls_at is None) == (target <= limits.warm)
    if falls_at is not None:
        assert now < falls_at <= demand.at + FADE * 20
        assert demand.target(limits, (now + falls_at) / 2) <= target
        assert demand.target(limits, falls_at) < target


def burst(count: int, over: float) -> Demand:
    demand = Demand(make=MAKE)
    for number in range(count):
        demand = demand.claimed(NOW + over * number / count)
    return demand


def test_a_burst_raises_the_target_at_once_and_it_falls_back_one_by_one() -> None:
    demand, now = burst(20, 0), NOW
    targets = [demand.target(FOLLOWING, now)]
    while (falls_at := demand.falls_at(FOLLOWING, now)) is not None:
        assert decide(PoolView(warm=targets[-1], demand=demand), FOLLOWING, now) == Decision(
            wake_at=falls_at
        )
        now = falls_at
        stop = targets[-1] - demand.target(FOLLOWING, now)
        assert decide(PoolView(warm=targets[-1], demand=demand), FOLLOWING, now).stop == stop == 1
        targets.append(demand.target(FOLLOWING, now))
    assert targets == list(range(25, 3, -1))
    assert now - NOW < 2 * FADE


def test_claims_over_a_second_count_nearly_as_those_of_one_moment() -> None:
    assert burst(50, 0).rate(NOW) == 50
    assert 30 < burst(50, 1).rate(NOW + 1) < 50


def test_steady_claims_hold_the_target_steady() -> None:
    demand, seen = Demand(make=MAKE), set()
    for number in range(400):
        demand = demand.claimed(NOW + number / 10)
        if number > 100:
            seen.add(demand.target(FOLLOWING, NOW + number / 10))
    assert seen == {round(10.5 * (MAKE + MARGIN))}


def test_the_time_to_make_a_kernel_follows_what_starts_take() -> None:
    demand = Demand(make=0.1)
    for _ in range(100):
        demand = demand.made(0.5)
    assert demand.make == pytest.approx(0.5, rel=0.01)


# Sessions

SESSIONS = SessionLimits(idle_timeout=10, max_lifetime=50)


@pytest.mark.parametrize(
    ("view", "limits", "deadline"),
    [
        (SessionView(created=90, last_used=95), SESSIONS, (105, "idle")),
        (SessionView(created=0, last_used=0, busy=True), SESSIONS, None),
        (SessionView(created=50, last_used=99), SESSIONS, (100, "lifetime")),
        (SessionView(created=49, last_used=80), SESSIONS, (90, "idle")),
        (SessionView(created=0, last_used=0), SessionLimits(0, 0), None),
        (SessionView(created=0, last_used=0), SessionLimits(0, 200), (200, "lifetime")),
    ],
    ids=["idle", "busy", "used all the time", "the first counts", "no bounds", "one bound"],
)
def test_a_session_ends_by_the_bound_that_it_meets_first(
    view: SessionView, limits: SessionLimits, deadline: tuple[float, str] | None
) -> None:
    assert session_deadline(view, limits) == deadline


keys = st.tuples(st.just("t"), st.sampled_from("abcd"))
expectations = st.lists(st.tuples(keys, st.integers(0, 20)), max_size=30)


@given(expectations, st.integers(0, 20))
def test_each_session_is_due_once_at_its_earliest_deadline(
    expected: list[tuple[tuple[str, str], int]], now: int
) -> None:
    deadlines = Deadlines()
    least: dict[tuple[str, str], int] = {}
    for key, when in expected:
        first = all(when < other for other in least.values())
        least[key] = min(when, least.get(key, when))
        if first:
            assert deadlines.expect(key, when)
        else:
            deadlines.expect(key, when)
        assert deadlines.next_at == min(least.values())
    due = list(deadlines.due(now))
    assert sorted(due) == sorted(key for key, when in least.items() if when <= now)
    assert [least[key] for key in due] == sorted(least[key] for key in due)
    assert list(deadlines.due(now)) == []
    assert deadlines.next_at == min((at for at in least.values() if at > now), default=None)
    for key in due:
        deadlines.expect(key, 30)
    assert sorted(deadlines.due(30)) == sorted(least)


def test_sessions_that_ended_are_forgotten() -> None:
    deadlines = Deadlines()
    deadlines.expect(("t", "lives"), 50)
    for number in range(10_000):
        deadlines.expect(("t", str(number)), number)
        deadlines.forget(("t", str(number)))
    assert len(deadlines._heap) < 2 * HEAP_SLACK
    assert list(deadlines.due(100)) == [("t", "lives")]
