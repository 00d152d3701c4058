"""What Jupyter's clients of a session are told, with a kernel that says what a test has it say."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson

from broker.execution import OutputLimits
from broker.faults import Bounds
from broker.jupyter.exchange import ABSENCE, Exchange
from broker.jupyter.follower import MOST_PACKETS, Follower
from broker.jupyter.frames import Packet, decode_legacy
from broker.jupyter.held import PATIENCE
from broker.requests import Execute, InputReply
from kernels.messages import Message
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.session_fakes import FakeChannels, FakeClient, Scene

INFO = {"status": "ok", "implementation": "ipython"}
Told = tuple[str, str, str, Any]  # channel, type, the parent's id, what matters of the content


class Passing(FakeChannels):
    """Channels that take every request; `passed` has those that were passed on."""

    def __init__(self) -> None:
        super().__init__()
        self.passed: list[tuple[str, str, dict[str, Any], str]] = []
        self.extras: list[dict[str, Any]] = []

    def next_id(self) -> str:
        return f"k_{len(self.sent) + len(self.passed) + 1}"

    def send(self, channel: str, kind: str, content: Any, **more: Any) -> str:
        if isinstance(content, bytes):
            if self.full:
                raise BlockingIOError("the kernel reads no more requests")
            self.passed.append((channel, kind, orjson.loads(content), more["msg_id"]))
            self.extras.append(more)
            return str(more["msg_id"])
        known = {name: more[name] for name in ("msg_id", "metadata") if name in more}
        return super().send(channel, kind, content, **known)


class FakeWire:
    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.flushed = 0
        self.ended: list[int] = []

    def say(self, packet: Packet) -> None:
        self.packets.append(packet)

    def dispatch(self) -> None:
        self.flushed = len(self.packets)

    def end(self, code: int, reason: str) -> None:
        self.ended.append(code)

    @property
    def told(self) -> list[Told]:
        """Return what it was told, and sent, since it was asked last."""
        assert self.flushed == len(self.packets), "something waits for a flush"
        packets, self.packets, self.flushed = self.packets, [], 0
        return [
            (one.channel, one.type, _name(orjson.loads(one.parent)), _short(one)) for one in packets
        ]


def _name(parent: dict[str, Any]) -> str:
    return str(parent.get("msg_id", ""))


def _short(packet: Packet) -> Any:
    content = orjson.loads(packet.content)
    for name in ("execution_state", "text", "ename", "status", "prompt", "matches"):
        if name in content:
            return content[name]
    return None


class Stage(Scene):
    """A session with a kernel, a native client, and as many Jupyter clients as a test wants."""

    def __init__(self, *, bound: bool = True, **limits: Any) -> None:
        super().__init__(bound=False, **limits)
        self.kernel.channels = Passing()
        self.exchange = Exchange(self.session)
        self.session.tap = self.exchange
        if bound:
            self.session.bind(self.kernel, 1, "fresh", "")

    def come(self, name: str = "a", *, runs: bool = True) -> tuple[Follower, FakeWire]:
        one, wire = self.exchange.join(name, runs=runs), FakeWire()
        one.wire = wire
        self.exchange.attach(one)
        return one, wire

    def ask(self, one: Follower, kind: str, *, name: str = "", **fields: Any) -> str:
        """Send a request, and return its id."""
        channel, buffers = fields.pop("channel", "shell"), fields.pop("buffers", ())
        extra = fields.pop("header", {})
        name = name or f"{kind}-{len(self.kernel.channels.sent)}"
        message = {"channel": channel, "header": {"msg_id": name, "msg_type": kind, **extra}}
        asked = decode_legacy(orjson.dumps(message | {"content": fields}).decode(), Bounds())
        self.exchange.serve(one, asked if not buffers else _with(asked, buffers))
        return name

    def run(self, one: Follower, name: str, **fields: Any) -> str:
        return self.ask(one, "execute_request", name=name, **{"code": name, **fields})

    def say(self, channel: str, kind: str, content: Any, parent: str | None = None) -> object:
        told = self.kernel.say(channel, kind, content, parent)
        if self.kernel.channels.turned is not None:
            self.kernel.channels.turn(channel)
        return told

    def status(self, state: str, parent: str | None = None) -> None:
        self.say("iopub", "status", {"execution_state": state}, parent)


def _with(asked: Any, buffers: Any) -> Any:
    from dataclasses import replace

    return replace(asked, buffers=buffers)


@on_manual_time
async def test_what_the_kernel_says_of_a_cell_belongs_to_the_clients_own_request() -> None:
    stage = Stage()
    one, wire = stage.come()
    _, other = stage.come("b")
    stage.run(one, "x", allow_stdin=True, user_expressions={"y": "y"}, store_history=False)
    [content] = stage.kernel.channels.contents
    assert (content["code"], content["allow_stdin"]) == ("x", True)
    assert (content["user_expressions"], content["store_history"]) == ({"y": "y"}, False)
    stage.status("busy")
    stage.say("iopub", "stream", {"name": "stdout", "text": "hello"})
    stage.status("idle")
    published = [
        ("iopub", "status", "x", "busy"),
        ("iopub", "stream", "x", "hello"),
        ("iopub", "status", "x", "idle"),
    ]
    assert wire.told == published
    stage.say("shell", "execute_reply", {"status": "ok"})
    assert wire.told == [("shell", "execute_reply", "x", "ok")]
    assert other.told == published  # and not the reply
    assert stage.client.dones == {"x": "ok"}  # a native client follows the same execution


@on_manual_time
async def test_a_reply_follows_all_that_was_published_before_it() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.run(one, "x")
    stage.status("busy")
    stage.say("shell", "execute_reply", {"status": "ok"})
    stage.say("iopub", "stream", {"name": "stdout", "text": "late"})
    stage.status("idle")
    assert [told[1] for told in wire.told] == ["status", "stream", "status", "execute_reply"]


@on_manual_time
async def test_a_reply_waits_for_no_idle_that_does_not_come() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.run(one, "x")
    stage.say("shell", "execute_reply", {"status": "ok"})
    assert wire.told == []
    await elapse(PATIENCE)
    assert wire.told == [("shell", "execute_reply", "x", "ok")]


@on_manual_time
async def test_what_others_run_is_seen_under_its_own_id() -> None:
    stage = Stage()
    _, wire = stage.come()
    stage.submit("native")
    stage.say("iopub", "stream", {"name": "stdout", "text": "theirs"})
    assert wire.told == [("iopub", "stream", "native", "theirs")]
    stage.say("iopub", "stream", {"name": "stdout", "text": "a thread's"}, "k_0")
    assert wire.told == [("iopub", "stream", "k_0", "a thread's")]


@on_manual_time
async def test_cells_behind_one_that_failed_are_told_aborted() -> None:
    stage = Stage()
    one, wire = stage.come()
    for name in ("x", "y"):
        stage.run(one, name)
    stage.status("busy")
    stage.status("idle")
    stage.say("shell", "execute_reply", {"status": "error", "ename": "E", "evalue": ""})
    assert wire.told[2:] == [
        ("shell", "execute_reply", "x", "E"),
        ("iopub", "status", "y", "busy"),
        ("iopub", "status", "y", "idle"),
        ("shell", "execute_reply", "y", "aborted"),
    ]


@on_manual_time
async def test_what_is_refused_is_an_error_in_the_reply() -> None:
    stage = Stage(queue=1)
    one, wire = stage.come()
    for name in ("x", "waits", "y"):
        stage.run(one, name)
    stage.run(one, "z", code=1)
    assert wire.told == [
        told
        for name, error in (("y", "QueueFull"), ("z", "BadMessage"))
        for told in (
            ("iopub", "status", name, "busy"),
            ("iopub", "error", name, error),
            ("iopub", "status", name, "idle"),
            ("shell", "execute_reply", name, error),
        )
    ]


@on_manual_time
async def test_a_lost_kernel_is_told_as_a_restart_with_its_reason() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.run(one, "x")
    stage.status("busy")
    stage.ask(one, "complete_request", name="c", code="a", cursor_pos=1)
    _ = wire.told
    needed = stage.host.needed
    stage.session.drop_kernel("oom")
    told = wire.told
    assert told == [
        ("iopub", "error", "x", "KernelLost"),
        ("iopub", "status", "x", "idle"),
        ("shell", "execute_reply", "x", "KernelLost"),
        ("iopub", "status", "c", "busy"),
        ("iopub", "status", "c", "idle"),
        ("shell", "complete_reply", "c", "KernelBusy"),
        ("iopub", "stream", "", "the kernel has ended: oom; its variables are gone\n"),
        ("iopub", "status", "", "restarting"),
    ]
    assert stage.host.needed == needed + 1
    kernel = stage.kernel = type(stage.kernel)("k2")
    kernel.channels = Passing()
    stage.session.bind(kernel, 2, "lost", "oom")
    assert wire.told == [("iopub", "status", "", "idle")]


@on_manual_time
async def test_other_requests_are_passed_on_and_answered_to_who_asked() -> None:
    stage = Stage()
    one, wire = stage.come()
    _, other = stage.come("b")
    stage.ask(one, "complete_request", name="c", code="a", header={"subshell_id": "s"})
    [(channel, kind, content, name)] = stage.kernel.channels.passed
    assert (channel, kind, content) == ("shell", "complete_request", {"code": "a"})
    assert stage.kernel.channels.extras[0]["subshell"] == "s"
    stage.status("busy", name)
    stage.say("shell", "complete_reply", {"matches": ["abc"]}, name)
    stage.status("idle", name)
    published = [("iopub", "status", "c", "busy"), ("iopub", "status", "c", "idle")]
    assert wire.told == [*published, ("shell", "complete_reply", "c", ["abc"])]
    assert other.told == published
    assert stage.say("shell", "complete_reply", {"matches": []}, name) is False  # it is answered


@on_manual_time
async def test_comm_messages_carry_buffers_and_have_no_reply() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.ask(one, "comm_msg", name="c", data={}, buffers=(b"\0",))
    name = stage.kernel.channels.passed[0][3]
    assert stage.kernel.channels.extras[0]["buffers"] == (b"\0",)
    receiver = stage.kernel.channels.receiver
    assert receiver is not None
    receiver("iopub", Message({"msg_type": "comm_msg"}, {"msg_id": name}, {}, b"{}", (b"\1",)))
    one.dispatch()
    assert [(packet.type, packet.buffers) for packet in wire.packets] == [("comm_msg", (b"\1",))]
    stage.status("idle", name)
    assert stage.exchange.serve(one, decode_legacy(_info("i"), Bounds())) is None
    assert len(stage.exchange._passage) == 1  # the question what the kernel is, and no more


def _info(name: str) -> str:
    return orjson.dumps({"msg_id": name, "msg_type": "kernel_info_request"}).decode()


@on_manual_time
async def test_what_a_kernel_is_is_asked_once() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.ask(one, "kernel_info_request", name="i")
    [(channel, kind, _, name)] = stage.kernel.channels.passed
    assert (channel, kind) == ("control", "kernel_info_request")  # answered beside a cell
    stage.say("control", "kernel_info_reply", INFO, name)
    stage.status("idle", name)
    assert wire.told == [
        ("shell", "kernel_info_reply", "i", "ok"),
        ("iopub", "status", "i", "idle"),
    ]
    stage.submit("native")
    stage.ask(one, "kernel_info_request", name="j")
    assert len(stage.kernel.channels.passed) == 1
    assert wire.told == [
        ("iopub", "status", "j", "busy"),
        ("iopub", "status", "j", "idle"),
        ("shell", "kernel_info_reply", "j", "ok"),
        ("iopub", "status", "", "busy"),  # with what another client runs
    ]


@on_manual_time
async def test_what_a_kernel_said_before_it_was_anybodys_is_told_while_it_runs_a_cell() -> None:
    stage = Stage(bound=False)
    stage.kernel.info = orjson.dumps(INFO)
    stage.session.bind(stage.kernel, 1, "fresh", "")
    stage.submit("native")
    one, wire = stage.come()
    stage.ask(one, "kernel_info_request", name="i")
    assert stage.kernel.channels.passed == []
    assert wire.told == [
        ("iopub", "status", "i", "busy"),
        ("iopub", "status", "i", "idle"),
        ("shell", "kernel_info_reply", "i", "ok"),
        ("iopub", "status", "", "busy"),  # with the cell
    ]


@on_manual_time
async def test_what_comes_before_there_is_a_kernel_is_told_once_there_is_one() -> None:
    stage = Stage(bound=False)
    stage.kernel.info = orjson.dumps(INFO)
    one, wire = stage.come()
    stage.ask(one, "kernel_info_request", name="i")
    assert wire.told == []
    stage.session.bind(stage.kernel, 1, "fresh", "")
    assert stage.kernel.channels.passed == []
    assert ("shell", "kernel_info_reply", "i", "ok") in wire.told


@on_manual_time
async def test_what_an_adopted_kernel_answers_the_broker_its_clients_need_not_ask() -> None:
    stage = Stage(bound=False)
    stage.session.bind(stage.kernel, 1, "warm", "")
    stage.say("shell", "kernel_info_reply", INFO, "info")
    stage.status("idle", "info")
    one, wire = stage.come()
    stage.ask(one, "kernel_info_request", name="i")
    assert stage.kernel.channels.passed == []
    assert ("shell", "kernel_info_reply", "i", "ok") in wire.told


@on_manual_time
async def test_what_comes_before_there_is_a_kernel_is_asked_once_there_is_one() -> None:
    stage = Stage(bound=False)
    one, wire = stage.come()
    stage.ask(one, "comm_info_request", name="c")
    assert stage.host.needed == 1
    stage.session.bind(stage.kernel, 1, "fresh", "")
    assert [kind for _, kind, *_ in stage.kernel.channels.passed] == ["comm_info_request"]
    assert wire.told == [("iopub", "status", "", "idle")]


@on_manual_time
async def test_the_owner_of_a_cell_is_asked_for_input_and_answers() -> None:
    stage = Stage()
    one, wire = stage.come()
    _, other = stage.come("b")
    stage.run(one, "x", allow_stdin=True)
    stage.status("busy")
    _ = wire.told, other.told
    stage.say("stdin", "input_request", {"prompt": "name? ", "password": False})
    assert wire.told == [("stdin", "input_request", "x", "name? ")]
    assert other.told == []
    stage.ask(one, "input_reply", channel="stdin", value="Ada")
    assert stage.kernel.channels.answers == [("input_reply", {"value": "Ada"})]


@on_manual_time
async def test_who_only_watches_sees_all_and_runs_nothing() -> None:
    stage = Stage()
    one, wire = stage.come(runs=False)
    for kind in ("execute_request", "complete_request", "interrupt_request"):
        stage.ask(one, kind, name=kind, code="1")
    assert [told for told in wire.told if told[0] == "shell"] == [
        ("shell", kind.replace("request", "reply"), kind, "Forbidden")
        for kind in ("execute_request", "complete_request", "interrupt_request")
    ]
    assert (stage.kernel.codes, stage.kernel.channels.passed) == ([], [])


@on_manual_time
async def test_who_comes_back_gets_what_was_said_meanwhile() -> None:
    stage = Stage()
    one, _ = stage.come()
    stage.run(one, "x")
    stage.run(one, "y")
    stage.exchange.leave(one, comes_back=True)
    stage.status("busy")
    stage.say("iopub", "stream", {"name": "stdout", "text": "meanwhile"})
    stage.status("idle")
    stage.say("shell", "execute_reply", {"status": "error", "ename": "E", "evalue": ""})
    back, wire = stage.come()
    assert back is one
    assert wire.told == [
        ("iopub", "status", "x", "busy"),
        ("iopub", "stream", "x", "meanwhile"),
        ("iopub", "status", "x", "idle"),
        ("shell", "execute_reply", "x", "E"),
        ("iopub", "status", "y", "busy"),
        ("iopub", "status", "y", "idle"),
        ("shell", "execute_reply", "y", "aborted"),
    ]


@on_manual_time
async def test_what_is_kept_for_who_is_away_is_bounded_and_so_is_their_time() -> None:
    stage = Stage()
    one, _ = stage.come()
    stage.exchange.leave(one, comes_back=True)
    for _ in range(MOST_PACKETS + 5):
        stage.say("iopub", "stream", {"name": "stdout", "text": "."}, "other")
    _, wire = stage.come()
    first, *rest = wire.told
    assert first[3] == "[5 messages came while nobody was connected, and are not kept]\n"
    assert len(rest) == MOST_PACKETS
    stage.exchange.leave(one, comes_back=True)
    await elapse(ABSENCE)
    assert stage.session.tap is None
    again, wire = stage.come()
    assert (again is one, wire.told) == (False, [])


@on_manual_time
async def test_a_flood_about_one_request_is_cut_off_and_its_end_is_told() -> None:
    stage = Stage(output=OutputLimits(text=0, display=4000, displays=10_000))
    one, wire = stage.come()
    stage.run(one, "x")
    stage.status("busy")
    stage.say("iopub", "display_data", {"data": {"text/plain": "x" * 20_000}, "metadata": {}})
    for _ in range(20):
        stage.say("iopub", "comm_msg", {"data": "x" * 1000})
    assert stage.say("iopub", "comm_msg", {"data": "x" * 1000}) is False  # it stands for nothing
    stage.say("iopub", "display_data", {"data": {"text/plain": "x" * 20_000}, "metadata": {}})
    stage.status("idle")
    stage.say("shell", "execute_reply", {"status": "ok"})
    told = wire.told
    kinds = [kind for _, kind, *_ in told]
    assert kinds.count("comm_msg") == 7
    assert [text for _, kind, _, text in told if kind == "stream"] == [
        "[output of 20,040 bytes left out]\n",
        "[more than 10,000 bytes of output: the rest is left out]\n",
    ]
    assert [told[1:3] for told in told[-2:]] == [("status", "x"), ("execute_reply", "x")]


@on_manual_time
async def test_requests_that_are_open_at_once_are_bounded() -> None:
    stage = Stage()
    one, wire = stage.come()
    clients = [one, *(stage.come(name)[0] for name in "bcde")]
    for number in range(65):
        stage.ask(one, "complete_request", name=str(number), code="a")
    assert len(stage.kernel.channels.passed) == 64  # a client's share
    assert ("shell", "complete_reply", "64", "QueueFull") in wire.told
    for client in clients:
        for number in range(64):
            stage.ask(client, "complete_request", name=f"more-{number}", code="a")
    assert len(stage.kernel.channels.passed) == 256


@on_manual_time
async def test_an_interrupt_reaches_what_runs_or_what_was_passed_on() -> None:
    stage = Stage()
    one, wire = stage.come()
    stage.ask(one, "interrupt_request", channel="control", name="i")
    assert stage.kernel.interrupts == 0
    assert wire.told == [("control", "interrupt_reply", "i", "ok")]
    stage.ask(one, "complete_request", code="a")
    stage.exchange.interrupt()
    assert stage.kernel.interrupts == 1


@on_manual_time
async def test_native_and_jupyter_clients_answer_the_same_question() -> None:
    stage = Stage()
    one, _ = stage.come()
    stage.run(one, "x", allow_stdin=True)
    stage.status("busy")
    stage.say("stdin", "input_request", {"prompt": "", "password": True})
    stage.session.work.dialogue.answer(InputReply(value="native"))
    stage.ask(one, "input_reply", channel="stdin", value="too late")
    assert stage.kernel.channels.answers == [("input_reply", {"value": "native"})]


@on_manual_time
async def test_a_session_that_ends_ends_its_jupyter_clients() -> None:
    stage = Stage()
    _, wire = stage.come()
    stage.session.close(4404, "killed")
    assert wire.ended == [4404]


@on_manual_time
async def test_an_execution_whose_id_is_taken_gets_another() -> None:
    stage = Stage()
    one, wire = stage.come()
    client = FakeClient()
    stage.session.attach(client)
    stage.session.work.submit(Execute(id="x", code="1"), client)
    stage.run(one, "x")
    stage.kernel.end()
    await asyncio.sleep(0)
    stage.status("busy")
    stage.status("idle")
    stage.say("shell", "execute_reply", {"status": "ok"})
    assert wire.told[-1] == ("shell", "execute_reply", "x", "ok")


@on_manual_time
async def test_what_was_passed_on_has_no_more_time_than_a_cell() -> None:
    stage = Stage(execution_timeout=10.0, interrupt_grace=2.0)
    one, _ = stage.come()
    stage.ask(one, "comm_msg", name="c")
    name = stage.kernel.channels.passed[0][3]
    await elapse(11)
    assert stage.kernel.interrupts == 0  # it has not begun: something else may run
    stage.status("busy", name)
    await elapse(10)
    assert (stage.kernel.interrupts, stage.kernel.killed) == (1, False)
    await elapse(2)
    assert stage.kernel.killed


@on_manual_time
async def test_what_was_passed_on_and_ends_in_time_ends_nothing_else() -> None:
    stage = Stage(execution_timeout=10.0)
    one, _ = stage.come()
    for kind in ("comm_msg", "complete_request"):
        stage.ask(one, kind, name=kind, code="a")
        name = stage.kernel.channels.passed[-1][3]
        stage.status("busy", name)
        stage.status("idle", name)
        stage.say("shell", "complete_reply", {}, name)
    await elapse(20)
    assert (stage.kernel.interrupts, stage.kernel.killed) == (0, False)


@on_manual_time
async def test_a_kernel_that_ends_by_itself_is_replaced_when_somebody_asks_for_something() -> None:
    stage = Stage()
    one, _ = stage.come()
    needed = stage.host.needed
    for generation in range(2, 12):
        stage.session.drop_kernel("exit 1")
        stage.kernel = type(stage.kernel)(f"k{generation}")
        stage.kernel.channels = Passing()
        stage.session.bind(stage.kernel, generation, "lost", "exit 1")
    assert stage.host.needed == needed
    stage.run(one, "x")
    stage.session.drop_kernel("exit 1")
    assert stage.host.needed == needed + 1


@on_manual_time
async def test_the_end_of_a_session_is_no_restart() -> None:
    stage = Stage()
    _, wire = stage.come()
    needed = stage.host.needed
    stage.session.drop_kernel("killed", last=True)
    stage.session.close(4404, "killed")
    assert (wire.told, wire.ended, stage.host.needed) == ([], [4404], needed)


@on_manual_time
async def test_what_an_adopted_kernel_has_said_is_told_again_for_a_while_to_who_may_come_back() -> (
    None
):
    stage = Stage(bound=False)
    stage.session.bind(stage.kernel, 1, "warm", "")
    event = {"type": "stream", "id": "cell", "name": "stdout", "text": "after"}
    stage.session.audience.emit(event)

    def told_to(name: str, *, comes_back: bool) -> list[Told]:
        one, wire = stage.exchange.join(name, runs=True, comes_back=comes_back), FakeWire()
        one.wire = wire
        stage.exchange.attach(one)
        return wire.told

    assert told_to("nameless", comes_back=False) == []
    assert told_to("named", comes_back=True) == [("iopub", "stream", "cell", "after")]
    await elapse(ABSENCE + 1)
    assert told_to("late", comes_back=True) == []
