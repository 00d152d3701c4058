"""Tokens: static, stored and signed; made, let in, revoked, and what ends with them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import tokens as module
from broker.errors import Forbidden, StoreUnavailable, Unauthorized, UnknownToken
from broker.grants import Grant
from broker.principal import ADMIN, RUN, SCOPES, WATCH, Principal
from broker.store import Store, TokenRecord
from broker.tokens import EXPIRED, FRESH, REVOKED, Tokens

TOKEN = "a-token-of-more-than-16"
OPERATOR = Principal()
RUNS = Grant(frozenset({RUN}))


class Rows:
    """The store's rows in memory; `asked` counts the looks."""

    def __init__(self) -> None:
        self.records: dict[str, TokenRecord] = {}
        self.asked = 0
        self.down = False
        self.faults = 0  # of ours, in so many looks for what is gone
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.looked = asyncio.Event()

    async def put(self, record: TokenRecord) -> None:
        self.records[record.digest] = record

    async def get(self, digest: str) -> TokenRecord | None:
        self.asked += 1
        found = self.records.get(digest)
        self.looked.set()
        await self.may_answer.wait()
        if self.down:
            raise StoreUnavailable("away")
        return found

    async def drop(self, digest: str) -> None:
        del self.records[digest]

    async def gone(self, digests: list[str]) -> list[str]:
        if self.faults:
            self.faults -= 1
            raise RuntimeError("a fault")
        return [one for one in digests if one not in self.records]

    async def count(self) -> int:
        return len(self.records)

    async def all(self) -> list[TokenRecord]:
        return list(self.records.values())


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    def __init__(self, **options: Any) -> None:
        self.rows, self.clock = Rows(), Clock()
        static = {TOKEN: Principal()}
        self.tokens = Tokens(static, rows=self.rows, clock=self.clock, **options)  # type: ignore[arg-type]


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    made = Scene()
    yield made
    await made.tokens.aclose()


async def test_the_static_token_may_do_everything(scene: Scene) -> None:
    assert await scene.tokens.check(TOKEN) == Principal("default", SCOPES)
    assert scene.rows.asked == 0


@pytest.mark.parametrize(
    "presented", ["", "x", TOKEN[:-1], TOKEN + "x", TOKEN.upper(), "\ud800", "kbt_x", "a.b.c"]
)
async def test_a_wrong_token_is_refused_not_repeated_and_not_asked_about(
    scene: Scene, presented: str
) -> None:
    with pytest.raises(Unauthorized) as caught:
        await scene.tokens.check(presented)
    assert caught.value.message == "the access token is wrong, has expired or was revoked"
    assert scene.rows.asked == 0


async def test_an_empty_token_opens_nothing() -> None:
    for tokens in (Tokens({}), Tokens.single("")):
        with pytest.raises(Unauthorized):
            await tokens.check("")


def test_a_repr_shows_no_token() -> None:
    assert TOKEN not in repr(Tokens.single(TOKEN))
    assert TOKEN not in repr(vars(Tokens.single(TOKEN)))


async def test_a_stored_token_speaks_for_whom_it_was_made(scene: Scene) -> None:
    grant = Grant(frozenset({RUN, WATCH}), "acme", "s1", 60.0, "mine")
    token, record = await scene.tokens.create(OPERATOR, grant)
    who = await scene.tokens.check(token)
    assert who == Principal("acme", frozenset({RUN, WATCH}), "s1", 1060.0, record.digest[:16])
    assert token not in str(record)
    assert token not in str(scene.rows.records)
    assert (record.name, record.by) == ("mine", "static")


async def test_a_stored_token_is_asked_about_once_in_a_while_only(scene: Scene) -> None:
    token, _ = await scene.tokens.create(OPERATOR, RUNS)
    for _ in range(3):
        await scene.tokens.check(token)
    assert scene.rows.asked == 1
    scene.clock.now += FRESH + 0.1
    await scene.tokens.check(token)
    assert scene.rows.asked == 2


async def test_what_was_revoked_elsewhere_is_void_when_the_stores_word_is_old(scene: Scene) -> None:
    token, record = await scene.tokens.create(OPERATOR, RUNS)
    await scene.tokens.check(token)
    await scene.rows.drop(record.digest)
    await scene.tokens.check(token)
    scene.clock.now += FRESH + 0.1
    with pytest.raises(Unauthorized):
        await scene.tokens.check(token)


async def test_what_is_revoked_here_is_void_at_once(scene: Scene) -> None:
    token, record = await scene.tokens.create(OPERATOR, RUNS)
    await scene.tokens.check(token)
    assert await scene.tokens.revoke(OPERATOR, record.digest[:16]) == record
    with pytest.raises(Unauthorized):
        await scene.tokens.check(token)
    with pytest.raises(UnknownToken):
        await scene.tokens.revoke(OPERATOR, record.digest[:16])


async def test_a_look_that_a_revocation_overtakes_lets_nobody_in(scene: Scene) -> None:
    token, record = await scene.tokens.create(OPERATOR, RUNS)
    scene.rows.may_answer.clear()
    check = asyncio.create_task(scene.tokens.check(token))
    await scene.rows.looked.wait()
    await scene.tokens.revoke(OPERATOR, record.digest[:16])
    scene.rows.may_answer.set()
    with pytest.raises(Unauthorized):
        await check


async def test_an_expired_token_is_void_although_it_is_remembered(scene: Scene) -> None:
    token, _ = await scene.tokens.create(OPERATOR, Grant(frozenset({RUN}), expires_in=2.0))
    await scene.tokens.check(token)
    scene.clock.now += 2.0
    with pytest.raises(Unauthorized):
        await scene.tokens.check(token)


async def test_a_store_that_is_away_does_not_make_a_token_wrong(scene: Scene) -> None:
    token, _ = await scene.tokens.create(OPERATOR, RUNS)
    scene.rows.down = True
    with pytest.raises(StoreUnavailable):
        await scene.tokens.check(token)
    assert await scene.tokens.check(TOKEN) == OPERATOR


async def test_those_remembered_have_a_bound(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN", 2)
    made = [(await scene.tokens.create(OPERATOR, RUNS))[0] for _ in range(3)]
    for token in made:
        await scene.tokens.check(token)
    assert len(scene.tokens._known) == 2


# Who may make what


@pytest.mark.parametrize(
    ("maker", "tenant", "ends"),
    [
        (OPERATOR, "acme", "acme"),
        (OPERATOR, None, "default"),
        (Principal("acme", frozenset({ADMIN})), None, "acme"),
        (Principal("acme", frozenset({ADMIN})), "acme", "acme"),
        (Principal("acme", frozenset({ADMIN})), "other", None),
        (Principal("acme", frozenset({ADMIN})), "default", None),
        (Principal("acme", frozenset({RUN})), "acme", None),
        (Principal("default", frozenset({RUN, WATCH})), None, None),
        (Principal("default", SCOPES, "s"), None, None),
    ],
)
async def test_an_administrator_makes_tokens_of_its_own_tenant_and_the_operator_of_all(
    scene: Scene, maker: Principal, tenant: str | None, ends: str | None
) -> None:
    grant = Grant(frozenset({ADMIN}), tenant)
    if ends is None:
        with pytest.raises(Forbidden):
            await scene.tokens.create(maker, grant)
        assert not scene.rows.records
    else:
        _, record = await scene.tokens.create(maker, grant)
        assert record.tenant == ends


@pytest.mark.parametrize(("asked", "given_"), [(None, 1500.0), (60.0, 1060.0), (9999.0, 1500.0)])
async def test_what_is_made_does_not_outlive_what_it_was_made_with(
    scene: Scene, asked: float | None, given_: float
) -> None:
    maker = Principal("acme", frozenset({ADMIN}), expires=1500.0)
    _, record = await scene.tokens.create(maker, Grant(frozenset({RUN}), expires_in=asked))
    assert record.expires == given_


async def test_an_administrator_sees_and_revokes_its_own_tenants_tokens_alone(scene: Scene) -> None:
    acme = Principal("acme", frozenset({ADMIN}))
    _, mine = await scene.tokens.create(acme, RUNS)
    _, others = await scene.tokens.create(OPERATOR, Grant(frozenset({RUN}), "other"))
    assert await scene.tokens.listed(acme) == [mine]
    assert await scene.tokens.listed(OPERATOR) == [mine, others]
    with pytest.raises(UnknownToken):
        await scene.tokens.revoke(acme, others.digest[:16])
    with pytest.raises(Forbidden):
        await scene.tokens.listed(Principal("acme", frozenset({RUN})))


# What ends with a token


async def test_a_connection_ends_with_its_token(scene: Scene) -> None:
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    tokens = Tokens({})  # on the real clock
    principal = Principal("acme", expires=tokens._clock() + 0.05)
    tokens.hold(principal, ended.set_result)
    async with asyncio.timeout(5):
        assert await ended == EXPIRED
    assert tokens._clock() >= (principal.expires or 0)
    assert not tokens._guests


async def test_a_connection_ends_when_its_token_is_revoked(scene: Scene) -> None:
    token, record = await scene.tokens.create(OPERATOR, RUNS)
    told: list[str] = []
    scene.tokens.hold(await scene.tokens.check(token), told.append)
    left: list[str] = []
    scene.tokens.hold(await scene.tokens.check(token), left.append)()
    await scene.tokens.revoke(OPERATOR, record.digest[:16])
    assert (told, left) == ([REVOKED], [])


async def test_a_connection_ends_when_its_token_was_revoked_elsewhere(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRESH", 0.02)
    token, record = await scene.tokens.create(OPERATOR, RUNS)
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    scene.tokens.hold(await scene.tokens.check(token), ended.set_result)
    await scene.rows.drop(record.digest)
    async with asyncio.timeout(5):
        assert await ended == REVOKED


async def test_a_connection_whose_token_is_revoked_while_it_opens_ends_at_once(
    scene: Scene,
) -> None:
    token, record = await scene.tokens.create(OPERATOR, RUNS)
    principal = await scene.tokens.check(token)
    await scene.tokens.revoke(OPERATOR, record.digest[:16])
    told: list[str] = []
    scene.tokens.hold(principal, told.append)
    assert told == [REVOKED]
    assert not scene.tokens._guests


async def test_a_connection_whose_token_is_remembered_no_longer_ends_with_it_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KNOWN", 1)
    first, record = await scene.tokens.create(OPERATOR, RUNS)
    second, _ = await scene.tokens.create(OPERATOR, RUNS)
    principal = await scene.tokens.check(first)
    await scene.tokens.check(second)  # the first has made room for it
    told: list[str] = []
    scene.tokens.hold(principal, told.append)
    await scene.tokens.revoke(OPERATOR, record.digest[:16])
    assert told == [REVOKED]


async def test_a_token_that_comes_back_to_the_store_holds_connections_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRESH", 0.02)
    token, record = await scene.tokens.create(OPERATOR, RUNS)
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    principal = await scene.tokens.check(token)
    scene.tokens.hold(principal, ended.set_result)
    await scene.rows.drop(record.digest)  # the store was emptied, and gets its backup
    async with asyncio.timeout(5):
        assert await ended == REVOKED
    told: list[str] = []
    scene.tokens.hold(principal, told.append)  # of before that
    assert told == [REVOKED]
    await scene.rows.put(record)
    scene.tokens.hold(await scene.tokens.check(token), told.append)
    assert told == [REVOKED]
    assert len(scene.tokens._guests) == 1


async def test_a_look_that_fails_for_a_fault_of_ours_is_not_the_last(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FRESH", 0.02)
    token, record = await scene.tokens.create(OPERATOR, RUNS)
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    scene.tokens.hold(await scene.tokens.check(token), ended.set_result)
    scene.rows.faults = 1
    await scene.rows.drop(record.digest)
    async with asyncio.timeout(5):
        assert await ended == REVOKED
    assert scene.rows.faults == 0
    assert "tokens are not asked about" in caplog.text


async def test_closing_ends_the_looks(scene: Scene) -> None:
    token, _ = await scene.tokens.create(OPERATOR, RUNS)
    scene.tokens.hold(await scene.tokens.check(token), lambda _: None)
    asking = scene.tokens._asking
    assert asking is not None
    await scene.tokens.aclose()
    assert asking.done()


async def test_the_static_token_holds_nothing(scene: Scene) -> None:
    scene.tokens.hold(OPERATOR, lambda _: None)()
    assert not scene.tokens._guests


@given(st.text(max_size=80) | st.binary(max_size=80).map(lambda data: data.decode("latin1")))
@settings(max_examples=300)
def test_any_text_is_a_token_or_unauthorized(text: str) -> None:
    async def check() -> None:
        with pytest.raises(Unauthorized):
            await Scene().tokens.check(text)

    asyncio.run(check())


# In the store


async def test_the_store_keeps_a_token_until_it_expires(store: Store) -> None:
    rows = store.tokens
    now = time.time()
    kept = TokenRecord("d1", "acme", "run watch", "", "one", now, 0.0, "static")
    brief = TokenRecord("d2", "acme", "run", "s", "", now + 1, now + 3600, "static")
    ended = TokenRecord("d3", "acme", "run", "s", "", now + 2, now - 1, "static")
    for record in (kept, brief, ended):
        await rows.put(record)
    assert await rows.get("d1") == kept
    assert await rows.get("d2") == brief
    assert await rows.get("d3") is None
    assert await rows.gone(["d1", "d2", "d3"]) == ["d3"]
    assert await rows.count() == 3
    assert await rows.all() == [kept, brief]
    assert await rows.count() == 2
    await rows.drop("d1")
    assert await rows.all() == [brief]
    assert await rows.get("d1") is None
