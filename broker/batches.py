"""What an execution is of its request: all of it, a call, or one cell of a batch."""

from __future__ import annotations

from collections.abc import Mapping
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

    def __repr__(self) -> str:
        return f"<Batch {self.id}: {len(self._ended)} of {self._cells} cells have ended>"

    def after(self, cell: int) -> int:
        """Count the cells behind this one."""
        return self._cells - cell - 1

    def cut(self, status: str, reason: str) -> None:
        """Note that the cells after those that are known came to nothing."""
        nothing = {"duration": 0.0, "cpu": None, "memory_peak": None, "output_bytes": 0}
        event = {"status": status, "reason": reason, "execution_count": None, **nothing}
        self._ended[1 << 62] = event

    def ended(self, cell: int, done: Event, *, started: float, now: float) -> Event | None:
        """Note a cell's `done`, and return the batch's own after the last; `started` 0 for never.

        Its status is that of the first cell, by its number, that is not `ok`.
        """
        self._ended[cell] = done
        if started:
            self._ran += 1
            self._began = min(self._began or started, started)
        if len(self._ended) < self._cells:
            return None
        cells = [self._ended[number] for number in sorted(self._ended)]
        first = next((one for one in cells if one["status"] != "ok"), cells[-1])
        event: Event = {"type": "done", "id": self.id, "status": first["status"]}
        if "reason" in first:
            event["reason"] = first["reason"]
        return event | {
            "cells": self._ran,
            "execution_count": cells[-1]["execution_count"],
            "duration": round(now - self._began, 6) if self._began else 0.0,
            "queued": round((self._began or now) - self._submitted, 6),
            "cpu": _sum([one["cpu"] for one in cells if one["duration"]]),
            "memory_peak": max((one["memory_peak"] or 0 for one in cells), default=0) or None,
            "output_bytes": sum(one["output_bytes"] for one in cells),
            "generation": done["generation"],
            "expires_at": done["expires_at"],
        }


def _sum(seconds: list[float | None]) -> float | None:
    known = [one for one in seconds if one is not None]
    return round(sum(known), 6) if len(known) == len(seconds) else None


@dataclass(frozen=True, slots=True)
class Order:
    """How an execution came to be. What it brings along is for the kernel, and for nobody else."""

    parcel: Mapping[str, Any] | None = field(default=None, repr=False)
    batch: Batch | None = None
    cell: int | None = None  # its number, in a batch

    @property
    def is_call(self) -> bool:
        """Tell whether a value is to be told."""
        return self.parcel is not None and "call" in self.parcel


CODE = Order()  # and nothing else
