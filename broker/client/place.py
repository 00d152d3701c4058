"""How far a client is in the numbered events of a session: each once, in order."""

from __future__ import annotations

from .result import Event
from .wire import decode

Range = tuple[int, int]


class Gap(ValueError):
    """An event is not the next one: some were lost on the way."""


class Place:
    """How far a client is in the numbered events of a session."""

    def __init__(self, after: int | None = None) -> None:
        self.last = after or 0
        self._begun = after is not None

    def take(self, event: Event) -> bool:
        """Note an event; return whether it is new. Raises Gap when it is not the next one.

        Where a client begins, the first number counts as the place it has come to.
        """
        seq = event.get("seq")
        if not isinstance(seq, int):
            return True  # an answer to this client alone
        if self._begun and seq <= self.last:
            return False
        if self._begun and seq != self.last + 1:
            raise Gap(f"event {seq} follows {self.last}")
        self.last, self._begun = seq, True
        return True

    def rejoin(self, event: Event) -> tuple[Range | None, bool]:
        """Note what the first event of a new connection says; return what is missed, and whether.

        Raises ValueError when it says nothing that can be followed.
        """
        seq, missed = event.get("seq"), event.get("missed")
        if event.get("type") != "session" or not isinstance(seq, int):
            raise ValueError("the first event after a reconnection does not tell the place")
        self._begun = True
        if seq < self.last:  # numbers of another broker, which knows nothing of ours
            self.last = seq
            return None, True
        if missed is None:
            return None, False
        match missed:
            case [int(first), int(last)] if first == self.last + 1 <= last <= seq:
                self.last = last
                return (first, last), True
        raise ValueError("a range of missed events that does not follow the last one seen")


class Following:
    """Who only watches: the events of a session, each once and in order."""

    def __init__(self, after: int | None) -> None:
        self.place = Place(after)
        self.joining = after is not None  # the next event tells of the place

    def receive(self, frame: bytes | str) -> Event | None:
        """Return the event in a frame, if it is news; raises ValueError when it cannot follow."""
        event = decode(frame)
        if self.joining:
            _, lacks = self.place.rejoin(event)
            self.joining = False
            return event if lacks else None
        return event if self.place.take(event) else None
