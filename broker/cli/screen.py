"""What a stranger's code has printed, on one's own terminal: colours, and nothing that acts on it.

A terminal does what it is told: it takes another title, fills the clipboard, writes over what was
there. Whoever looks at somebody else's session is not to have that done by its code.
"""

from __future__ import annotations

import re
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Literal, TextIO, cast

from broker.client.terminal import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

# ECMA-48: colours, and erasing in a line; all that goes on within one line is left.
_ALLOWED = r"\x1b\[[0-9;:]{0,32}m|\x1b\[[012]?K"
# C0, DEL, C1, and what turns the direction of writing.
_CONTROL = (
    r"[\x00-\x07\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]|[\ud800-\udfff]"
)
_ACTS = re.compile(rf"({_ALLOWED})|{_CONTROL}")
_MOVES = re.compile(rf"{_CONTROL}|[\b\n\r]")
_LEFT = re.compile(rf"{_CONTROL}|[\b\r]")  # all but ends of lines and tabs
_COLOUR = re.compile(_ALLOWED)
RESET = "\x1b[0m"  # before words of ours: a stranger's colours may hide what comes after them
MOST_HELD = 64 << 10  # characters of a line that is not whole yet
_UNFINISHED = re.compile(r"\x1b(?:\[[0-9;:]{0,32})?\Z")


def calm(text: str) -> str:
    """Return text with what would act on a terminal as a literal of Python writes it."""
    return _ACTS.sub(lambda found: found[1] or _written(found), text)


def still(line: str) -> str:
    """Return what is to stand in a line of ours without what colours, or goes back in, that."""
    return _MOVES.sub(_written, line)


def settled(text: str) -> str:
    """Return text as it is where nothing is drawn: lines as they are in the end, no colours."""
    # What stands around a colour may be another one without it: nothing is let through any more.
    return _LEFT.sub(_written, _COLOUR.sub("", shown(text)))


def _written(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


class Stream:
    """One of the standard streams, as it is at the moment; what it gets is calm.

    On a terminal it goes out at once. Elsewhere a line goes out when it is whole, as a terminal
    would show it in the end.
    """

    def __init__(self, name: Literal["stdout", "stderr"], lock: threading.RLock) -> None:
        self._name = name
        self._lock = lock
        self._rest = ""  # the beginning of a sequence

    @property
    def _stream(self) -> TextIO:
        return cast("TextIO", getattr(sys, self._name))

    def write(self, text: str) -> int:
        """Write text; of a sequence, or a line of no terminal, that is not whole, once it is."""
        with self._lock:
            whole = self._rest + text
            is_drawn = self.isatty()
            if is_drawn:
                cut = _UNFINISHED.search(whole)
                end = cut.start() if cut else len(whole)
            else:
                end = whole.rfind("\n") + 1
                end = len(whole) if len(whole) - end > MOST_HELD else end
            self._rest = whole[end:]
            if end:
                self._stream.write((calm if is_drawn else settled)(whole[:end]))
        return len(text)

    def settle(self) -> None:
        """Write what is kept of a line, or a sequence, that did not become whole."""
        with self._lock:
            rest, self._rest = self._rest, ""
            if rest:
                self._stream.write(settled(rest))
                self._stream.flush()

    def flush(self) -> None:
        """Have it shown."""
        with self._lock:
            self._stream.flush()

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self._stream.isatty()


class Screen:
    """Both streams, for several threads; a prompt may stand below what they print."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.out = cast("TextIO", Stream("stdout", self._lock))
        self.err = cast("TextIO", Stream("stderr", self._lock))

    def settle(self) -> None:
        """Write all that is kept back: nothing follows."""
        for stream in (self.out, self.err):
            cast("Stream", stream).settle()

    @contextmanager
    def above_prompt(self) -> Iterator[None]:
        """Have what is printed meanwhile stand above the prompt."""
        from prompt_toolkit.patch_stdout import patch_stdout

        patched = patch_stdout(raw=True)
        with self._lock:  # or a line could go to a stream that has been closed
            patched.__enter__()
        try:
            yield
        finally:
            with self._lock:
                patched.__exit__(None, None, None)


def still_lines(code: str) -> str:
    """Return code of several lines, each of them still."""
    return "\n".join(map(still, code.replace("\r\n", "\n").split("\n")))


def coloured(code: str) -> str:
    """Return code in the colours of its language, and in no others."""
    from pygments import highlight  # type: ignore[import-untyped]
    from pygments.formatters import TerminalFormatter  # type: ignore[import-untyped]
    from pygments.lexers.python import PythonLexer  # type: ignore[import-untyped]

    told = still_lines(code)
    with suppress(Exception):  # a lexer's own fault is no reason to show nothing
        told = str(highlight(told, PythonLexer(stripnl=False), TerminalFormatter()))
    return told.rstrip("\n")
