"""The connection to Redis: the only file that imports redis.

Any trouble is StoreUnavailable: a store that cannot be read is never an empty one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import NoScriptError, RedisError

from broker.errors import StoreUnavailable
from broker.store.urls import parse_sentinel, redacted, scheme_of

RETRIES = 6  # with the back-off below about 1.1 s: longer than an embedded server's restart
CONCURRENT = 32  # requests in flight; more wait their turn, and no further connection is made
SCAN_COUNT = 500

Command = tuple[Any, ...]


class Script(NamedTuple):
    """A Lua script and the name that the server caches it under."""

    text: str
    digest: str


class Connection:
    """Commands and scripts to one Redis, wherever it is at the moment.

    Survives a server that restarts, loses its scripts or drops the connection. Each call answers
    within `patience` seconds or raises StoreUnavailable; it may still have taken effect.
    """

    def __init__(self, url: str, *, patience: float) -> None:
        self.url = redacted(url)
        self._patience = patience
        self._gate = asyncio.Semaphore(CONCURRENT)
        try:
            self._client, self._sentinels = _clients(url, timeout=patience)
        except ValueError as error:
            message = f"redis.url {self.url!r} cannot be used: {error}"
            raise StoreUnavailable(message, field="redis.url") from error

    async def aclose(self) -> None:
        """Close every connection."""
        for client in (self._client, *self._sentinels):
            await client.aclose()

    async def ask(self, *command: Any) -> Any:
        """Send one command and return its reply."""
        [reply] = await self.pipeline([command])
        return reply

    async def pipeline(self, commands: Sequence[Command], *, atomic: bool = False) -> list[Any]:
        """Send the commands in one round trip and return their replies.

        A NoScriptError is a reply like any other; any other error raises StoreUnavailable.
        """
        if not commands:
            return []
        cancelled = _cancellations()
        try:
            replies = await self._replies(commands, atomic=atomic)
        except StoreUnavailable:
            _heed(cancelled)
            raise
        _heed(cancelled)
        return replies

    async def _replies(self, commands: Sequence[Command], *, atomic: bool) -> list[Any]:
        try:
            async with asyncio.timeout(self._patience), self._gate:
                pipeline = self._client.pipeline(transaction=atomic)
                async with pipeline:
                    for command in commands:
                        pipeline.execute_command(*command)
                    replies: list[Any] = await pipeline.execute(raise_on_error=False)
            for reply in replies:
                if isinstance(reply, Exception) and not isinstance(reply, NoScriptError):
                    raise reply
        except TimeoutError as error:
            message = f"the store {self.url} did not answer within {self._patience:g} s"
            raise StoreUnavailable(message) from error
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"the store {self.url} cannot be used: {error}") from error
        return replies

    async def run(
        self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[Any]]]
    ) -> list[Any]:
        """Run a script once per (keys, arguments), in one round trip, and return the replies.

        A restarted server has forgotten its scripts: what it does not know goes again, with the
        text.
        """
        tails: list[Command] = [(len(keys), *keys, *values) for keys, values in calls]
        by_name: list[Command] = [("EVALSHA", script.digest, *tail) for tail in tails]
        replies = await self.pipeline(by_name)
        unknown = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        by_text: list[Command] = [("EVAL", script.text, *tails[at]) for at in unknown]
        for at, reply in zip(unknown, await self.pipeline(by_text), strict=True):
            replies[at] = reply
        return replies

    async def load(self, *scripts: Script) -> None:
        """Have the server know the scripts, so that not even the first call sends a text."""
        await self.pipeline([("SCRIPT LOAD", script.text) for script in scripts])

    async def scan(self, pattern: str) -> AsyncIterator[list[str]]:
        """Yield keys that match, a few at a time; one may come twice."""
        cursor = 0
        while True:
            cursor, keys = await self.ask("SCAN", cursor, "MATCH", pattern, "COUNT", SCAN_COUNT)
            if keys:
                yield keys
            if cursor == 0:
                return


def _cancellations() -> int:
    """Return how often the task that calls was told to end, and has not been told otherwise."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _heed(before: int) -> None:
    """Raise CancelledError if the task that calls was told to end since, and has not heard of it.

    redis sends in `asyncio.wait_for`, which before Python 3.12 returns as if nothing was when the
    word comes as a command has just gone out. It is heeded once the reply is there, or is none.
    """
    if _cancellations() > before:
        raise asyncio.CancelledError


def load_script(name: str) -> Script:
    """Return the script `broker/lua/<name>.lua`."""
    path = Path(__file__).parent.parent / "lua" / f"{name}.lua"
    text = path.read_text(encoding="utf-8")
    return Script(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def escaped(text: str) -> str:
    """Return the text as a SCAN pattern that matches it and nothing else."""
    return "".join("\\" + char if char in "*?[]\\^" else char for char in text)


def _clients(url: str, *, timeout: float) -> tuple[Redis, Sequence[Redis]]:
    """Return the client, and those of its Sentinels, to be closed with it."""
    options: dict[str, Any] = {
        "decode_responses": True,
        "encoding_errors": "replace",  # a record with strange bytes is named, not a crash
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "protocol": 2,  # what every server, proxy and fork since 6.2 speaks
        "retry": Retry(ExponentialBackoff(cap=0.5, base=0.01), RETRIES),
    }
    if scheme_of(url) != "redis+sentinel":
        return Redis.from_url(url, **options), ()
    parts = parse_sentinel(url)
    asking: dict[str, Any] = {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),  # the next Sentinel is asked, rather than this one again
        **parts.sentinel,
    }
    sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis ships it without types
        parts.hosts,
        sentinel_kwargs=asking,
        **options,
        db=parts.db,
        username=parts.username,
        password=parts.password,
    )
    client: Redis = sentinel.master_for(parts.service)
    return client, tuple(sentinel.sentinels)
