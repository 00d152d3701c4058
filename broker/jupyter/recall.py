"""What a session has told natively, told again as Jupyter's messages. Pure.

For a client that comes back to a cell that outlived its broker: what it asked for is known by its
id alone.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import orjson

from broker.execution import Event

Json = dict[str, Any]
FAILED = {"ok": "ok", "aborted": "aborted", "cancelled": "aborted"}  # any other is an error


class Told(NamedTuple):
    """One message."""

    channel: str
    type: str
    content: Json
    parent: bytes


def parent_of(execution_id: str) -> bytes:
    """Return the parent header of what is said about an execution of which there is but the id."""
    header = {"msg_id": execution_id, "msg_type": "execute_request", "session": "", "username": ""}
    return orjson.dumps({**header, "version": "5.3"})


def told_again(events: Iterable[Event]) -> Iterator[Told]:
    """Yield the messages that a session's events stand for; a reply follows all before it."""
    errors: dict[str, Json] = {}
    for event in events:
        name = str(event.get("id", ""))
        parent = parent_of(name) if name else b"{}"
        if event["type"] == "done":
            yield Told("iopub", "status", {"execution_state": "idle"}, parent)
            yield Told("shell", "execute_reply", _reply(event, errors.pop(name, None)), parent)
            continue
        for kind, content in _published(event):
            if kind == "error":
                errors[name] = content
            yield Told("iopub", kind, content, parent)


def _published(event: Event) -> Iterator[tuple[str, Json]]:
    kind = event["type"]
    if kind == "started":
        yield "status", {"execution_state": "busy"}
        count = event["execution_count"]
        yield "execute_input", {"code": event["code"], "execution_count": count}
    elif kind == "stream":
        yield "stream", {"name": event["name"], "text": event["text"]}
    elif kind == "clear":
        yield "clear_output", {"wait": event["wait"]}
    elif kind == "error":
        words = {"ename": event["name"], "evalue": event["message"]}
        yield "error", {**words, "traceback": event["traceback"]}
    elif kind in ("display", "result"):
        data = {mime: _form(value) for mime, value in event["data"].items()}
        content: Json = {"data": data, "metadata": event["metadata"]}
        if kind == "result":
            yield "execute_result", {**content, "execution_count": event["execution_count"]}
            return
        display_id = event.get("display_id")
        content["transient"] = {} if display_id is None else {"display_id": display_id}
        yield "update_display_data" if event.get("update") else "display_data", content


def _form(value: object) -> object:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _reply(done: Event, error: Json | None) -> Json:
    status = FAILED.get(done["status"], "error")
    content: Json = {"status": status, "execution_count": done["execution_count"]}
    content |= {"user_expressions": {}, "payload": []}
    if status == "error":
        words = {"ename": done["status"], "evalue": str(done.get("reason", "")), "traceback": []}
        content |= error or words
    return content
