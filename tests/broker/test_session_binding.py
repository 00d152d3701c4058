"""What a session says and does while it has no kernel yet, and when it gets one."""

from __future__ import annotations

import pytest

from broker.errors import BrokerError, NotRunning
from broker.roles import Envelope
from broker.session import Session
from kernels.changes import Changes, Watches
from kernels.kernel import Workspace
from kernels.state import SessionState
from tests.broker.pool_fakes import on_manual_time
from tests.broker.session_fakes import FakeClient, Scene


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
