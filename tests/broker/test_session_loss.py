"""How a session loses its kernel, and what it does while the store is out of reach."""

from __future__ import annotations

import orjson
import pytest

from broker.errors import StoreUnavailable
from broker.execution import OutputLimits
from broker.session import EXIT_SETTLE
from kernels.errors import BadFrame
from kernels.messages import Message
from kernels.state import SessionState
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.session_fakes import FakeClient, FakeKernel, Scene

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
