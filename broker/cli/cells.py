"""Cells of notebooks, ours and anybody's, and of sessions that run them: with outputs as events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .answer import plain

MOST_BYTES = 64 << 20  # of a file
MOST_CELLS = 10_000
MOST_OUTPUTS = 10_000  # of one cell
OUTPUTS = ("stream", "display", "result", "error", "clear")  # events that are kept

Event = dict[str, Any]


class NotANotebook(ValueError):
    """A file, or a part of it, is not what it should be."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One code cell. What the notebook does not tell is None, empty or 0."""

    code: str
    outputs: tuple[Event, ...] = ()
    count: int | None = None
    id: str = ""  # of the execution, in a session
    status: str = ""
    reason: str = ""
    started: float | None = None  # Unix s
    duration: float | None = None  # s
    generation: int | None = None
    origin: str = ""
    left_out: int = 0  # bytes that were not kept
    lost: str = ""  # why the variables of the cells before it were gone

    def told(self) -> dict[str, Any]:
        """Return it as plain data."""
        names = ("id", "status", "reason", "started", "duration", "generation", "origin")
        rest = {name: getattr(self, name) for name in (*names, "left_out", "lost")}
        return {
            "execution_count": self.count,
            **{name: value for name, value in rest.items() if value},
            "code": self.code,
            "outputs": list(self.outputs),
        }


def read_file(path: Path) -> list[Cell]:
    """Return the code cells of an `.ipynb` file. Raises NotANotebook, OSError."""
    with path.open("rb") as file:
        return read_from(file)


def read_from(file: BinaryIO) -> list[Cell]:
    """Return the code cells of a notebook that comes from an open file, up to its end."""
    text = file.read(MOST_BYTES + 1)
    if not text.strip():
        raise NotANotebook("it is empty")
    if len(text) > MOST_BYTES:
        raise NotANotebook(f"over {MOST_BYTES >> 20} MB")
    try:
        made = json.loads(text)
    except RecursionError:
        raise NotANotebook("nested too deeply") from None
    except ValueError as error:  # also bytes that are no UTF-8, and numbers with too many digits
        raise NotANotebook(f"no JSON: {error}") from None
    return read(made)


def read(notebook: object) -> list[Cell]:
    """Return the code cells of a notebook of nbformat 4. Raises NotANotebook."""
    if not isinstance(notebook, dict) or "nbformat" not in notebook:
        raise NotANotebook("it has no nbformat")
    if notebook["nbformat"] != 4:
        version = str(notebook["nbformat"])[:20]
        raise NotANotebook(f"nbformat {version}: `jupyter nbconvert --to notebook` makes 4 of it")
    cells = _list(notebook.get("cells"), "cells", MOST_CELLS)
    found: list[Cell] = []
    lost = ""
    for number, cell in enumerate(cells, 1):
        where = f"cell {number}"
        if not isinstance(cell, dict):
            raise NotANotebook(f"{where} is no map")
        told = _broker(cell)
        lost = _text(told.get("lost")) or lost
        if cell.get("cell_type") == "code":
            found.append(_cell(cell, told, lost, where))
            lost = ""
    return found


def newest(cells: Sequence[Cell], most: int | None) -> Sequence[Cell]:
    """Return the last cells, at most so many; all of them for None."""
    return cells if most is None else cells[max(0, len(cells) - most) :]


def _cell(cell: Mapping[str, Any], told: Mapping[str, Any], lost: str, where: str) -> Cell:
    outputs = _list(cell.get("outputs", []), f"{where}: outputs", MOST_OUTPUTS)
    return Cell(
        code=_joined(cell.get("source"), f"{where}: source"),
        outputs=tuple(_output(output, where) for output in outputs),
        count=_whole(cell.get("execution_count")),
        id=_text(told.get("id")),
        status=_text(told.get("status")),
        reason=_text(told.get("reason")),
        started=_number(told.get("started")),
        duration=_number(told.get("duration")),
        generation=_whole(told.get("generation")),
        origin=_text(told.get("origin")),
        left_out=_whole(told.get("left_out")) or 0,
        lost=lost,
    )


def _output(output: object, where: str) -> Event:
    if not isinstance(output, dict):
        raise NotANotebook(f"{where}: an output is no map")
    match output.get("output_type"):
        case "stream":
            text = _joined(output.get("text"), f"{where}: text")
            return {"type": "stream", "name": _text(output.get("name")), "text": text}
        case "error":
            lines = _list(output.get("traceback", []), f"{where}: traceback", MOST_OUTPUTS)
            message = {"name": _text(output.get("ename")), "message": _text(output.get("evalue"))}
            return {"type": "error", **message, "traceback": [*map(_text, lines)]}
        case "execute_result" | "display_data" as kind:
            data = output.get("data")
            if not isinstance(data, dict):
                raise NotANotebook(f"{where}: data is no map")
            data = {form: _form(value) for form, value in data.items()}
            return {"type": "result" if kind == "execute_result" else "display", "data": data}
    raise NotANotebook(f"{where}: no output is of type {str(output.get('output_type'))[:40]!r}")


def _form(value: object) -> object:
    is_lines = isinstance(value, list) and all(isinstance(line, str) for line in value)
    return "".join(value) if is_lines else value  # type: ignore[arg-type]


def _broker(cell: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = cell.get("metadata")
    told = metadata.get("broker") if isinstance(metadata, dict) else None
    return told if isinstance(told, dict) else {}


def _list(value: object, what: str, most: int) -> list[Any]:
    if not isinstance(value, list):
        raise NotANotebook(f"{what} is no list")
    if len(value) > most:
        raise NotANotebook(f"{what}: {len(value):,}, at most {most:,}")
    return value


def _joined(value: object, what: str) -> str:
    text = _form(value)
    if not isinstance(text, str):
        raise NotANotebook(f"{what} is no text")
    return text


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and abs(value) < 1e12 else None  # type: ignore[return-value,arg-type]


class Recording:
    """The outputs of a cell that runs, as a notebook has them in the end."""

    def __init__(self) -> None:
        self._outputs: list[Event] = []
        self._clear_due = False

    def take(self, event: Event) -> None:
        """Take in an event of the cell."""
        kind = event.get("type")
        if kind not in OUTPUTS:
            return
        if kind == "clear":
            self._clear_due = bool(event.get("wait"))
            if not self._clear_due:
                self._outputs = []
            return
        if self._clear_due:
            self._outputs, self._clear_due = [], False
        if kind == "stream":
            self._stream(event)
        elif event.get("update"):
            for shown in self._outputs:
                if shown.get("display_id") == event.get("display_id"):
                    shown["data"] = event.get("data") or {}
        else:
            self._outputs.append({**event})

    def _stream(self, event: Event) -> None:
        last = self._outputs[-1] if self._outputs else {}
        if last.get("type") == "stream" and last["name"] == event.get("name"):
            last["pieces"].append(event.get("text", ""))
        else:
            pieces = [event.get("text", "")]
            self._outputs.append({"type": "stream", "name": event.get("name"), "pieces": pieces})

    def outputs(self) -> Iterator[Event]:
        """Yield them."""
        kept = ("type", "name", "message", "traceback", "data")
        for output in self._outputs:
            told = {key: plain(output[key]) for key in kept if key in output}
            if "pieces" in output:
                told["text"] = "".join(output["pieces"])
            yield told
