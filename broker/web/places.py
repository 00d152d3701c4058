"""Who may do at once what takes its time: so many, of which no tenant takes all."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from broker.errors import AtCapacity


class Places:
    """Room for `most` at once, and for `share` of one tenant; who finds none is refused."""

    def __init__(self, most: int, share: int) -> None:
        self._most, self._share = most, share
        self._taken: Counter[str] = Counter()

    def take(self, tenant: str) -> None:
        """Take a place, which whoever has it gives back. Raises AtCapacity."""
        if self._taken.total() >= self._most:
            raise AtCapacity("this node sends and receives as many files as it may")
        if self._taken[tenant] >= self._share:
            raise AtCapacity(f"this tenant sends and receives {self._share} files, its share here")
        self._taken[tenant] += 1

    def give_back(self, tenant: str) -> None:
        """Make room for the next."""
        self._taken[tenant] -= 1
        if not self._taken[tenant]:
            del self._taken[tenant]


class Turns:
    """Room for `most` at once, and for `share` of one tenant; who finds none waits in line."""

    def __init__(self, most: int, share: int) -> None:
        self._share = share
        self._all = asyncio.Semaphore(most)
        self._own: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, tenant: str) -> AsyncIterator[None]:
        """Have a turn while the block lasts."""
        own = self._own.get(tenant)
        if own is None:
            own = self._own[tenant] = asyncio.Semaphore(self._share)
        async with own, self._all:
            yield
