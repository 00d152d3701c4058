"""One session with a kernel that says what a test has it say, on a clock set by hand."""

from __future__ import annotations

import orjson
import pytest

from broker.errors import BadMessage, BrokerError, NotRunning, QueueFull, StoreUnavailable
from broker.execution import OutputLimits
from broker.roles import Envelope
from broker.session import EXIT_SETTLE, Session
from kernels.changes import Changes, Watches
from kernels.errors import BadFrame
from kernels.kernel import Workspace
from kernels.messages import Message
from kernels.state import SessionState
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.session_fakes import FakeClient, FakeKernel, Scene


@on_manual_time
async def test_who_is_told_at_once_is_told_that_there_is_no_kernel_and_why() -> None:
    scene, watcher, new = Scene(), FakeClient(), Scene(bound=False)
    scene.session.drop_kernel("oom")
    scene.session.attach(watcher, at_once=True)
    assert watcher.told("state", "reason", "generation") == [("lost", "oom", 1)]
    new.session.attach(fresh := FakeClient(), at_once=True)
    assert fresh.told("state", "reason", "generation") == [("fresh", None, 0)]


# Binding


@on_manual_time
async def test_what_is_watched_of_its_files_counts_among_its_tenants() -> None:
    scene = Scene(bound=False)
    watches = Watches()
    workspace = Workspace("w")
    workspace.changes = Changes(watches)
    scene.session.workspace = workspace
    scene.session.bind(scene.kernel, 1, "fresh", "")
    assert workspace.changes.owner == "acme"
    watches.close()


@on_manual_time
async def test_what_is_asked_before_there_is_a_kernel_runs_in_order_once_there_is() -> None:
    scene = Scene(bound=False)
    scene.submit("a", "b")
    assert (scene.host.needed, scene.client.told("position")) == (2, [(1,)])
    scene.session.bind(scene.kernel, 1, "fresh", "")
    assert scene.kernel.codes == ["code a"]
    assert scene.client.kinds == ["queued", "session"]
    scene.kernel.begin()
    scene.kernel.end()
    assert scene.kernel.codes == ["code a", "code b"]


@on_manual_time
async def test_events_of_one_turn_leave_in_one_write() -> None:
    scene, other = Scene(), FakeClient()
    scene.session.attach(other)
    scene.client.writes.clear()
    scene.submit("a", "b")
    assert scene.client.writes == [["queued"]]  # at once: nobody ends a turn here
    scene.kernel.begin()
    scene.kernel.channels.turn("iopub")
    scene.kernel.say("iopub", "stream", {"name": "stdout", "text": "1"})
    scene.kernel.say("iopub", "stream", {"name": "stderr", "text": "2"})
    scene.kernel.end()
    assert scene.client.writes == [["queued"], ["started"]]
    scene.kernel.channels.turn("iopub")
    for client in (scene.client, other):
        assert client.writes[-2:] == [["started"], ["stream", "stream", "done"]]
    scene.submit("c")
    assert scene.client.writes[-1] == ["queued"]


@on_manual_time
async def test_the_reply_is_looked_for_when_it_is_all_that_is_missing() -> None:
    scene = Scene()
    scene.submit("a")
    scene.kernel.begin()
    scene.kernel.channels.turn("iopub")
    assert scene.kernel.channels.looks == []
    scene.kernel.channels.on_look = lambda: scene.kernel.say(
        "shell", "execute_reply", {"status": "ok"}
    )
    scene.kernel.say("iopub", "execute_result", {"data": {"text/plain": "2"}})
    scene.kernel.say("iopub", "status", {"execution_state": "idle"})
    scene.kernel.channels.turn("iopub")
    assert scene.kernel.channels.looks == ["shell"]
    assert scene.client.writes[-1] == ["result", "done"]


@on_manual_time
async def test_a_reply_that_is_not_there_yet_is_waited_for() -> None:
    scene = Scene()
    scene.submit("a")
    scene.kernel.begin()
    scene.kernel.say("iopub", "status", {"execution_state": "idle"})
    scene.kernel.channels.turn("iopub")
    assert scene.client.writes[-1] == ["started"]
    scene.kernel.say("shell", "execute_reply", {"status": "ok"})
    scene.kernel.channels.turn("shell")
    assert scene.client.writes[-1] == ["done"]
    assert scene.kernel.channels.looks == ["shell"]


@on_manual_time
async def test_what_is_kept_for_a_client_that_comes_back_is_one_write() -> None:
    scene, other = Scene(), FakeClient()
    scene.submit("a")
    scene.kernel.begin()
    scene.kernel.end()
    scene.session.attach(other, after=0)
    assert other.writes == [["session", "session", "started", "done"]]


@on_manual_time
async def test_a_kernel_that_cannot_be_had_is_told_to_each_that_waits() -> None:
    scene, other = Scene(bound=False), FakeClient()
    scene.session.attach(other)
    scene.submit("a")
    scene.submit("b", client=other)
    error = BrokerError("no room")
    scene.session.work.refuse(error)
    assert (scene.client.faults, other.faults) == ([("a", error)], [("b", error)])
    assert not scene.session.busy


@on_manual_time
async def test_what_was_announced_has_its_done_even_if_no_kernel_can_be_had() -> None:
    scene, watcher = Scene(bound=False), FakeClient()
    scene.session.attach(watcher)
    scene.submit("a", "b")  # only b is announced: a is next
    scene.session.work.refuse(BrokerError("no room"))
    assert [name for name, _ in scene.client.faults] == ["a", "b"]
    assert scene.client.dones == watcher.dones == {"b": "aborted"}
    assert watcher.events[-1]["reason"] == "no room"


@on_manual_time
async def test_what_an_absent_client_asked_for_has_its_done_even_if_no_kernel_can_be_had() -> None:
    scene, again = Scene(bound=False), FakeClient()
    scene.submit("a", "b")
    scene.session.attach(again)
    scene.session.detach(scene.client)
    scene.session.work.refuse(BrokerError("no room"))
    assert (scene.client.faults, again.faults) == ([], [])
    assert again.dones == {"a": "aborted", "b": "aborted"}


@on_manual_time
async def test_what_was_announced_has_its_done_when_the_session_ends_without_a_kernel() -> None:
    scene = Scene(bound=False)
    scene.submit("a", "b")
    scene.session.close(4404, "killed")
    assert scene.client.dones == {"b": "aborted"}
    assert scene.client.events[-1]["reason"] == "killed"
    assert not scene.session.busy


class Leaver(FakeClient):
    """Goes with the first word it is sent, as a connection that is too slow does."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def fault(self, request_id: str, error: BrokerError) -> None:
        super().fault(request_id, error)
        self.session.detach(self)


class Passer(Leaver):
    """Goes with the first event that it gets."""

    def deliver(self, envelope: Envelope) -> None:
        super().deliver(envelope)
        self.session.detach(self)


@on_manual_time
async def test_a_client_that_leaves_while_it_attaches_is_forgotten() -> None:
    scene = Scene()
    passer = Passer(scene.session)
    scene.session.attach(passer, after=0)
    assert passer.kinds[0] == "session"
    assert scene.session.audience.clients == {scene.client}
    scene.session.detach(scene.client)
    before = scene.host.leavers
    scene.session.attach(passer, after=0)
    assert scene.host.leavers > before


@on_manual_time
async def test_a_client_may_leave_while_it_is_refused() -> None:
    scene = Scene(bound=False)
    leaver = Leaver(scene.session)
    scene.session.attach(leaver)
    scene.submit("a", "b", client=leaver)
    scene.session.work.refuse(BrokerError("no room"))
    assert [name for name, _ in leaver.faults] == ["a"]
    assert scene.client.dones == {"b": "aborted"}


@on_manual_time
async def test_a_new_kernels_first_answer_is_measured_once() -> None:
    scene = Scene()
    for name in "ab":
        scene.submit(name)
        scene.kernel.begin()
        scene.kernel.end()
    assert len(scene.host.waits) == 1
    adopted = Scene(bound=False)
    adopted.session.bind(adopted.kernel, 1, "warm", "")
    adopted.kernel.say("shell", "kernel_info_reply", {}, parent="info")
    adopted.submit("a")
    adopted.kernel.begin()
    assert adopted.host.waits == []


@on_manual_time
async def test_an_adopted_kernel_is_busy_until_it_answers() -> None:
    scene = Scene(bound=False)
    session = scene.session
    session.bind(scene.kernel, 1, "warm", "")
    scene.submit("a")
    assert (session.state, session.busy, scene.kernel.codes) == (SessionState.BUSY, True, [])
    assert session.work.interrupt() == ""
    assert scene.kernel.interrupts == 1
    with pytest.raises(NotRunning):
        session.work.interrupt("a")
    session.suspend()
    session.resume()
    assert session.state is SessionState.BUSY
    scene.kernel.say("shell", "kernel_info_reply", {}, parent="info")
    assert scene.kernel.codes == ["code a"]


@on_manual_time
async def test_an_adopted_kernel_that_ends_before_it_answers_is_lost_like_any_other() -> None:
    scene = Scene(bound=False)
    scene.session.bind(scene.kernel, 1, "warm", "")
    scene.session.drop_kernel("killed")
    assert (scene.session.state, scene.session.busy) == (SessionState.OPENING, False)


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


# Loss


@on_manual_time
async def test_a_lost_kernel_is_told_with_its_reason_and_the_next_generation() -> None:
    scene = Scene()
    scene.submit("a", "b")
    scene.kernel.begin()
    scene.kernel.exited.set_result("exit 3")
    # Its last words are in the socket still.
    scene.kernel.say("iopub", "stream", {"name": "stdout", "text": "bye"})
    await elapse(2 * EXIT_SETTLE)
    assert scene.client.kinds[-4:] == ["stream", "done", "done", "session"]
    assert scene.client.dones == {"a": "lost", "b": "aborted"}
    assert scene.client.events[-3]["reason"] == "exit 3"
    assert (scene.session.state, scene.session.kernel) == (SessionState.OPENING, None)
    assert scene.host.needed == 0
    scene.submit("c")
    assert scene.host.needed == 1
    scene.session.bind(FakeKernel("k2"), 2, "lost", "exit 3")
    assert scene.client.told("state", "generation", "reason")[-1] == ("lost", 2, "exit 3")
    late = FakeClient()
    scene.session.attach(late)
    assert late.told("state", "generation", "reason") == [("warm", 2, None)]


@on_manual_time
async def test_a_dropped_kernel_says_no_more_and_its_exit_is_no_loss() -> None:
    scene = Scene()
    scene.submit("a")
    scene.kernel.begin()
    assert scene.session.drop_kernel("restart") is scene.kernel
    before = list(scene.client.events)
    scene.kernel.say("iopub", "stream", {"name": "stdout", "text": "late"})
    scene.kernel.exited.set_result("signal SIGKILL")
    await elapse(2 * EXIT_SETTLE)
    assert scene.client.events == before
    assert scene.host.lost == []
    assert scene.client.dones == {"a": "lost"}
    assert scene.session.drop_kernel("again") is None


@on_manual_time
async def test_a_kernel_that_breaks_the_protocol_is_killed_and_lost_as_such() -> None:
    scene = Scene()
    scene.kernel.channels.broken.set_result(BadFrame("wrong signature"))
    await elapse()
    assert scene.kernel.killed
    scene.kernel.exited.set_result("signal SIGKILL")
    await elapse(2 * EXIT_SETTLE)
    assert scene.host.lost == ["bad_frame"]


@on_manual_time
async def test_a_kernel_that_answers_without_reading_is_killed_and_lost_as_such() -> None:
    scene = Scene()
    scene.kernel.channels.full = True
    scene.submit("a", "b")
    assert scene.kernel.killed
    scene.kernel.exited.set_result("signal SIGKILL")
    await elapse(2 * EXIT_SETTLE)
    assert scene.host.lost == ["bad_frame"]
    assert scene.client.dones == {"a": "lost", "b": "aborted"}


@on_manual_time
async def test_the_channels_learn_which_messages_stand_for_nothing() -> None:
    scene = Scene()
    scene.submit("a")
    receiver = scene.kernel.channels.receiver
    assert receiver is not None
    text = orjson.dumps({"name": "stdout", "text": "x"})

    def stands(channel: str, kind: str, parent: str) -> object:
        return receiver(channel, Message({"msg_type": kind}, {"msg_id": parent}, {}, text, ()))

    assert stands("iopub", "execute_input", "k_1") is True
    assert stands("iopub", "stream", "k_1") is True
    assert stands("iopub", "stream", "nobody") is True  # a thread of an earlier cell
    for channel, kind, parent in (
        ("iopub", "comm_msg", "k_1"),
        ("iopub", "status", "nobody"),
        ("iopub", "no such type", "nobody"),
        ("shell", "execute_reply", "k_2"),
        ("control", "stream", "k_1"),
        ("stdin", "input_request", "k_1"),
    ):
        assert stands(channel, kind, parent) is False, (channel, kind)


@on_manual_time
async def test_output_over_a_bound_is_dropped_and_no_fault() -> None:
    scene = Scene(output=OutputLimits(text=100, displays=2000))
    scene.submit("a")
    receiver = scene.kernel.channels.receiver
    assert receiver is not None
    text = orjson.dumps({"name": "stdout", "text": "x" * 500})

    def stands(kind: str, parent: str) -> object:
        return receiver("iopub", Message({"msg_type": kind}, {"msg_id": parent}, {}, text, ()))

    for parent in ("k_1", "k_0"):  # what runs, and a thread of an earlier cell
        for _ in range(20):
            assert stands("stream", parent) is True
    shown = len(scene.client.events)
    for kind in ("stream", "clear_output", "error"):
        stands(kind, "k_1")
        assert stands(kind, "k_1") is True
    assert [one["type"] for one in scene.client.events[shown:] if one["type"] == "stream"] == []
    for kind, parent in (("stream", "nobody"), ("comm_msg", "k_1"), ("comm_msg", "k_0")):
        assert stands(kind, parent) is False, (kind, parent)


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


# The store's word


@on_manual_time
async def test_a_suspended_session_takes_no_work_and_what_runs_goes_on() -> None:
    scene = Scene()
    scene.submit("a", "b")
    scene.kernel.begin()
    scene.session.suspend()
    scene.session.suspend()
    with pytest.raises(StoreUnavailable):
        scene.submit("c")
    scene.kernel.end()
    assert scene.client.dones == {"a": "ok"}
    assert scene.kernel.codes == ["code a"]
    scene.session.resume()
    scene.session.resume()
    assert scene.kernel.codes == ["code a", "code b"]
    assert scene.session.state is SessionState.BUSY


@on_manual_time
async def test_a_kernel_lost_while_suspended_is_asked_for_again_when_there_is_work() -> None:
    scene = Scene()
    scene.session.suspend()
    scene.session.drop_kernel("exit 3")
    scene.session.resume()
    assert scene.session.state is SessionState.OPENING
    scene.submit("a")
    assert scene.host.needed == 1


@on_manual_time
async def test_what_waits_for_a_kernel_is_not_forgotten_by_a_suspension() -> None:
    scene = Scene(bound=False)
    scene.submit("a")
    scene.session.suspend()
    needed = scene.host.needed
    scene.session.resume()
    assert scene.host.needed == needed + 1


@on_manual_time
async def test_a_closed_session_is_neither_suspended_nor_resumed() -> None:
    scene = Scene()
    scene.session.close(4404, "closed")
    scene.session.suspend()
    scene.session.resume()
    assert scene.session.state is SessionState.CLOSED
