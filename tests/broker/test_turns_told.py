"""A session that waits for a kernel of a full node tells its place, and of what."""

from __future__ import annotations

from broker.errors import AtCapacity
from broker.requests import Batch, Cell
from tests.broker.session_fakes import Scene


async def test_a_place_is_told_without_an_execution_and_then_of_the_first() -> None:
    scene = Scene(bound=False)
    scene.session.work.waits(3)
    scene.submit("a", "b")
    scene.session.work.waits(1)
    told = [(e.get("id"), e["position"]) for e in scene.client.events if e["type"] == "queued"]
    assert told == [(None, 3), ("a", 3), ("b", 1), ("a", 1)]


async def test_what_was_told_of_a_place_has_its_done_when_no_kernel_comes() -> None:
    scene = Scene(bound=False)
    scene.submit("a")
    scene.session.work.waits(2)
    scene.session.work.refuse(AtCapacity("full"))
    assert scene.client.faults[0][0] == "a"
    assert scene.client.dones == {"a": "aborted"}
    scene.submit("b")  # for which nobody has told a place yet
    assert scene.client.events[-1]["type"] == "done"


async def test_every_cell_of_a_batch_that_was_told_of_has_its_done() -> None:
    scene = Scene(bound=False)
    cells = [Cell(code="1"), Cell(code="2")]
    scene.session.work.submit(Batch(id="b", cells=cells), scene.client)
    scene.session.work.waits(1)
    scene.session.work.refuse(AtCapacity("full"))
    dones = [event for event in scene.client.events if event["type"] == "done"]
    assert [event.get("cell") for event in dones] == [0, 1, None], dones


async def test_a_session_with_a_kernel_waits_for_no_turn() -> None:
    scene = Scene(bound=False)
    scene.session.work.waits(2)
    scene.session.bind(scene.kernel, 1, "fresh", "")
    scene.submit("a")
    assert [e for e in scene.client.events if e["type"] == "queued" and e.get("id") == "a"] == []
