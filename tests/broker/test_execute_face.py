"""The answer of an execution that was waited for over HTTP, however much it has said."""

from __future__ import annotations

import json
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from broker.errors import NotRunning
from broker.requests import ExecuteBody
from broker.roles import Envelope
from broker.web.execute import LARGE, ExecuteOnce, Follower, summary
from broker.web.places import Turns

Event = dict[str, Any]
DONE: Event = {
    "type": "done",
    "generation": 1,
    "state": "warm",
    "status": "ok",
    "execution_count": 1,
}


def text(words: str, name: str = "stdout") -> Event:
    return {"type": "stream", "name": name, "text": words}


class Work:
    """What runs one execution at once, which says these things."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events

    def submit(self, request: Any, owner: Follower, *, origin: str) -> None:
        for event in [*self._events, DONE]:
            owner.deliver(Envelope({**event, "id": request.id}))

    def interrupt(self, target: str) -> None:
        raise NotRunning("it has ended")

    cancel = interrupt


async def answered(events: list[Event]) -> tuple[Event, set[int]]:
    """Return the answer of an execution that says this, and the threads that have made it."""
    session = SimpleNamespace(name="s", work=Work(events))
    session.attach = session.detach = lambda client: None
    makers: set[int] = set()

    class Spied(ExecuteOnce):
        def _summary(self, session: Any, events: list[Event]) -> Event:
            makers.add(threading.get_ident())
            return super()._summary(session, events)

    face: Any = Spied.__new__(Spied)
    tokens = SimpleNamespace(hold=lambda principal, let_go: lambda: None)
    face.house = SimpleNamespace(
        audit=SimpleNamespace(on=False), walks=Turns(1, share=1), tokens=tokens
    )
    face.principal = SimpleNamespace(tenant="t")
    face.request = SimpleNamespace(headers={})
    face.set_header = lambda name, value: None
    face.set_status = lambda status: None
    sent: list[str | bytes] = []
    face.finish = sent.append
    await face._run(session, ExecuteBody(code="x"))
    return json.loads(sent[0]), makers


def test_streams_are_joined_in_the_time_that_their_length_takes() -> None:
    session: Any = SimpleNamespace(name="s")

    def took(pieces: int) -> float:
        events = [text("x" * 128)] * pieces
        before = time.thread_time()
        answer = summary(session, [*events, text("y", "stderr"), DONE])
        spent = time.thread_time() - before
        assert answer["stdout"] == "x" * 128 * pieces
        assert answer["stderr"] == "y"
        return spent

    assert took(16_000) < 24 * took(2_000) + 0.05


async def test_a_small_answer_waits_for_no_thread() -> None:
    answer, makers = await answered([text("a"), text("b", "stderr"), text("c")])
    assert (answer["stdout"], answer["stderr"], answer["status"]) == ("ac", "b", "ok")
    assert makers == {threading.get_ident()}


@pytest.mark.parametrize("events", [[text("x" * LARGE)], [text("x")] * 2000])
async def test_a_large_answer_is_made_beside_the_loop(events: list[Event]) -> None:
    answer, makers = await answered(events)
    assert answer["stdout"] == "".join(event["text"] for event in events)
    assert len(answer["outputs"]) == len(events)
    assert makers
    assert threading.get_ident() not in makers


def test_a_connection_is_left_to_its_next_request() -> None:
    face: Any = ExecuteOnce.__new__(ExecuteOnce)
    face.on_finish()
    cancelled: list[bool] = []
    face._last_words = SimpleNamespace(cancel=lambda: cancelled.append(True))
    face.on_finish()
    assert cancelled == [True]
