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

from broker.excerpt import Outputs, close_gap
from broker.execution import EVENT_COST, Event, Execution
from broker.faults import Bounds
from broker.marks import KEPT, UNKEPT, WITHHELD, Running
from broker.protocol import JsonCodec
from broker.redaction import Redaction
from broker.requests import VISITOR, origin_of
from broker.surroundings import NONE

MOST_CODE: Final = 64 << 10  # characters of a cell's code
TOLD: Final = {
    "execution_count": "count",
    "code": "code",
    "status": "status",
    "generation": "generation",
}  # of a cell, where its outputs are not
# Above the function of a visitor's call, which a notebook has no other form for.
CALLED: Final = "# called as a function; what it was given is not kept\n"
# In place of the code that an earlier broker has had run.
RESUMED: Final = (
    "# The broker was restarted while this ran: the code is not known any more,\n"
    "# and the outputs before the restart are not kept.\n"
)
CONCEALED: Final = (
    "# The broker was restarted while this ran: neither the code nor the outputs are kept,\n"
    "# for the secrets that they may show are not known any more.\n"
)
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
        "_resumed",
        "_size",
        "_started",
        "_withheld",
        "id",
    )

    def __init__(
        self, code: str, execution_id: str, origin: str = "", redaction: Redaction | None = None
    ) -> None:
        self.id = execution_id
        self._origin = origin
        self._redaction = redaction
        self._code = code[:MOST_CODE]
        self._cut = max(0, len(code) - MOST_CODE)
        self._started = time.time()
        self._events: list[Event] = []
        self._size = 0  # bytes of these
        self._outputs: Outputs | None = None  # in place of them, when there are more
        self._done: Event = {}
        self._lost = ""
        self._resumed = False  # its beginning went to an earlier broker,
        self._withheld = False  # which alone knew the secrets around it

    def resume(self, running: Running) -> None:
        """Note that it began under an earlier broker."""
        self._started = running.began
        self._resumed, self._withheld = running.started, running.kept == WITHHELD

    def begin(self, code: str) -> None:
        """Take in the code of what was resumed before anybody was told of its beginning."""
        if code and not self._withheld:
            self._code, self._cut = code[:MOST_CODE], max(0, len(code) - MOST_CODE)

    def take(self, kind: str, event: Event) -> None:
        """Take in one event of the cell, which does not change any more."""
        if kind not in RECORDED or self._withheld:
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
        kept = (*ENDING, "truncated")
        self._done = {name: done.get(name) for name in kept} if "files" in done else done
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
        if self._resumed or self._withheld:
            cell["resumed"] = True
        cell["outputs"] = outputs.end(done.get("truncated"))
        if self._redaction is not None:
            cell = self._redaction.cell(cell)
        if left_out := outputs.left_out + close_gap(cell["outputs"]) + self._cut:
            cell["left_out"] = left_out
        return cell

    def _write(self) -> Outputs:
        self._outputs = outputs = Outputs()
        for event in self._events:
            outputs.take(event["type"], event)
        self._events = []
        return outputs


def _is_recorded(execution: Execution, origin: str) -> bool:
    """Tell whether an execution is for the history; a visitor's is, however it was asked for."""
    request = execution.request
    return origin == VISITOR or (request.store_history and not request.silent)


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
        if kind == "started" and recording is not None and execution is self._recorded:
            recording.begin(event.get("code", ""))  # it was resumed
        elif kind == "started":
            self._learn(execution)
            origin = event.get("origin", "")
            if self._max_cells and _is_recorded(execution, origin):
                code = CALLED * execution.order.is_call + execution.request.code
                self._recording = Recording(code, execution.id, origin, self._redaction)
                self._recorded = execution
        elif recording is not None and execution is self._recorded:
            if kind == "done":
                self._recording = self._recorded = None
                lost, self._lost = self._lost, ""
                self._keep(recording.end(event, lost))
            else:
                recording.take(kind, event)

    def foresee(self, execution: Execution) -> int:
        """Tell how much of what is to begin is kept if a later broker has to go on with it.

        That one will not know the secrets: no broker writes them down.
        """
        self._learn(execution)
        if not _is_recorded(execution, origin_of(execution.request.metadata)):
            return UNKEPT
        return KEPT if self._redaction is None else WITHHELD

    def resume(self, execution: Execution, running: Running) -> None:
        """Go on with what began under an earlier broker: all that is known of it, or nothing."""
        if self._max_cells and running.kept != UNKEPT:
            code = CONCEALED if running.kept == WITHHELD else RESUMED
            code = CALLED * execution.order.is_call + code
            origin = VISITOR if running.visits else ""
            self._recording = Recording(code, execution.id, origin, self._redaction)
            self._recording.resume(running)
            self._recorded = execution

    def redacted(self, text: str) -> str:
        """Return text with a note in the place of each secret that is known."""
        return text if self._redaction is None else str(self._redaction.redacted(text))

    def _learn(self, execution: Execution) -> None:
        """Take in the secrets around an execution; code may keep them for as long as it likes."""
        if execution.around is self._around and execution.order.parcel is None:
            return
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
