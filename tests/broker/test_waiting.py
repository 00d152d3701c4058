"""What waits in a session: in order, and no more than there is room for."""

from __future__ import annotations

import pytest

from broker.errors import QueueFull
from broker.execution import Execution
from broker.requests import Execute
from broker.waiting import Waiting


def executions(*names: str) -> list[Execution]:
    return [Execution(Execute(id=name, code="x"), None, 0.0) for name in names]


@pytest.mark.parametrize(("number", "words"), [(1, "as many as"), (2, "no room for 2 more")])
def test_no_more_wait_than_there_is_room_for(number: int, words: str) -> None:
    waiting = Waiting(3)
    waiting.check(3)
    waiting.add(executions("a", "b"))
    waiting.check(1)
    waiting.add(executions("c"))
    with pytest.raises(QueueFull, match=words):
        waiting.check(number)


def test_what_is_taken_out_leaves_the_others_in_order() -> None:
    waiting = Waiting(9)
    waiting.add(executions("a", "b", "c", "b", "d"))
    assert [one.id for one in waiting.take(lambda one: one.id == "b")] == ["b", "b"]
    assert waiting.next().id == "a"
    assert [one.id for one in waiting] == ["c", "d"]
    assert [one.id for one in waiting.take()] == ["c", "d"]
    assert len(waiting) == 0
