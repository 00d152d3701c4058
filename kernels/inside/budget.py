"""How much text an execution may send: head and tail of it, and a file for all of it."""

from __future__ import annotations

import threading
from collections import deque
from contextvars import ContextVar
from typing import Any

from .spill import Outputs, Spill

MAX_PIECES = 1000  # messages not yet handed over, at the most: one for each change of stream
JOIN_BELOW = 1024  # characters; shorter pieces of the tail are joined


_apart: ContextVar[OutputBudget] = ContextVar("budget")


class OutputBudget:
    """Count the text of one execution and keep its tail once the head has used up its half.

    From then on all of it goes to a file as well, the head first. `limit` is in characters, as good
    as bytes for what a bound is for. Writes between two executions (from threads) count against the
    one before; those of threads, against the main thread's.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.streams: dict[str, Any] = {}
        self.outputs = Outputs()  # no folder
        self.disown()

    def disown(self) -> None:
        """Count anew, under a lock of this process: in a child that a cell has forked, too."""
        self._lock = threading.RLock()
        self.begin()

    def apart(self) -> OutputBudget:
        """Return another one, against which this context's writes count from now on."""
        budget = OutputBudget(self.limit)
        budget.streams, budget.outputs = self.streams, self.outputs
        _apart.set(budget)
        return budget

    @property
    def here(self) -> OutputBudget:
        """Return the one against which this context's writes count."""
        return _apart.get(self)

    def begin(self) -> None:
        """Start a new execution's count."""
        self.outputs.begin()
        with self._lock:
            self.total = self.shown = 0
            self._head: list[str] = []
            self._spill: Spill | None = None
            self._tail: deque[tuple[str, str]] = deque()
            self._tail_size = 0
            self._noted = 0  # characters that were said to be left out
            self._finished = False

    @property
    def truncated(self) -> dict[str, Any]:
        """Return what is to be said of what was left out, if anything was."""
        if self.shown >= self.total:
            return {}
        told = {"shown": self.shown, "total": self.total}
        return told | {"file": self._spill.file} if self._spill and self._spill.file else told

    def admit(self, name: str, text: str) -> str:
        """Return what of `text` may go out now; the rest is kept or, in the end, dropped."""
        if not text:
            return text
        with self._lock:
            self.total += len(text)
            if not self.limit:
                self.shown += len(text)
                return text
            room = max(0, self.limit // 2 - self.shown) if self._spill is None else 0
            head, rest = text[:room], text[room:]
            self.shown += len(head)
            if self._finished:
                return head
            if self._spill is None:
                self._head.append(head)
            if rest:
                if self._spill is None:
                    self._spill = Spill(self.outputs, self._head)
                    self._head = []
                self._spill.add(rest)
                self._keep(name, rest)
            return head

    def _keep(self, name: str, text: str) -> None:
        bound = min(self.limit // 2, self.limit - self.shown)
        text = text[max(0, len(text) - bound) :]
        if not text:
            return
        self._tail_size += len(text)
        if self._tail and self._tail[-1][0] == name and len(self._tail[-1][1]) < JOIN_BELOW:
            text = self._tail.pop()[1] + text
        self._tail.append((name, text))
        self._shorten(bound)

    def _shorten(self, bound: int) -> None:
        while self._tail_size > bound or len(self._tail) > MAX_PIECES:
            oldest, kept = self._tail.popleft()
            over = self._tail_size - bound if len(self._tail) < MAX_PIECES else len(kept)
            self._tail_size -= min(over, len(kept))
            if over < len(kept):
                self._tail.appendleft((oldest, kept[over:]))

    def catch_up(self) -> None:
        """Send the tail before what must not overtake it: an error, a result.

        What comes after that has an eighth of the room that was left, so that a cell which shows
        one after the other keeps to its bound.
        """
        if self._tail_size:
            self._send_tail((self.limit - self.shown) * 7 // 8)

    def finish(self) -> None:
        """Send the tail, with a note of what is missing before it, and of where that is."""
        self._send_tail(self.limit, is_last=True)

    def _send_tail(self, most: int, *, is_last: bool = False) -> None:
        for stream in self.streams.values():
            stream.collect()  # of both, before either lets go of a line
        for stream in self.streams.values():
            stream.settle()
        with self._lock:
            where = ""
            if self._spill is not None:
                self._spill.write()
                where = self._spill.note
            self._shorten(most)
            tail, self._tail = self._tail, deque()
            self.shown += self._tail_size
            self._tail_size = 0
            if is_last:
                self._head, self._finished = [], True
            missing = self.total - self.shown - self._noted
            self._noted += missing if tail else 0
        for index, (name, text) in enumerate(tail):
            note = f"\n… {missing} characters left out{where} …\n" if missing and not index else ""
            if name in self.streams:
                self.streams[name].append(note + text)
