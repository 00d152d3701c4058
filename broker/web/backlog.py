"""What one client has not read yet, and what is done about it.

The kernel is held back for a client that is behind, unless another keeps up; one that is hopelessly
behind is given up.
"""

from __future__ import annotations

from math import inf

from tornado.iostream import IOStream

from broker.audience import Audience
from broker.roles import Client
from broker.web.outbox import Outbox

MOST_BACKLOGS = 4  # what a client may have unread while the kernel is held back for it


class Backlog:
    """One client's way out, bounded once `bound` is called. `most` is in bytes."""

    def __init__(
        self, stream: IOStream, opcode: int, most: int, audience: Audience, client: Client
    ) -> None:
        self.outbox = Outbox(stream, opcode, self._drained)
        self._most = most
        self._audience = audience
        self._client = client
        self._room = inf  # bytes that may be unread before this client is too slow
        self._held = False
        self._parted = False  # the client has left its session, which is not held for it any more

    def __repr__(self) -> str:
        return f"<Backlog {self.outbox!r}, held={self._held}>"

    def bound(self) -> None:
        """Bound what comes from now on: what it has asked for itself is no sign of slowness."""
        self._room = self._most + self.outbox.unread

    def part(self) -> None:
        """Hold the session back no more for a connection that it has lost."""
        self._parted = True
        if self._held:
            self._held = False
            self._audience.release(self._client)

    def put(self, payload: bytes, opcode: int | None = None) -> bool:
        """Gather a frame, of another opcode if one is given; False for who is to be given up.

        What was not sent is dropped then: behind all that, a close frame would not come in time.
        """
        # What is counted was there before: one frame may be as large as the bound.
        if self.outbox.unread > self._room and not self._may_wait():
            self.outbox.drop()
            return False
        self.outbox.put(payload, opcode)
        return True

    def _may_wait(self) -> bool:
        """Hold the kernel back for this client; False if others keep up, or it is hopeless."""
        most = self._room + (MOST_BACKLOGS - 1) * self._most
        if self._parted or self.outbox.unread > most:
            return False
        self._held = True
        return self._audience.hold(self._client)

    def _drained(self) -> None:
        if self.outbox.unread <= self._most:
            self._room = self._most
        if self._held and self.outbox.unread < self._most // 2:
            self._held = False
            self._audience.release(self._client)
