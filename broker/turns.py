"""Whose turn it is: tenants in rotation, and each tenant's own in the order in which they came.

Pure. A tenant that asks for ten times as much waits ten times as long, and nobody else does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from itertools import zip_longest
from typing import Generic, TypeVar

W = TypeVar("W", bound=Hashable)
V = TypeVar("V")


class Turns(Generic[W, V]):
    """Those who wait, with what is known of each. What is asked on every event costs the same."""

    def __init__(self) -> None:
        self._queues: OrderedDict[str, OrderedDict[W, V]] = OrderedDict()  # whose turn it is, first
        self._tenants: dict[W, str] = {}

    def __len__(self) -> int:
        return len(self._tenants)

    @property
    def tenants(self) -> int:
        """Count the tenants that wait for anything."""
        return len(self._queues)

    def of(self, tenant: str) -> int:
        """Count those of one tenant."""
        return len(self._queues.get(tenant, ()))

    def add(self, tenant: str, waiter: W, known: V) -> None:
        """Put one at the end of its tenant's own; a tenant that is new comes after all others."""
        self._queues.setdefault(tenant, OrderedDict())[waiter] = known
        self._tenants[waiter] = tenant

    def next(self) -> tuple[W, V] | None:
        """Take out who is next, or None; its tenant comes after all others then."""
        if not self._queues:
            return None
        tenant, queue = next(iter(self._queues.items()))
        waiter, known = queue.popitem(last=False)
        del self._tenants[waiter]
        if queue:
            self._queues.move_to_end(tenant)
        else:
            del self._queues[tenant]
        return waiter, known

    def remove(self, waiter: W) -> None:
        """Take out one who waits no more, if it is there."""
        tenant = self._tenants.pop(waiter, None)
        if tenant is not None:
            del self._queues[tenant][waiter]
            if not self._queues[tenant]:
                del self._queues[tenant]

    def order(self) -> Iterator[tuple[W, V]]:
        """Yield all of them, in the order of their turns if nobody else comes."""
        for turn in zip_longest(*(queue.items() for queue in self._queues.values())):
            yield from (one for one in turn if one is not None)

    def clear(self) -> list[W]:
        """Take all of them out."""
        waiting = list(self._tenants)
        self._queues.clear()
        self._tenants.clear()
        return waiting
