"""A notebook is made beside the loop, in which others are answered."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

from broker.transcript import Kept
from broker.web.notebook import SessionNotebook
from broker.web.operators import OneSession
from broker.web.places import Turns


class Cell(dict[str, Any]):
    """A cell that knows which threads have looked at its outputs."""

    readers: set[int]

    def get(self, name: str, default: Any = None) -> Any:
        if name == "outputs":
            self.readers.add(threading.get_ident())
        return super().get(name, default)


def face_of(kind: type[Any], cells: Callable[..., Awaitable[list[Kept]]]) -> Any:
    face = kind.__new__(kind)
    live = SimpleNamespace(profile="python")
    face.house = SimpleNamespace(
        service=SimpleNamespace(sessions={("t", "s"): live}),
        scribe=SimpleNamespace(cells=cells),
        languages={},
        most_cells=9,
        walks=Turns(1, share=1),
    )
    face.principal, face.tenant = SimpleNamespace(tenant="t"), "t"
    face.set_header = lambda name, value: None
    face.sent = []
    face.finish = face.sent.append
    return face


async def test_a_notebook_is_made_beside_the_loop() -> None:
    cell = Cell(code="x", outputs=[], count=1)
    cell.readers = set()

    async def cells(key: object, most: int) -> list[Kept]:
        return [Kept(cell, 0)]

    face = face_of(SessionNotebook, cells)
    await face.get("s")
    assert json.loads(face.sent[0])["cells"][0]["source"] == "x"
    assert cell.readers
    assert threading.get_ident() not in cell.readers


async def test_whoever_waits_for_a_turn_has_no_transcript_in_memory() -> None:
    read: list[object] = []

    async def cells(key: object, most: int) -> list[Kept]:
        read.append(key)
        return []

    for kind in (SessionNotebook, OneSession):
        face, walks = face_of(kind, cells), Turns(1, share=1)
        face.house.walks = walks
        asks = face.get("s") if kind is SessionNotebook else face._failures(("t", "s"))
        async with walks.of("t"):
            waiting = asyncio.create_task(asks)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not read
        await waiting
        assert read.pop() == ("t", "s")
