"""What a session has run: its last cells with their outputs, as far as they are worth keeping.

A cell is kept from its events, as they are sent, and costs no more than that while it runs. What is
kept of each has a bound, and so have all of them together: the oldest go. What somebody types into
an `input()`, and the values of environment variables and inputs, are never among it.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Final

from broker.execution import EVENT_COST, Event, Execution
from broker.faults import Bounds
from broker.protocol import JsonCodec
from broker.replay import size_of

MOST_TEXT: Final = 64 << 10  # characters of one cell's text outputs, and of its code
MOST_RICH: Final = 256 << 10  # bytes of one cell's rich outputs
MOST_LINES: Final = 50  # of a traceback that is over the bound
LINE: Final = 2000  # characters of each of them
TOLD: Final = {
    "execution_count": "count",
    "code": "code",
    "status": "status",
    "generation": "generation",
}  # of a cell, where its outputs are not
KEEPING: Final = 512  # bytes that a cell takes beside what it holds
CODEC: Final = JsonCodec(Bounds())

Cell = dict[str, Any]
Stored = deque[tuple[str, int]]  # the ids and the sizes of cells in the store, the newest last


class Kept:
    """One finished cell."""

    __slots__ = ("_cell", "_packed", "size")

    def __init__(self, cell: Cell | None, size: int, packed: bytes = b"") -> None:
        self._cell = cell
        self._packed = packed
        self.size = size

    @property
    def cell(self) -> Cell:
        """Return the cell; binary values are bytes, and {"base64": text} once it was packed."""
        return CODEC.unpacked(self._packed) if self._cell is None else self._cell

    @property
    def packed(self) -> bytes:
        """Return the cell as JSON. From then on it takes no more memory than that."""
        if self._cell is not None:
            self._packed, self._cell = CODEC.encode(self._cell), None
        return self._packed


class Recording:
    """The cell that runs."""

    __slots__ = (
        *("_clear_due", "_outputs", "_places", "_rich", "_sizes", "_text", "_texts"),
        *("cell", "left_out"),
    )

    def __init__(self, code: str, execution_id: str) -> None:
        self.left_out = max(0, len(code) - MOST_TEXT)
        self.cell: Cell = {"id": execution_id, "code": code[:MOST_TEXT], "started": time.time()}
        self._clear()
        self._clear_due = False

    def _clear(self) -> None:
        self._outputs: list[Event] = []
        self._sizes: list[int] = []
        self._places: dict[str, list[int]] = {}  # of what is shown, by display_id
        self._texts: list[str] = []  # of the last output, if that is a stream's
        self._text, self._rich = MOST_TEXT, MOST_RICH

    def take(self, kind: str, event: Event) -> None:
        """Take in one event of the cell."""
        if kind == "clear":
            if event.get("wait"):
                self._clear_due = True
            else:
                self._clear()
            return
        if kind not in ("stream", "display", "result", "error"):
            return
        if self._clear_due:
            self._clear_due = False
            self._clear()
        if kind == "stream":
            self._stream(event["name"], event["text"])
        elif kind == "error":
            self._error(event)
        else:
            self._show(kind, event)

    def end(self, done: Event) -> Kept:
        """Return the cell as it is kept."""
        self._join()
        cell = self.cell
        cell["count"] = done["execution_count"]
        for name in ("status", "reason", "duration", "generation"):
            if name in done:
                cell[name] = done[name]
        cell["outputs"] = self._outputs
        if self.left_out:
            cell["left_out"] = self.left_out
        size = len(cell["code"]) + MOST_TEXT - self._text + MOST_RICH - self._rich
        return Kept(cell, size + KEEPING)

    def _add(self, output: Event, size: int) -> None:
        self._join()
        self._outputs.append(output)
        self._sizes.append(size)

    def _join(self) -> None:
        if self._texts:
            self._outputs[-1]["text"] = "".join(self._texts)
            self._texts = []

    def _stream(self, name: str, text: str) -> None:
        shown = text[: max(0, self._text)]
        self.left_out += len(text) - len(shown)
        if not shown:
            return
        self._text -= len(shown)
        last = self._outputs[-1] if self._texts else None
        if last is None or last["name"] != name:
            self._text -= EVENT_COST
            self._add({"type": "stream", "name": name, "text": ""}, 0)
        elif len(shown) < EVENT_COST:
            self._text -= EVENT_COST // 8  # each piece is an object until they are joined
        self._texts.append(shown)

    def _error(self, event: Event) -> None:
        message, lines = event["message"], event["traceback"]
        size = sum(map(len, lines)) + len(message)
        if size > self._text:  # the last words of a cell are kept all the same
            lines = [line[:LINE] for line in lines[-MOST_LINES:]]
            message = message[:LINE]
            kept = sum(map(len, lines)) + len(message)
            if self._text < -MOST_TEXT:  # there have been many
                self.left_out += size
                return
            self.left_out += size - kept
            size = kept
        self._text -= size
        output = {"type": "error", "name": event["name"], "message": message, "traceback": lines}
        self._add(output, 0)

    def _show(self, kind: str, event: Event) -> None:
        data, metadata, display_id = event["data"], event["metadata"], event.get("display_id")
        places = self._places.get(display_id, []) if display_id is not None else []
        if event.get("update") and places:
            for place in places:
                self._rich += self._sizes[place]
        data, metadata, size = self._fitted(data, metadata)
        if event.get("update") and places:
            for place in places:
                self._outputs[place] |= {"data": data, "metadata": metadata}
                self._sizes[place] = size
                self._rich -= size
            return
        if self._rich < -MOST_RICH:
            return  # nothing but notes of what is left out
        self._rich -= size
        output: Event = {"type": kind, "data": data, "metadata": metadata}
        if display_id is not None and len(display_id) <= LINE:
            output["display_id"] = display_id
            self._places.setdefault(display_id, []).append(len(self._outputs))
            if event.get("update"):
                output["type"] = "update"  # of what an earlier cell has shown
        self._add(output, size)

    def _fitted(self, data: Event, metadata: Event) -> tuple[Event, Event, int]:
        """Return as many forms of what is shown as there is room for, the smallest first."""
        size = EVENT_COST + (size_of(metadata, MOST_RICH) if metadata else 0)
        for value in data.values():
            # Text and bytes, which most of it is, are not worth a walk.
            plain = isinstance(value, str | bytes)
            size += len(value) if plain else size_of(value, MOST_RICH)
        if size <= self._rich:
            return data, metadata, size
        sizes = {form: size_of(value, MOST_RICH) for form, value in data.items()}
        fitted: Event = {}
        total = EVENT_COST
        for form in sorted(sizes, key=sizes.__getitem__):
            if total + sizes[form] <= self._rich:
                fitted[form] = data[form]
                total += sizes[form]
            else:
                self.left_out += sizes[form]
        if not fitted:
            fitted = {"text/plain": f"[output of {sum(sizes.values()):,} bytes not kept]"}
        return fitted, {}, total


class Transcript:
    """The last cells of one session: at most so many, of at most so many bytes; 0 keeps none."""

    def __init__(self, max_cells: int, max_bytes: int) -> None:
        self._max_cells = max_cells if max_bytes else 0
        self.max_bytes = max_bytes
        self._cells: deque[Kept] = deque()
        self._bytes = 0
        self._recording: Recording | None = None
        self._lost = ""  # why the variables are gone that earlier cells have made
        self.unwritten: deque[Kept] = deque()
        self.stored: Stored | None = None  # None until somebody has looked

    def __repr__(self) -> str:
        return f"<Transcript: {len(self._cells)} cells, {self._bytes} bytes>"

    @property
    def is_kept(self) -> bool:
        """Tell whether anything is."""
        return bool(self._max_cells)

    @property
    def max_cells(self) -> int:
        """Return how many cells are kept."""
        return self._max_cells

    @property
    def cells(self) -> list[Cell]:
        """Return what is kept, the newest last."""
        return [kept.cell for kept in self._cells]

    def note(self, execution: Execution, event: Event) -> None:
        """Take in an event of an execution, as clients get it."""
        recording, kind = self._recording, event["type"]
        if kind == "started":
            request = execution.request
            if self._max_cells and request.store_history and not request.silent:
                self._recording = Recording(request.code, execution.id)
        elif recording is not None and execution.id == recording.cell["id"]:
            if kind == "done":
                self._recording = None
                self._keep(recording.end(event))
            else:
                recording.take(kind, event)

    def lose(self, reason: str) -> None:
        """Note that the variables of the cells so far are gone."""
        self._lost = reason or "unknown"

    def recall(self, stored: list[tuple[str, bytes]]) -> Stored:
        """Put what the store has before what has been noted since; only the first time."""
        if self.stored is not None:
            return self.stored
        self.stored = deque((entry, len(packed)) for entry, packed in stored)
        earlier = [Kept(None, len(packed) + KEEPING, packed) for _, packed in stored]
        self._cells.extendleft(reversed(earlier))
        self._bytes += sum(kept.size for kept in earlier)
        self._trim()
        return self.stored

    def history(self, most: int) -> list[Cell]:
        """Return what the last cells were, without their outputs."""
        last = [kept.cell for kept in list(self._cells)[-most:]]
        return [{to: cell.get(name) for to, name in TOLD.items()} for cell in last]

    def _keep(self, kept: Kept) -> None:
        if self._lost:
            kept.cell["lost"], self._lost = self._lost, ""
        self._cells.append(kept)
        self.unwritten.append(kept)
        self._bytes += kept.size
        self._trim()

    def _trim(self) -> None:
        while len(self._cells) > self._max_cells or self._bytes > self.max_bytes:
            oldest = self._cells.popleft()
            self._bytes -= oldest.size
            if self.unwritten and self.unwritten[0] is oldest:
                self.unwritten.popleft()
