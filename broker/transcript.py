"""What a session has run: its last cells with their outputs, as far as they are worth keeping.

A cell is kept from its events; once it has ended and the store has it, no memory is held for it
here. Each has a bound, and so have all together: the oldest go. What is typed into an `input()`,
and values of the environment and of inputs, are never kept; in a secret's place stands a note.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from broker.execution import EVENT_COST, Event, Execution
from broker.faults import Bounds
from broker.protocol import JsonCodec
from broker.redaction import Redaction
from broker.replay import size_of
from broker.shown import Shown
from broker.surroundings import NONE

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
# In JSON, that can be no part of a text: a quote in one has a backslash before it.
OUTPUTS: Final = b',"outputs":'
RECORDED: Final = frozenset(("stream", "display", "result", "error", "clear"))
SMALL: Final = 8 << 10  # bytes of a cell's events that are kept as they are
ENDING: Final = ("execution_count", "status", "reason", "duration", "generation")  # of a `done`
KEEPING: Final = 512  # bytes that a cell takes beside what it holds
CODEC: Final = JsonCodec(Bounds())

Cell = dict[str, Any]


class Kept:
    """One finished cell."""

    __slots__ = ("_cell", "_packed", "size")

    def __init__(self, cell: Cell | Recording | None, size: int, packed: bytes = b"") -> None:
        self._cell = cell
        self._packed = packed
        self.size = size

    @property
    def cell(self) -> Cell:
        """Return the cell; binary values are bytes, and {"base64": text} once it was packed."""
        if isinstance(self._cell, Recording):
            self._cell = self._cell.made()
        return CODEC.unpacked(self._packed) if self._cell is None else self._cell

    @property
    def told(self) -> Cell:
        """Return the fields of `history`, of which no output has to be read."""
        cell: Cell = {}
        if self._cell is None:
            head, found, _ = self._packed.partition(OUTPUTS)
            cell = CODEC.unpacked(head + b"}") if found else cell
        if not cell.keys() >= set(TOLD.values()):  # packed in another order, or not at all
            cell = self.cell
        return {to: cell.get(name) for to, name in TOLD.items()}

    @property
    def packed(self) -> bytes:
        """Return the cell as JSON. From then on it takes no more memory than that."""
        if self._cell is not None:
            self._packed, self._cell = CODEC.encode(self.cell), None
        return self._packed


class Recording:
    """The cell that runs.

    Most have a few small outputs: their events are kept as they are, and nothing is made of them
    before somebody asks, which whoever waits for the cell need not wait for.
    """

    __slots__ = (
        "_code",
        "_cut",
        "_done",
        "_events",
        "_lost",
        "_origin",
        "_outputs",
        "_redaction",
        "_size",
        "_started",
        "id",
    )

    def __init__(
        self, code: str, execution_id: str, origin: str = "", redaction: Redaction | None = None
    ) -> None:
        self.id = execution_id
        self._origin = origin
        self._redaction = redaction
        self._code = code[:MOST_TEXT]
        self._cut = max(0, len(code) - MOST_TEXT)
        self._started = time.time()
        self._events: list[Event] = []
        self._size = 0  # bytes of these
        self._outputs: Outputs | None = None  # in place of them, when there are more
        self._done: Event = {}
        self._lost = ""

    def take(self, kind: str, event: Event) -> None:
        """Take in one event of the cell, which does not change any more."""
        if kind not in RECORDED:
            return
        if self._outputs is None:
            self._events.append(event)
            self._size += _cost(kind, event)
            if self._size > SMALL:
                self._write()
        else:
            self._outputs.take(kind, event)

    def end(self, done: Event, lost: str = "") -> Kept:
        """Return the cell as it is kept; `lost` says why its variables were, before it."""
        # What it may tell of files takes more memory than all the rest.
        self._done = {name: done.get(name) for name in ENDING} if "files" in done else done
        self._lost = lost
        size = len(self._code) + KEEPING
        if self._outputs is None:
            return Kept(self, size + self._size)
        return Kept(self.made(), size + self._outputs.size)

    def made(self) -> Cell:
        """Return the cell, which has ended, with its outputs."""
        outputs, done = self._outputs or self._write(), self._done
        cell: Cell = {"id": self.id, "code": self._code, "started": self._started}
        cell["count"] = done["execution_count"]
        cell |= {name: done[name] for name in ENDING[1:] if done.get(name) is not None}
        if self._lost:
            cell["lost"] = self._lost
        if self._origin:
            cell["origin"] = self._origin
        cell["outputs"] = outputs.end()
        if left_out := outputs.left_out + self._cut:
            cell["left_out"] = left_out
        return cell if self._redaction is None else self._redaction.cell(cell)

    def _write(self) -> Outputs:
        self._outputs = outputs = Outputs()
        for event in self._events:
            outputs.take(event["type"], event)
        self._events = []
        return outputs


def _cost(kind: str, event: Event) -> int:
    """Return the bytes that an event takes, or more than are kept where they are not told soon."""
    if kind == "stream":
        return EVENT_COST + len(event["text"])
    if kind not in ("display", "result") or event["metadata"] or "display_id" in event:
        return SMALL + 1
    size = EVENT_COST
    for form, value in event["data"].items():
        if not isinstance(value, str | bytes):
            return SMALL + 1
        size += len(form) + len(value)
    return size


class Outputs:
    """The outputs of one cell, as far as they are worth keeping."""

    __slots__ = (
        *("_clear_due", "_outputs", "_places", "_rich", "_text", "_texts"),
        "left_out",
    )

    def __init__(self) -> None:
        self.left_out = 0  # bytes
        self._clear()
        self._clear_due = False

    def _clear(self) -> None:
        self._outputs: list[Event] = []
        self._places: dict[str, Shown] = {}  # by display_id
        self._texts: list[str] = []  # of the last output, if that is a stream's
        self._text, self._rich = MOST_TEXT, MOST_RICH

    def take(self, kind: str, event: Event) -> None:
        """Take in one event of the cell, of a kind that is RECORDED."""
        if kind == "clear":
            if event.get("wait"):
                self._clear_due = True
            else:
                self._clear()
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

    @property
    def size(self) -> int:
        """Return the bytes they take."""
        return MOST_TEXT - self._text + MOST_RICH - self._rich

    def end(self) -> list[Event]:
        """Return what they are."""
        self._join()
        for shown in self._places.values():
            shown.settle()
        return self._outputs

    def _add(self, output: Event) -> None:
        self._join()
        self._outputs.append(output)

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
            self._add({"type": "stream", "name": name, "text": ""})
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
        self._add(output)

    def _show(self, kind: str, event: Event) -> None:
        data, metadata, display_id = event["data"], event["metadata"], event.get("display_id")
        if display_id is not None and len(display_id) > LINE:
            display_id = None
        name = len(display_id or "")
        places = self._places.get(display_id) if display_id is not None else None
        if event.get("update") and places is not None:
            self._rich += places.size
            # It stands in each of them once it is written, though they share it until then.
            data, metadata, size = self._fitted(data, metadata, self._rich // len(places) - name)
            places.change(data, metadata)
            places.size = (size + name) * len(places)
            self._rich -= places.size
            return
        data, metadata, size = self._fitted(data, metadata, self._rich - name)
        if self._rich < -MOST_RICH:
            return  # nothing but notes of what is left out
        size += name
        self._rich -= size
        output: Event = {"type": kind, "data": data, "metadata": metadata}
        if display_id is not None:
            output["display_id"] = display_id
            places = self._places.setdefault(display_id, Shown())
            places.add(output)
            places.size += size
            if event.get("update"):
                output["type"] = "update"  # of what an earlier cell has shown
        self._add(output)

    def _fitted(self, data: Event, metadata: Event, room: int) -> tuple[Event, Event, int]:
        """Return as many forms of what is shown as `room` is enough for, the smallest first."""
        size = EVENT_COST + (size_of(metadata, MOST_RICH) if metadata else 0)
        for form, value in data.items():
            # Text and bytes, which most of it is, are not worth a walk.
            plain = isinstance(value, str | bytes)
            size += len(form) + (len(value) if plain else size_of(value, MOST_RICH))
        if size <= room:
            return data, metadata, size
        sizes = {form: len(form) + size_of(value, MOST_RICH) for form, value in data.items()}
        fitted: Event = {}
        total = EVENT_COST
        for form in sorted(sizes, key=sizes.__getitem__):
            if total + sizes[form] <= room:
                fitted[form] = data[form]
                total += sizes[form]
            else:
                self.left_out += sizes[form]
        if not fitted:
            fitted = {"text/plain": f"[output of {sum(sizes.values()):,} bytes not kept]"}
        return fitted, {}, total


class Transcript:
    """The cells of one session on their way to the store.

    Cells wait here until they are written: at most so many, of at most so many bytes, which are
    also the bounds of what the store keeps; 0 keeps none.
    """

    def __init__(self, max_cells: int, max_bytes: int) -> None:
        self._max_cells = max_cells if max_bytes else 0
        self.max_bytes = max_bytes
        self.unwritten: deque[Kept] = deque()  # the newest last
        self.is_stored = False  # some of it was written by this node
        self._bytes = 0
        self._recording: Recording | None = None
        self._recorded: Execution | None = None  # whose that is: cells of a batch share their id
        self._lost = ""  # why the variables are gone that earlier cells have made
        self._redaction: Redaction | None = None  # once the session has secrets
        self._around = NONE  # whose secrets are known

    def __repr__(self) -> str:
        return f"<Transcript: {len(self.unwritten)} cells to write, {self._bytes} bytes>"

    @property
    def is_kept(self) -> bool:
        """Tell whether anything is."""
        return bool(self._max_cells)

    @property
    def max_cells(self) -> int:
        """Return how many cells are kept."""
        return self._max_cells

    def note(self, execution: Execution, event: Event) -> None:
        """Take in an event of an execution, as clients get it."""
        recording, kind = self._recording, event["type"]
        if kind == "started":
            request = execution.request
            if execution.around is not self._around or execution.order.parcel is not None:
                self._learn(execution)
            if self._max_cells and request.store_history and not request.silent:
                origin = event.get("origin", "")
                self._recording = Recording(request.code, execution.id, origin, self._redaction)
                self._recorded = execution
        elif recording is not None and execution is self._recorded:
            if kind == "done":
                self._recording = self._recorded = None
                lost, self._lost = self._lost, ""
                self._keep(recording.end(event, lost))
            else:
                recording.take(kind, event)

    def redacted(self, text: str) -> str:
        """Return text with a note in the place of each secret that is known."""
        return text if self._redaction is None else str(self._redaction.redacted(text))

    def _learn(self, execution: Execution) -> None:
        """Take in the secrets around an execution; code may keep them for as long as it likes."""
        redaction = self._redaction or Redaction()
        if execution.around is not self._around:
            self._around = execution.around
            redaction.learn(execution.around.since(0)["env"])
        redaction.learn((execution.order.parcel or {}).get("env") or {})
        if redaction:
            self._redaction = redaction

    def lose(self, reason: str) -> None:
        """Note that the variables of the cells so far are gone."""
        self._lost = reason or "unknown"

    def written(self, cells: Iterable[Kept]) -> None:
        """Forget cells that the store has: the oldest, but for those that were too old to stay."""
        self.is_stored = True
        for cell in cells:
            if self.unwritten and self.unwritten[0] is cell:
                self._drop()

    def _keep(self, kept: Kept) -> None:
        if kept.size > self.max_bytes:
            return  # for what has no room at all, the others need not go
        self.unwritten.append(kept)
        self._bytes += kept.size
        while len(self.unwritten) > self._max_cells or self._bytes > self.max_bytes:
            self._drop()

    def _drop(self) -> None:
        self._bytes -= self.unwritten.popleft().size
