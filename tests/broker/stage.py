"""A session on which batches and calls run."""

from __future__ import annotations

from typing import Any

from broker.requests import Batch, Cell
from tests.broker.session_fakes import Scene


class Stage(Scene):
    """A scene with longer words."""

    def batch(self, *codes: str, name: str = "b", **fields: Any) -> None:
        cells = [Cell(code=code) for code in codes]
        self.session.work.submit(Batch(id=name, cells=cells, **fields), self.client)

    def run(self, status: str = "ok") -> None:
        self.kernel.begin()
        self.kernel.end(status)

    def told_of(self, name: str = "b") -> list[tuple[Any, ...]]:
        """Return type, cell and status of each event of a request."""
        events = [event for event in self.client.events if event.get("id") == name]
        return [(e["type"], e.get("cell"), e.get("status")) for e in events]

    @property
    def parcels(self) -> list[Any]:
        return [content.get("broker") for content in self.kernel.channels.contents]


def done(cell: int | None, status: str) -> tuple[str, int | None, str]:
    return "done", cell, status
