"""What `broker run --json` prints: the object that `POST /v1/sessions/{session}/execute` answers.

Gathered from the events of a socket, which brings images as bytes and has other events between.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

Event = dict[str, Any]
ERROR = ("name", "message", "short", "traceback")
APART = ("session", "queued", "started", "done")  # events that are no outputs


def answer(session: str, events: Sequence[Event]) -> dict[str, Any]:
    """Return the object for an execution's events, of which the last is its `done`."""
    told = [plain(event) for event in events]
    done = told[-1] if told and told[-1].get("type") == "done" else {}
    outputs = [event for event in told if event.get("type") not in APART]

    def of(kind: str) -> list[Event]:
        return [event for event in outputs if event.get("type") == kind]

    def text(name: str) -> str:
        return "".join(each.get("text", "") for each in of("stream") if each.get("name") == name)

    error = next(({name: each.get(name) for name in ERROR} for each in of("error")[-1:]), None)
    ended = ("generation", "state", "status", "execution_count")
    return {
        "session": session,
        **{name: done.get(name) for name in ended},
        "stdout": text("stdout"),
        "stderr": text("stderr"),
        "result": next((each.get("data") for each in of("result")[-1:]), None),
        "displays": [each.get("data") for each in of("display")],
        "error": error,
        "outputs": outputs,
        "done": done,
    }


def plain(value: Any) -> Any:
    """Return what JSON has: bytes as base64 text, and null for numbers that it lacks."""
    match value:
        case dict():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
        case bytes():
            return base64.b64encode(value).decode()
        case float() if not math.isfinite(value):
            return None
    return value
