"""What operators and programs ask over HTTP: sessions, pools, nodes, health, metrics."""

from __future__ import annotations

import asyncio
import time
import unicodedata
from dataclasses import asdict
from typing import Any

import msgspec
import psutil

from broker import listing
from broker.errors import BadMessage, StoreUnavailable, UnknownSession
from broker.faults import bad_field
from broker.orders import surrounded
from broker.past import Failure, failures
from broker.pool import Pool
from broker.protocol import check_session_name, open_body, opening_query
from broker.session import Session
from broker.store import NodeRecord
from broker.surroundings import NONE
from broker.web.door import Face
from broker.web.queries import chosen, flag, number, whole
from broker.web.tenants import EVERY, joining
from kernels.state import SessionState

Json = dict[str, Any]
STATES = {"", "all", *(state.value for state in SessionState)}
MOST_MEASURED = 100  # kernels that are named
# Why, unless the one who ends a session says something else.
KILLED = "killed by operator"
KILLED_BY_OWNER = "killed by its owner"  # by a token of its own tenant, not the operator's

# Unicode's control characters, line and paragraph separators: what a log or a terminal acts on.
LINE_BREAKERS = ("Cc", "Zl", "Zp")


class Sessions(Face):
    """`GET /v1/sessions`."""

    every_tenant = True

    async def get(self) -> None:
        """List sessions: those that the filters let through, in their order."""
        wanted = listing.Wanted(
            None if self.tenant == EVERY else self.tenant,
            session=self.principal.session,
            state=chosen(self, "state", STATES, ""),
            idle=number(self, "idle", 0.0),
            node=self.get_query_argument("node", None),
            profile=self.get_query_argument("profile", None),
        )
        sort = chosen(self, "sort", listing.SORTS, "name")
        limit = whole(self, "limit", 1000)
        after = self.get_query_argument("after", None)
        if after is not None and sort != "name":
            raise bad_field("after", "goes with a list by name alone")
        found = await listing.rows(self.service, wanted, sort)
        left = found if after is None else [row for row in found if _is_after(row, after, wanted)]
        cut = left[:limit]
        await listing.use(self.service, cut)
        more = sort == "name" and len(left) > len(cut)
        body = {
            "sessions": cut,
            "next": _cursor(cut[-1], wanted) if more else None,
            "total": len(found),
            "node": self.service.store.node,
        }
        self.set_header("Content-Type", "application/json")
        self.finish(msgspec.json.encode(body))  # a thousand rows would hold others up for 6 ms


def _is_after(row: Json, after: str, wanted: listing.Wanted) -> bool:
    if wanted.tenant is not None:
        return str(row["session"]) > after
    tenant, _, name = after.rpartition("/")
    return (row["tenant"], row["session"]) > (tenant, name)


def _cursor(row: Json, wanted: listing.Wanted) -> str:
    name = str(row["session"])
    return name if wanted.tenant is not None else f"{row['tenant']}/{name}"


class OneSession(Face):
    """`GET`, `POST` and `DELETE /v1/sessions/{session}`."""

    async def get(self, session: str) -> None:
        """Describe it; with `errors=true` with those that only its transcript tells."""
        key, asked = (self.tenant, check_session_name(session)), flag(self, "errors")
        live = self.service.sessions.get(key)
        found = await listing.described(self.service, key)
        if asked:
            told = await (self._failures(key) if live is None else self._errors(live))
            found["errors"] = None if told is None else [one._asdict() for one in told]
        self.answer(found)

    async def _errors(self, live: Session) -> list[Failure]:
        """Return a live session's last errors; its transcript is read for them once."""
        if not live.past.is_recalled:
            live.past.recall(await self._failures(live.key))
        return live.past.all_errors

    async def _failures(self, key: tuple[str, str]) -> list[Failure] | None:
        """Return what the transcript tells of errors, or None while the store is away."""
        async with self.house.walks.of(self.principal.tenant):  # what waits holds no transcript
            try:
                kept = await self.house.scribe.cells(key, self.house.most_cells)
            except StoreUnavailable:
                return None
            return await asyncio.to_thread(lambda: failures(one.cell for one in kept))

    async def post(self, session: str) -> None:
        """Open it, or join it; what is around all that runs in it is set by the way."""
        name = check_session_name(session)
        body = open_body(self.request.body, self.house.bounds)
        configure = body.configure("-")
        service, tenant, query = self.service, self.tenant, opening_query(body)
        if self.visited:
            query = joining(query)
        elif (tenant, name) not in service.sessions:  # what will be refused opens nothing
            default, there = service.default_profile, service.pools.profiles
            profile = service.quotas.profile(tenant, body.profile, default, there)
            surrounded(NONE, configure, service.session_limits[profile])
        found = await service.open(tenant, name, query)
        found.work.configure(configure)
        self.answer(await listing.row(self.service, found.key))

    async def delete(self, session: str) -> None:
        """End it; `reason` is what its next client is told."""
        key = (self.tenant, check_session_name(session))
        reason = _reason(self)
        generation = await self.service.end(key, reason)
        self.answer({"session": session, "generation": generation, "reason": reason})


class InterruptSession(Face):
    """`POST /v1/sessions/{session}/interrupt`."""

    async def post(self, session: str) -> None:
        """Interrupt what runs; with `target` only if that is what runs."""
        found = await _live(self, session)
        target = self.get_query_argument("target", None)
        self.answer({"interrupted": found.work.interrupt(target)})


class RestartSession(Face):
    """`POST /v1/sessions/{session}/restart`."""

    async def post(self, session: str) -> None:
        """Give it a new kernel; `keep_files=false` without the files of the old one."""
        keep = flag(self, "keep_files", default=True)
        found = await _live(self, session)
        generation = await self.service.restart(found, keep_files=keep)
        self.answer({"session": session, "generation": generation})


class Nodes(Face):
    """`GET /v1/nodes`."""

    async def get(self) -> None:
        """List the live nodes; this one as it is now, the others as they last said."""
        own = self.house.describe()
        nodes = {node.node: node for node in await self.service.store.nodes()} | {own.node: own}
        self.answer({"nodes": [_node(nodes[name]) for name in sorted(nodes)]})


class Pools(Face):
    """`GET /v1/pools`, with `memory=true` for PSS and USS (milliseconds a kernel)."""

    async def get(self) -> None:
        """List this node's pools and their kernels: all, or those that are named."""
        measured = flag(self, "memory")
        named = self.get_query_argument("kernels", None)
        wanted = None if named is None else set(named.split(",")) - {""}
        if wanted is not None and len(wanted) > MOST_MEASURED:
            raise bad_field("kernels", f"at most {MOST_MEASURED}, got {len(wanted)}")
        body = self.house.processes()
        body["pools"] = pools = []
        for name, pool in self.service.pools.items():
            pools.append(row := self._pool(name, pool))
            if wanted is not None:
                row["kernels"] = [one for one in row["kernels"] if one["kernel"] in wanted]
        if measured:
            rows = [] if wanted is not None else [body["broker"], *body["zygotes"]]
            for pool in body["pools"]:
                rows += pool["kernels"]
            await asyncio.to_thread(_measure, rows)
        self.answer(body)

    def _pool(self, name: str, pool: Pool[Any]) -> Json:
        snapshot = pool.snapshot()
        sessions = {
            one.kernel.kernel_id: one for one in self.service.sessions.values() if one.kernel
        }
        now = time.monotonic()
        kernels = []
        for row in snapshot.kernels:
            session = sessions.get(row.kernel_id)
            own = session is not None and session.tenant == self.principal.tenant
            kernels.append(
                {
                    "kernel": row.kernel_id,
                    "state": str(row.state),
                    "session": session.name if session and own else None,
                    "generation": session.generation if session else None,
                    "pid": row.pid,
                    "age": now - row.since,
                }
            )
        return {
            "profile": name,
            "node": self.service.store.node,
            "target": snapshot.target,
            "cap": snapshot.cap,
            "warm": snapshot.warm,
            "starting": snapshot.starting,
            "bound": snapshot.bound,
            "stopping": snapshot.stopping,
            "waiting": snapshot.waiting,
            "state": snapshot.state,
            "error": snapshot.error,
            "retry_in": snapshot.retry_in,
            "isolation": pool.source.level,
            "mode": pool.source.mode,
            "kernels": kernels,
        }


class Health(Face):
    """`GET /healthz`: the process answers."""

    public = True

    async def get(self) -> None:
        """Say so."""
        self.answer({"alive": True})

    head = get


class Ready(Face):
    """`GET /readyz`: pools warm, store reachable, not draining."""

    public = True

    async def get(self) -> None:
        """Answer 200, or 503 with the reasons."""
        reasons = self.house.unready()
        self.answer({"ready": not reasons, "reasons": reasons}, 503 if reasons else 200)

    head = get


class MetricsPage(Face):
    """`GET /metrics`, in Prometheus' text format."""

    async def get(self) -> None:
        """Render them."""
        text, content_type = self.house.metrics.render()
        self.set_header("Content-Type", content_type)
        self.finish(text)


def _node(record: NodeRecord) -> Json:
    row = asdict(record)
    return row | {name: None for name in ("memory", "cpu_seconds") if row[name] < 0}


async def _live(handler: Face, name: str) -> Any:
    key = (handler.tenant, check_session_name(name))
    session = handler.service.sessions.get(key)
    if session is None:
        await handler.service.claims.refuse_elsewhere(*key)
        raise UnknownSession(f"no session {name!r} on this node")
    return session


def _reason(handler: Face) -> str:
    # As it was sent: `get_query_argument` would turn some control characters into spaces.
    usual = KILLED if handler.principal.is_operator else KILLED_BY_OWNER
    given = handler.request.query_arguments.get("reason", [usual.encode()])[-1]
    text = handler.decode_argument(given, "reason")
    if any(unicodedata.category(character) in LINE_BREAKERS for character in text):
        raise BadMessage(f"reason: expected one line of text, got {text[:64]!r}", field="reason")
    return text.strip()[:200]


def _measure(rows: list[Json]) -> None:
    """Add `rss`, `pss` and `uss` in bytes, and `cpu_seconds`, to each row with a live `pid`.

    The time is that of the process and of its children that have ended.
    """
    for row in rows:
        row.update(dict.fromkeys(("rss", "pss", "uss", "cpu_seconds")))
        try:
            process = psutil.Process(row["pid"])
            memory, used = process.memory_full_info(), process.cpu_times()
        except (psutil.Error, OSError):
            continue
        row |= {"rss": memory.rss, "pss": memory.pss, "uss": memory.uss}
        row["cpu_seconds"] = round(sum(used[:4]), 3)  # user, system, and both of the children
