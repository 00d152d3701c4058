"""The replies of one session that wait for the `idle` before them.

So no client stops listening too soon. That wait has an end, and a bound for all together: beyond
it, those that have waited longest go without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from broker.jupyter.follower import KEEPING
from broker.jupyter.frames import Packet
from broker.jupyter.request import Request
from broker.session import Session

PATIENCE = 10.0  # s that a reply waits
MOST_HELD = 64  # replies,
MOST_BYTES = 16 << 20  # and their bytes


class Held:
    """The replies that wait, each by its request; `release` sends one that waits no longer."""

    def __init__(self, session: Session, release: Callable[[Request], None]) -> None:
        self._session = session
        self._release = release
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[Request, tuple[Packet, asyncio.TimerHandle]] = {}  # oldest first
        self._size = 0

    def __repr__(self) -> str:
        return f"<Held: {len(self._waiting)} replies, {self._size:,} bytes>"

    def keep(self, request: Request, packet: Packet) -> None:
        """Hold a reply back."""
        self._waiting[request] = packet, self._wait(request)
        self._size += packet.size + KEEPING
        while len(self._waiting) > MOST_HELD or self._size > MOST_BYTES:
            self._release(next(iter(self._waiting)))

    def take(self, request: Request) -> Packet | None:
        """Return the reply to a request, if it is held; it is no more."""
        if (found := self._waiting.pop(request, None)) is None:
            return None
        packet, timer = found
        timer.cancel()
        self._size -= packet.size + KEEPING
        return packet

    def clear(self) -> None:
        """Forget them all."""
        for request in [*self._waiting]:
            self.take(request)

    def _wait(self, request: Request) -> asyncio.TimerHandle:
        return self._loop.call_later(PATIENCE, self._lose_patience, request)

    def _lose_patience(self, request: Request) -> None:
        if self._session.pace():
            # What comes before it is held back for a client that reads slowly.
            packet, _ = self._waiting[request]
            self._waiting[request] = packet, self._wait(request)
        else:
            self._release(request)
