"""The access tokens of all nodes, by digest: who presents one is let in, who reads them is not.

    {prefix}:token:<digest>  hash, the record; gone when it expires
    {prefix}:tokens          sorted set: digests by when they were made

The digest is SHA-256 of the token. A slow, salted hash is for secrets that people choose: these are
256 random bits, and no list of likely ones exists to try.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from broker.store.connection import Connection
from broker.store.records import TokenRecord, parsed


class TokenRows:
    """The tokens in the store. Each call raises StoreUnavailable if that does not answer."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix

    async def put(self, record: TokenRecord) -> None:
        """Write a new token down."""
        key = self._key(record.digest)
        flat = [item for pair in asdict(record).items() for item in pair]
        commands: list[tuple[Any, ...]] = [("HSET", key, *flat)]
        if record.expires:
            commands.append(("PEXPIREAT", key, round(record.expires * 1000)))
        commands.append(("ZADD", self._index, record.created, record.digest))
        await self._connection.pipeline(commands, atomic=True)

    async def get(self, digest: str) -> TokenRecord | None:
        """Return a token's record, or None once it has expired or was revoked."""
        return _record(self._key(digest), await self._connection.ask("HGETALL", self._key(digest)))

    async def drop(self, digest: str) -> None:
        """Revoke a token."""
        commands = [("DEL", self._key(digest)), ("ZREM", self._index, digest)]
        await self._connection.pipeline(commands, atomic=True)

    async def gone(self, digests: Sequence[str]) -> list[str]:
        """Return those of the digests that are valid no more, in one round trip."""
        asked = [("EXISTS", self._key(one)) for one in digests]
        there = await self._connection.pipeline(asked)
        return [one for one, kept in zip(digests, there, strict=True) if not kept]

    async def count(self) -> int:
        """Return how many there are, those that have expired since they were last listed too."""
        return int(await self._connection.ask("ZCARD", self._index))

    async def all(self) -> list[TokenRecord]:
        """Return every valid token, the oldest first; the index is swept on the way."""
        digests = await self._connection.ask("ZRANGE", self._index, 0, -1)
        hashes = await self._connection.pipeline([("HGETALL", self._key(one)) for one in digests])
        found, gone = [], []
        for digest, values in zip(digests, hashes, strict=True):
            record = _record(self._key(digest), values)
            found += [record] if record else []
            gone += [] if record else [digest]
        if gone:
            await self._connection.ask("ZREM", self._index, *gone)
        return found

    @property
    def _index(self) -> str:
        return f"{self._prefix}:tokens"

    def _key(self, digest: str) -> str:
        return f"{self._prefix}:token:{digest}"


def _record(key: str, values: dict[str, Any]) -> TokenRecord | None:
    return parsed(TokenRecord, key, values) if values else None
