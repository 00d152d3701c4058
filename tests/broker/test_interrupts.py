"""An interrupt that comes to nothing ends in a kill, on a clock set by hand."""

from __future__ import annotations

import pytest

from broker.errors import NotRunning
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.session_fakes import Scene


@on_manual_time
async def test_an_interrupt_is_a_message_then_a_signal_then_a_kill() -> None:
    scene = Scene(interrupt_grace=3.0)
    scene.submit("a")
    scene.kernel.begin()
    scene.session.work.interrupt()
    assert (scene.kernel.interrupts, scene.kernel.insisted) == (1, 0)
    assert scene.kernel.aimed == [scene.kernel.channels.sent[-1][0]]
    await elapse(0.9)
    assert scene.kernel.insisted == 0
    await elapse(0.2)
    assert scene.kernel.insisted == 1
    await elapse(1.8)
    assert not scene.kernel.killed
    await elapse(0.2)
    assert scene.kernel.killed
    assert (scene.kernel.interrupts, scene.kernel.insisted) == (1, 1)
    scene.kernel.exited.set_result("signal SIGKILL")
    await elapse(1)
    (done,) = [event for event in scene.client.events if event["type"] == "done"]
    assert (done["status"], done["reason"]) == ("interrupted", "killed")
    session = scene.client.events[-1]
    assert (session["type"], session["state"], session["reason"]) == ("session", "lost", "killed")


@on_manual_time
async def test_nothing_ends_or_begins_in_a_kernel_that_is_being_killed() -> None:
    scene = Scene(interrupt_grace=3.0)
    scene.submit("a")
    scene.kernel.begin()
    scene.session.work.interrupt()
    await elapse(3.1)
    assert scene.kernel.killed
    scene.kernel.end("error")  # the interrupt was heard, too late
    scene.submit("b")
    assert [event["type"] for event in scene.client.events].count("done") == 0
    assert len(scene.kernel.channels.sent) == 1
    scene.kernel.exited.set_result("signal SIGKILL")
    await elapse(1)
    ended = [event for event in scene.client.events if event["type"] == "done"]
    assert [(one["id"], one["status"]) for one in ended] == [("a", "interrupted"), ("b", "aborted")]


@on_manual_time
async def test_a_kernel_that_is_killed_at_rest_takes_nothing_more() -> None:
    scene = Scene()
    scene.session.kill("bad_frame")
    scene.submit("a")
    assert scene.kernel.channels.sent == []
    scene.kernel.exited.set_result("signal SIGKILL")
    await elapse(1)
    [done] = [event for event in scene.client.events if event["type"] == "done"]
    assert (done["id"], done["status"]) == ("a", "aborted")


@on_manual_time
async def test_no_signal_follows_what_has_ended_and_is_not_yet_heard_of() -> None:
    scene = Scene(interrupt_grace=3.0)
    scene.submit("a", "b", stop_on_error=False)
    scene.kernel.begin()
    scene.session.work.interrupt()

    def arrive(channel: str) -> None:
        if channel == "iopub" and scene.session.work.stopping:
            scene.kernel.end("error")

    scene.kernel.channels.look = arrive
    await elapse(1.1)
    assert scene.session.work.open == ["b"]
    assert scene.kernel.insisted == 0


@on_manual_time
async def test_a_second_interrupt_asks_again_and_gives_no_more_time() -> None:
    scene = Scene(interrupt_grace=3.0)
    scene.submit("a")
    scene.kernel.begin()
    scene.session.work.interrupt()
    await elapse(2.5)
    scene.session.work.interrupt()
    assert scene.kernel.interrupts == 2
    await elapse(0.6)
    assert scene.kernel.killed


@on_manual_time
async def test_what_stops_in_time_is_neither_signalled_nor_killed() -> None:
    scene = Scene(interrupt_grace=3.0, execution_timeout=50.0)
    scene.submit("a", "b", stop_on_error=False)
    scene.kernel.begin()
    scene.session.work.interrupt()
    scene.kernel.end("error")
    scene.kernel.begin()
    await elapse(20)
    assert (scene.kernel.insisted, scene.kernel.killed) == (0, False)
    (done,) = [event for event in scene.client.events if event["type"] == "done"]
    assert (done["status"], done["reason"]) == ("interrupted", "interrupted")


@on_manual_time
async def test_a_timeout_goes_the_same_way_and_keeps_its_reason() -> None:
    scene = Scene(interrupt_grace=3.0, execution_timeout=5.0)
    scene.submit("a")
    scene.kernel.begin()
    await elapse(6.1)
    assert (scene.kernel.interrupts, scene.kernel.insisted) == (1, 1)
    await elapse(2)
    assert scene.kernel.killed
    scene.kernel.exited.set_result("signal SIGKILL")
    await elapse(1)
    (done,) = [event for event in scene.client.events if event["type"] == "done"]
    assert (done["status"], done["reason"]) == ("timeout", "timeout")


@on_manual_time
async def test_a_timeout_in_the_grace_of_an_interrupt_changes_nothing() -> None:
    scene = Scene(interrupt_grace=3.0, execution_timeout=5.0)
    scene.submit("a")
    scene.kernel.begin()
    await elapse(4)
    scene.session.work.interrupt()
    await elapse(2.9)
    assert (scene.kernel.interrupts, scene.kernel.killed) == (1, False)
    await elapse(0.2)
    assert scene.kernel.killed


@on_manual_time
async def test_what_an_adopted_kernel_still_runs_is_stopped_likewise() -> None:
    for stops in (True, False):
        scene = Scene(bound=False, interrupt_grace=3.0)
        scene.session.bind(scene.kernel, 3, "warm", "")
        scene.session.work.interrupt()
        await elapse(1.1)
        assert (scene.kernel.interrupts, scene.kernel.insisted) == (1, 1)
        assert scene.kernel.aimed == [""]  # nobody knows its id
        if stops:
            scene.kernel.say("shell", "kernel_info_reply", {}, "info")
        await elapse(3)
        assert scene.kernel.killed is not stops


@on_manual_time
async def test_an_interrupt_of_what_waits_says_what_would_take_it_out() -> None:
    scene = Scene()
    scene.submit("a", "b")
    with pytest.raises(NotRunning) as raised:
        scene.session.work.interrupt("b")
    assert "cancel takes it out of the queue" in raised.value.message
