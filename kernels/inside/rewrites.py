"""Lines that are written over and over, as progress bars do: of each, the state that is last.

A terminal shows what stands last at each place of a line, so an update that a later one covers need
not be sent. What is sent instead shows the same, to whoever lets `\\r` go back in the line.
"""

from __future__ import annotations

import re

LONGEST = 4096  # characters; a line that is longer is no progress bar, and is not kept back
BARE = re.compile(r"\r(?!\n)")  # it goes back in the line, or may yet: the text ends with it
# What has no width, or no certain one. Of it, colours and the erasing of the line are understood.
_STRANGE = re.compile(r"[\x00-\x1f\x7f]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_ERASE = re.compile(r"\x1b\[[02]?K")


class Line:
    """The line of a stream that is being rewritten: what was written since it first went back.

    `under` is what stands there, from the first place on; `over` what came after the last `\\r`.
    """

    def __init__(self) -> None:
        self.held = False
        self._under = self._over = ""

    def __repr__(self) -> str:
        return f"<Line {self._under!r} under {self._over!r}, {'held' if self.held else 'free'}>"

    @property
    def is_long(self) -> bool:
        """Tell whether it should not be kept back any longer."""
        return len(self._over) > LONGEST

    def feed(self, text: str) -> str:
        """Take text; return what of it goes on now. The rest is held: `take` returns it."""
        sent: list[str] = []
        at = 0
        while at < len(text):
            if not self.held:
                back = BARE.search(text, at)
                sent.append(text[at : back.start()] if back else text[at:])
                if back is None:
                    break
                self.held, at = True, back.end()
                continue
            end = text.find("\n", at)
            first, *others = text[at : None if end < 0 else end].split("\r")
            self._over += first
            for part in others:
                sent.append(self._go_back())
                self._over = part
            if end < 0:
                break
            sent.append(self._end())
            at = end + 1
        return "".join(sent)

    def take(self) -> str:
        """Return what is held, with the cursor where it stood; it is held no more."""
        if not self.held:
            return ""
        under, over = self._under, self._over
        self.held, self._under, self._over = False, "", ""
        return "\r" + (over if _merged(under, over) == over else f"{under}\r{over}")

    def _go_back(self) -> str:
        """Put what was written last on the rest; return what must go out as it cannot be put."""
        merged = _merged(self._under, self._over)
        if merged is None:
            told, merged = f"\r{self._under}\r{self._over}", ""
        else:
            told = ""
        self._under, self._over = merged, ""
        return told

    def _end(self) -> str:
        told = self._go_back()
        line = f"{told}\r{self._under}\n"
        self.held, self._under = False, ""
        return line


def _merged(under: str, over: str) -> str | None:
    """Return what stands in a line when `over` is written on `under`; None where nobody knows."""
    if not under:
        return over
    if not _STRANGE.search(under) and not _STRANGE.search(over):
        return over + under[len(over) :]
    width, covers = _width(under), _width(over)
    if width is None or covers is None:
        return None
    if _ERASE.search(over):
        return over
    if covers < width:
        return None
    # What was erased below both stays erased.
    return f"\x1b[K{over}" if _ERASE.search(under) else over


def _width(text: str) -> int | None:
    rest = _ERASE.sub("", _COLOUR.sub("", text))
    return None if _STRANGE.search(rest) else len(rest)
