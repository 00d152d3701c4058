from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from itertools import product
from typing import Any

import pytest

from kernels.state import (
    CLIENT,
    KERNEL,
    SESSION,
    ClientEvent,
    ClientState,
    IllegalTransition,
    KernelEvent,
    KernelState,
    SessionEvent,
    SessionState,
    advance,
    diagram,
)

MACHINES = [
    pytest.param(KERNEL, KernelState, KernelEvent, id="kernel"),
    pytest.param(SESSION, SessionState, SessionEvent, id="session"),
    pytest.param(CLIENT, ClientState, ClientEvent, id="client"),
]
Table = Mapping[Any, Mapping[Any, Any]]


def reachable(table: Table, start: StrEnum) -> set[StrEnum]:
    seen: set[StrEnum] = set()
    ahead = [start]
    while ahead:
        state = ahead.pop()
        if state not in seen:
            seen.add(state)
            ahead += table[state].values()
    return seen


@pytest.mark.parametrize(("table", "states", "events"), MACHINES)
def test_every_state_has_a_row_and_every_event_an_arrow(
    table: Table, states: type[StrEnum], events: type[StrEnum]
) -> None:
    assert list(table) == list(states)
    assert {event for arrows in table.values() for event in arrows} == set(events)


@pytest.mark.parametrize(("table", "states", "events"), MACHINES)
def test_every_state_can_be_reached_from_the_first(
    table: Table, states: type[StrEnum], events: type[StrEnum]
) -> None:
    assert reachable(table, next(iter(states))) == set(states)


@pytest.mark.parametrize(("table", "states", "events"), MACHINES)
def test_an_event_without_an_arrow_is_refused_by_name(
    table: Table, states: type[StrEnum], events: type[StrEnum]
) -> None:
    for state, event in product(states, events):
        if event in table[state]:
            assert advance(table, state, event) is table[state][event]
        else:
            with pytest.raises(IllegalTransition, match=f"{state} has no arrow for {event}"):
                advance(table, state, event)


def test_a_bound_kernel_is_never_warm_again() -> None:
    assert KernelState.WARM not in reachable(KERNEL, KernelState.BOUND)


@pytest.mark.parametrize("state", list(KernelState))
def test_every_kernel_can_die(state: KernelState) -> None:
    assert KernelState.DEAD in reachable(KERNEL, state)


def test_a_suspended_session_starts_nothing_and_may_lose_its_kernel() -> None:
    arrows = SESSION[SessionState.SUSPENDED]
    assert SessionEvent.STARTED not in arrows
    assert arrows[SessionEvent.FINISHED] is SessionState.SUSPENDED
    assert arrows[SessionEvent.LOST] is SessionState.SUSPENDED


def test_a_closed_session_stays_closed() -> None:
    assert reachable(SESSION, SessionState.CLOSED) == {SessionState.CLOSED}


def test_the_diagram_is_drawn_from_the_table() -> None:
    assert diagram(KERNEL) == (
        "stateDiagram-v2\n"
        "    [*] --> STARTING\n"
        "    STARTING --> WARM: started\n"
        "    STARTING --> DEAD: failed\n"
        "    STARTING --> STOPPING: stop\n"
        "    WARM --> BOUND: bound\n"
        "    WARM --> STOPPING: stop\n"
        "    WARM --> DEAD: exited\n"
        "    BOUND --> STOPPING: stop\n"
        "    BOUND --> DEAD: exited\n"
        "    STOPPING --> DEAD: failed<br/>exited\n"
        "    DEAD --> [*]\n"
    )
