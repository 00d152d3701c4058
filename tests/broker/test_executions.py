"""Batches: cells that run one after another, and are done together."""

from __future__ import annotations

import pytest

from broker import batches
from broker.errors import BadMessage, BrokerError, NotRunning, QueueFull
from broker.requests import Batch, Cell
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.session_fakes import FakeClient, FakeKernel
from tests.broker.stage import Stage, done

# Batches


@on_manual_time
async def test_each_cell_of_a_batch_is_done_and_then_the_batch() -> None:
    stage = Stage()
    stage.batch("x", "y")
    assert stage.kernel.codes == ["x"]
    stage.kernel.begin()
    stage.kernel.say("iopub", "stream", {"name": "stdout", "text": "abc"})
    stage.kernel.end()
    assert stage.kernel.codes == ["x", "y"]
    stage.run()
    assert stage.told_of() == [
        ("started", 0, None),
        ("stream", 0, None),
        done(0, "ok"),
        ("started", 1, None),
        done(1, "ok"),
        done(None, "ok"),
    ]
    last = stage.client.events[-1]
    assert (last["cells"], last["output_bytes"], last["execution_count"]) == (2, 3, 2)
    assert (last["generation"], last["expires_at"]) == (1, stage.session.expires)
    assert stage.host.done == ["ok", "ok"]


@on_manual_time
async def test_the_done_of_a_batch_sums_up_its_cells() -> None:
    stage = Stage()
    stage.batch("x", "y", "z")
    for status, cpu, peak in (("ok", 0.5, 7), ("error", 0.25, 9)):
        stage.kernel.begin()
        stage.kernel.say(
            "shell", "execute_reply", {"status": status}, metadata={"cpu": cpu, "memory_peak": peak}
        )
        stage.kernel.say("iopub", "status", {"execution_state": "idle"})
    last = stage.client.events[-1]
    found = {name: last[name] for name in ("status", "cells", "cpu", "memory_peak")}
    assert found == {"status": "error", "cells": 2, "cpu": 0.75, "memory_peak": 9}


def test_a_batch_lasts_from_its_first_cells_start_to_its_last_cells_end() -> None:
    batch = batches.Batch("b", 3, 100.0)
    cell = {"status": "ok", "cpu": None, "memory_peak": None, "output_bytes": 1}
    cell |= {"duration": 1.0, "execution_count": None, "generation": 2, "expires_at": 5.0}
    cell["state"] = "warm"
    assert batch.ended(0, cell | {"state": "lost"}, started=103.0, now=104.0) == []
    assert batch.ended(2, cell | {"status": "cancelled"}, started=0.0, now=105.0) == []
    (last,) = batch.ended(1, cell, started=104.0, now=108.0)
    assert (last["queued"], last["duration"], last["cells"]) == (3.0, 5.0, 2)
    assert (last["status"], last["cpu"], last["output_bytes"]) == ("cancelled", None, 3)
    assert last["state"] == "lost"  # as its first cell met the variables


@on_manual_time
async def test_a_cell_that_fails_ends_the_batch_unless_told_otherwise() -> None:
    for stop, statuses in (
        (True, ["ok", "error", "aborted", "error"]),
        (False, ["ok", "error", "ok", "error"]),
    ):
        stage = Stage()
        stage.batch("x", "y", "z", stop_on_error=stop)
        for status in ("ok", "error", "ok")[: 2 if stop else 3]:
            stage.run(status)
        told = [status for kind, _, status in stage.told_of() if kind == "done"]
        assert told == statuses
        assert stage.client.events[-1]["cells"] == (2 if stop else 3)


@on_manual_time
async def test_a_batch_is_queued_once_and_its_cells_run_together() -> None:
    stage, other = Stage(queue=5), FakeClient()
    stage.session.attach(other)
    stage.submit("a")
    stage.batch("x", "y")
    stage.submit("c", client=other)
    assert stage.client.told("position", "id") == [(1, "b"), (3, "c")]
    for _ in range(4):
        stage.run()
    assert stage.kernel.codes == ["code a", "x", "y", "code c"]


@on_manual_time
async def test_a_batch_is_taken_whole_or_not_at_all() -> None:
    stage = Stage(queue=3)
    with pytest.raises(BadMessage, match="cells: 4 cells; the session's queue holds 3"):
        stage.batch("1", "2", "3", "4")
    stage.submit("a", "b")
    with pytest.raises(QueueFull, match="no room for 3 more"):
        stage.batch("1", "2", "3")
    assert stage.session.work.queued == 1
    stage.batch("1", "2", name="batch")
    assert stage.session.work.queued == 3
    stage.run()
    with pytest.raises(BadMessage, match="'batch' is still open"):
        stage.submit("batch")


@on_manual_time
async def test_interrupting_a_batch_interrupts_the_cell_that_runs() -> None:
    for stop, statuses in (
        (True, ["interrupted", "aborted", "interrupted"]),
        (False, ["interrupted", "ok", "interrupted"]),
    ):
        stage = Stage()
        stage.batch("x", "y", stop_on_error=stop)
        stage.kernel.begin()
        assert stage.session.work.interrupt("b") == "b"
        assert stage.kernel.interrupts == 1
        stage.kernel.end("error")
        if not stop:
            stage.run()
        assert [status for kind, _, status in stage.told_of() if kind == "done"] == statuses


@on_manual_time
async def test_cancelling_a_batch_takes_out_the_cells_that_wait() -> None:
    stage = Stage()
    stage.batch("x", "y", "z")
    stage.kernel.begin()
    stage.session.work.cancel("b")
    stage.kernel.end()
    assert stage.kernel.codes == ["x"]
    assert stage.told_of()[1:] == [
        done(1, "cancelled"),
        done(2, "cancelled"),
        done(0, "ok"),
        done(None, "cancelled"),
    ]
    with pytest.raises(NotRunning):
        stage.session.work.cancel("b")


@on_manual_time
async def test_a_batch_that_only_waited_can_be_cancelled() -> None:
    stage = Stage()
    stage.submit("a")
    stage.batch("x", "y")
    stage.session.work.cancel("b")
    assert stage.told_of()[-1] == done(None, "cancelled")
    assert stage.client.events[-1]["cells"] == 0
    assert stage.client.events[-1]["execution_count"] is None


@on_manual_time
async def test_a_kernel_lost_in_a_batch_loses_a_cell_and_aborts_the_rest() -> None:
    stage = Stage()
    stage.batch("x", "y", "z")
    stage.run()
    stage.kernel.begin()
    stage.session.drop_kernel("oom")
    assert stage.told_of()[-3:] == [done(1, "lost"), done(2, "aborted"), done(None, "lost")]
    last = next(e for e in reversed(stage.client.events) if e["type"] == "done")
    assert (last["reason"], last["cells"]) == ("oom", 2)


@on_manual_time
async def test_done_says_what_had_become_of_the_variables() -> None:
    stage = Stage(bound=False)
    stage.submit("never")
    stage.session.work.cancel("never")
    stage.session.bind(stage.kernel, 1, "fresh", "")
    stage.submit("first")
    stage.run()
    stage.batch("x", "y")
    stage.run()
    stage.submit("behind")
    stage.kernel.begin()
    stage.session.drop_kernel("oom")  # y had them, and what never ran would not have
    stage.kernel = FakeKernel()
    stage.session.bind(stage.kernel, 2, "lost", "oom")
    stage.batch("x", "y", name="again")
    stage.run()
    stage.run()
    dones = [event for event in stage.client.events if event["type"] == "done"]
    assert [(one["id"], one.get("cell"), one["state"]) for one in dones] == [
        ("never", None, "fresh"),
        ("first", None, "fresh"),
        ("b", 0, "warm"),
        ("b", 1, "warm"),
        ("b", None, "warm"),
        ("behind", None, "lost"),
        ("again", 0, "lost"),
        ("again", 1, "warm"),
        ("again", None, "lost"),
    ]


@on_manual_time
async def test_a_batch_without_a_kernel_is_one_fault() -> None:
    stage = Stage(bound=False)
    stage.batch("x", "y")
    stage.session.work.refuse(BrokerError("no"))
    assert [name for name, _ in stage.client.faults] == ["b"]
    assert stage.told_of() == []


@on_manual_time
async def test_a_timeout_is_a_cells_own() -> None:
    stage = Stage()
    cells = [Cell(code="x", timeout=1.0), Cell(code="y")]
    request = Batch(id="b", cells=cells, stop_on_error=False)
    stage.session.work.submit(request, stage.client)
    stage.kernel.begin()
    await elapse(1.5)
    assert stage.kernel.interrupts == 1
    stage.kernel.end("error")
    stage.run()
    assert [told for told in stage.told_of() if told[0] == "done"] == [
        done(0, "timeout"),
        done(1, "ok"),
        done(None, "timeout"),
    ]
