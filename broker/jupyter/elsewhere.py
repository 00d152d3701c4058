"""The sessions of other nodes by their ids as kernels, as far as the store knows them.

An id tells no name, so all records of a tenant have to be read through: what a listing costs. What
was found serves all who ask within a moment, one after the other: however often a client asks for
what is not there, that is read no more often.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from weakref import WeakValueDictionary

from broker.errors import StoreUnavailable
from broker.jupyter import names
from broker.store import Store

LASTS = 2.0  # s that what was found serves others; what is opened meanwhile they do not hear of
MOST = 20_000  # sessions of one tenant on other nodes; a further one is not found


class Elsewhere:
    """Who serves the kernels that this node does not."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._found: dict[str, Mapping[str, str]] = {}  # by tenant
        self._gates: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<Elsewhere: looked for {len(self._found)} tenants>"

    async def name_of(self, tenant: str, kernel_id: str) -> str | None:
        """Return what the tenant calls the session of this id that another node serves.

        Nothing where the store is out of reach: then nobody knows.
        """
        gate = self._gates.get(tenant) or self._gates.setdefault(tenant, asyncio.Lock())
        async with gate:
            found = self._found.get(tenant)
            if found is None:
                found = self._found[tenant] = await self._look(tenant)
                asyncio.get_running_loop().call_later(LASTS, self._found.pop, tenant)
        return found.get(kernel_id)

    async def _look(self, tenant: str) -> Mapping[str, str]:
        found: dict[str, str] = {}
        try:
            async for record in self._store.sessions(tenant):
                if record.leased and record.node != self._store.node and len(found) < MOST:
                    found[names.derived(tenant, record.session)] = record.session
        except StoreUnavailable:
            return {}
        return found
