"""The first and the last of a cell's text: an error is understood by what came before it."""

from __future__ import annotations

LINES = 10  # at either end,
CHARACTERS = 2000  # and as many characters


class Ends:
    """Text that comes piece by piece: its beginning goes on at once, its end is kept for later."""

    def __init__(self) -> None:
        self._lines, self._characters = LINES, CHARACTERS  # that may still go on
        self._end = ""
        self._is_cut = False
        self._left_out = 0  # lines

    def take(self, text: str, *, own_line: bool = False) -> str:
        """Return what of a text goes on at once; `own_line` if it begins one in any case."""
        shown = _first(text, self._lines, self._characters)
        self._lines -= shown.count("\n")
        self._characters -= len(shown)
        if rest := text[len(shown) :]:
            self._lines = self._characters = 0
            if own_line and self._end and not self._end.endswith("\n"):
                self._end += "\n"
            self._keep(self._end + rest)
        return shown

    def rest(self) -> tuple[int, str]:
        """Return how many lines were left out since, and the text after them; forget both."""
        told = max(1, self._left_out) if self._is_cut else 0, self._end
        self._end, self._left_out, self._is_cut = "", 0, False
        return told

    def _keep(self, text: str) -> None:
        at = len(text) - text.endswith("\n")
        for _ in range(LINES):
            at = text.rfind("\n", 0, max(0, at))
            if at < 0:
                break
        begin = max(at + 1, len(text) - CHARACTERS)
        self._left_out += text.count("\n", 0, begin)
        self._is_cut = self._is_cut or begin > 0
        self._end = text[begin:]


def _first(text: str, lines: int, characters: int) -> str:
    at = 0
    for _ in range(lines):
        at = text.find("\n", at) + 1
        if not at:
            return text[:characters]
    return text[: min(at, characters)]
