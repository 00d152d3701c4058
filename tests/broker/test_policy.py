from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.policy import (
    Decision,
    PoolLimits,
    PoolView,
    Reaping,
    SessionLimits,
    SessionView,
    decide,
    next_attempt,
    reap,
    unserved,
)

LIMITS = PoolLimits(warm=3, cap=6, max_starting=2)
NOW = 100.0
ABC = ("a", "b", "c")

CASES = {
    "an empty pool starts, two at once": (PoolView(), Decision(2)),
    "a start under way counts": (PoolView(starting=1, warm=("a",)), Decision(1)),
    "at the target there is nothing to do": (PoolView(warm=ABC), Decision()),
    "never over the cap": (PoolView(bound=5), Decision(1)),
    "a stopping kernel still counts": (PoolView(bound=4, stopping=2), Decision()),
    "adopted over the cap": (PoolView(bound=9), Decision()),
    "more warm than wanted: the youngest go": (
        PoolView(warm=(*ABC, "d", "e")),
        Decision(0, stop=("d", "e")),
    ),
    "refill rests while a kernel is being bound": (
        PoolView(warm=("a", "b"), bound=1, binding=(NOW - 0.5,)),
        Decision(0, wake_at=NOW + 1.5),
    ),
    "refill rests for the last of several bindings": (
        PoolView(bound=2, binding=(NOW - 1, NOW - 0.5)),
        Decision(0, wake_at=NOW + 1.5),
    ),
    "a binding that takes too long no longer holds it back": (
        PoolView(warm=("a", "b"), bound=1, binding=(NOW - 2,)),
        Decision(1),
    ),
    "nothing to refill, nothing to wake for": (
        PoolView(warm=ABC, bound=1, binding=(NOW,)),
        Decision(),
    ),
    "a caller is served while another kernel is being bound": (
        PoolView(bound=1, binding=(NOW,), waiting=1),
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
        PoolView(warm=(*ABC, "d"), failures=1, failed_at=NOW),
        Decision(0, stop=("d",), wake_at=NOW + 0.5),
    ),
    "a full node starts nothing": (PoolView(room=0, waiting=1), Decision()),
    "a node over its bound starts nothing": (PoolView(room=-3), Decision()),
    "room for one": (PoolView(room=1), Decision(1)),
    "a caller elsewhere on a full node gets a spare kernel's place": (
        PoolView(warm=ABC, room=0, owed=1),
        Decision(0, stop=("c",)),
    ),
    "unless one is on its way out already": (
        PoolView(warm=ABC, room=0, owed=1, ending=1),
        Decision(),
    ),
    "or there is room": (PoolView(warm=ABC, room=1, owed=1), Decision()),
    "the target does not take the room a caller elsewhere needs": (
        PoolView(warm=("a", "b"), room=1, owed=1),
        Decision(),
    ),
    "the target takes the room beyond that": (
        PoolView(warm=("a", "b"), room=2, owed=1),
        Decision(1),
    ),
    "a start of a caller's own comes although kernels are warm": (
        PoolView(warm=ABC, direct=1),
        Decision(direct=1),
    ),
    "and before those of others": (PoolView(warm=("a",), direct=1), Decision(1, direct=1)),
    "even while another kernel is being bound": (
        PoolView(warm=("a", "b"), bound=1, binding=(NOW,), direct=1),
        Decision(direct=1, wake_at=NOW + 2),
    ),
    "a spare kernel makes way for it": (
        PoolView(warm=ABC, bound=3, direct=1),
        Decision(0, stop=("c",)),
    ),
    "once": (PoolView(warm=("a", "b"), bound=3, stopping=1, direct=1), Decision()),
    "on a full node as well": (PoolView(warm=ABC, room=0, direct=1), Decision(stop=("c",))),
    "but not while starts fail": (
        PoolView(warm=ABC, bound=3, direct=1, failures=1, failed_at=NOW),
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
        (PoolView(direct=1, warm=("a",)), 0),  # which makes way
        (PoolView(waiting=1, starting=1, promised=1), 1),
    ],
)
def test_callers_count_as_unserved_while_only_a_new_start_helps(
    view: PoolView, expected: int
) -> None:
    assert unserved(view, LIMITS) == expected


counts = st.integers(0, 6)
views = st.builds(
    PoolView,
    starting=counts,
    warm=st.integers(0, 6).map(lambda n: tuple("abcdef"[:n])),
    bound=counts,
    stopping=counts,
    binding=st.lists(st.floats(90, 100), max_size=2).map(tuple),
    waiting=counts,
    direct=counts,
    promised=counts,
    failures=st.integers(0, 3),
    failed_at=st.floats(90, 100),
    room=st.none() | st.integers(-3, 6),
    owed=counts,
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
    assert set(decision.stop) <= set(view.warm)
    assert decision.wake_at is None or decision.wake_at > NOW


# Sessions

SESSIONS = SessionLimits(idle_timeout=10, max_lifetime=50)


def session(
    name: str, *, created: float = 90, last_used: float = 95, busy: bool = False
) -> SessionView:
    return SessionView("default", name, created, last_used, busy)


def test_idleness_counts_from_the_end_of_the_last_execution() -> None:
    old, fresh = session("old", last_used=90), session("fresh", last_used=90.5)
    assert reap([old, fresh], SESSIONS, NOW) == Reaping(((old, "idle"),), 100.5)


def test_a_busy_session_is_never_reaped() -> None:
    views = [session("a", created=0, last_used=0, busy=True)]
    assert reap(views, SESSIONS, NOW) == Reaping((), None)


def test_a_session_used_all_the_time_ends_at_its_lifetime() -> None:
    view = session("a", created=50, last_used=99)
    assert reap([view], SESSIONS, NOW) == Reaping(((view, "lifetime"),), None)


def test_the_reason_is_the_bound_that_was_met_first() -> None:
    view = session("a", created=49, last_used=80)
    assert reap([view], SESSIONS, NOW).ended == ((view, "idle"),)


def test_zero_is_no_bound() -> None:
    views = [session("a", created=0, last_used=0)]
    assert reap(views, SessionLimits(0, 0), NOW) == Reaping()
    assert reap(views, SessionLimits(0, 200), NOW) == Reaping((), 200)
