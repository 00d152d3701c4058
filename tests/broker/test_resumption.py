"""A session whose broker was killed, taken up by the next: on a clock set by hand."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from broker.errors import BadMessage, NotRunning
from broker.marks import KEPT, UNKEPT, WITHHELD, Mark, Running
from broker.notebook import notebook
from broker.quotas import UNBOUND, Quotas
from broker.requests import Batch, Call, Configure, Execute, InputReply, Tool, ToolResult, Tools
from broker.requests import Cell as Asked
from broker.resumption import ASKED, SETTLE, UNTOLD
from broker.roles import SessionLimits
from broker.session import Session
from broker.settings import Tenant
from broker.transcript import CONCEALED, RESUMED, Cell
from kernels.spec import Usage
from kernels.state import SessionState
from tests.broker.pool_fakes import elapse, now, on_manual_time
from tests.broker.session_fakes import FakeClient, FakeHost, FakeKernel
from tests.broker.test_deadline import BusyKernel

TOOL_GRACE = 4.0
CELL = "old_7"  # the kernel's id of what the last broker had it run


class Again:
    """The session in the second broker, with what the first has left."""

    def __init__(
        self,
        mark: Mark,
        *,
        generation: int = 1,
        bound: bool = True,
        kernel: FakeKernel | None = None,
        tenant: Tenant = UNBOUND,
        **limits: Any,
    ) -> None:
        self.host = FakeHost()
        self.host.quotas = Quotas(tenant, clock=now)
        self.session = Session(
            "acme",
            "chat",
            "python",
            limits=SessionLimits(queue=3, interrupt_grace=2.0, tool_grace=TOOL_GRACE, **limits),
            gate=asyncio.Lock(),
            host=self.host,
            mark=mark,
        )
        self.client = FakeClient()
        self.kernel = FakeKernel() if kernel is None else kernel
        if bound:
            self.session.bind(self.kernel, generation, "warm", "")
            self.session.attach(self.client, 40)

    def say(self, channel: str, kind: str, content: Any) -> None:
        self.kernel.say(channel, kind, content, parent=CELL)

    def is_free(self) -> None:
        self.kernel.say("shell", "kernel_info_reply", {}, parent="info")

    def has_said_all(self) -> None:
        self.kernel.say("iopub", "status", {"execution_state": "idle"}, parent="info")


def left(
    *,
    started: bool = True,
    timeout: float = 0,
    running: bool = True,
    answers: bool = False,
    kept: int = KEPT,
    visits: bool = False,
) -> Mark:
    """Return the mark of a session of which 40 events were numbered, in the middle of a cell."""
    mark = Mark()
    mark.bound(1, fresh=True)
    mark.taking(11)
    mark.number(40)
    if running:
        asked = Running("cell", CELL, time.time(), timeout, answers=answers)
        mark.run(asked._replace(kept=kept, visits=visits))
        if started:
            mark.told("started")
    return mark


@on_manual_time
async def test_the_running_cell_goes_on_under_its_own_id_and_has_one_done() -> None:
    again = Again(left())
    assert again.kernel.channels.caught_up_from == [11]
    assert again.client.told("open")[0] == (["cell"],)
    assert again.session.state is SessionState.BUSY
    again.say("iopub", "stream", {"name": "stdout", "text": "rest"})
    again.say("shell", "execute_reply", {"status": "error"})
    again.say("iopub", "status", {"execution_state": "idle"})
    again.is_free()
    await elapse(ASKED * SETTLE)
    assert again.client.kinds == ["session", "session", "stream", "done"]
    assert [event["seq"] for event in again.client.events] == [41, 41, 42, 43]
    assert again.client.dones == {"cell": "error"}
    assert again.client.events[-1]["state"] == "warm"
    assert (again.session.state, again.session.busy) == (SessionState.READY, False)


@on_manual_time
async def test_a_beginning_that_was_not_told_is_told_with_the_kernels_code() -> None:
    again = Again(left(started=False))
    again.say("iopub", "execute_input", {"execution_count": 4, "code": "x = 1"})
    again.say("iopub", "execute_input", {"execution_count": 4, "code": "x = 1"})
    assert again.client.told("execution_count", "code") == [(4, "x = 1")]


@on_manual_time
async def test_a_cell_that_ended_without_saying_how_is_told_as_lost_with_the_reason() -> None:
    again = Again(left())
    again.is_free()
    assert again.client.dones == {}  # what tells of it may still be on its way
    again.has_said_all()
    (done,) = [event for event in again.client.events if event["type"] == "done"]
    assert (done["status"], done["reason"], done["generation"]) == ("lost", UNTOLD, 1)
    assert again.session.state is SessionState.READY


@on_manual_time
async def test_a_reply_without_its_end_on_iopub_still_tells_how_the_cell_ended() -> None:
    for first, second in ((Again.is_free, Again.has_said_all), (Again.has_said_all, Again.is_free)):
        again = Again(left())
        again.say("shell", "execute_reply", {"status": "ok"})
        first(again)
        assert again.client.dones == {}
        second(again)
        assert again.client.dones == {"cell": "ok"}


@on_manual_time
async def test_outputs_that_come_long_after_the_reply_come_before_the_done() -> None:
    again = Again(left())
    again.say("shell", "execute_reply", {"status": "ok"})
    again.is_free()
    await elapse(5 * SETTLE)
    again.say("iopub", "stream", {"name": "stdout", "text": "tail"})
    again.say("iopub", "status", {"execution_state": "idle"})
    assert again.client.kinds == ["session", "session", "stream", "done"]
    assert again.client.events[2]["id"] == "cell"
    assert again.client.dones == {"cell": "ok"}
    await elapse(ASKED * SETTLE)
    assert again.client.kinds[4:] == []


@on_manual_time
async def test_a_kernel_that_never_says_that_it_said_all_is_told_as_lost_and_keeps_nobody() -> None:
    again = Again(left())
    again.say("shell", "execute_reply", {"status": "ok"})
    again.is_free()
    await elapse((ASKED - 1) * SETTLE)
    assert again.client.dones == {}
    await elapse(SETTLE)
    (done,) = [event for event in again.client.events if event["type"] == "done"]
    assert (done["status"], done["reason"]) == ("lost", UNTOLD)
    assert again.session.state is SessionState.READY


@on_manual_time
async def test_while_nobody_takes_more_the_end_of_what_is_said_is_waited_for() -> None:
    again = Again(left())
    again.session.audience.hold(again.client)
    again.say("shell", "execute_reply", {"status": "ok"})
    again.is_free()
    await elapse(2 * ASKED * SETTLE)
    assert again.client.dones == {}
    again.session.audience.release(again.client)
    again.say("iopub", "stream", {"name": "stdout", "text": "tail"})
    again.has_said_all()
    assert again.client.kinds[2:] == ["stream", "done"]
    assert again.client.dones == {"cell": "ok"}


@on_manual_time
async def test_what_is_asked_meanwhile_waits_and_the_id_is_taken() -> None:
    again = Again(left())
    scene_request = {"code": "1"}
    with pytest.raises(BadMessage):
        again.session.work.submit(_execute("cell", **scene_request), again.client)
    again.session.work.submit(_execute("next", **scene_request), again.client)
    assert again.client.told("position") == [(1,)]
    again.say("shell", "execute_reply", {"status": "ok"})
    again.say("iopub", "status", {"execution_state": "idle"})
    assert again.kernel.codes == ["1"]


@on_manual_time
async def test_the_running_cell_can_be_interrupted_by_its_id() -> None:
    again = Again(left())
    with pytest.raises(NotRunning):
        again.session.work.interrupt("other")
    assert again.session.work.interrupt("cell") == "cell"
    assert again.kernel.interrupts == 1


@on_manual_time
async def test_an_error_that_was_told_before_the_death_is_not_told_again() -> None:
    raised = {"status": "error", "ename": "KeyError", "evalue": "a", "traceback": []}
    for told in (True, False):
        first = Again(mark := Mark(), bound=False)
        first.session.bind(first.kernel, 1, "fresh", "")
        first.session.attach(first.client)
        first.session.work.submit(_execute("cell", "{}['a']"), first.client)
        first.kernel.begin()
        if told:
            first.kernel.say("iopub", "error", raised)
        assert first.client.kinds.count("error") == told
        again = Again(mark, bound=False)
        again.session.bind(again.kernel, 1, "warm", "")
        again.session.attach(again.client)
        running = mark.running
        assert running is not None
        for channel, kind, content in (
            ("shell", "execute_reply", raised),
            ("iopub", "status", {"execution_state": "idle"}),
        ):
            again.kernel.say(channel, kind, content, parent=running.message)
        assert again.client.kinds.count("error") == (not told)
        assert again.client.dones == {"cell": "error"}


@on_manual_time
async def test_the_time_of_the_running_cell_goes_on() -> None:
    again = Again(left(timeout=5.0))
    await elapse(4.5)
    assert again.kernel.interrupts == 0
    await elapse(1.0)
    assert again.kernel.interrupts == 1


@on_manual_time
async def test_what_the_running_cell_has_used_counts_from_its_beginning() -> None:
    before = Again(Mark(), bound=False)
    before.kernel.is_metered, before.kernel.used = True, Usage(100.0)
    before.session.bind(before.kernel, 1, "fresh", "")
    before.session.work.submit(_execute("cell", "1"), before.client)
    again = Again(before.session.mark)
    again.kernel.spent = 107.5
    again.kernel.exited.set_result("exit 0")
    await elapse(1)
    assert again.host.cpu == [7.5]


def ask(again: Again) -> None:
    content = {"prompt": "name? ", "password": True}
    again.kernel.say("stdin", "input_request", content, CELL, {"asked": "7"})


@on_manual_time
async def test_a_question_that_waits_is_asked_for_and_told_with_a_number_of_its_own() -> None:
    again = Again(left(answers=True))
    assert again.kernel.channels.asked_again == 1
    ask(again)
    asked = again.client.events[-1]
    assert (asked["type"], asked["id"], asked["seq"]) == ("input_request", "cell", 42)
    assert (asked["prompt"], asked["password"], asked["question"]) == ("name? ", True, "7")
    again.session.work.dialogue.answer(InputReply(value="Ada"))
    assert again.kernel.channels.answers == [("input_reply", {"value": "Ada", "asked": "7"})]


@on_manual_time
async def test_a_question_of_what_nobody_could_answer_before_is_still_refused() -> None:
    again = Again(left())
    ask(again)
    assert "nobody can answer" in again.kernel.channels.answers[0][1]["refused"]


@on_manual_time
async def test_a_fresh_kernel_and_one_of_another_make_are_not_told_to_ask_again() -> None:
    again = Again(Mark(), bound=False)
    again.session.bind(again.kernel, 1, "fresh", "")
    foreign = Again(left(), bound=False)
    foreign.kernel.is_ours = False
    foreign.session.bind(foreign.kernel, 1, "warm", "")
    assert (again.kernel.channels.asked_again, foreign.kernel.channels.asked_again) == (0, 0)


@on_manual_time
async def test_what_a_kernel_ran_that_died_while_no_broker_lived_has_its_one_done() -> None:
    mark = left()
    again = Again(mark, bound=False)
    again.session.attach(again.client, 40)
    assert again.client.events[0]["open"] == ["cell"]
    again.session.bind(again.kernel, 2, "lost", "node_lost")
    told = [event for event in again.client.events if event["type"] == "done"]
    assert [(one["id"], one["status"], one["reason"]) for one in told] == [
        ("cell", "lost", "node_lost")
    ]
    assert mark.running is None
    again.session.detach(again.client)
    again.session.attach(again.client, 40)
    assert again.client.events[-1]["type"] == "done"
    assert again.session.work.open == []


@on_manual_time
async def test_a_kernel_that_reads_nothing_of_what_it_is_told_is_ended() -> None:
    again = Again(left(), bound=False)
    again.kernel.channels.deaf = True
    again.session.bind(again.kernel, 1, "warm", "")
    assert again.kernel.killed


def call(again: Again, number: str = "1", name: str = "weather") -> None:
    named = {"call": number, "name": name}
    again.kernel.say("stdin", "broker_tool_call", {"args": [], "kwargs": {}}, CELL, named)


def calls(again: Again) -> list[Any]:
    return [event for event in again.client.events if event["type"] == "tool_call"]


@on_manual_time
async def test_a_call_that_waits_is_handed_to_who_comes_back_under_the_same_id() -> None:
    before = Again(Mark(), bound=False)
    before.session.bind(before.kernel, 1, "fresh", "")
    before.session.attach(before.client)
    tools = Tools(id="t", tools=[Tool(name="weather")])
    before.session.work.dialogue.register(before.client, tools)
    before.session.work.submit(_execute("cell", "1"), before.client)
    call(before)
    again = Again(left())
    call(again)
    assert again.session.work.dialogue.waiting()[0]["name"] == "weather"
    assert calls(again) == []
    await elapse(TOOL_GRACE / 2)
    again.session.work.dialogue.register(again.client, tools)
    assert [one["call"] for one in calls(again)] == [one["call"] for one in calls(before)]
    again.session.work.dialogue.result(
        again.client, ToolResult(call=calls(again)[0]["call"], value=1)
    )
    await elapse(TOOL_GRACE)
    assert again.kernel.channels.answers == [("broker_tool_result", {"call": "1", "value": 1})]


@on_manual_time
async def test_a_call_that_nobody_comes_back_for_fails_after_the_grace_and_later_ones_at_once() -> (
    None
):
    again = Again(left())
    call(again)
    await elapse(TOOL_GRACE + 1)
    call(again, "2")
    told = [(one["call"], one["error"]["message"]) for _, one in again.kernel.channels.answers]
    assert told == [("1", "nobody has come back to serve weather"), ("2", "nobody serves weather")]


@on_manual_time
async def test_nobody_is_expected_back_once_the_cell_has_ended() -> None:
    again = Again(left())
    call(again)
    again.say("shell", "execute_reply", {"status": "ok"})
    again.say("iopub", "status", {"execution_state": "idle"})
    assert [one["error"]["name"] for _, one in again.kernel.channels.answers] == ["Cancelled"]
    again.session.work.submit(_execute("next", "1"), again.client)
    call(again, "2")
    assert again.kernel.channels.answers[-1][1]["error"]["name"] == "NotServed"


@on_manual_time
async def test_what_the_running_cell_has_used_before_counts() -> None:
    for cpu_time, hour, reason in ((3.0, 0.0, "cpu"), (0.0, 3.0, "quota"), (9.0, 3.0, "quota")):
        mark = left(running=False)
        mark.run(Running("cell", CELL, time.time(), 0, used=99.0))
        kernel = BusyKernel(1.0, before=100.0)  # a second was used under the last broker
        again = Again(mark, kernel=kernel, tenant=Tenant(cpu_hour=hour), cpu=1.0, cpu_time=cpu_time)
        await elapse(1.9)
        assert again.kernel.interrupts == 0
        await elapse(0.2)
        assert again.kernel.interrupts == 1
        again.say("shell", "execute_reply", {"status": "error"})
        again.say("iopub", "status", {"execution_state": "idle"})
        done = again.client.events[-1]
        assert (done["status"], done["reason"]) == ("timeout", reason)
        assert done["cpu"] == pytest.approx(3.1, abs=0.01)


@on_manual_time
async def test_what_is_not_known_to_have_been_used_before_counts_from_here() -> None:
    again = Again(left(), kernel=BusyKernel(1.0), cpu=1.0, cpu_time=3.0)
    await elapse(2.9)
    assert again.kernel.interrupts == 0
    await elapse(0.2)
    assert again.kernel.interrupts == 1
    metadata = {"cpu": 7.5}
    again.kernel.say("shell", "execute_reply", {"status": "ok"}, CELL, metadata)
    again.say("iopub", "status", {"execution_state": "idle"})
    assert again.client.events[-1]["cpu"] == 7.5  # as it says itself


@on_manual_time
async def test_what_has_been_used_before_a_cell_is_noted_with_it() -> None:
    mark, kernel = Mark(), BusyKernel(1.0)
    again = Again(mark, bound=False, kernel=kernel)
    again.session.bind(kernel, 1, "fresh", "")
    await elapse(2.0)
    again.session.work.submit(_execute("cell", "1"), again.client)
    assert mark.running is not None
    assert mark.running.used == pytest.approx(102.0, abs=0.01)


@on_manual_time
async def test_a_done_that_was_numbered_is_not_told_again() -> None:
    mark = left()
    mark.ending()
    again = Again(mark)
    assert again.client.told("open")[0] == (["cell"],)  # not numbered: it is still to come
    mark = left()
    mark.ending()
    mark.number(41)
    again = Again(mark)
    assert again.client.told("open")[0] == ([],)
    assert again.client.told("missed")[0] == ([41, 41],)


@on_manual_time
async def test_a_mark_of_another_generation_is_not_believed() -> None:
    again = Again(left(), generation=2)
    assert again.kernel.channels.caught_up_from == []
    welcome = again.client.events[0]
    assert welcome["open"] == []
    assert welcome["missed"][0] == 41
    assert welcome["missed"][1] > 10**15


@on_manual_time
async def test_a_client_with_another_brokers_numbers_is_told_that_all_since_is_missed() -> None:
    again = Again(Mark(), bound=False)
    again.session.attach(again.client, 900)
    welcome = again.client.events[0]
    assert welcome["missed"] == [901, welcome["seq"]]
    assert welcome["state"] == "lost"
    again.session.bind(again.kernel, 3, "lost", "node_lost")
    bound = again.client.events[1]
    assert (bound["seq"], "missed" in bound) == (welcome["seq"] + 1, False)


@on_manual_time
async def test_a_client_that_is_there_when_numbers_skip_is_told_what_it_missed() -> None:
    for later in (None, 900):
        again = Again(left(running=False), bound=False)
        again.session.attach(again.client, 40)
        if later is not None:  # another's numbers make them skip before there is a kernel
            again.session.attach(FakeClient(), later)
        again.session.bind(again.kernel, 5, "lost", "node_lost")
        told, bound = again.client.events
        assert told["seq"] == 40
        assert bound["missed"] == [41, bound["seq"] - 1]
        assert bound["seq"] > 10**15
        again.session.drop_kernel("restart")
        again.session.bind(FakeKernel("second"), 6, "lost", "restart")
        rest = again.client.events[2:]
        assert [event["seq"] - bound["seq"] for event in rest] == [1, 2]
        assert [event.get("missed") for event in rest] == [None, None]


@on_manual_time
async def test_a_session_that_ended_and_comes_again_is_told_as_lost_before_it_has_a_kernel() -> (
    None
):
    again = Again(left(running=False), bound=False)
    again.session.attach(again.client, 0)
    assert again.client.told("state", "generation") == [("lost", 1)]
    again.session.bind(again.kernel, 2, "lost", "closed")
    assert again.client.told("state", "generation")[1:] == [("lost", 2)]


@on_manual_time
async def test_a_new_session_is_told_as_fresh_before_it_has_a_kernel() -> None:
    again = Again(Mark(), bound=False)
    again.session.attach(again.client, 0)
    assert again.client.told("state", "generation") == [("fresh", 0)]


@on_manual_time
async def test_a_new_session_counts_from_one_and_its_next_kernel_goes_on() -> None:
    again = Again(Mark(), bound=False)
    again.session.attach(again.client)
    again.session.bind(again.kernel, 1, "fresh", "")
    again.session.drop_kernel("killed")
    again.session.bind(FakeKernel("second"), 2, "lost", "killed")
    assert [event["seq"] for event in again.client.events] == [1, 2, 3]


def _execute(request_id: str, code: str) -> Any:

    return Execute(id=request_id, code=code)


@on_manual_time
async def test_a_batch_that_was_cut_has_its_cells_done_and_then_its_own() -> None:
    mark = left(running=False)
    mark.run(Running("cells", CELL, time.time(), 0, cell=1, rest=2, started=True))
    again = Again(mark)
    again.say("iopub", "stream", {"name": "stdout", "text": "x"})
    again.say("shell", "execute_reply", {"status": "ok"})
    again.say("iopub", "status", {"execution_state": "idle"})
    told = [(1, "stream"), (1, "done"), (2, "done"), (3, "done")]
    assert again.client.told("cell", "type") == told
    cell, *rest, batch = again.client.events[-4:]
    assert cell["status"] == "ok"
    assert [(one["status"], one["reason"]) for one in rest] == [("lost", UNTOLD)] * 2
    assert {(one["id"], one["generation"]) for one in rest} == {("cells", 1)}
    assert {one["state"] for one in (cell, *rest, batch)} == {"warm"}
    assert (batch["type"], batch["id"], batch["status"]) == ("done", "cells", "lost")
    assert (batch["reason"], "cell" in batch) == (UNTOLD, False)


@on_manual_time
async def test_the_last_cell_of_a_batch_ends_it_as_it_ended() -> None:
    mark = left(running=False)
    mark.run(Running("cells", CELL, time.time(), 0, cell=2, rest=0, started=True))
    again = Again(mark)
    again.say("shell", "execute_reply", {"status": "ok"})
    again.say("iopub", "status", {"execution_state": "idle"})
    assert [event["status"] for event in again.client.events[-2:]] == ["ok", "ok"]
    assert again.session.mark.running is None


@on_manual_time
async def test_what_is_noted_of_a_cell_is_what_it_is() -> None:
    mark = Mark()
    again = Again(mark, bound=False)
    again.session.bind(again.kernel, 1, "fresh", "")
    batch = Batch(id="cells", cells=[Asked(code="1"), Asked(code="2", timeout=9.0)])
    again.session.work.submit(batch, again.client, answers=True)
    again.session.work.submit(Call(id="call", function="f"), again.client)
    noted = []
    for _ in range(3):
        running = mark.running
        assert running is not None
        noted.append((running.id, running.cell, running.rest, running.timeout, running.answers))
        again.kernel.begin()
        again.kernel.end()
    assert noted == [
        ("cells", 0, 1, 300.0, True),
        ("cells", 1, 0, 9.0, True),
        ("call", -2, 0, 300.0, False),
    ]
    assert mark.running is None


# What is kept of it


def failed(again: Again) -> list[Cell]:
    """Have the cell that runs say `rest` and fail; return what the transcript has then."""
    again.say("iopub", "stream", {"name": "stdout", "text": "rest"})
    again.say("iopub", "error", {"ename": "E", "evalue": "no", "traceback": []})
    again.say("shell", "execute_reply", {"status": "error", "execution_count": 7})
    again.say("iopub", "status", {"execution_state": "idle"})
    return [one.cell for one in again.session.transcript.unwritten]


@on_manual_time
async def test_the_cell_is_in_the_transcript_and_says_that_its_beginning_is_not() -> None:
    mark = left()
    began = mark.running.began if mark.running else 0
    [cell] = failed(Again(mark))
    assert (cell["id"], cell["status"], cell["count"]) == ("cell", "error", 7)
    assert (cell["code"], cell["resumed"], cell["started"]) == (RESUMED, True, began)
    assert [one["type"] for one in cell["outputs"]] == ["stream", "error"]
    assert cell["outputs"][0]["text"] == "rest"
    assert "origin" not in cell
    told = notebook([cell], session="s", kernelspec="python3", language="python")["cells"][0]
    assert (told["source"], told["metadata"]["broker"]["resumed"]) == (RESUMED, True)


@on_manual_time
async def test_of_a_cell_whose_beginning_was_not_told_nothing_is_missing() -> None:
    again = Again(left(started=False))
    again.say("iopub", "execute_input", {"execution_count": 7, "code": "x = 1"})
    [cell] = failed(again)
    assert (cell["code"], "resumed" in cell) == ("x = 1", False)
    assert [one["type"] for one in cell["outputs"]] == ["stream", "error"]


@pytest.mark.parametrize("started", [True, False])
def test_where_secrets_were_known_nothing_is_kept_that_may_show_them(started: bool) -> None:
    @on_manual_time
    async def scene() -> None:
        again = Again(left(kept=WITHHELD, started=started))
        again.say("iopub", "execute_input", {"execution_count": 7, "code": "x = 1"})
        [cell] = failed(again)
        assert (cell["code"], cell["outputs"], cell["status"]) == (CONCEALED, [], "error")
        assert cell["resumed"] is True

    scene()


@pytest.mark.parametrize("started", [True, False])
def test_what_was_to_leave_no_history_leaves_none(started: bool) -> None:
    @on_manual_time
    async def scene() -> None:
        again = Again(left(kept=UNKEPT, started=started))
        again.say("iopub", "execute_input", {"execution_count": 7, "code": "x = 1"})
        assert failed(again) == []

    scene()


@on_manual_time
async def test_a_visitors_cell_is_still_told_as_one() -> None:
    [cell] = failed(Again(left(visits=True)))
    assert cell["origin"] == "operator"


@on_manual_time
async def test_a_cell_that_went_with_its_kernel_stands_above_the_word_of_the_loss() -> None:
    again = Again(left(), bound=False)
    again.session.bind(again.kernel, 2, "lost", "node_lost")
    again.session.work.submit(Execute(id="next", code="x"), again.client)
    again.kernel.begin()
    again.kernel.end()
    first, second = [one.cell for one in again.session.transcript.unwritten]
    assert (first["id"], first["status"], first["reason"]) == ("cell", "lost", "node_lost")
    assert "lost" not in first
    assert (second["id"], second["lost"]) == ("next", "node_lost")


@pytest.mark.parametrize(
    ("fields", "env", "origin", "kept"),
    [
        ({}, {}, "", (KEPT, False)),
        ({}, {"MY_TOKEN": "not to be seen"}, "", (WITHHELD, False)),
        ({"env": {"MY_TOKEN": "not to be seen"}}, {}, "", (WITHHELD, False)),
        ({}, {"TZ": "Europe/Berlin"}, "", (KEPT, False)),
        ({"store_history": False}, {}, "", (UNKEPT, False)),
        ({"silent": True}, {}, "", (UNKEPT, False)),
        ({"silent": True}, {}, "operator", (KEPT, True)),
    ],
)
def test_how_much_a_later_broker_may_keep_is_noted_before_a_cell_begins(
    fields: dict[str, Any], env: dict[str, str | None], origin: str, kept: tuple[int, bool]
) -> None:
    @on_manual_time
    async def scene() -> None:
        again = Again(Mark(), bound=False)
        again.session.bind(again.kernel, 1, "fresh", "")
        if env:
            again.session.work.configure(Configure(id="c", env=env))
        again.session.work.submit(Execute(id="a", code="1", **fields), again.client, origin=origin)
        running = again.session.mark.running
        assert running is not None
        assert (running.kept, running.visits) == kept

    scene()
