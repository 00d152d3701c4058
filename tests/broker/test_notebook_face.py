"""A notebook is made beside the loop, in which others are answered."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import Any

from broker.transcript import Kept
from broker.web.notebook import SessionNotebook
from broker.web.places import Turns


class Cell(dict[str, Any]):
    """A cell that knows which threads have looked at its outputs."""

    readers: set[int]

    def get(self, name: str, default: Any = None) -> Any:
        if name == "outputs":
            self.readers.add(threading.get_ident())
        return super().get(name, default)


async def test_a_notebook_is_made_beside_the_loop() -> None:
    cell = Cell(code="x", outputs=[], count=1)
    cell.readers = set()

    async def cells(key: object, most: int) -> list[Kept]:
        return [Kept(cell, 0)]

    face: Any = SessionNotebook.__new__(SessionNotebook)
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
    sent: list[str] = []
    face.finish = sent.append
    await face.get("s")
    assert json.loads(sent[0])["cells"][0]["source"] == "x"
    assert cell.readers
    assert threading.get_ident() not in cell.readers
