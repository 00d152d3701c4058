"""One session with a kernel that says what a test has it say, on a clock set by hand."""

from __future__ import annotations

import pytest

from broker.errors import BadMessage, NotRunning, QueueFull
from broker.execution import OutputLimits
from broker.session import EXIT_SETTLE
from kernels.state import SessionState
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.session_fakes import FakeClient, Scene

# Order


@on_manual_time
async def test_one_execution_runs_at_a_time_and_each_has_one_done() -> None:
    scene = Scene()
    scene.submit("a", "b", "c")
    assert scene.kernel.codes == ["code a"]
    assert (scene.session.state, scene.session.work.queued) == (SessionState.BUSY, 2)
    for _ in range(3):
        scene.kernel.begin()
        scene.kernel.say("iopub", "stream", {"name": "stdout", "text": "x"})
        scene.kernel.end()
    assert scene.kernel.codes == ["code a", "code b", "code c"]
    assert scene.client.dones == {"a": "ok", "b": "ok", "c": "ok"}
    assert scene.client.kinds == [
        "session",
        "queued",
        "queued",
        *["started", "stream", "done"] * 3,
    ]
    assert [event["seq"] for event in scene.client.events] == list(range(1, 13))
    assert (scene.session.state, scene.session.work.count) == (SessionState.READY, 3)


@on_manual_time
async def test_the_reply_alone_does_not_end_an_execution() -> None:
    scene = Scene()
    scene.submit("a")
    scene.kernel.begin()
    scene.kernel.say("shell", "execute_reply", {"status": "ok"})
    assert scene.client.dones == {}
    scene.kernel.say("iopub", "stream", {"name": "stdout", "text": "late"})
    scene.kernel.say("iopub", "status", {"execution_state": "idle"})
    assert scene.client.kinds[-2:] == ["stream", "done"]


@on_manual_time
async def test_output_between_executions_has_no_id() -> None:
    scene = Scene()
    scene.submit("a")
    scene.kernel.begin()
    scene.kernel.end()
    scene.kernel.say("iopub", "stream", {"name": "stdout", "text": "thread"})
    scene.kernel.say("iopub", "execute_input", {"execution_count": 9}, parent="elsewhere")
    scene.kernel.say("iopub", "status", {"execution_state": "idle"}, parent="elsewhere")
    assert scene.client.kinds[-2:] == ["done", "stream"]
    assert "id" not in scene.client.events[-1]


@on_manual_time
async def test_another_clients_replies_are_nobodys_done() -> None:
    scene = Scene()
    scene.submit("a")
    scene.kernel.begin()
    scene.kernel.say("shell", "execute_reply", {"status": "ok"}, parent="stranger")
    scene.kernel.say("iopub", "status", {"execution_state": "idle"}, parent="stranger")
    assert scene.client.dones == {}


@on_manual_time
async def test_metadata_goes_to_the_kernel_as_it_is() -> None:
    scene = Scene()
    scene.submit("a", metadata={"cell": 3})
    assert scene.kernel.channels.sent[0][2] == {"cell": 3}


# The queue


@on_manual_time
async def test_the_queue_is_bounded() -> None:
    scene = Scene()
    scene.submit("a", "b", "c", "d")
    with pytest.raises(QueueFull, match="3 executions wait already, as many as the session's"):
        scene.submit("e")
    assert scene.session.work.queued == 3


@on_manual_time
async def test_an_open_id_is_refused_whoever_has_it() -> None:
    scene, other = Scene(), FakeClient()
    scene.submit("a", "b")
    for name in ("a", "b"):
        for client in (scene.client, other):
            with pytest.raises(BadMessage) as refused:
                scene.submit(name, client=client)
            assert refused.value.field == "id"
    scene.kernel.begin()
    scene.kernel.end()
    scene.submit("a", client=other)


@on_manual_time
async def test_a_failure_aborts_what_its_own_client_has_queued() -> None:
    scene, other = Scene(), FakeClient()
    scene.session.attach(other)
    scene.submit("a", "b")
    scene.submit("c", client=other)
    scene.submit("d")
    scene.kernel.begin()
    scene.kernel.end("error")
    assert scene.client.dones == {"a": "error", "b": "aborted", "d": "aborted"}
    assert scene.kernel.codes == ["code a", "code c"]


@on_manual_time
async def test_what_is_asked_for_once_the_error_is_told_runs() -> None:
    scene = Scene()
    scene.submit("a", "b")
    scene.kernel.begin()
    scene.kernel.say("iopub", "error", {"ename": "E", "evalue": "", "traceback": []})
    scene.submit("c")
    scene.kernel.end("error")
    assert scene.client.dones == {"a": "error", "b": "aborted"}
    assert scene.kernel.codes == ["code a", "code c"]


@on_manual_time
async def test_a_failure_that_is_no_matter_aborts_nothing() -> None:
    scene = Scene()
    scene.submit("a", stop_on_error=False)
    scene.submit("b")
    scene.kernel.begin()
    scene.kernel.end("error")
    assert scene.kernel.codes == ["code a", "code b"]


@on_manual_time
async def test_cancel_takes_what_waits_and_nothing_else() -> None:
    scene = Scene()
    scene.submit("a", "b", "c")
    scene.session.work.cancel("b")
    assert scene.client.dones == {"b": "cancelled"}
    for target in ("a", "b", "x"):
        with pytest.raises(NotRunning) as refused:
            scene.session.work.cancel(target)
        assert refused.value.field == "target"
    scene.kernel.begin()
    scene.kernel.end()
    assert scene.kernel.codes == ["code a", "code c"]


# Interrupts and time


@on_manual_time
async def test_an_interrupt_goes_to_what_runs_and_names_it() -> None:
    scene = Scene()
    with pytest.raises(NotRunning):
        scene.session.work.interrupt()
    scene.submit("a", "b")
    scene.kernel.begin()
    with pytest.raises(NotRunning):
        scene.session.work.interrupt("b")
    assert scene.session.work.interrupt() == scene.session.work.interrupt("a") == "a"
    assert scene.kernel.interrupts == 2
    await elapse(0.01)
    scene.submit("c")  # whoever has stopped what ran means this to run
    scene.kernel.end("error")
    assert scene.client.dones == {"a": "interrupted", "b": "aborted"}
    scene.kernel.end("ok")
    assert scene.client.dones["c"] == "ok"
    reasons = {e["id"]: e.get("reason") for e in scene.client.events if e["type"] == "done"}
    assert reasons["a"] == "interrupted"


@on_manual_time
async def test_a_timeout_interrupts_and_the_kernel_lives_on() -> None:
    scene = Scene(execution_timeout=50.0)
    scene.submit("a", timeout=5.0)
    scene.kernel.begin()
    await elapse(4.9)
    assert scene.kernel.interrupts == 0
    await elapse(0.2)
    assert scene.kernel.interrupts == 1
    scene.kernel.end("error")
    assert scene.client.events[-1]["status"] == scene.client.events[-1]["reason"] == "timeout"
    await elapse(60)
    assert not scene.kernel.killed
    scene.submit("b", timeout=5.0)
    scene.kernel.begin()
    await elapse(5.1)
    scene.kernel.end("ok")  # the code went on regardless
    assert scene.client.events[-1]["status"] == "ok"
    assert scene.client.events[-1]["reason"] == "timeout"


@on_manual_time
async def test_what_swallows_its_interrupt_is_killed_after_the_grace() -> None:
    scene = Scene(execution_timeout=50.0)
    scene.submit("a", "b")
    scene.kernel.begin()
    await elapse(51.9)
    assert not scene.kernel.killed
    await elapse(0.2)
    assert scene.kernel.killed
    scene.kernel.exited.set_result("signal SIGKILL")
    await elapse(2 * EXIT_SETTLE)
    assert scene.client.dones == {"a": "timeout", "b": "aborted"}
    assert scene.client.events[-1]["type"] == "session"
    assert scene.client.told("state", "generation", "reason")[-1] == ("lost", 1, "timeout")
    assert scene.host.lost == ["timeout"]


@on_manual_time
async def test_without_a_timeout_nothing_is_interrupted() -> None:
    scene = Scene(execution_timeout=0.0)
    scene.submit("a")
    scene.kernel.begin()
    await elapse(1e6)
    assert scene.kernel.interrupts == 0


@on_manual_time
async def test_each_execution_has_a_timeout_of_its_own() -> None:
    scene = Scene(execution_timeout=10.0)
    scene.submit("a", "b")
    for _ in range(2):
        scene.kernel.begin()
        await elapse(9.0)
        scene.kernel.end()
    assert scene.kernel.interrupts == 0


# Clients


@on_manual_time
async def test_a_client_that_comes_back_gets_what_it_missed() -> None:
    scene = Scene()
    scene.submit("a")
    scene.kernel.begin()
    scene.kernel.end()
    back = FakeClient()
    scene.session.attach(back, after=1)
    assert (back.events[0]["type"], back.events[0]["seq"]) == ("session", 3)
    assert back.events[1:] == scene.client.events[1:]
    ahead = FakeClient()
    scene.session.attach(ahead, after=99)
    assert ahead.kinds == ["session"]


@on_manual_time
async def test_what_is_gone_is_named_even_while_there_is_no_kernel() -> None:
    scene = Scene(replay_events=2)
    scene.submit("a")
    scene.kernel.begin()
    scene.kernel.end()
    scene.session.drop_kernel("restart")
    back = FakeClient()
    scene.session.attach(back, after=0)
    first = back.events[0]
    assert (first["state"], first["missed"], first["reason"]) == ("lost", [1, 2], "restart")
    assert [event["seq"] for event in back.events[1:]] == [3, 4]


@on_manual_time
async def test_a_client_that_has_left_gets_nothing_and_its_work_goes_on() -> None:
    scene = Scene()
    scene.submit("a", "b")
    seen = len(scene.client.events)
    scene.session.detach(scene.client)
    assert scene.host.leavers == 1
    for _ in range(2):
        scene.kernel.begin()
        scene.kernel.end()
    assert len(scene.client.events) == seen
    assert scene.host.done == ["ok", "ok"]


@on_manual_time
async def test_closing_tells_everybody_but_the_one_who_asked() -> None:
    scene, other = Scene(), FakeClient()
    scene.session.attach(other)
    scene.session.close(4404, "closed", spare=scene.client)
    assert (scene.client.ends, other.ends) == ([], [(4404, "closed")])
    assert scene.session.state is SessionState.CLOSED
    scene.session.close(4404, "again")
    assert other.ends == [(4404, "closed")]


@on_manual_time
async def test_every_change_of_kernel_names_the_limits_and_the_end() -> None:
    scene = Scene(idle_timeout=60.0, max_lifetime=10.0, output=OutputLimits(text=7))
    event = scene.client.events[0]
    assert event["limits"] == {
        "execution_timeout": 300.0,
        "idle_timeout": 60.0,
        "max_lifetime": 10.0,
        "queue": 3,
        "output_bytes": 7,
        "cpu_time": 0.0,
        "memory": 1 << 30,
        "processes": 128,
        "cpu": 1.0,
        "workspace_bytes": 256 << 20,
    }
    assert event["expires_at"] == scene.session.created + 10.0
    assert Scene(idle_timeout=0.0, max_lifetime=0.0).session.expires == 0.0
