"""What a kernel shows, as clients get it: binary values as bytes, errors as plain, bounded lines.

Everything comes from a kernel, and is a stranger's data: cut to its bound, never raised. Pure.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from broker.replay import size_of

Event = dict[str, Any]

# ECMA-48 control sequences, and the shorter escapes; what terminals colour with.
_CONTROL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
# Bounds on an `error` event: a kernel may say anything. Characters, but for the lines.
NAME = 200
MESSAGE = 64 << 10
LINE = 2000
RAW = 16  # times a bound, with control sequences: looking for these takes its time
HEAD = TAIL = 500
PARTS = 10_000  # of a traceback's list; each may be many lines
# Jupyter carries these as base64: `kernels.inside.publish.BINARY`. An SVG is text.
BINARY = r"image/(?!svg)[^\s\"]+|(?:audio|video)/[^\s\"]+|application/(?:pdf|octet-stream)"
_BINARY = re.compile(BINARY)
SHORT = 200  # characters of an error's message in its short form
LINES = 10_000_000  # of a cell
FILE = re.compile(r"(?!/)(?!(?:.*/)?\.{1,2}(?:/|\Z))(?!.*//)[^\x00-\x1f\x7f\\]{1,255}(?<!/)")


def rich(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a MIME bundle with its binary values as bytes; Jupyter carries them as base64."""
    bundle: dict[str, Any] = {}
    for mime, value in data.items():
        if isinstance(value, str) and _BINARY.fullmatch(mime):
            try:
                bundle[mime] = b64decode(value)
            except ValueError:  # not base64, or not even ASCII
                continue
        else:
            bundle[mime] = value
    return bundle


def error_event(execution_id: str, content: Mapping[str, Any]) -> Event:
    """Return the `error` event of Jupyter's `error` content, without colour codes."""
    traceback = content.get("traceback")
    name = _clipped(_text(content.get("ename", ""), NAME), NAME)
    message = _clipped(_text(content.get("evalue", ""), MESSAGE), MESSAGE)
    return {
        "type": "error",
        "id": execution_id,
        "name": name,
        "message": message,
        "short": _short(name, message, content.get("line")),
        "traceback": _lines(traceback if isinstance(traceback, list) else []),
    }


def truncation(said: object, shown: int, total: int) -> Event | None:
    """Return the `truncated` of a `done`, or None if nothing was left out.

    `shown` and `total` are what was seen here; `said` is what the kernel says of its own cut, and
    of the file that has all of it: a relative path without `..`.
    """
    said = said if isinstance(said, dict) else {}
    if isinstance(said.get("total"), int):
        total = max(total, said["total"])
    if total <= shown:
        return None
    file = said.get("file")
    told: Event = {"shown": shown, "total": total}
    return told | {"file": file} if isinstance(file, str) and FILE.fullmatch(file) else told


def _short(name: str, message: str, line: object) -> str:
    """Return an error in one line, with the line of the cell that it came from, if it is known."""
    first = next((text for text in message.splitlines() if text.strip()), "").strip()
    name = " ".join(name.split())
    told = f"{name}: {first[:SHORT]}{'…' * (len(first) > SHORT)}" if first else name
    where = isinstance(line, int) and not isinstance(line, bool) and 0 < line <= LINES
    return f"{told}, cell line {line}" if where else told


def _lines(parts: list[Any]) -> list[str]:
    """Return the first and the last lines of a traceback, with a note of what is between them."""
    if len(parts) > PARTS:
        out = len(parts) - PARTS
        parts = [*parts[: PARTS // 2], f"[{out:,} parts left out]", *parts[-(PARTS // 2) :]]
    text = "\n".join(part.removesuffix("\n") for part in map(_text, parts) if part)
    if not text:
        return []
    # Millions of short lines would be a hundred times their size as a list: cut before splitting.
    *head, rest = text.split("\n", HEAD)
    if len(head) < HEAD:
        lines = [*head, rest]
    else:
        middle, *tail = rest.rsplit("\n", TAIL)
        out = middle.count("\n") + 1
        between = [middle] if out == 1 else [f"[{out:,} lines left out]"]
        lines = [*head, *between, *tail]
    return [_clipped(line.removesuffix("\r"), LINE) for line in lines]


def _clipped(text: str, most: int) -> str:
    left = len(text) - most
    return text if left <= 0 else f"{text[:most]} [{left:,} characters left out]"


def _text(value: object, most: int = MESSAGE) -> str:
    """Return the plain text of what should be one; cut first where control sequences abound."""
    if isinstance(value, list | dict) and size_of(value, MESSAGE) > MESSAGE:
        return ""  # an error's words are text; this is none, and long to write
    try:
        text = str(value)
    except RecursionError:
        return ""
    if len(text) > RAW * most and "\x1b" in text:
        text = _clipped(text, RAW * most)
    return plain(text)


def plain(text: str) -> str:
    """Return the text without terminal control sequences."""
    return _CONTROL.sub("", text) if "\x1b" in text else text
