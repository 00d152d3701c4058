"""Turns: tenants in rotation, each tenant's own in order, and nobody passed over."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.turns import Turns


def filled(*names: str) -> Turns[str, int]:
    turns: Turns[str, int] = Turns()
    for at, name in enumerate(names):
        turns.add(name[0], name, at)
    return turns


def drained(turns: Turns[str, int]) -> list[str]:
    served = []
    while (found := turns.next()) is not None:
        served.append(found[0])
    return served


def test_tenants_take_turns_and_each_ones_own_come_in_order() -> None:
    assert drained(filled("a1", "a2", "a3", "b1", "c1", "b2")) == [
        "a1",
        "b1",
        "c1",
        "a2",
        "b2",
        "a3",
    ]


def test_who_comes_later_has_its_turn_before_anothers_second() -> None:
    turns = filled("a1", "a2", "a3")
    turns.next()
    turns.add("b", "b1", 9)
    assert drained(turns) == ["a2", "b1", "a3"]


def test_who_leaves_is_not_served() -> None:
    turns = filled("a1", "b1", "a2")
    turns.remove("b1")
    turns.remove("b1")
    assert (turns.of("a"), turns.of("b"), len(turns), turns.tenants) == (2, 0, 2, 1)
    assert drained(turns) == ["a1", "a2"]
    assert turns.clear() == []


def test_all_can_be_taken_out_at_once() -> None:
    turns = filled("a1", "b1")
    assert sorted(turns.clear()) == ["a1", "b1"]
    assert (len(turns), turns.next()) == (0, None)


NAMES = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 99)).map(lambda one: f"{one[0]}{one[1]}"),
    unique=True,
    max_size=30,
)


@given(NAMES, st.sets(st.integers(0, 29)))
@settings(max_examples=200)
def test_the_order_told_is_the_order_served(names: list[str], leave: set[int]) -> None:
    turns = filled(*names)
    for at in leave:
        if at < len(names):
            turns.remove(names[at])
    told = [name for name, _ in turns.order()]
    assert len(told) == len(turns)
    assert drained(turns) == told
    assert sorted(told) == sorted(n for at, n in enumerate(names) if at not in leave)


@given(st.lists(st.sampled_from("aaaaaaaaaabc"), min_size=1, max_size=60))
@settings(max_examples=200)
def test_nobody_waits_longer_for_what_another_tenant_asks(asked: list[str]) -> None:
    turns: Turns[int, int] = Turns()
    for at, tenant in enumerate(asked):
        turns.add(tenant, at, at)
    served: Counter[str] = Counter()
    total = Counter(asked)
    while (found := turns.next()) is not None:
        served[asked[found[0]]] += 1
        hungry = [tenant for tenant in total if served[tenant] < total[tenant]]
        if len(hungry) == len(total):
            assert max(served[one] for one in total) - min(served[one] for one in total) <= 1
