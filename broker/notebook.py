"""A session's cells as a Jupyter notebook, nbformat 4.5."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from broker.shown import GAP, Shown

Json = dict[str, Any]

# nbformat 4.5: these may be any JSON; every other form is text, or a list of texts.
_IS_JSON: Final = re.compile(r"^application/(.*\+)?json$")
# Bytes of JSON that a notebook has more for what is shown in several places.
REPEATED: Final = 4 << 20
TOLD: Final = (
    *("id", "status", "reason", "duration", "started", "generation", "left_out", "origin"),
    "resumed",
)


def notebook(
    cells: Iterable[Mapping[str, Any]], *, session: str, kernelspec: str, language: str
) -> Json:
    """Return the notebook of what a session has run.

    `cells` are those of a transcript. Where variables were lost between two of them, a note says
    so. What a later cell has changed of an earlier one's display is shown where it was shown: in
    the last of its places, and for REPEATED bytes in others.
    """
    made: list[Json] = []
    shown: dict[str, Shown] = {}
    for cell in cells:
        if lost := cell.get("lost"):
            made.append(_note(len(made), str(lost), cell.get("generation")))
        made.append(_code_cell(len(made), cell, shown))
    room = REPEATED
    for display in shown.values():
        room = display.settle_within(room)
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {
                "name": kernelspec,
                "display_name": kernelspec,
                "language": language,
            },
            "language_info": {"name": language},
            "broker": {"session": session},
        },
        "cells": made,
    }


def _note(number: int, reason: str, generation: object) -> Json:
    words = " ".join(reason.replace("`", "'").split())
    text = f"*The variables of the cells above were lost here:* `{words or 'unknown'}`"
    if isinstance(generation, int):
        text += f" *This is generation {generation}.*"
    return {
        "cell_type": "markdown",
        "id": f"note-{number}",
        "metadata": {"broker": {"lost": words, "generation": generation}},
        "source": text,
    }


def _code_cell(number: int, cell: Mapping[str, Any], shown: dict[str, Shown]) -> Json:
    count = _count(cell.get("count"))
    outputs: list[Json] = []
    in_gaps = 0
    for output in cell.get("outputs") or ():
        if output["type"] == GAP:
            in_gaps += output["size"]
            outputs.append({"output_type": "stream", "name": "stderr", "text": _gap(output)})
            continue
        made = _output(output, count)
        display_id = output.get("display_id")
        if output["type"] == "update":
            if (earlier := shown.get(display_id)) is not None:
                earlier.change(made["data"], made["metadata"])
            continue
        if display_id is not None:
            shown.setdefault(display_id, Shown()).add(made)
        outputs.append(made)
    if left_out := (cell.get("left_out") or 0) - in_gaps:
        text = f"\n[{left_out:,} more of this cell's output and code were not kept]\n"
        outputs.append({"output_type": "stream", "name": "stderr", "text": text})
    return {
        "cell_type": "code",
        "id": f"cell-{number}",
        "metadata": {
            "broker": {name: cell[name] for name in TOLD if name in cell},
            **_timing(cell.get("started"), cell.get("duration")),
        },
        "source": str(cell.get("code", "")),
        "execution_count": count,
        "outputs": outputs,
    }


def _gap(output: Mapping[str, Any]) -> str:
    where = f"; while the session lives, {output['file']} has it" if "file" in output else ""
    return f"\n[{output['size']:,} characters of text left out here{where}]\n"


def _timing(started: object, duration: object) -> Json:
    """Return when a cell began and ended, as JupyterLab notes it."""
    if not isinstance(started, int | float) or not isinstance(duration, int | float):
        return {}
    try:
        begun = datetime.fromtimestamp(started, UTC)
        ended = begun + timedelta(seconds=duration)
    except (ValueError, OverflowError, OSError):
        return {}
    told = {"iopub.execute_input": begun, "shell.execute_reply": ended}
    return {"execution": {name: f"{at:%Y-%m-%dT%H:%M:%S.%fZ}" for name, at in told.items()}}


def _output(output: Mapping[str, Any], count: int | None) -> Json:
    kind = output["type"]
    if kind == "stream":
        return {"output_type": "stream", "name": output["name"], "text": output["text"]}
    if kind == "error":
        return {
            "output_type": "error",
            "ename": output["name"],
            "evalue": output["message"],
            "traceback": list(output["traceback"]),
        }
    made: Json = {
        "output_type": "execute_result" if kind == "result" else "display_data",
        "data": {str(form): _form(str(form), value) for form, value in output["data"].items()},
        "metadata": _plain(output.get("metadata") or {}),
    }
    if kind == "result":
        made["execution_count"] = count
    return made


def _form(form: str, value: object) -> object:
    value = _plain(value)
    if isinstance(value, str) or _IS_JSON.match(form):
        return value
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return value
    return json.dumps(value)


def _plain(value: Any) -> Any:
    """Return data as notebooks have it: binary values are base64 text."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        if value.keys() == {"base64"} and isinstance(value["base64"], str):
            return value["base64"]
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def _count(value: object) -> int | None:
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_count else None  # type: ignore[return-value]
