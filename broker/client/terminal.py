"""What a terminal shows of text that goes back in its line, as a progress bar's does. Pure."""

from __future__ import annotations

import re

# ECMA-48: a control sequence; of these only those that erase (in) a line move what is shown.
_PART = re.compile(r"[\r\b]|\x1b\[[0-?]*[ -/]*[@-~]|[^\r\b\x1b]+|\x1b")
_ERASE = re.compile(r"\x1b\[([012]?)K")


def shown(text: str) -> str:
    """Return text as a terminal shows it in the end; lines that do not go back are as they were."""
    if "\r" not in text and "\b" not in text:
        return text
    return "\n".join(map(_line, text.split("\n")))


def _line(line: str) -> str:
    body = line.rstrip("\r")
    if "\r" not in body and "\b" not in body:
        return body
    places: list[str] = []
    at = 0
    for part in _PART.findall(body):
        if part == "\r":
            at = 0
        elif part == "\b":
            at = max(0, at - 1)
        elif erased := _ERASE.fullmatch(part):
            if erased[1] in ("1", "2"):
                places[:at] = " " * len(places[:at])
            if erased[1] != "1":
                del places[at:]
        elif part[0] != "\x1b":
            places += " " * (at - len(places))
            places[at : at + len(part)] = part
            at += len(part)
    return "".join(places)
