"""How transcripts get to the store, and what becomes of them while it is away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from broker.errors import StoreUnavailable
from broker.protocol import OpenQuery
from broker.scribe import BYTES_AT_ONCE, MOST_ENDED, RETRY, WRITE_BEHIND, Scribe
from broker.session import Session
from broker.store.cells import Cells, Part
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.service_fakes import House
from tests.broker.test_transcript import execution, run, text


class MemoryCells:
    """Lists in memory; each call is one round trip."""

    def __init__(self) -> None:
        self.lists: dict[Any, list[bytes]] = {}
        self.parts: list[Part] = []
        self.trips = 0
        self.away = False

    def _answer(self) -> None:
        self.trips += 1
        if self.away:
            raise StoreUnavailable("away")

    async def append(self, parts: Sequence[Part]) -> None:
        self._answer()
        self.parts += parts
        for part in parts:
            self.lists.setdefault(part.owner, []).extend(part.cells)

    async def read(self, owner: Any, most: int) -> list[bytes]:
        self._answer()
        return self.lists.get(owner, [])[-most:]


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
        found = self.cells.lists.get(("t", name), [])
        return [str(packed).partition('"code":"')[2].partition('"')[0] for packed in found]

    async def told(self, name: str = "s", most: int = 100) -> list[str]:
        """Return the code of the cells that are told of a session."""
        return [kept.told["code"] for kept in await self.scribe.cells(("t", name), most)]


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
        assert scene.cells.trips == 1  # both cells at once
        assert scene.cells.parts[0].keep > 60
        assert not session.transcript.unwritten  # no memory is held for what is written
        assert await scene.told() == ["a", "b"]


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
async def test_much_is_written_a_part_at_a_time_within_the_bounds_of_the_session() -> None:
    scene = Scene(transcript_bytes=1 << 20, transcript_cells=30)
    async with scene.scribe:
        session = await scene.open()
        for number in range(20):
            scene.ran(session, str(number), "x" * 50_000)
        await elapse(1)
        assert scene.stored() == [str(number) for number in range(20)]
        assert {(part.most, part.most_bytes) for part in scene.cells.parts} == {(30, 1 << 20)}
        sizes = [sum(map(len, part.cells)) for part in scene.cells.parts]
        assert max(sizes) <= BYTES_AT_ONCE
        assert len(sizes) < 10
    big = Scene()
    async with big.scribe:
        image = {"type": "display", "data": {"image/png": b"p" * 250_000}, "metadata": {}}
        run((await big.open()).transcript, image, code="big")
        big.house.service.executed(big.house.service.sessions["t", "s"], "ok", 0.1)
        await elapse(1)
        assert big.stored() == ["big"]


@on_manual_time
async def test_a_cell_is_told_once_while_it_is_being_written() -> None:
    scene = Scene()
    async with scene.scribe:
        session = await scene.open()
        scene.ran(session, "a")
        scene.cells.lists["t", "s"] = [session.transcript.unwritten[0].packed]  # not answered yet
        scene.ran(session, "b")
        assert await scene.told() == ["a", "b"]
        assert await scene.told(most=1) == ["b"]


@on_manual_time
async def test_the_last_cells_are_the_last_also_where_more_were_written_meanwhile() -> None:
    scene = Scene()
    read = scene.cells.read

    async def late(owner: Any, most: int) -> list[bytes]:
        await elapse(2 * WRITE_BEHIND)  # in which all that waits is written
        return await read(owner, most)

    async with scene.scribe:
        session = await scene.open()
        for code in "abc":
            scene.ran(session, code)
        scene.cells.read = late
        assert await scene.told(most=2) == ["b", "c"]


@on_manual_time
async def test_what_a_session_has_run_is_kept_from_its_end_on() -> None:
    scene = Scene()
    async with scene.scribe:
        session = await scene.open()
        scene.ran(session, "a")
        await elapse(1)
        await scene.house.service.end(session.key, "over")
        await elapse(1)
        assert [len(part.cells) for part in scene.cells.parts] == [1, 0]


@on_manual_time
async def test_a_session_that_ends_is_written_to_its_end() -> None:
    scene = Scene()
    async with scene.scribe:
        session = await scene.open()
        scene.ran(session, "last")
        await scene.house.service.end(session.key, "over")
        assert await scene.told() == ["last"]


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
        assert await scene.told() == ["before", "after"]
        await elapse(1)
        assert scene.stored() == ["before", "after"]


@on_manual_time
async def test_without_the_store_a_part_is_not_told_as_all() -> None:
    scene = Scene()
    async with scene.scribe:
        session = await scene.open()
        scene.ran(session, "a")
        scene.cells.away = True
        with pytest.raises(StoreUnavailable):
            await scene.told()
        scene.cells.away = False
        assert await scene.told() == ["a"]


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
        assert session.transcript.unwritten[0].cell["id"] == execution().id


@on_manual_time
async def test_one_session_that_cannot_be_written_keeps_nobody_else_waiting() -> None:
    scene = Scene()
    append = scene.cells.append

    async def refusing(parts: Sequence[Part]) -> None:
        if any(part.owner == ("t", "poison") for part in parts):
            raise TypeError("a fault of our own")
        await append(parts)

    scene.cells.append = refusing
    async with scene.scribe:
        poison = await scene.open("poison")
        scene.ran(poison, "never")
        for name in ("a", "b"):
            scene.ran(await scene.open(name), "fine")
        await elapse(WRITE_BEHIND + RETRY)
        assert (scene.stored("a"), scene.stored("b")) == (["fine"], ["fine"])
        assert await scene.told("a") == ["fine"]
        scene.cells.append = append
        scene.ran(poison, "later")
        await elapse(WRITE_BEHIND + RETRY)
        assert scene.stored("poison") == ["never", "later"]
