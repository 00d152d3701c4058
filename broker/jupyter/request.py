"""What a client has asked for, from its sending until it is answered in full."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from broker.jupyter.follower import Follower
from broker.jupyter.frames import Asked
from broker.roles import SessionKernel
from kernels.state import advance


class State(StrEnum):
    """How far the answer to a request is."""

    SENT = "sent"  # nothing was said about it
    BEGUN = "begun"
    HELD = "held"  # its reply is here, and waits for the `idle` that it is to follow
    REPLIED = "replied"  # its `idle` is still to come
    SILENT = "silent"  # `idle`, and its reply is still to come, if it has one
    DONE = "done"


class Said(StrEnum):
    """What can be said about a request."""

    OUTPUT = "output"  # anything that is published, `busy` as well
    REPLY = "reply"
    RELEASE = "release"  # of the reply that was held: without its `idle`
    IDLE = "idle"
    CUT_OFF = "cut off"  # all that was still to come, by us


ANSWERS: Mapping[State, Mapping[Said, State]] = {
    State.SENT: {
        Said.OUTPUT: State.BEGUN,
        Said.REPLY: State.HELD,
        Said.IDLE: State.SILENT,
        Said.CUT_OFF: State.DONE,
    },
    State.BEGUN: {
        Said.OUTPUT: State.BEGUN,
        Said.REPLY: State.HELD,
        Said.IDLE: State.SILENT,
        Said.CUT_OFF: State.DONE,
    },
    State.HELD: {
        Said.OUTPUT: State.HELD,
        Said.RELEASE: State.REPLIED,
        Said.IDLE: State.DONE,  # behind which the reply goes
    },
    State.REPLIED: {
        Said.OUTPUT: State.REPLIED,
        Said.IDLE: State.DONE,
        Said.CUT_OFF: State.DONE,
    },
    State.SILENT: {
        Said.OUTPUT: State.SILENT,
        Said.REPLY: State.DONE,
        Said.CUT_OFF: State.DONE,
    },
    State.DONE: {},
}


@dataclass(slots=True)
class Allowance:
    """What has been published about something."""

    bytes: int = 0
    is_noted: bool = False  # that there was too much


@dataclass(slots=True, eq=False)
class Request:
    """What a client has asked for and has not been answered in full."""

    follower: Follower
    asked: Asked
    execution: str = ""  # the id of the execution that it became; empty for what is passed on
    state: State = State.SENT
    spent: Allowance = field(default_factory=Allowance)
    kernel: SessionKernel | None = None  # that was asked, of what is passed on
    timer: asyncio.TimerHandle | None = None  # ends what it has the kernel run
    is_beside: bool = False  # the kernel serves it beside what it runs

    def hear(self, said: Said) -> None:
        """Change the state; what is illegal raises and changes nothing."""
        self.state = advance(ANSWERS, self.state, said)

    @property
    def is_answered(self) -> bool:
        """Tell whether its reply is here."""
        return self.state in (State.HELD, State.REPLIED, State.DONE)

    @property
    def is_idle(self) -> bool:
        """Tell whether all was published about it."""
        return self.state in (State.SILENT, State.DONE)

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more is to come; some messages have no reply."""
        has_reply = self.asked.type.endswith("_request")
        return self.state is State.DONE or (self.state is State.SILENT and not has_reply)

    def lighten(self) -> None:
        """Keep of what was asked only what its answers need."""
        self.asked = self.asked.bare()

    def set_timer(self, timer: asyncio.TimerHandle | None) -> None:
        """Wait for this from now on, or for nothing."""
        if self.timer is not None:
            self.timer.cancel()
        self.timer = timer
