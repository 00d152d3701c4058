"""A service on a store in memory, with pools whose kernels never speak."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any, cast

from broker.callers import NOBODY, Asker
from broker.errors import AtCapacity, BrokerError, StoreUnavailable
from broker.metrics import Metrics
from broker.pool import Pool
from broker.pools import Pools
from broker.roles import SessionLimits
from broker.service import Service, ServiceLimits
from broker.store import Claim, Lease, NodeRecord, Renewal, SessionRecord, Store, Touch
from kernels.spec import Usage

Key = tuple[str, str]


class MemoryStore:
    """The mapping of one node. `down` refuses everything, `no_nodes` the node's own record.

    `hold` makes claims wait, and `hold_renewals` renewals, before they read anything.
    """

    node = "n1"

    def __init__(self) -> None:
        self.records: dict[Key, SessionRecord] = {}
        self.others: dict[str, NodeRecord] = {}
        self.down = False
        self.hold = asyncio.Event()
        self.hold.set()
        self.hold_renewals = asyncio.Event()
        self.hold_renewals.set()
        self.no_nodes = False
        self.lost: set[Key] = set()
        self.touched: list[Touch] = []
        self.renewals = 0
        self.own: NodeRecord | None = None

    def _answer(self) -> None:
        if self.down:
            raise StoreUnavailable("the store does not answer")

    async def claim(
        self, tenant: str, session: str, *, kernel: str, profile: str, now: float, expires: float
    ) -> Claim:
        await self.hold.wait()
        self._answer()
        key, old = (tenant, session), self.records.get((tenant, session))
        if old is not None and old.leased:
            return Claim("held", old.generation, old.node, "", "", old.created)
        generation = 1 if old is None else old.generation + 1
        reason = "" if old is None else old.reason
        self.records[key] = SessionRecord(
            *key, self.node, kernel, generation, profile, "ready", "", "", now, now, expires, True
        )
        return Claim("claimed", generation, self.node, "", reason, now)

    async def release(
        self, tenant: str, session: str, generation: int, *, reason: str, now: float, keep: float
    ) -> bool:
        self._answer()
        key = (tenant, session)
        old = self.records.get(key)
        if not keep:
            self.records.pop(key, None)
        elif old is not None and old.state != "closed":
            self.records[key] = replace(
                old, kernel="", state="closed", reason=reason, leased=False, generation=generation
            )
        return True

    async def renew(self, claims: Sequence[Lease]) -> list[Renewal]:
        self.renewals += 1
        await self.hold_renewals.wait()
        self._answer()
        return [self._renewed(one) for one in claims]

    def _renewed(self, held: Lease) -> Renewal:
        key = (held.tenant, held.session)
        old = self.records.get(key)
        if key in self.lost or (
            old and (old.generation > held.generation or old.state == "closed")
        ):
            return Renewal.LOST
        if old:
            return Renewal.OK
        names = (*key, self.node, held.kernel)
        times = (held.created, held.last_used, held.expires)
        self.records[key] = SessionRecord(
            *names, held.generation, held.profile, "ready", "", "", *times, leased=True
        )
        return Renewal.REWRITTEN

    async def touch(self, rows: Sequence[Touch]) -> None:
        self._answer()
        self.touched += rows

    async def get(self, tenant: str, session: str) -> SessionRecord | None:
        self._answer()
        return self.records.get((tenant, session))

    async def sessions(self, tenant: str | None) -> AsyncIterator[SessionRecord]:
        for record in self.records.values():
            yield record

    async def owned(self) -> list[SessionRecord]:
        return [record for record in self.records.values() if record.kernel]

    async def nodes(self) -> list[NodeRecord]:
        return [*self.others.values()]

    async def url_of(self, node: str) -> str:
        return self.others[node].url if node in self.others else ""

    async def put_node(self, record: NodeRecord) -> None:
        self._answer()
        if self.no_nodes:
            raise StoreUnavailable("the node's record cannot be written")
        self.own = record

    async def drop_node(self) -> None:
        self._answer()
        self.own = None


class SilentChannels:
    def __init__(self) -> None:
        self.receiver: Any = None
        self.broken: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.sent: list[str] = []
        self.position = 0

    def catch_up(self, count: int) -> None: ...

    def ask_again(self) -> None: ...

    def next_id(self) -> str:
        return f"k_{len(self.sent)}"

    def send(self, channel: str, kind: str, content: Any, **_: Any) -> str:
        self.sent.append(content.get("code", kind))
        return "asked"

    def pause(self) -> None: ...

    def resume(self) -> None: ...


class Files:
    def __init__(self, name: str) -> None:
        self.workspace_id = name
        self.descriptor = -1
        self.changes = None

    def changed(self) -> dict[str, Any]:
        return {}


class SilentKernel:
    is_metered = False
    is_ours = True
    info = b""

    def introduce(self, content: bytes) -> None:
        self.info = content

    def usage(self) -> Usage:
        return Usage()

    def __init__(self, name: str, workspace: Files | None = None) -> None:
        self.keep_workspace = False
        self.needs = 1 << 20
        self.bounds: dict[str, float | None] = {}
        self.workspace = workspace or Files(f"files of {name}")
        self.kernel_id = name
        self.pid = 1
        self.labels: list[str] = []
        self.channels: Any = SilentChannels()
        self.exited: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def tighten(self, **bounds: float | None) -> None:
        if (bounds.get("memory") or 1 << 30) < self.needs:
            raise OSError(16, "Device or resource busy")
        self.bounds = bounds

    def label(self, text: str) -> None:
        self.labels.append(text)

    def interrupt(self, request_id: str = "") -> None: ...

    def insist(self) -> None: ...

    def kill(self) -> None:
        if not self.exited.done():
            self.exited.set_result("signal SIGKILL")

    async def close(self) -> None:
        self.kill()


class FreePool:
    """Hands out new kernels at once, up to a number."""

    def __init__(self, most: int = 100) -> None:
        self.most = most
        self.given: list[SilentKernel] = []
        self.settled: list[str] = []
        self.discarded: list[str] = []
        self.reasons: list[str] = []
        self.adopted: list[tuple[str, bool]] = []
        self.error: BrokerError | None = None
        self.stuck = ""  # the kernel that cannot be discarded
        self.has_any = asyncio.Event()
        self.has_any.set()
        self.source = self  # of kernels
        self.assured = "full"
        self.dropped: list[str] = []  # workspaces
        self._names = itertools.count(1)

    async def acquire(self, *, timeout: float, asker: Asker = NOBODY) -> SilentKernel:
        async with asyncio.timeout(timeout):
            await self.has_any.wait()
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        if len(self.given) - len(self.discarded) >= self.most:
            raise AtCapacity("no room")
        self.given.append(SilentKernel(f"k{next(self._names)}"))
        return self.given[-1]

    async def acquire_with(
        self, workspace: Files, *, timeout: float, asker: Asker = NOBODY
    ) -> SilentKernel:
        kernel = await self.acquire(timeout=timeout)
        kernel.workspace, kernel.keep_workspace = workspace, True
        return kernel

    def drop_workspace(self, workspace: Files) -> None:
        self.dropped.append(workspace.workspace_id)

    def bound(self, kernel: SilentKernel) -> None:
        self.settled.append(kernel.kernel_id)

    async def discard(self, kernel: SilentKernel, reason: str = "discarded") -> None:
        await asyncio.sleep(0)
        if kernel.kernel_id == self.stuck:
            raise OSError("it does not end")
        self.discarded.append(kernel.kernel_id)
        self.reasons.append(reason)
        if not kernel.keep_workspace:
            self.drop_workspace(kernel.workspace)
        kernel.kill()

    def adopt(self, kernel: SilentKernel, *, bound: bool) -> None:
        self.adopted.append((kernel.kernel_id, bound))


class House:
    """A service with what it stands on."""

    def __init__(self, *, most: int = 100, **limits: Any) -> None:
        self.store = MemoryStore()
        self.pool = FreePool(most)
        self.metrics = Metrics()
        self.service = Service(
            store=cast(Store, self.store),
            pools=Pools({"python": cast(Pool[Any], self.pool)}),
            default_profile="python",
            session_limits={"python": SessionLimits(**limits)},
            limits=ServiceLimits(acquire_timeout=5.0, record_ttl=60.0),
            metrics=self.metrics,
        )

    def node(self) -> NodeRecord:
        return NodeRecord("n1", "http://n1", "1", 1, 0, 0, False, 0.0)
