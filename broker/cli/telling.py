"""Tells a session's cells as they run, or ran: whose they are, their code, outputs and end."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TextIO

from broker.client import terminal

from .cells import Cell, Event
from .markup import plain_of
from .printer import Printer
from .screen import RESET, coloured, still, still_lines
from .shortening import Ends
from .text import plural

ERROR_LINES = 12  # of a traceback: the last ones


class Teller:
    """Prints cells, one after another: of their text the ends, or all where they are `full`."""

    def __init__(
        self, printer: Printer, out: TextIO, *, full: bool = False, more: str = "--full"
    ) -> None:
        self.printer = printer
        self._out = out
        self._full = full
        self._more = more  # what shows all of a text, where that is shortened
        self._current: tuple[object, object] | None = None  # the cell that runs
        self._ends = Ends()  # of its text, where that is shortened

    def shortened(self, more: str) -> Teller:
        """Return one that tells beside this one, of texts the ends alone; `more` shows the rest."""
        return Teller(self.printer, self._out, more=more)

    def cells(self, cells: Iterable[Cell]) -> None:
        """Tell cells that have ended."""
        for cell in cells:
            if cell.lost:
                self.printer.note(f"broker: the variables were lost here: {still(cell.lost)}")
            self._begin(cell.count, cell.code, cell.origin, cell.started)
            for output in cell.outputs:
                self._output(as_shown(output))
            self._end(cell.status, cell.reason, cell.duration)

    def event(self, event: Event) -> None:
        """Tell one event of the session."""
        key = event.get("id"), event.get("cell")
        match event.get("type"):
            case "session":
                self.printer.event(event)
                if event.get("missed"):
                    self.printer.note("broker: some of it was missed: `broker logs` has the cells")
            case "started":
                self._current = key
                count, code = event.get("execution_count"), str(event.get("code", ""))
                self._begin(count, code, str(event.get("origin", "")), time.time())
            case "stream" | "display" | "result" | "error" | "value" | "input_request":
                if event.get("id") is not None and self._current != key:
                    self._current = key  # it began before we came
                    self._begin(event.get("execution_count"), "", "", None)
                self._output(event)
            case "done" if self._current == key:
                self._current = None
                duration, reason = event.get("duration"), str(event.get("reason") or "")
                self._end(str(event.get("status")), reason, duration)

    def _begin(self, count: object, code: str, origin: str, started: float | None) -> None:
        self.printer.end_line()
        self._ends = Ends()
        when = "" if started is None else time.strftime("%Y-%m-%d %H:%M:%S", _local(started))
        number = " " if count is None else count
        self._line("  ".join(part for part in (f"In [{number}]", when, still(origin)) if part))
        shown = coloured if self._out.isatty() else still_lines
        for line in shown(code).split("\n") if code else ():
            self._line(f"> {line}")

    def _output(self, event: Event) -> None:
        kind = event.get("type")
        if kind == "input_request":
            self._catch_up()
            self.printer.note(f"broker: it waits for input: {still(str(event.get('prompt')))}")
        elif self._full:
            self.printer.event(event)
        elif kind == "stream":
            self._text(str(event.get("text", "")))
        elif kind == "error":
            self._catch_up()
            lines = [*event.get("traceback", ())]
            self.printer.event({**event, "traceback": lines[-ERROR_LINES:]})
        elif kind in ("display", "result"):
            self._rich(event)

    def _rich(self, event: Event) -> None:
        data = event.get("data", {})
        has_image = any(str(mime).startswith("image/") for mime in data)
        if has_image or (text := plain_of(data)) is None:
            self._catch_up()
            self.printer.event(event)
        else:
            self._text(f"{text}\n", own_line=True)

    def _text(self, text: str, *, own_line: bool = False) -> None:
        if shown := self._ends.take(text, own_line=own_line):
            if own_line:
                self.printer.end_line()
            self.printer.event({"type": "stream", "name": "stdout", "text": shown})

    def _catch_up(self) -> None:
        """Tell the last of the text so far, before what comes after it."""
        left_out, rest = self._ends.rest()
        if left_out:
            self.printer.end_line()
            self._line(f"… {plural(left_out, 'more line')}: {self._more} shows what is kept")
        if rest:
            self.printer.event({"type": "stream", "name": "stdout", "text": rest})

    def _end(self, status: str, reason: str, duration: object) -> None:
        self._catch_up()
        self.printer.end_line()
        told = [status or "unknown"]
        if isinstance(duration, int | float):
            told.append(f"{duration:.3f} s")
        if reason and reason != status:
            told.append(still(reason))
        self._line(f"[{', '.join(told)}]\n")

    def _line(self, text: str) -> None:
        self._out.write(f"{RESET if self._out.isatty() else ''}{text}\n")
        self._out.flush()


def as_shown(output: Event) -> Event:
    """Return an output of a cell that has ended: of a progress bar, the last state."""
    if output.get("type") != "stream":
        return output
    return {**output, "text": terminal.shown(str(output.get("text", "")))}


def _local(when: float) -> time.struct_time:
    try:
        return time.localtime(when)
    except (ValueError, OverflowError, OSError):
        return time.localtime(0)
