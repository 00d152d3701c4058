"""The pools of a node: one for each profile, or one for each tenant that uses it.

Tenants with zygotes of their own share no address layout, no hash seed and no page of memory; the
price is a zygote and warm kernels for each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from broker import refusals
from broker.pool import Pool

MakePool = Callable[[str], Pool[Any]]


def pool_name(profile: str, tenant: str) -> str:
    """Return what a tenant's own pool is called."""
    return f"{profile}@{tenant}"


class Pools:
    """Find the pool for a session. `apart` makes those of a tenant, when it is first asked for."""

    def __init__(
        self,
        shared: Mapping[str, Pool[Any]],
        apart: Mapping[str, MakePool] = MappingProxyType({}),
    ) -> None:
        self._shared = shared
        self._apart = apart
        self._made: dict[tuple[str, str], Pool[Any]] = {}
        self._started = self._stopped = False

    def __contains__(self, profile: object) -> bool:
        return profile in self._shared or profile in self._apart

    @property
    def profiles(self) -> list[str]:
        """Return the names of the profiles."""
        return sorted([*self._shared, *self._apart])

    def items(self) -> Iterator[tuple[str, Pool[Any]]]:
        """Give each pool there is, with its name."""
        yield from self._shared.items()
        for key, pool in self._made.items():
            yield pool_name(*key), pool

    def values(self) -> list[Pool[Any]]:
        """Return each pool there is."""
        return [*self._shared.values(), *self._made.values()]

    def get(self, profile: str, tenant: str) -> Pool[Any]:
        """Return the pool of a profile that the tenant's sessions use. Raises Draining."""
        if profile in self._shared:
            return self._shared[profile]
        key = (profile, tenant)
        if key not in self._made:
            if self._stopped:
                raise refusals.closing(profile)
            self._made[key] = self._apart[profile](tenant)
            if self._started:
                self._made[key].start()
        return self._made[key]

    def start(self) -> None:
        """Let every pool come to its target."""
        self._started = True
        for pool in self.values():
            pool.start()

    async def forget(self, profile: str, tenant: str) -> None:
        """Let go of a tenant's pool that was not started."""
        await self._made.pop((profile, tenant)).source.aclose()

    async def stop(self) -> None:
        """End every kernel."""
        self._stopped = True
        await asyncio.gather(*(pool.stop() for pool in self.values()))

    async def close_sources(self) -> None:
        """End where the kernels came from."""
        await asyncio.gather(*(pool.source.aclose() for pool in self.values()))
