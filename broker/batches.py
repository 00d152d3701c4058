"""What an execution is of its request: all of it, a call, or one cell of a batch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Event = dict[str, Any]


class Batch:
    """The cells of one request, until the last of them has had its `done`. Times are monotonic."""

    def __init__(self, batch_id: str, cells: int, submitted: float) -> None:
        self.id = batch_id
        self._cells = cells
        self._submitted = submitted
        self._began = 0.0
        self._ran = 0
        self._ended: dict[int, Event] = {}
        self._cut: list[Event] = []

    def __repr__(self) -> str:
        return f"<Batch {self.id}: {len(self._ended)} of {self._cells} cells have ended>"

    def after(self, cell: int) -> int:
        """Count the cells behind this one."""
        return self._cells - cell - 1

    def cut(self, cells: Iterable[int], status: str, reason: str) -> None:
        """Note that these cells came to nothing; each has its `done` before the batch's own."""
        for cell in cells:
            nothing = {"duration": 0.0, "cpu": None, "memory_peak": None, "output_bytes": 0}
            head = {"type": "done", "id": self.id, "cell": cell, "status": status}
            self._cut.append({**head, "reason": reason, "execution_count": None, **nothing})
            self._ended[cell] = self._cut[-1]

    def ended(self, cell: int, done: Event, *, started: float, now: float) -> list[Event]:
        """Note a cell's `done`; after the last, return the batch's own, those of cut cells first.

        `started` is 0 for a cell that never did. The batch's status is that of the first cell, by
        its number, that is not `ok`.
        """
        self._ended[cell] = done
        if started:
            self._ran += 1
            self._began = min(self._began or started, started)
        if len(self._ended) < self._cells:
            return []
        cells = [self._ended[number] for number in sorted(self._ended)]
        began = self._ended[min(self._ended)]
        first = next((one for one in cells if one["status"] != "ok"), cells[-1])
        event: Event = {"type": "done", "id": self.id, "status": first["status"]}
        if "reason" in first:
            event["reason"] = first["reason"]
        event |= {
            "cells": self._ran,
            "execution_count": cells[-1]["execution_count"],
            "duration": round(now - self._began, 6) if self._began else 0.0,
            "queued": round((self._began or now) - self._submitted, 6),
            "cpu": _sum([one["cpu"] for one in cells if one["duration"]]),
            "memory_peak": max((one["memory_peak"] or 0 for one in cells), default=0) or None,
            "output_bytes": sum(one["output_bytes"] for one in cells),
        }
        last = {name: done[name] for name in ("generation", "state", "expires_at")}
        return [*(one | last for one in self._cut), event | last | {"state": began["state"]}]


def _sum(seconds: list[float | None]) -> float | None:
    known = [one for one in seconds if one is not None]
    return round(sum(known), 6) if len(known) == len(seconds) else None


@dataclass(frozen=True, slots=True)
class Order:
    """How an execution came to be. What it brings along is for the kernel, and for nobody else."""

    parcel: Mapping[str, Any] | None = field(default=None, repr=False)
    batch: Batch | None = None
    cell: int | None = None  # its number, in a batch
    expressions: Mapping[str, Any] = field(default_factory=dict)  # of a Jupyter client

    @property
    def is_call(self) -> bool:
        """Tell whether a value is to be told."""
        return self.parcel is not None and "call" in self.parcel


CODE = Order()  # and nothing else
