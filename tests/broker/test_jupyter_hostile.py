"""What a hostile kernel, or a hostile client, gets of a session's Jupyter clients: nothing."""

from __future__ import annotations

import asyncio
import struct
from typing import Any

import orjson
import pytest

from broker.errors import BadFrame as BadFrameSent
from broker.errors import BadMessage, QuotaExceeded, TooLarge
from broker.execution import OutputLimits
from broker.faults import Bounds
from broker.jupyter.frames import decode_legacy, decode_v1
from broker.jupyter.held import MOST_BYTES, MOST_HELD, PATIENCE
from broker.jupyter.passage import DOUBT
from broker.quotas import Quotas
from kernels.errors import BadFrame
from kernels.introductions import MOST
from kernels.messages import Message
from kernels.state import SessionState
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.session_fakes import FakeKernel
from tests.broker.test_jupyter_exchange import INFO, FakeWire, Passing, Stage


def kinds(wire: FakeWire) -> list[tuple[str, str]]:
    return [(told[1], told[3]) for told in wire.told]


@on_manual_time
async def test_what_one_kernel_says_that_it_is_no_other_sessions_client_is_told() -> None:
    one, other = Stage(), Stage()
    mine, _ = one.come()
    one.run(mine, "x")
    forged = {**INFO, "banner": "forged"}
    one.say("shell", "kernel_info_reply", forged)  # as the answer to the cell
    theirs, wire = other.come()
    other.ask(theirs, "kernel_info_request", name="i")
    assert not [p for p in wire.packets if b"forged" in p.content]


@on_manual_time
async def test_the_next_kernel_of_a_session_says_itself_what_it_is() -> None:
    stage = Stage(bound=False)
    stage.kernel.info = orjson.dumps({**INFO, "banner": "old"})
    stage.session.bind(stage.kernel, 1, "fresh", "")
    one, wire = stage.come()
    stage.session.drop_kernel("oom")
    stage.ask(one, "kernel_info_request", name="i")
    stage.kernel = FakeKernel("next")
    stage.kernel.channels = Passing()
    stage.session.bind(stage.kernel, 2, "lost", "oom")
    assert [kind for _, kind, *_ in stage.kernel.channels.passed] == ["kernel_info_request"]
    assert not [p for p in wire.packets if b"old" in p.content]


@pytest.mark.parametrize(
    "said", [INFO | {"banner": "x" * MOST}, INFO | {"status": "error"}, {}], ids=["long", "no", ""]
)
def test_an_answer_that_is_none_is_not_kept(said: dict[str, Any]) -> None:
    @on_manual_time
    async def run() -> None:
        stage = Stage()
        one, _ = stage.come()
        for number in (1, 2):
            stage.ask(one, "kernel_info_request", name=f"i{number}")
            assert len(stage.kernel.channels.passed) == number
            stage.say("control", "kernel_info_reply", said, stage.kernel.channels.passed[-1][3])
        assert stage.kernel.info == b""

    run()


@on_manual_time
async def test_who_only_watches_answers_no_question() -> None:
    stage = Stage()
    owner, _ = stage.come()
    watcher, _ = stage.come("w", runs=False)
    stage.run(owner, "x", allow_stdin=True)
    stage.status("busy")
    stage.say("stdin", "input_request", {"prompt": "(Pdb) ", "password": False})
    stage.ask(watcher, "input_reply", channel="stdin", value="import os; os.system('evil')")
    assert stage.kernel.channels.answers == []


@on_manual_time
async def test_who_only_watches_has_no_kernel_started() -> None:
    stage = Stage(bound=False)
    watcher, _ = stage.come("w", runs=False)
    stage.ask(watcher, "kernel_info_request", name="i")
    assert stage.host.needed == 0


@on_manual_time
async def test_idles_of_one_request_are_told_once() -> None:
    stage = Stage(output=OutputLimits(text=0, display=4000, displays=10_000))
    one, wire = stage.come()
    stage.run(one, "x")
    stage.status("busy")
    told = [stage.say("iopub", "status", {"execution_state": "idle"}) for _ in range(1000)]
    assert kinds(wire).count(("status", "idle")) == 1
    assert told[-1] is False


@pytest.mark.parametrize("channel", ["shell", "control"])
def test_a_request_gets_one_reply(channel: str) -> None:
    @on_manual_time
    async def run() -> None:
        stage = Stage()
        one, wire = stage.come()
        stage.ask(one, "complete_request", channel=channel, name="c", code="a")
        name = stage.kernel.channels.passed[0][3]
        told = []
        for _ in range(3):
            told.append(stage.say(channel, "complete_reply", {"matches": ["x"]}, name))
            told.append(stage.say(channel, "complete_reply", {"matches": ["x"]}, name))
            await elapse(PATIENCE)
        assert kinds(wire) == [("complete_reply", ["x"])]
        assert told == [True] + 5 * [False]

    run()


@on_manual_time
async def test_a_reply_that_waits_when_the_kernel_dies_is_told_once() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.ask(one, "complete_request", name="c", code="a")
    name = stage.kernel.channels.passed[0][3]
    stage.say("shell", "complete_reply", {"matches": ["x"]}, name)
    stage.session.drop_kernel("oom")
    await elapse(PATIENCE)
    assert [kind for kind, _ in kinds(wire)].count("complete_reply") == 1


@on_manual_time
async def test_a_cell_whose_kernel_dies_behind_its_reply_ends_all_the_same() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.run(one, "x")
    stage.status("busy")
    stage.say("shell", "execute_reply", {"status": "ok"})
    stage.session.drop_kernel("oom")
    await elapse(PATIENCE)
    told = [(kind, about, what) for _, kind, about, what in wire.told if about == "x"]
    assert told.count(("execute_reply", "x", "ok")) == 1
    assert ("status", "x", "idle") in told
    assert not stage.exchange._executions


@on_manual_time
async def test_a_reply_waits_for_outputs_that_are_held_back() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.session.detach(stage.client)
    stage.run(one, "x")
    stage.status("busy")
    stage.session.audience.hold(one)  # it reads slowly: the kernel is held back
    stage.say("shell", "execute_reply", {"status": "ok"})
    await elapse(3 * PATIENCE)
    stage.session.audience.release(one)
    stage.say("iopub", "stream", {"name": "stdout", "text": "late"})
    stage.status("idle")
    assert [told[1] for told in wire.told] == ["status", "stream", "status", "execute_reply"]


class Spent(Quotas):
    """Quotas of a tenant that has used up its hour."""

    def check(self, tenant: str, session: object = None) -> None:
        raise QuotaExceeded("cpu_hour: none is left")


def message(kind: str, content: bytes, parent: str, **more: Any) -> Message:
    header = {"msg_type": kind, "msg_id": "m", **more.pop("header", {})}
    metadata = more.pop("metadata", {})
    parts = (orjson.dumps(header), orjson.dumps({"msg_id": parent}), orjson.dumps(metadata))
    return Message(header, {"msg_id": parent}, metadata, content, (), parts=parts)


@on_manual_time
async def test_replies_are_json_or_the_kernel_is_broken_off() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.ask(one, "complete_request", name="c", code="a")
    name = stage.kernel.channels.passed[0][3]
    stage.status("idle", name)
    _ = wire.told
    receiver = stage.kernel.channels.receiver
    assert receiver is not None
    with pytest.raises(BadFrame):
        receiver("shell", message("complete_reply", b'{},"parent_header":{"msg_id":"\xff', name))
    assert wire.packets == []


@on_manual_time
async def test_any_message_id_of_a_kernel_can_be_told() -> None:
    stage = Stage()
    _, wire = stage.come()
    header = b'{"msg_type":"stream","msg_id":' + b"[" * 300 + b"]" * 300 + b"}"
    receiver = stage.kernel.channels.receiver
    assert receiver is not None
    parts = (header, b"{}", b"{}")
    receiver("iopub", Message(orjson.loads(header), {}, {}, b'{"text":"x"}', (), parts=parts))
    [packet] = wire.packets
    assert orjson.loads(packet.text)["msg_type"] == "stream"


@on_manual_time
async def test_headers_and_metadata_count_as_output() -> None:
    stage = Stage(output=OutputLimits(text=0, display=4000, displays=100_000))
    one, wire = stage.come()
    stage.run(one, "x")
    receiver = stage.kernel.channels.receiver
    assert receiver is not None
    metadata = {"x": "y" * 50_000}
    for _ in range(100):
        receiver("iopub", message("comm_msg", b"{}", "k_1", metadata=metadata))
    assert sum(packet.size for packet in wire.packets) < 200_000


def test_a_header_is_bounded_in_both_framings() -> None:
    header = {"msg_id": "m", "msg_type": "execute_request", "x": "y" * 1_000_000}
    with pytest.raises(TooLarge):
        decode_legacy(orjson.dumps({"header": header}).decode(), Bounds())


def test_a_frame_of_one_offset_is_a_bad_frame() -> None:
    with pytest.raises(BadFrameSent):
        decode_v1(struct.pack("<2Q", 1, 16), Bounds())


def test_a_channel_is_one_of_jupyters() -> None:
    frame = {"channel": '","x":"', "header": {"msg_id": "m", "msg_type": "comm_msg"}}
    with pytest.raises(BadMessage):
        decode_legacy(orjson.dumps(frame).decode(), Bounds())


@on_manual_time
async def test_what_was_passed_on_is_not_kept_with_its_content() -> None:
    stage = Stage()
    one, _ = stage.come()
    for number in range(50):
        stage.ask(one, "comm_msg", name=str(number), data="x" * 100_000)
    kept = sum(len(one.asked.content_bytes) for one in stage.exchange._passage._open.values())
    assert kept < 100_000


@on_manual_time
async def test_what_waits_for_a_kernel_is_bounded_in_bytes() -> None:
    stage = Stage(bound=False)
    one, _ = stage.come()
    for number in range(60):
        stage.ask(one, "comm_msg", name=str(number), data="x" * 1_000_000)
    waiting = stage.exchange._passage._awaiting
    assert sum(one.asked.size for one in waiting) < 10_000_000


@on_manual_time
async def test_nothing_is_passed_on_while_the_lease_is_in_doubt() -> None:
    stage = Stage()
    one, _ = stage.come()
    stage.session.suspend()
    assert stage.session.state is SessionState.SUSPENDED
    stage.ask(one, "comm_msg", name="c", data={})
    assert stage.kernel.channels.passed == []


@on_manual_time
async def test_who_comes_back_is_asked_what_the_cell_asked_meanwhile() -> None:
    stage = Stage()
    one, _ = stage.come()
    stage.run(one, "x", allow_stdin=True)
    stage.status("busy")
    stage.exchange.leave(one, comes_back=True)
    stage.say("stdin", "input_request", {"prompt": "name? ", "password": False})
    _, wire = stage.come()
    assert ("stdin", "input_request", "x", "name? ") in wire.told


@on_manual_time
async def test_what_a_thread_prints_after_its_cell_is_told_of_that_cell() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.run(one, "x")
    stage.status("busy")
    stage.status("idle")
    stage.say("shell", "execute_reply", {"status": "ok"})
    _ = wire.told
    stage.say("iopub", "stream", {"name": "stdout", "text": "thread"}, "k_1")
    assert wire.told == [("iopub", "stream", "x", "thread")]


@on_manual_time
async def test_who_has_gone_for_good_has_nothing_asked() -> None:
    stage = Stage(bound=False)
    one, _ = stage.come()
    stage.come("b")
    stage.ask(one, "comm_msg", name="c", data={})
    stage.exchange.leave(one, comes_back=False)
    stage.session.bind(stage.kernel, 1, "fresh", "")
    assert stage.kernel.channels.passed == []
    await asyncio.sleep(0)


@on_manual_time
async def test_an_id_that_is_used_again_at_once_is_answered_again() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.run(one, "x")
    stage.say("shell", "execute_reply", {"status": "ok"})
    stage.status("idle")
    stage.run(one, "x")
    await elapse(PATIENCE)
    _ = wire.told
    stage.status("busy")
    stage.status("idle")
    stage.say("shell", "execute_reply", {"status": "ok"})
    assert wire.told[-1] == ("shell", "execute_reply", "x", "ok")


@on_manual_time
async def test_a_reply_of_another_kind_answers_nothing() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.ask(one, "complete_request", name="c", code="a")
    name = stage.kernel.channels.passed[0][3]
    stage.status("idle", name)
    _ = wire.told
    assert stage.say("shell", "execute_reply", {"status": "ok"}, name) is False
    assert wire.told == []


@on_manual_time
async def test_a_reply_is_no_larger_than_an_output_may_be() -> None:
    stage = Stage(output=OutputLimits(text=0, display=4000, displays=100_000))
    one, wire = stage.come()
    stage.ask(one, "complete_request", name="c", code="a")
    name = stage.kernel.channels.passed[0][3]
    stage.say("shell", "complete_reply", {"matches": ["x" * 50_000]}, name)
    assert ("complete_reply", "KernelBusy") in kinds(wire)


@on_manual_time
async def test_what_its_client_has_left_still_has_no_more_time_than_a_cell() -> None:
    stage = Stage(execution_timeout=5.0)
    one, _ = stage.come()
    stage.ask(one, "comm_msg", name="c", data={})
    stage.status("busy", stage.kernel.channels.passed[0][3])
    stage.exchange.leave(one, comes_back=False)
    await elapse(5.0)
    assert stage.kernel.interrupts == 1


@on_manual_time
async def test_a_request_that_is_done_and_never_answered_ends_no_kernel() -> None:
    stage = Stage(execution_timeout=5.0)
    one, _ = stage.come()
    stage.ask(one, "is_complete_request", name="c", code="1")
    name = stage.kernel.channels.passed[0][3]
    stage.status("busy", name)
    stage.status("idle", name)  # of a foreign kernel that does not know of such
    await elapse(60.0)
    assert (stage.kernel.interrupts, stage.kernel.killed) == (0, False)


@on_manual_time
async def test_the_end_of_a_requests_time_interrupts_no_cell() -> None:
    stage = Stage(execution_timeout=5.0)
    one, _ = stage.come()
    stage.ask(one, "comm_msg", name="c", data={}, header={"subshell_id": "s"})
    name = stage.kernel.channels.passed[0][3]
    stage.status("busy", name)
    await elapse(5.0)
    assert stage.kernel.aimed == [name]


@on_manual_time
async def test_the_control_channel_is_for_what_belongs_there() -> None:
    stage = Stage()
    one, _ = stage.come()
    for kind in ("debug_request", "complete_request", "apply_request"):
        stage.ask(one, kind, channel="control", name=kind)
    passed = [(channel, kind) for channel, kind, *_ in stage.kernel.channels.passed]
    assert passed == [
        ("control", "debug_request"),
        ("shell", "complete_request"),
        ("shell", "apply_request"),
    ]


@on_manual_time
async def test_a_tenant_that_may_run_nothing_has_nothing_passed_on() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.host.quotas = Spent()
    stage.ask(one, "comm_msg", name="c", data={})
    stage.ask(one, "debug_request", name="d", channel="control")
    stage.ask(one, "kernel_info_request", name="i")
    assert [kind for _, kind, *_ in stage.kernel.channels.passed] == ["kernel_info_request"]
    assert ("debug_reply", "QuotaExceeded") in kinds(wire)


@on_manual_time
async def test_a_free_kernel_that_never_begins_has_no_more_time_than_a_cell() -> None:
    stage = Stage(execution_timeout=5.0, interrupt_grace=2.0)
    one, _ = stage.come()
    stage.ask(one, "comm_msg", name="c", data={})
    name = stage.kernel.channels.passed[0][3]
    await elapse(5.0 + DOUBT)
    assert (stage.kernel.aimed, stage.kernel.killed) == ([name], False)
    await elapse(2.0)
    assert stage.kernel.killed


@on_manual_time
async def test_what_waits_for_a_cell_in_the_kernel_has_its_time_from_then_on() -> None:
    stage = Stage(execution_timeout=0.0)
    one, wire = stage.come()
    stage.run(one, "x")
    stage.status("busy")
    object.__setattr__(stage.session.limits, "execution_timeout", 5.0)  # of what is passed on
    for kind in ("complete_request", "inspect_request"):
        stage.ask(one, kind, name=kind, code="a")
    await elapse(60.0)
    assert (stage.kernel.interrupts, stage.kernel.killed) == (0, False)
    first, second = (one[3] for one in stage.kernel.channels.passed)
    stage.status("idle")
    stage.say("shell", "execute_reply", {"status": "ok"})
    stage.status("busy", first)
    await elapse(4.0)
    stage.say("shell", "complete_reply", {"matches": []}, first)
    stage.status("idle", first)
    stage.status("busy", second)
    stage.say("shell", "inspect_reply", {"status": "ok"}, second)
    stage.status("idle", second)
    assert ("inspect_reply", "ok") in kinds(wire)
    await elapse(60.0)
    assert (stage.kernel.interrupts, stage.kernel.killed) == (0, False)


@on_manual_time
async def test_a_foreign_kernel_that_knows_no_such_request_is_left_alone() -> None:
    stage = Stage(execution_timeout=5.0)
    one, wire = stage.come()
    stage.kernel.is_ours = False
    stage.ask(one, "history_request", name="h")
    await elapse(60.0)
    assert not stage.kernel.killed
    assert kinds(wire)[-1] == ("history_reply", "KernelBusy")
    assert repr(stage.exchange).count("0 open")


@on_manual_time
async def test_what_is_asked_beside_a_cell_is_answered_in_the_time_of_one() -> None:
    stage = Stage(execution_timeout=5.0)
    one, wire = stage.come()
    stage.ask(one, "debug_request", channel="control", name="d", command="evaluate")
    stage.status("busy", stage.kernel.channels.passed[0][3])
    await elapse(5.0)
    assert kinds(wire)[-1] == ("debug_reply", "KernelBusy")
    assert repr(stage.exchange).count("0 open")
    await elapse(60.0)
    assert (stage.kernel.interrupts, stage.kernel.killed) == (0, False)


@on_manual_time
async def test_what_gets_no_reply_is_forgotten_once_it_is_idle() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.ask(one, "nonsense_request", name="n")
    name = stage.kernel.channels.passed[0][3]
    stage.status("busy", name)
    stage.status("idle", name)
    await elapse(DOUBT)
    assert repr(stage.exchange).count("0 open")
    assert kinds(wire) == [("status", "busy"), ("status", "idle")]


@on_manual_time
async def test_replies_that_wait_for_their_idle_are_bounded_in_number() -> None:
    stage = Stage()
    one, wire = stage.come()
    other, _ = stage.come("b")
    for number in range(MOST_HELD + 2):
        who = one if number < MOST_HELD // 2 else other
        stage.ask(who, "complete_request", name=f"c{number}", code="a")
        stage.say("shell", "complete_reply", {"matches": []}, stage.kernel.channels.passed[-1][3])
    assert [told[2] for told in wire.told] == ["c0", "c1"]  # the oldest, without theirs


@on_manual_time
async def test_replies_that_wait_for_their_idle_are_bounded_in_bytes() -> None:
    stage = Stage()
    one, wire = stage.come()
    large = {"matches": ["x" * (MOST_BYTES // 3)]}
    for number in range(3):
        stage.ask(one, "complete_request", name=f"c{number}", code="a")
        stage.say("shell", "complete_reply", large, stage.kernel.channels.passed[-1][3])
    assert [told[2] for told in wire.told] == ["c0"]
    stage.status("idle", stage.kernel.channels.passed[1][3])
    assert [told[1] for told in wire.told] == ["status", "complete_reply"]
