"""What a model is told: how to call the tool, and what came of a call. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from broker.client.errors import (
    BadRequest,
    BrokerError,
    ConnectionLost,
    Forbidden,
    NoServer,
    SessionGone,
    StateLost,
    Unauthorized,
)
from broker.client.result import Result, image_bytes
from broker.client.terminal import shown

S = TypeVar("S")

NAME = "python"
DESCRIPTION = (
    "Run Python code in a persistent session, like the cells of one notebook: variables, imports"
    " and files of earlier calls are there. Returns what is printed, the value of the last"
    " expression, images that are shown, and errors. `!command` runs a shell command. If the"
    " answer says that the variables are gone, define again what you need."
)
PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "code": {"type": "string", "description": "Python code to run."},
        "timeout": {
            "type": "number",
            "description": "Seconds after which it is interrupted; leave it out for the default.",
        },
    },
    "required": ["code"],
    "additionalProperties": False,
}
MOST = 20_000  # characters for the model
ERROR_LINES = 16  # of a traceback: its end names the line and the error
FILES = 20
IMAGES = 4  # shown to a model that sees
IMAGE_BYTES = 3_500_000  # of one; as base64 it stays below what APIs take

_LOST = {
    "lost": "the earlier kernel has ended{why}: variables and imports are gone, files are kept",
    "restored": "the earlier kernel has ended{why}: most variables were restored",
}


def of_kind(kind: type[S], session: object) -> S:
    """Return the session, which is of this kind; raises TypeError: the other is (not) awaited."""
    if not isinstance(session, kind):
        raise TypeError(f"this needs {kind.__name__}, and the tool has {type(session).__name__}")
    return session


def arguments(given: object) -> tuple[str, float | None]:
    """Return code and timeout of a call's arguments, a map or its JSON; raises BadRequest."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError as error:
            raise BadRequest(f"the arguments are not JSON: {error}") from None
    if not isinstance(given, Mapping) or not isinstance(given.get("code"), str):
        raise BadRequest("the arguments are not a map with `code`, a text", field="code")
    timeout = given.get("timeout")
    if isinstance(timeout, bool) or not isinstance(timeout, int | float | None):
        raise BadRequest("`timeout` is not a number of seconds", field="timeout")
    return given["code"], timeout


def check_name(called: object, name: str) -> None:
    """Raise BadRequest if a model calls for another tool than the one of this name."""
    if called is not None and called != name:
        raise BadRequest(f"there is no tool {called!r} here; this one is {name!r}", field="name")


def refusal(error: BrokerError, most: int = MOST) -> str:
    """Return what a model is told of a request that has no result.

    What only the program around the model can mend is raised again.
    """
    if isinstance(error, Unauthorized | Forbidden | NoServer):
        raise error
    if isinstance(result := getattr(error, "result", None), Result):
        return told(result, most)  # of a session that is to raise what it has lost
    is_open = isinstance(error, ConnectionLost | SessionGone | StateLost)
    text = f"status: {'not known to have run' if is_open else 'not run'}\nnote: {error.message}"
    return text if error.retry_after is None else f"{text}; try again in {error.retry_after:.0f} s"


def told(result: Result, most: int = MOST) -> str:
    """Return a result in at most about `most` characters; of what is too long, head and tail."""
    parts = {
        "stdout": shown(result.stdout).strip("\n"),
        "stderr": shown(result.stderr).strip("\n"),
        "shown": "\n".join(_plain(data) for data in result.displays if "image/png" not in data),
        "result": _plain(result.data) if result.data is not None else "",
        "error": _error(result),
    }
    parts = {name: text for name, text in parts.items() if text}
    room = _shares({name: len(text) for name, text in parts.items()}, most)
    lines = [f"status: {result.status}", *(f"note: {note}" for note in _notes(result))]
    for name, text in parts.items():
        lines.append(f"{name}:\n{clipped(text, room[name])}")
    lines += [
        f"[image {number}: PNG, {_size(len(image))}]"
        for number, image in enumerate(result.images, 1)
    ]
    return "\n".join(lines)


def shown_images(result: Result) -> list[bytes]:
    """Return those PNG images that a model can be shown."""
    return [image for image in result.images if len(image) <= IMAGE_BYTES][:IMAGES]


def clipped(text: str, most: int) -> str:
    """Return a text of at most about `most` characters: its head, a note, its tail."""
    if len(text) <= most:
        return text
    head, tail = text[: most * 2 // 3], text[len(text) - most // 3 :]
    return f"{head}\n[… {len(text) - len(head) - len(tail):,} characters left out …]\n{tail}"


def _notes(result: Result) -> list[str]:
    why = f" ({result.reason})" if result.reason else ""
    notes = []
    if result.status == "lost":
        notes.append(f"the kernel ended while the code ran{why}: variables are gone, files kept")
    elif result.state in _LOST:
        notes.append(_LOST[result.state].format(why=why))
    if result.status == "timeout":
        notes.append(f"stopped after {result.duration:.1f} s; the variables are kept")
    done = result.events[-1] if result.events else {}
    if cut := done.get("truncated"):
        where = f"; more of it is in {cut['file']}" if cut.get("file") else ""
        notes.append(f"output cut: {cut['shown']:,} of {cut['total']:,} characters kept{where}")
    files = done.get("files") or []
    names = [f"{one['path']} ({one.get('change') or 'changed'})" for one in files[:FILES]]
    if names:
        further = len(files) - len(names) + done.get("files_more", 0)
        more = f" and {further} more" if further else ""
        notes.append(f"files: {', '.join(names)}{more}")
    return notes


def _error(result: Result) -> str:
    if result.error is None:
        return ""
    lines = "\n".join(result.error.traceback).splitlines()[-ERROR_LINES:]
    return "\n".join(lines) or str(result.error)


def _plain(data: Mapping[str, Any]) -> str:
    for mime in ("text/plain", "text/markdown", "text/html"):
        if mime in data:
            return str(data[mime])
    sizes = ((mime, image_bytes(value)) for mime, value in data.items())
    return ", ".join(f"[{mime}, {_size(len(found or b''))}]" for mime, found in sizes)


def _shares(lengths: Mapping[str, int], most: int) -> dict[str, int]:
    """Share out `most`: what needs less than its equal share leaves the rest to the others."""
    shares: dict[str, int] = {}
    left, waiting = most, len(lengths)
    for name in sorted(lengths, key=lambda one: lengths[one]):
        shares[name] = min(lengths[name], left // waiting)
        left, waiting = left - shares[name], waiting - 1
    return shares


def _size(count: int) -> str:
    return f"{count / 1024:.0f} KB" if count >= 1024 else f"{count} B"
