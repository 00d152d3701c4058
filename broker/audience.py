"""Who follows a session, and the numbered events they get."""

from __future__ import annotations

from collections.abc import Callable

from broker.execution import Event
from broker.marks import Mark
from broker.replay import Replay
from broker.roles import Client, Envelope

# What keeping an event takes beside its bytes: the object that holds them, and its place.
KEEPING = 128


class Audience:
    """The clients of one session. Events are numbered 1, 2, 3 … and the newest are kept.

    The numbers go on where `mark` says that an earlier broker has left them.

    `pace` is called when a client falls behind or catches up; it returns whether the source of
    events is held back now. An event is sent at once, except from `gather` to `flush`, where all
    that come are sent together: the two stand in one turn of the loop.
    """

    def __init__(
        self, max_events: int, max_bytes: int, pace: Callable[[], bool], mark: Mark | None = None
    ) -> None:
        self.clients: set[Client] = set()
        self._behind: set[Client] = set()  # those who cannot take more just now
        self._gathering = False
        # As frames: one object each, which the garbage collector need not look into, and which
        # takes the memory that it says.
        self._replay: Replay[bytes] = Replay(max_events, max_bytes)
        self._pace = pace
        self._mark = mark or Mark()
        self._replay.skip(self._mark.last)

    @property
    def last(self) -> int:
        """Return the number of the newest event."""
        return self._replay.last

    @property
    def all_behind(self) -> bool:
        """Tell whether nobody can take more; an empty audience takes everything."""
        return bool(self.clients) and self._behind >= self.clients

    def emit(self, event: Event) -> None:
        """Number an event, keep it for those who reconnect, and send it to every client."""
        event["seq"] = seq = self._replay.last + 1
        self._mark.number(seq)
        envelope = Envelope(event)
        frame = envelope.packed
        self._replay.append(seq, frame, len(frame) + KEEPING)
        for client in tuple(self.clients):
            client.deliver(envelope)
        if not self._gathering:
            self.flush()

    def skip(self, to: int) -> None:
        """Go on above a number that another broker may have given; no lower than before."""
        if to > self.last:
            self._replay.skip(to)
            self._mark.number(to)

    def gather(self) -> None:
        """Let the events that come now wait for each other, until `flush`."""
        self._gathering = True

    def flush(self) -> None:
        """Send what has been gathered."""
        self._gathering = False
        for client in tuple(self.clients):
            client.dispatch()

    def since(self, after: int | None) -> tuple[tuple[int, int] | None, list[Envelope]]:
        """Return the range that is gone, and the kept events later than `after`."""
        if after is None:
            return None, []
        missed, frames = self._replay.since(after)
        return missed, [Envelope.of(frame) for frame in frames]

    def add(self, client: Client) -> None:
        """Send every event to this client from now on."""
        self.clients.add(client)
        self._pace()

    def remove(self, client: Client) -> None:
        """Forget a client."""
        self.clients.discard(client)
        self.release(client)

    def hold(self, client: Client) -> bool:
        """Wait for a client that is behind, unless another keeps up; say whether that is so."""
        self._behind.add(client)
        return self._pace()

    def release(self, client: Client) -> None:
        """Note that the client has caught up, or has gone."""
        self._behind.discard(client)
        self._pace()

    def acknowledge(self, seq: int) -> None:
        """Drop the kept events up to `seq`, if there is only one client to ask for them."""
        if len(self.clients) <= 1:
            self._replay.trim(min(seq, self.last))

    def end(self, code: int, reason: str, *, spare: Client | None = None) -> None:
        """Send everybody away but `spare`, who gets a word of its own."""
        for client in tuple(self.clients):
            if client is not spare:
                client.end(code, reason)
        self.clients.clear()
