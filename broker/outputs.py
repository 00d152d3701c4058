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
_BINARY = ("image/png", "image/jpeg", "image/gif", "image/webp", "application/pdf")


def rich(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a MIME bundle with its binary values as bytes; Jupyter carries them as base64."""
    bundle: dict[str, Any] = {}
    for mime, value in data.items():
        if mime in _BINARY and isinstance(value, str):
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
    return {
        "type": "error",
        "id": execution_id,
        "name": _clipped(_text(content.get("ename", ""), NAME), NAME),
        "message": _clipped(_text(content.get("evalue", ""), MESSAGE), MESSAGE),
        "traceback": _lines(traceback if isinstance(traceback, list) else []),
    }


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
