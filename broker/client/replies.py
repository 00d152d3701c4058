"""Answers to the questions of executions, until it is known that they have arrived.

A question has a name in its execution where its kernel gives one. By it, one that a broker asks
again in the place of another is known to be the same: who was asked is not asked twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from .result import Event

if TYPE_CHECKING:
    from .resume import Asked


class Replies:
    """The last question of each execution, and what was answered to it."""

    def __init__(self) -> None:
        self._given: dict[str, Asked] = {}
        self._questions: dict[str, str] = {}  # those with names, as they were told
        self._due: set[str] = set()  # executions whose answer is known not to have arrived

    def give(self, about: str, asked: Asked) -> None:
        """Keep the answer to the question of an execution."""
        self._given[about] = asked

    def hear(self, event: Event) -> bool:
        """Take an `input_request`, or a `done`; tell whether it is news, and no repetition."""
        about, name = str(event.get("id")), event.get("question")
        if event.get("type") == "input_request" and isinstance(name, str):
            if self._questions.get(about) == name:
                self._due.add(about)
                return False
            self.forget(about)
            self._questions[about] = name
        else:
            self.forget(about)
        return True

    def forget(self, about: str) -> None:
        """Keep nothing of an execution: it has another question, or none any more."""
        self._given.pop(about, None)
        self._questions.pop(about, None)
        self._due.discard(about)

    def rejoin(self, waiting: Iterable[Event], *, lacks: bool) -> None:
        """Learn what waits, on a new connection; `lacks` if events before that are missed.

        Where questions have no names, what waits may be another one than was answered, after a
        loss; and what does not wait has been answered. With names, it may still be asked again.
        """
        names = {
            str(one.get("id")): one.get("question")
            for one in waiting
            if one.get("type") == "input_request"
        }
        for about, asked in [*self._given.items()]:
            named = about in self._questions
            waits = about in names and names[about] == self._questions.get(about)
            if waits and (named or not (lacks and asked.sent)):
                self._due.add(about)
            elif not named:
                del self._given[about]

    def due(self) -> list[Asked]:
        """Return the answers that are to be sent again, once."""
        if not self._due:
            return []
        due, self._due = self._due, set()
        return [asked for about, asked in self._given.items() if about in due]

    def clear(self) -> None:
        """Keep nothing: there will be no connection."""
        self._given.clear()
        self._questions.clear()
        self._due.clear()
