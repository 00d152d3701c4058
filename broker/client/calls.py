"""Calls and batches: what is sent for them, and what is made of their events. Pure."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, overload

from .errors import OutputLost
from .functions import Function, source_of
from .plain import answered, plain
from .result import Event, Result, collect

Cell = str | Mapping[str, Any]  # code, or {"code", "timeout"}


class Shown(dict[str, Any]):
    """What a call returned that has no plain form: how it is shown, by MIME type."""


def call_fields(
    function: Function, args: Iterable[Any], kwargs: Mapping[str, Any], **options: Any
) -> dict[str, Any]:
    """Return the fields of a call. Raises BadRequest for what cannot be sent."""
    return {
        "function": source_of(function),
        "args": plain([*args], "args"),
        "kwargs": plain(kwargs, "kwargs"),
        **options,
    }


def execute_fields(inputs: Mapping[str, Any] | None, **options: Any) -> dict[str, Any]:
    """Return further fields of an execution. Raises BadRequest for what cannot be sent."""
    return {"inputs": plain(inputs, "inputs"), **options}


def returned(result: Result, *, is_json: bool = False) -> Any:
    """Return what a call returned, or raise ExecutionFailed, with the result, if it did not."""
    result.raise_for_status()
    for event in result.events:
        if event.get("type") == "value":
            if "value" in event:
                return answered(event["value"]) if is_json else event["value"]
            return Shown(event.get("data") or {})
    return None


@dataclass(frozen=True, slots=True)
class BatchResult(Sequence[Result]):
    """The results of a batch's cells, in order.

    `status` is `ok`, or that of the first cell that is not; `done` what the broker says of all of
    them together: `cells` that ran, `duration`, `cpu` in seconds, `memory_peak`, `output_bytes`.
    """

    results: tuple[Result, ...]
    done: Event

    @property
    def status(self) -> str:
        """Return `ok`, or the status of the first cell that is not."""
        return str(self.done.get("status", "lost"))

    def raise_for_status(self) -> BatchResult:
        """Return this, or raise ExecutionFailed with the first result that is not `ok`.

        Where all results that are known are, but not the batch, it is raised with the batch's own.
        """
        for result in self.results:
            result.raise_for_status()
        if self.status != "ok":
            collect([self.done]).raise_for_status()
        return self

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Result]: ...
    def __getitem__(self, index: int | slice) -> Result | Sequence[Result]:
        return self.results[index]

    def __iter__(self) -> Iterator[Result]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


def batch_fields(cells: Iterable[Cell], *, stop_on_error: bool) -> dict[str, Any]:
    """Return the fields of a batch."""
    made = [{"code": cell} if isinstance(cell, str) else dict(cell) for cell in cells]
    return {"cells": made, "stop_on_error": stop_on_error}


def heard(coming: Iterable[Event], on_event: Callable[[Event], object] | None) -> Iterator[Event]:
    """Yield events, and call back for each once it has been taken."""
    for event in coming:
        yield event
        if on_event is not None:
            on_event(event)


async def heard_async(
    asking: AsyncGenerator[Event, None], on_event: Callable[[Event], object] | None
) -> list[Event]:
    """Return all events, calling back for each as it comes."""
    events: list[Event] = []
    try:
        async with aclosing(asking) as coming:
            async for event in coming:
                events.append(event)
                if on_event is not None:
                    on_event(event)
    except OutputLost as lost:
        if events and events[-1].get("type") == "done":
            lost.result = collect(events)
        raise
    return events


def collect_batch(events: Iterable[Event]) -> BatchResult:
    """Gather the events of a batch, of which the last is its own `done`."""
    kept: dict[int, list[Event]] = {}
    done: Event = {}
    before: list[Event] = []  # of the session: they concern whichever cell is told of next
    for event in events:
        cell = event.get("cell")
        if isinstance(cell, int):
            mine = kept.setdefault(cell, [])
            mine += [*before, event]
            before = []
        elif event.get("type") == "done":
            done = event
        elif event.get("type") == "session":
            before.append(event)
    return BatchResult(tuple(collect(kept[cell]) for cell in sorted(kept)), done)
