"""The executions of a session that wait, in order, and how many there may be."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from broker.errors import QueueFull
from broker.execution import Execution


class Waiting:
    """At most `most` executions. Whoever takes some out ends them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._queue: deque[Execution] = deque()

    def __repr__(self) -> str:
        return f"<Waiting: {len(self._queue)} of {self._most}>"

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Execution]:
        return iter(self._queue)

    def check(self, number: int) -> None:
        """Raise QueueFull if there is no room for so many more."""
        if (count := len(self._queue)) + number > self._most:
            raise QueueFull(
                f"{count} executions wait already, as many as the session's queue holds"
                if number == 1
                else f"{count} executions wait already; the session's queue has no room for"
                f" {number} more"
            )

    def add(self, executions: list[Execution]) -> None:
        """Put some behind the others; `check` has said that there is room."""
        self._queue.extend(executions)

    def next(self) -> Execution:
        """Take out what has waited longest. Raises IndexError for nothing."""
        return self._queue.popleft()

    def take(self, chosen: Callable[[Execution], bool] = lambda _: True) -> list[Execution]:
        """Take out those that are chosen, in order; all of them, if nothing is said."""
        taken = [execution for execution in self._queue if chosen(execution)]
        for execution in taken:
            self._queue.remove(execution)
        return taken
