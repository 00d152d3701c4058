"""What was published last, kept for who subscribes again: a broker that was killed and came back.

What its sockets had taken in is gone with it, and what comes while nobody listens would be.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

AFTER = b"\x00after:"  # a topic that asks for all that came later than so many messages
MOST_BYTES = 1 << 20
MOST_MESSAGES = 1000

Frames = Sequence[bytes]


class Kept:
    """The newest messages, within bounds of their number and their bytes; all are counted."""

    def __init__(self) -> None:
        self.count = 0  # of all there were
        self._messages: deque[tuple[Frames, int]] = deque()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Kept {len(self._messages)} of {self.count}, {self._bytes} B>"

    def add(self, message: Frames, size: int) -> None:
        """Count a message and keep it; the oldest go."""
        self.count += 1
        self._messages.append((message, size))
        self._bytes += size
        while self._bytes > MOST_BYTES or len(self._messages) > MOST_MESSAGES:
            self._bytes -= self._messages.popleft()[1]

    def since(self, count: int) -> tuple[int, list[Frames]]:
        """Return how many messages after the first `count` are gone, and those that are kept."""
        wanted = max(0, self.count - count)
        kept = [message for message, _ in self._messages][-wanted:] if wanted else []
        return wanted - len(kept), kept

    def forget(self, leave: int = 0) -> None:
        """Keep no more than the newest few: who asks for more has had the others."""
        while len(self._messages) > leave:
            self._bytes -= self._messages.popleft()[1]


def asked_after(topic: bytes) -> int | None:
    """Return how many messages a subscriber has had, or None when it is an ordinary topic."""
    number = topic.removeprefix(AFTER)
    return int(number) if number != topic and number.isdigit() and len(number) < 20 else None
