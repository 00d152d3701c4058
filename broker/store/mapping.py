"""The session mapping of all nodes.

Keys (the braces are written: they are the hash tag that keeps a session in one slot of a cluster):

    {prefix}:session:{<tenant>/<session>}  hash, the record
    {prefix}:lease:{<tenant>/<session>}    node:generation, gone when the owner stops renewing
    {prefix}:node:<node>                   hash, gone when the node stops writing it
    {prefix}:transcript:{…}, {prefix}:transcript_bytes:{…}  see `cells`

Claim, renew, release and touch are scripts in `broker/lua`, each atomic and fenced by generation.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from broker.errors import StoreUnavailable
from broker.store.cells import RECORD, Cells
from broker.store.connection import Connection, escaped, load_script
from broker.store.records import Claim, Lease, NodeRecord, Renewal, SessionRecord, Touch, parsed
from broker.store.tokens import TokenRows

RECORD_LIFE = 86_400.0  # s that a record outlives its session's `expires`
AT_ONCE = 100  # leases renewed in one round trip: 2 ms of work, here and there

CLAIM, RENEW, RELEASE, TOUCH = map(load_script, ("claim", "renew", "release", "touch"))


class Store:
    """The session mapping, as one node sees it.

    Made by `connect`, ended by `aclose`. Each call answers within a third of the lease or raises
    StoreUnavailable, so that an owner knows in time that it could not renew. Such a call may still
    have taken effect: each can be repeated, and then answers as the first would have.
    """

    def __init__(
        self, connection: Connection, *, prefix: str, node: str, lease: float, keep: float
    ) -> None:
        if set(prefix) & set("{}"):
            raise ValueError("prefix: no braces, they mark what a cluster hashes")
        self.url = connection.url
        self.node = node
        self._connection = connection
        self.cells = Cells(connection, prefix)
        self._prefix = prefix
        self._lease_ms = max(1, round(lease * 1000))
        self._keep = keep
        self.tokens = TokenRows(connection, prefix)

    def __repr__(self) -> str:
        return f"<Store {self.url} {self._prefix}: as {self.node}>"

    @classmethod
    async def connect(
        cls, url: str, *, prefix: str, node: str, lease: float, keep: float = RECORD_LIFE
    ) -> Store:
        """Return a store that has answered once.

        `url` is redis://, rediss://, unix:// or redis+sentinel://host:port,host2:port/service.
        `lease` and `keep` (how long a record outlives its session) are seconds.
        """
        connection = Connection(url, patience=lease / 3)
        try:
            store = cls(connection, prefix=prefix, node=node, lease=lease, keep=keep)
            await store.ping()
        except BaseException:
            await connection.aclose()
            raise
        with suppress(StoreUnavailable):  # they go with their text when they are first called
            await connection.load(CLAIM, RENEW, RELEASE, TOUCH, RECORD)
        return store

    async def aclose(self) -> None:
        """Close the connections; leases are left to run out."""
        await self._connection.aclose()

    async def ping(self) -> None:
        """Return if the store answers."""
        await self._connection.ask("PING")

    async def claim(
        self, tenant: str, session: str, *, kernel: str, profile: str, now: float, expires: float
    ) -> Claim:
        """Take the session for `kernel` unless a live lease names an owner (this node too).

        A record without a lease is a dead owner's: it is taken over as the next generation, reason
        `node_lost`. A closed one is opened anew, as the next generation and with a new `created`.
        """
        life = self._life(now, expires)
        row = [self.node, kernel, profile, now, expires, self._lease_ms, life]
        [reply] = await self._connection.run(CLAIM, [(self._keys(tenant, session), row)])
        status, generation, node, previous, reason, created, history = reply
        return Claim(status, int(generation), node, previous, reason, float(created), history)

    async def renew(self, claims: Sequence[Lease]) -> list[Renewal]:
        """Renew the leases, a hundred in a round trip; the answers are in the order of `claims`.

        Others have their turn between these: a thousand at once would hold them up for 20 ms.
        """
        answers: list[Renewal] = []
        for at in range(0, len(claims), AT_ONCE):
            part = claims[at : at + AT_ONCE]
            calls = [(self._keys(held.tenant, held.session), self._renewal(held)) for held in part]
            answers += [Renewal(reply) for reply in await self._connection.run(RENEW, calls)]
        return answers

    async def release(
        self, tenant: str, session: str, generation: int, *, reason: str, now: float, keep: float
    ) -> bool:
        """Close the generation, and say whether it was still this node's to close.

        The record stays `keep` seconds: a claim in that time is the next generation and is told
        `reason`. Releasing twice is answered alike and keeps the first reason.
        """
        row = [self.node, generation, reason, now, max(0, round(keep * 1000)), now + keep]
        [done] = await self._connection.run(RELEASE, [(self._keys(tenant, session), row)])
        return bool(done)

    async def touch(self, rows: Sequence[Touch]) -> None:
        """Note uses of sessions in one round trip; a record that is not ours stays as it is."""
        calls = [(self._keys(row.tenant, row.session)[:1], self._use(row)) for row in rows]
        await self._connection.run(TOUCH, calls)

    async def get(self, tenant: str, session: str) -> SessionRecord | None:
        """Return the session's record, or None when there is none."""
        found = await self._records([_member(tenant, session)])
        return found[0] if found else None

    async def sessions(self, tenant: str | None) -> AsyncIterator[SessionRecord]:
        """Yield each record of a tenant, or of all; closed sessions too, while they are kept.

        Those that come or go meanwhile may be left out; none is yielded twice.
        """
        wanted = "*" if tenant is None else escaped(_member(tenant, "")) + "*"
        start = f"{self._prefix}:session:{{"
        seen: set[str] = set()
        async for keys in self._connection.scan(f"{escaped(start)}{wanted}}}"):
            members = {key[len(start) : -1] for key in keys} - seen
            seen |= members
            for record in await self._records(sorted(members)):
                yield record

    async def owned(self) -> list[SessionRecord]:
        """Return the sessions that this node has a kernel for, leased or not: for adoption."""
        return [row async for row in self.sessions(None) if row.node == self.node and row.kernel]

    async def put_node(self, record: NodeRecord) -> None:
        """Write the node's record, which goes when it is not written again within a lease."""
        key = self._node(record.node)
        values: Mapping[str, Any] = asdict(record) | {"draining": int(record.draining)}
        flat = [item for pair in values.items() for item in pair]
        commands = [("HSET", key, *flat), ("PEXPIRE", key, self._lease_ms)]
        await self._connection.pipeline(commands, atomic=True)

    async def nodes(self) -> list[NodeRecord]:
        """Return the live nodes, by name."""
        found: dict[str, NodeRecord] = {}
        async for keys in self._connection.scan(escaped(self._node("")) + "*"):
            hashes = await self._connection.pipeline([("HGETALL", key) for key in keys])
            for key, values in zip(keys, hashes, strict=True):
                if values:  # else it has run out since the scan saw it
                    found[key] = parsed(NodeRecord, key, values)
        return [found[key] for key in sorted(found)]

    async def url_of(self, node: str) -> str:
        """Return a live node's address, or "" if it is not known."""
        return await self._connection.ask("HGET", self._node(node), "url") or ""

    async def drop_node(self) -> None:
        """Remove this node's own record."""
        await self._connection.ask("DEL", self._node(self.node))

    def _node(self, node: str) -> str:
        return f"{self._prefix}:node:{node}"

    def _record(self, member: str) -> str:
        return f"{self._prefix}:session:{{{member}}}"

    def _lease(self, member: str) -> str:
        return f"{self._prefix}:lease:{{{member}}}"

    def _keys(self, tenant: str, session: str) -> list[str]:
        member = _member(tenant, session)
        return [self._record(member), self._lease(member)]

    def _life(self, now: float, expires: float) -> int:
        """Return a record's life in ms, 0 for a session without an end."""
        if expires <= 0 or not math.isfinite(expires):
            return 0
        return max(1, round((max(0.0, expires - now) + self._keep) * 1000))

    def _renewal(self, held: Lease) -> list[Any]:
        life = self._life(held.last_used, held.expires)
        fence = [self.node, held.generation, held.kernel, self._lease_ms, life]
        times = [held.created, held.last_used, held.expires]
        return [*fence, held.profile, held.state, *times]

    def _use(self, row: Touch) -> list[Any]:
        life = self._life(row.last_used, row.expires)
        return [self.node, row.generation, row.state, row.last_used, row.expires, life]

    async def _records(self, members: Sequence[str]) -> list[SessionRecord]:
        commands: list[tuple[str, str]] = []
        for member in members:
            commands += [("HGETALL", self._record(member)), ("EXISTS", self._lease(member))]
        replies = await self._connection.pipeline(commands)
        records: list[SessionRecord] = []
        for member, values, leased in zip(members, replies[::2], replies[1::2], strict=True):
            if values:
                tenant, session = _owner(member)
                whole = {**values, "tenant": tenant, "session": session, "leased": leased}
                records.append(parsed(SessionRecord, self._record(member), whole))
        return records


def _member(tenant: str, session: str) -> str:
    member = f"{tenant}/{session}"
    if set(member) & set("{}"):
        raise ValueError(f"no braces in {member!r}, they mark what a cluster hashes")
    return member


def _owner(member: str) -> tuple[str, str]:
    tenant, _, session = member.rpartition("/")  # a session's name has no slash
    return tenant, session
