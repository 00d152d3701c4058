"""Single keys from a terminal, by the names that programs give them."""

from __future__ import annotations

import os
import select
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

ESCAPE = "\x1b"
SETTLE = 0.05  # s in which the rest of a key's sequence comes; a lone Escape has none
SEQUENCES = {
    "[A": "up",
    "[B": "down",
    "OA": "up",
    "OB": "down",
    "[5~": "page up",
    "[6~": "page down",
    "[H": "home",
    "[F": "end",
    "OH": "home",
    "OF": "end",
    "[1~": "home",
    "[4~": "end",
}
NAMES = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace", "\x03": "stop"}


def parse(text: str) -> Iterator[str]:
    """Yield the keys in what a terminal has sent; sequences of no key here are left out."""
    at = 0
    while at < len(text):
        if text[at] != ESCAPE:
            yield NAMES.get(text[at], text[at])
            at += 1
            continue
        end = _end(text, at + 1)
        if end == at + 1:
            yield "escape"
        elif (name := SEQUENCES.get(text[at + 1 : end])) is not None:
            yield name
        at = end


def _end(text: str, at: int) -> int:
    """Return where the sequence ends that begins there: a letter or `~` is its last (ECMA-48)."""
    if text[at : at + 1] not in ("[", "O"):
        return at
    end = at + 1
    while end < len(text) and not (text[end].isalpha() or text[end] == "~"):
        end += 1
    return min(end + 1, len(text))


class Keys:
    """A terminal that gives each key at once, and shows none; made by `raw`."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def read(self) -> list[str]:
        """Return the keys that were pressed; waits for one. Raises EOFError at the end."""
        data = os.read(self.descriptor, 1024)
        if not data:
            raise EOFError
        while data.endswith((b"\x1b", b"\x1b[", b"\x1bO")):
            if not select.select([self.descriptor], [], [], SETTLE)[0]:
                break
            more = os.read(self.descriptor, 1024)
            if not more:
                break
            data += more
        return list(parse(data.decode(errors="replace")))


@contextmanager
def raw(descriptor: int) -> Iterator[Keys]:
    """Have each key at once; the terminal is as it was afterwards."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield Keys(descriptor)
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
