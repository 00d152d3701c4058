"""How transcripts get to the store, and what becomes of them while it is away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from broker.errors import StoreUnavailable
from broker.protocol import OpenQuery
from broker.scribe import MOST_ENDED, RETRY, WRITE_BEHIND, Scribe
from broker.session import Session
from broker.store.cells import Cells, Part
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.service_fakes import House
from tests.broker.test_transcript import execution, run, text


class MemoryCells:
    """Streams in memory; each call is one round trip."""

    def __init__(self) -> None:
        self.streams: dict[Any, list[tuple[str, bytes]]] = {}
        self.keeps: dict[Any, float] = {}
        self.trips = 0
        self.away = False
        self._count = 0

    def _answer(self) -> None:
        self.trips += 1
        if self.away:
            raise StoreUnavailable("away")

    async def append(self, parts: Sequence[Part]) -> list[list[str]]:
        self._answer()
        ids = []
        for part in parts:
            stream = self.streams.setdefault(part.owner, [])
            self.keeps[part.owner] = part.keep
            ids.append([self._next() for _ in part.cells])
            stream += zip(ids[-1], part.cells, strict=True)
        return ids

    def _next(self) -> str:
        self._count += 1
        return f"{self._count}-0"

    async def trim(self, owner: Any, oldest: str) -> None:
        self._answer()
        at = [entry for entry, _ in self.streams[owner]].index(oldest)
        self.streams[owner] = self.streams[owner][at:]

    async def read(self, owner: Any, most: int) -> list[tuple[str, bytes]]:
        self._answer()
        return self.streams.get(owner, [])[-most:]


class Scene:
    def __init__(self, **limits: Any) -> None:
        self.house = House(**limits)
        self.cells = MemoryCells()
        self.scribe = Scribe(self.house.service, cast(Cells, self.cells))

    async def open(self, name: str = "s") -> Session:
        session = await self.house.service.open("t", name, OpenQuery())
        await elapse(0.01)
        return session

    def ran(self, session: Session, code: str, words: str = "") -> None:
        """Have a session end a cell, as its executions do."""
        run(session.transcript, *([text(words)] if words else []), code=code)
        self.house.service.executed(session, "ok", 0.1)

    def stored(self, name: str = "s") -> list[str]:
        found = self.cells.streams.get(("t", name), [])
        return [str(packed).partition('"code":"')[2].partition('"')[0] for _, packed in found]


@on_manual_time
async def test_cells_are_written_soon_and_not_before() -> None:
    scene = Scene()
    async with scene.scribe:
        session = await scene.open()
        for code in ("a", "b"):
            scene.ran(session, code)
        await elapse(WRITE_BEHIND / 2)
        assert scene.cells.trips == 0
        await elapse(WRITE_BEHIND)
        assert scene.stored() == ["a", "b"]
        assert scene.cells.trips == 2  # what was there before, and both cells at once
        assert scene.cells.keeps["t", "s"] > 60


@on_manual_time
async def test_cells_wait_while_the_store_is_away_and_the_oldest_go() -> None:
    scene = Scene(transcript_cells=3)
    async with scene.scribe:
        session = await scene.open()
        scene.cells.away = True
        for code in "abcde":
            scene.ran(session, code)
            await elapse(RETRY + 1)
        assert scene.stored() == []
        scene.cells.away = False
        await elapse(2 * RETRY)
        assert scene.stored() == ["c", "d", "e"]


@on_manual_time
async def test_what_is_over_the_bound_of_bytes_leaves_the_store() -> None:
    scene = Scene(transcript_bytes=10_000)
    async with scene.scribe:
        session = await scene.open()
        for number in range(20):
            scene.ran(session, str(number), "x" * 1500)
            await elapse(1)
        assert scene.stored()[-1] == "19"
        assert sum(len(packed) for _, packed in scene.cells.streams["t", "s"]) <= 10_000


@on_manual_time
async def test_a_session_that_ends_is_written_to_its_end() -> None:
    scene = Scene()
    async with scene.scribe:
        session = await scene.open()
        scene.ran(session, "last")
        await scene.house.service.end(session.key, "over")
        found = await scene.scribe.cells(("t", "s"), 100)
        assert [cell["code"] for cell in found] == ["last"]


@on_manual_time
async def test_what_is_left_is_written_when_the_broker_ends() -> None:
    scene = Scene()
    async with scene.scribe:
        scene.ran(await scene.open(), "last")
    assert scene.stored() == ["last"]


@on_manual_time
async def test_a_session_is_read_from_the_store_once_it_is_served_again() -> None:
    scene = Scene()
    async with scene.scribe:
        scene.ran(await scene.open(), "before")
        await elapse(1)
        await scene.house.service.end(("t", "s"), "over")
        again = await scene.open()
        scene.ran(again, "after")
        found = await scene.scribe.cells(("t", "s"), 100)
        assert [cell["code"] for cell in found] == ["before", "after"]
        await elapse(1)
        assert scene.stored() == ["before", "after"]


@on_manual_time
async def test_without_the_store_a_live_session_is_told_from_memory() -> None:
    scene = Scene()
    async with scene.scribe:
        session = await scene.open()
        scene.ran(session, "a")
        scene.cells.away = True
        assert [cell["code"] for cell in await scene.scribe.cells(session.key, 9)] == ["a"]


@on_manual_time
async def test_ended_sessions_that_wait_for_the_store_are_bounded() -> None:
    scene = Scene()
    async with scene.scribe:
        scene.cells.away = True
        for number in range(MOST_ENDED + 10):
            scene.ran(await scene.open(str(number)), "a")
            await scene.house.service.end(("t", str(number)), "over")
        await elapse(2 * RETRY)
        assert len(scene.scribe._dirty) <= MOST_ENDED
        scene.cells.away = False
        await elapse(3 * RETRY)
        assert scene.stored(str(MOST_ENDED + 9)) == ["a"]
        assert scene.stored("0") == []


@on_manual_time
async def test_one_shots_are_nobodys_transcript() -> None:
    scene = Scene()
    async with scene.scribe:
        session = await scene.open()
        session.passing = True
        scene.ran(session, "a")
        await elapse(1)
        assert scene.cells.trips == 0
        assert session.transcript.cells[0]["id"] == execution().id


@on_manual_time
async def test_one_session_that_cannot_be_written_keeps_nobody_else_waiting() -> None:
    scene = Scene()
    append = scene.cells.append

    async def refusing(parts: Sequence[Part]) -> list[list[str]]:
        if any(part.owner == ("t", "poison") for part in parts):
            raise TypeError("a fault of our own")
        return await append(parts)

    scene.cells.append = refusing  # type: ignore[method-assign]
    async with scene.scribe:
        poison = await scene.open("poison")
        scene.ran(poison, "never")
        for name in ("a", "b"):
            scene.ran(await scene.open(name), "fine")
        await elapse(WRITE_BEHIND + RETRY)
        assert (scene.stored("a"), scene.stored("b")) == (["fine"], ["fine"])
        assert [cell["code"] for cell in await scene.scribe.cells(("t", "a"), 9)] == ["fine"]
        scene.cells.append = append  # type: ignore[method-assign]
        scene.ran(poison, "later")
        await elapse(WRITE_BEHIND + RETRY)
        assert scene.stored("poison") == ["never", "later"]
