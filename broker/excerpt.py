"""The outputs of one cell, as far as they are worth keeping: of its text, the first and the last.

Whoever looks for what went wrong wants the last lines before an error. They are kept in a ring
while the cell runs, so that a flood of text takes little more memory than what is kept of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Final

from broker.execution import EVENT_COST, Event
from broker.replay import size_of
from broker.shown import GAP, Shown

MOST_TEXT: Final = 64 << 10  # characters of one cell's text outputs: half the first, half the last
HEAD: Final = MOST_TEXT // 2
TAIL: Final = MOST_TEXT - HEAD
JOIN_BELOW: Final = 1024  # characters; shorter pieces of the last text are joined
MOST_RICH: Final = 256 << 10  # bytes of one cell's rich outputs
MOST_LINES: Final = 50  # of a traceback that is over the bound
LINE: Final = 2000  # characters of each of them; and as many, at the most, of a line that is cut


class Outputs:
    """The outputs of one cell, as far as they are worth keeping."""

    __slots__ = (
        *("_clear_due", "_errors", "_gap", "_late", "_late_size", "_outputs", "_places", "_rich"),
        *("_room", "_texts", "left_out"),
    )

    def __init__(self) -> None:
        self.left_out = 0  # bytes, beside the text in the gap
        self._clear()
        self._clear_due = False

    def _clear(self) -> None:
        self._outputs: list[Event] = []
        self._places: dict[str, Shown] = {}  # by display_id
        self._texts: list[str] = []  # of the last output, if that is a stream's
        self._room = HEAD  # for text, before it goes where the oldest makes way
        self._late: deque[Event] = deque()  # what came since: pieces of text, and all else
        self._late_size = 0
        self._gap = 0  # characters that made way
        self._errors, self._rich = MOST_TEXT, MOST_RICH

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
        text = HEAD - self._room + self._late_size
        return text + MOST_TEXT - self._errors + MOST_RICH - self._rich

    def end(self, truncated: Event | None = None) -> list[Event]:
        """Return what they are; `truncated` is what the cell's `done` says of its text.

        Where text is missing stands an output of the type GAP.
        """
        self._make_way()
        self._join()
        told = truncated or {}
        gap = {
            "type": GAP,
            "size": self._gap + told.get("total", 0) - told.get("shown", 0),
            **{name: told[name] for name in told.keys() & {"file"}},
        }
        self._outputs = joined([*self._outputs, *([gap] if self._gap else ()), *self._late])
        self._late = deque()
        for shown in self._places.values():
            shown.settle()
        return self._outputs

    def _add(self, output: Event) -> None:
        if self._room <= 0:
            self._late.append(output)
            return
        self._join()
        self._outputs.append(output)

    def _join(self) -> None:
        if self._texts:
            self._outputs[-1]["text"] = "".join(self._texts)
            self._texts = []

    def _stream(self, name: str, text: str) -> None:
        room = self._room
        if room <= 0:
            self._stream_late(name, text)
            return
        shown = text[:room]
        last = self._outputs[-1] if self._texts else None
        if last is None or last["name"] != name:
            self._add({"type": "stream", "name": name, "text": ""})
            room -= EVENT_COST
        elif len(shown) < EVENT_COST:
            room -= EVENT_COST // 8  # each piece is an object until they are joined
        self._texts.append(shown)
        self._room = room - len(shown)
        if len(shown) < len(text):
            self._stream_late(name, text[len(shown) :])

    def _stream_late(self, name: str, text: str) -> None:
        size = len(text)
        if size > TAIL:
            self._gap += size - TAIL
            text, size = text[-TAIL:], TAIL
        late = self._late
        self._late_size += size
        if late and size < JOIN_BELOW:
            last = late[-1]
            if last.get("name") == name and last["type"] == "stream":
                before = last["text"]
                if len(before) < JOIN_BELOW:
                    last["text"] = before + text
                    return
        late.append({"type": "stream", "name": name, "text": text})
        self._late_size += EVENT_COST
        if self._late_size > 2 * TAIL:  # now and then: each time costs as much as the text
            self._make_way(whole=True)

    def _make_way(self, *, whole: bool = False) -> None:
        """Drop the oldest of the last text until the rest fits; as far as `whole` pieces can go."""
        while (over := self._late_size - TAIL) > 0:
            oldest = self._late[0]
            if oldest["type"] != "stream":  # it stays, whatever becomes of the text before it
                self._join()
                self._outputs.append(self._late.popleft())
            elif (size := len(oldest["text"])) + EVENT_COST <= over:
                self._late.popleft()
                self._late_size -= size + EVENT_COST
                self._gap += size
            elif whole:
                return
            else:
                cut = min(over, size)
                oldest["text"] = oldest["text"][cut:]
                self._late_size -= over
                self._gap += cut

    def _error(self, event: Event) -> None:
        message, lines = event["message"], event["traceback"]
        size = sum(map(len, lines)) + len(message)
        if size > self._errors:  # the last words of a cell are kept all the same
            lines = [line[:LINE] for line in lines[-MOST_LINES:]]
            message = message[:LINE]
            kept = sum(map(len, lines)) + len(message)
            if self._errors < -MOST_TEXT:  # there have been many
                self.left_out += size
                return
            self.left_out += size - kept
            size = kept
        self._errors -= size + EVENT_COST
        output = {"type": "error", "name": event["name"], "message": message, "traceback": lines}
        if "short" in event:
            output["short"] = event["short"]
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


def joined(outputs: Iterable[Event]) -> list[Event]:
    """Return the outputs with neighbouring pieces of one stream as one; none of them is changed."""
    made: list[Event] = []
    for stream, run in groupby(outputs, key=_stream_of):
        if stream is None:
            made += run
        else:
            text = "".join(piece["text"] for piece in run)
            made.append({"type": "stream", "name": stream, "text": text})
    return made


def _stream_of(output: Event) -> str | None:
    return str(output["name"]) if output["type"] == "stream" else None


def close_gap(outputs: Sequence[Event]) -> int:
    """Cut the text around what is missing at the ends of lines; return how much of it there is.

    Where a secret was cut in two, a few characters of it could not be known for a part of one: so
    this comes after secrets were looked for.
    """
    at = next((at for at, output in enumerate(outputs) if output["type"] == GAP), None)
    if at is None:
        return 0
    gap, after = outputs[at], outputs[min(at + 1, len(outputs) - 1)]
    # What was shown amid the text that is missing stands between its beginning and the gap.
    before = next((one for one in reversed(outputs[:at]) if one["type"] == "stream"), None)
    if before is not None:
        text = before["text"]
        end = text.rfind("\n", max(0, len(text) - LINE)) + 1 or max(0, len(text) - LINE)
        before["text"] = text[:end]
        gap["size"] += len(text) - end
    if after["type"] == "stream":
        text = after["text"]
        begin = text.find("\n", 0, LINE) + 1 or min(LINE, len(text))
        after["text"] = text[begin:]
        gap["size"] += begin
    return int(gap["size"])
