"""One Jupyter client of a session: a WebSocket, or the place that is kept for it to come back to.

A client that names itself by a `session_id` may lose its connection and come again: what was said
meanwhile is kept for it, within a bound, and the oldest goes first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from broker.errors import BrokerError
from broker.execution import Event
from broker.jupyter.frames import Packet
from broker.roles import Envelope

MOST_KEPT = 1 << 20  # bytes that are kept for a client that is away,
MOST_PACKETS = 1000  # and messages
KEEPING = 512  # bytes that a kept message costs beside its own


class Wire(Protocol):
    """The connection of a client that is there. No call may block or raise."""

    def say(self, packet: Packet) -> None:
        """Take a message; it need not be sent before `dispatch`."""

    def dispatch(self) -> None:
        """Send what was taken."""

    def end(self, code: int, reason: str) -> None:
        """Close for the session's own reasons."""


class Follower:
    """A client, as sessions see it. `told` gets the events that are about its executions."""

    def __init__(self, told: Callable[[Follower, Event], None], *, runs: bool) -> None:
        self._told = told
        self.runs = runs  # or it only watches
        self.wire: Wire | None = None
        self.question: str | None = None  # the number of the input request that it was sent last
        self.is_gone = False  # for good
        self.lost = 0  # messages that had no room
        self._kept: deque[Packet] = deque()
        self._size = 0

    def __repr__(self) -> str:
        where = "there" if self.wire is not None else f"away, {len(self._kept)} messages kept"
        return f"<Follower {where}>"

    def send(self, packet: Packet) -> None:
        """Give it a message, or keep it for when it is back."""
        if self.wire is not None:
            self.wire.say(packet)
        if self.wire is not None or self.is_gone:
            return
        packet.settle()
        self._kept.append(packet)
        self._size += packet.size + KEEPING
        while self._size > MOST_KEPT or len(self._kept) > MOST_PACKETS:
            self._size -= self._kept.popleft().size + KEEPING
            self.lost += 1

    def take_kept(self) -> tuple[int, list[Packet]]:
        """Return how many messages are lost, and those that were kept; none are any more."""
        lost, kept = self.lost, [*self._kept]
        self.lost, self._size = 0, 0
        self._kept.clear()
        return lost, kept

    # What a session wants of its client

    @property
    def watches(self) -> bool:
        """Tell whether it may run nothing."""
        return not self.runs

    def deliver(self, envelope: Envelope) -> None:
        """Take an event of the session; what a kernel says comes as messages, beside these."""
        self._told(self, envelope.event)

    def dispatch(self) -> None:
        """Send what was taken."""
        if self.wire is not None:
            self.wire.dispatch()

    def fault(self, request_id: str, error: BrokerError) -> None:
        """Learn that an execution cannot run after all."""
        self._told(self, {"type": "fault", "id": request_id, "error": error})
        self.dispatch()

    def end(self, code: int, reason: str) -> None:
        """Learn that the session has ended."""
        if self.wire is not None:
            self.wire.end(code, reason)
