"""What a session has been through: its generations with their ends, and its last errors. Pure.

In the store each ended generation is a line: number, began, ended, reason, with tabs between them.
Times are Unix seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

MOST_GENERATIONS = 16  # kept of a session; claim.lua and release.lua know the number, too
MOST_ERRORS = 16
MOST_TEXT = 300  # characters of an error's line


class Generation(NamedTuple):
    """One kernel's time; `began` is None where nobody knows, `ended` while it lives."""

    generation: int
    began: float | None
    ended: float | None = None
    reason: str = ""


class Failure(NamedTuple):
    """How an execution failed, in one line."""

    id: str
    error: str
    at: float


def read_generations(text: str) -> list[Generation]:
    """Return the generations of a record's lines; a line that is none is left out."""
    found = []
    for line in text.splitlines():
        try:
            number, began, ended, reason = line.split("\t", 3)
            found.append(Generation(int(number), float(began) or None, float(ended), reason))
        except ValueError:
            continue
    return found


def failures(cells: Iterable[Mapping[str, Any]]) -> list[Failure]:
    """Return how cells of a transcript have failed, the newest last; secrets are out of these."""
    found = []
    for cell in cells:
        at = (cell.get("started") or 0.0) + (cell.get("duration") or 0.0)
        told = [_line(one) for one in cell.get("outputs") or () if one["type"] == "error"]
        if cell.get("status") == "lost":
            told.append(f"lost: {cell.get('reason') or 'unknown'}")
        name = str(cell.get("id") or "")
        found += [Failure(name, one[:MOST_TEXT], round(at, 3)) for one in told]
    return found[-MOST_ERRORS:]


def _line(error: Mapping[str, Any]) -> str:
    first = next(iter(str(error.get("message", "")).strip().splitlines()), "")
    return str(error.get("short") or f"{error.get('name')}: {first}")


class Past:
    """One session's past, as far as it is kept: the oldest go."""

    def __init__(self) -> None:
        self._earlier: tuple[Failure, ...] = ()  # what the transcript tells, once somebody asks
        self.is_recalled = False
        self._generations: dict[int, Generation] = {}
        self.errors: deque[Failure] = deque(maxlen=MOST_ERRORS)

    @property
    def generations(self) -> list[Generation]:
        """Return the generations, the newest last."""
        return [self._generations[number] for number in sorted(self._generations)]

    @property
    def last_error(self) -> str | None:
        """Return the line of the newest error."""
        return self.errors[-1].error if self.errors else None

    def know(self, earlier: Iterable[Generation]) -> None:
        """Take in what the store tells; what was seen here stands."""
        for one in earlier:
            self._generations.setdefault(one.generation, one)
        self._bound()

    def begin(self, generation: int, now: float | None) -> None:
        """Note a new kernel; of one that is known already, that stands."""
        self.know([Generation(generation, now)])

    def end(self, generation: int, reason: str, now: float) -> None:
        """Note that a kernel has ended."""
        known = self._generations.get(generation) or Generation(generation, None)
        self._generations[generation] = known._replace(ended=now, reason=reason)
        self._bound()

    def note(self, event: Mapping[str, Any], now: float, redacted: Callable[[str], str]) -> None:
        """Take in an execution's event, if it says how that has failed; without its secrets."""
        if event["type"] == "error":
            told = redacted(event["short"])
        elif event["type"] == "done" and event["status"] == "lost":
            told = f"lost: {event.get('reason') or 'unknown'}"
        else:
            return
        self.errors.append(Failure(event["id"], told[:MOST_TEXT], now))

    def recall(self, earlier: Iterable[Failure] | None) -> None:
        """Keep errors from before this broker, or this opening of the session, if known.

        They stand apart: what is told in lists does not change because somebody looks.
        """
        if earlier is not None:
            self._earlier, self.is_recalled = tuple(earlier), True

    @property
    def all_errors(self) -> list[Failure]:
        """Return the last errors, each once: those recalled, and then those since."""
        known = {(one.id, one.error) for one in self.errors}
        before = [one for one in self._earlier if (one.id, one.error) not in known]
        return [*before, *self.errors][-MOST_ERRORS:]

    def _bound(self) -> None:
        for number in sorted(self._generations)[:-MOST_GENERATIONS]:
            del self._generations[number]
