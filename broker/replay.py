"""The last events of a session, kept for clients that come back; bounded, the oldest go."""

from __future__ import annotations

from collections import deque
from itertools import islice
from math import inf
from sys import getsizeof
from typing import Any, Generic, TypeVar

Kept = TypeVar("Kept")

FEW = 32  # members, which are counted without being laid out first
SOME = 4096  # of many, counted at once
NESTING = (dict, list)
NUMBERS = frozenset((int, float, bool, type(None)))
NUMBER = 32  # bytes of one of at most 64 bits


class Replay(Generic[Kept]):
    """Keep the newest events of one session, within bounds of their number and their bytes.

    Events are held in whatever form they are given, and must not be changed afterwards. Sequence
    numbers follow one another without a gap, from 1 on. One event over the bound of bytes is not
    kept.
    """

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._last = 0
        self._kept: deque[tuple[Kept, int]] = deque()
        self._bytes = 0

    def __repr__(self) -> str:
        return f"<Replay {self.first}-{self._last}: {len(self._kept)} events, {self._bytes} bytes>"

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def first(self) -> int:
        """The oldest number kept; one after the last when nothing is."""
        return self._last - len(self._kept) + 1

    @property
    def last(self) -> int:
        """The newest number given, kept or not."""
        return self._last

    @property
    def size(self) -> int:
        """The bytes of what is kept, as its givers counted them."""
        return self._bytes

    def skip(self, to: int) -> None:
        """Continue after this number; what is kept goes. Raises ValueError for one given before."""
        if to < self._last:
            raise ValueError(f"number {to} stands before {self._last}")
        self._last = to
        self._kept.clear()
        self._bytes = 0

    def append(self, seq: int, event: Kept, size: int) -> None:
        """Add the next event, of `size` bytes; raises ValueError when `seq` is not the next."""
        if seq != self._last + 1:
            raise ValueError(f"event {seq} follows {self._last}")
        self._last += 1
        self._kept.append((event, size))
        self._bytes += size
        while len(self._kept) > self._max_events or self._bytes > self._max_bytes:
            self._drop()

    def since(self, after: int) -> tuple[tuple[int, int] | None, list[Kept]]:
        """Return what a client that has seen `after` has missed for good, and what it can have.

        The first is the range of numbers that are gone, or None. A client ahead of the session gets
        nothing: it saw another broker's numbers.
        """
        first = self.first
        gone = (after + 1, first - 1) if after + 1 < first else None
        skip = max(0, after + 1 - first)
        return gone, [event for event, _ in islice(self._kept, skip, None)]

    def trim(self, seq: int) -> None:
        """Drop every event up to `seq`: whoever could ask for them has them."""
        while self._kept and self.first <= seq:
            self._drop()

    def _drop(self) -> None:
        _, size = self._kept.popleft()
        self._bytes -= size


def size_of(value: object, most: float = inf) -> int:
    """Return how many bytes of memory plain data holds, keys and all.

    What stands in it twice counts twice, and each of many numbers as NUMBER. Counting stops soon
    after it is over `most`.
    """
    size = getsizeof(value)
    left: list[Any] = [value] if isinstance(value, NESTING) else []
    while left and size <= most:
        holder = left.pop()
        is_map = isinstance(holder, dict)
        if len(holder) <= FEW:  # an event itself, a MIME bundle
            if is_map:
                size += sum(map(getsizeof, holder))
            for item in holder.values() if is_map else holder:
                size += getsizeof(item)
                if isinstance(item, NESTING):
                    left.append(item)
            continue
        # Without a step of Python's for each member.
        for part in (holder, holder.values()) if is_map else (holder,):
            members = iter(part)
            while size <= most and (some := [*islice(members, SOME)]):
                kinds = set(map(type, some))
                size += NUMBER * len(some) if kinds <= NUMBERS else sum(map(getsizeof, some))
                if not kinds.isdisjoint(NESTING):
                    left.extend([item for item in some if isinstance(item, NESTING)])
    return size
