"""Say each state machine in one table: kernels, sessions, clients.

Code that changes a state goes through `advance()`. An illegal event raises and changes nothing.
`diagram()` draws a table for the docs.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


class IllegalTransition(ValueError):
    """An event that the state has no arrow for."""

    def __init__(self, state: StrEnum, event: StrEnum) -> None:
        super().__init__(f"a {type(state).__name__} of {state} has no arrow for {event}")
        self.state = state
        self.event = event


def advance(table: Mapping[S, Mapping[E, S]], state: S, event: E) -> S:
    """Return the state that the event leads to; raise IllegalTransition where none is drawn."""
    following = table[state].get(event)
    if following is None:
        raise IllegalTransition(state, event)
    return following


class KernelState(StrEnum):
    """Where a kernel is in its one life."""

    STARTING = "starting"
    WARM = "warm"  # ready, and nobody's
    BOUND = "bound"  # one session's, to the end
    STOPPING = "stopping"  # told to end; the process may still be there
    DEAD = "dead"


class KernelEvent(StrEnum):
    """What can happen to a kernel."""

    STARTED = "started"
    FAILED = "failed"
    BOUND = "bound"
    STOP = "stop"
    EXITED = "exited"


# There is no arrow from BOUND to WARM: what a session left in a kernel is never seen by another.
KERNEL: Mapping[KernelState, Mapping[KernelEvent, KernelState]] = {
    KernelState.STARTING: {
        KernelEvent.STARTED: KernelState.WARM,
        KernelEvent.FAILED: KernelState.DEAD,
        KernelEvent.STOP: KernelState.STOPPING,
    },
    KernelState.WARM: {
        KernelEvent.BOUND: KernelState.BOUND,
        KernelEvent.STOP: KernelState.STOPPING,
        KernelEvent.EXITED: KernelState.DEAD,
    },
    KernelState.BOUND: {
        KernelEvent.STOP: KernelState.STOPPING,
        KernelEvent.EXITED: KernelState.DEAD,
    },
    KernelState.STOPPING: {
        KernelEvent.FAILED: KernelState.DEAD,  # it was still starting, and never came up
        KernelEvent.EXITED: KernelState.DEAD,
    },
    KernelState.DEAD: {},
}


class SessionState(StrEnum):
    """What a session can do for its clients now."""

    OPENING = "opening"  # has no kernel: the first or the next one is still to be bound
    READY = "ready"
    BUSY = "busy"
    SUSPENDED = "suspended"  # the store is out of reach or the lease in doubt: no new work
    CLOSED = "closed"


class SessionEvent(StrEnum):
    """What can happen to a session."""

    BOUND = "bound"
    STARTED = "started"  # an execution began
    FINISHED = "finished"  # the execution ended
    LOST = "lost"  # the kernel ended, or was ended for a restart
    SUSPEND = "suspend"
    RESUME_EMPTY = "resume_empty"  # the lease is sure again, and there is no kernel
    RESUME_READY = "resume_ready"  # … and the kernel is idle
    RESUME_BUSY = "resume_busy"  # … and the execution of before is still running
    CLOSE = "close"


SESSION: Mapping[SessionState, Mapping[SessionEvent, SessionState]] = {
    SessionState.OPENING: {
        SessionEvent.BOUND: SessionState.READY,
        SessionEvent.SUSPEND: SessionState.SUSPENDED,
        SessionEvent.CLOSE: SessionState.CLOSED,
    },
    SessionState.READY: {
        SessionEvent.STARTED: SessionState.BUSY,
        SessionEvent.LOST: SessionState.OPENING,
        SessionEvent.SUSPEND: SessionState.SUSPENDED,
        SessionEvent.CLOSE: SessionState.CLOSED,
    },
    SessionState.BUSY: {
        SessionEvent.FINISHED: SessionState.READY,
        SessionEvent.LOST: SessionState.OPENING,
        SessionEvent.SUSPEND: SessionState.SUSPENDED,
        SessionEvent.CLOSE: SessionState.CLOSED,
    },
    # Suspending kills nothing: the running execution may end here, and so may the kernel.
    SessionState.SUSPENDED: {
        SessionEvent.FINISHED: SessionState.SUSPENDED,
        SessionEvent.LOST: SessionState.SUSPENDED,
        SessionEvent.RESUME_EMPTY: SessionState.OPENING,
        SessionEvent.RESUME_READY: SessionState.READY,
        SessionEvent.RESUME_BUSY: SessionState.BUSY,
        SessionEvent.CLOSE: SessionState.CLOSED,
    },
    SessionState.CLOSED: {},
}


class ClientState(StrEnum):
    """Whether a client of a session is there to be sent to."""

    ATTACHED = "attached"
    DETACHED = "detached"


class ClientEvent(StrEnum):
    """What can happen to a client."""

    ATTACH = "attach"
    DETACH = "detach"


CLIENT: Mapping[ClientState, Mapping[ClientEvent, ClientState]] = {
    ClientState.ATTACHED: {ClientEvent.DETACH: ClientState.DETACHED},
    ClientState.DETACHED: {ClientEvent.ATTACH: ClientState.ATTACHED},
}


def diagram(table: Mapping[S, Mapping[E, S]]) -> str:
    """Draw the table as a mermaid state diagram; its first state is where life begins.

    Arrows between the same two states become one, with their events one below the other. States
    without an arrow out of them lead to the end.
    """
    lines = ["stateDiagram-v2", f"    [*] --> {next(iter(table)).name}"]
    for state, arrows in table.items():
        labels: dict[S, list[str]] = {}
        for event, following in arrows.items():
            labels.setdefault(following, []).append(event.value)
        lines += [
            f"    {state.name} --> {following.name}: {'<br/>'.join(events)}"
            for following, events in labels.items()
        ]
        if not arrows:
            lines.append(f"    {state.name} --> [*]")
    return "\n".join(lines) + "\n"
