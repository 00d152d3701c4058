"""What a session's questions are answered with, whatever the kernel says."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import questions
from broker.errors import BadMessage, BrokerError, KernelBusy, QueueFull
from broker.questions import Question, Questions
from broker.requests import Complete, Inspect, Variables
from broker.roles import SessionLimits
from kernels.messages import Message
from tests.broker.pool_fakes import elapse, on_manual_time

COMPLETE = Complete(id="c", code="abc.de", cursor=6)
INSPECT = Inspect(id="i", code="abc", cursor=3)
VARIABLES = Variables(id="v")


class FakeChannels:
    def __init__(self) -> None:
        self.sent: list[tuple[str, str, Any, str]] = []
        self.full = False

    def next_id(self) -> str:
        return f"q_{len(self.sent)}"

    def send(self, channel: str, kind: str, content: Any, *, msg_id: str) -> str:
        if self.full:
            raise BlockingIOError
        self.sent.append((channel, kind, content, msg_id))
        return msg_id


class FakeKernel:
    def __init__(self, *, ours: bool = True) -> None:
        self.channels: Any = FakeChannels()
        self.is_ours = ours
        self.interrupts = 0

    def interrupt(self, request_id: str = "") -> None:
        self.interrupts += 1


class Place:
    def __init__(self, kernel: FakeKernel | None) -> None:
        self.kernel: Any = kernel
        self.is_opening = kernel is None
        self.occupied = False
        self.limits = SessionLimits(questions=3)
        self.questions = Questions(self)

    async def ask(self, question: Question) -> Any:
        """Ask, and return when it has been sent, or has failed."""
        task = asyncio.ensure_future(self.questions.ask(question))
        for _ in range(5):
            await asyncio.sleep(0)
        return task

    def say(self, content: object, kind: str = "question_reply", parent: str = "") -> bool:
        parent = parent or self.kernel.channels.sent[-1][3]
        return self.questions.take(message(content, kind, parent))


def message(content: object, kind: str, parent: str) -> Message:
    return Message({"msg_type": kind}, {"msg_id": parent}, {}, orjson.dumps(content), ())


async def answered(question: Question, content: object) -> Any:
    place = Place(FakeKernel())
    task = await place.ask(question)
    assert place.say(content)
    return await task


async def refused(task: Any) -> BrokerError:
    with pytest.raises(BrokerError) as refusal:
        await task
    return refusal.value


async def test_our_kernels_are_asked_beside_what_they_run() -> None:
    place = Place(FakeKernel())
    place.occupied = True
    task = await place.ask(COMPLETE)
    channel, kind, content, _ = place.kernel.channels.sent[0]
    assert (channel, kind) == ("control", "question_request")
    assert content == {"kind": "complete", "code": "abc.de", "cursor": 6}
    place.say({"status": "ok", "matches": ["def"], "cursor_start": 4, "cursor_end": 6})
    assert await task == {"matches": ["def"], "cursor_start": 4, "cursor_end": 6}


async def test_other_kernels_are_asked_only_while_they_run_nothing() -> None:
    place = Place(FakeKernel(ours=False))
    task = await place.ask(INSPECT)
    assert place.kernel.channels.sent[0][:2] == ("shell", "inspect_request")
    place.say({"status": "ok", "found": True, "data": {"text/plain": "x"}}, "inspect_reply")
    assert await task == {"found": True, "data": {"text/plain": "x"}}
    place.occupied = True
    assert isinstance(await refused(await place.ask(COMPLETE)), KernelBusy)
    assert isinstance(await refused(await place.ask(VARIABLES)), BadMessage)
    assert len(place.kernel.channels.sent) == 1


@on_manual_time
async def test_a_kernel_that_says_nothing_is_busy_after_the_bound() -> None:
    place = Place(FakeKernel())
    task = await place.ask(VARIABLES)
    await elapse(1.9)
    assert not task.done()
    await elapse(0.2)
    assert isinstance(await refused(task), KernelBusy)
    assert place.kernel.interrupts == 0
    assert not place.say({"status": "ok", "variables": []})  # too late: it stands for nothing


@on_manual_time
async def test_an_idle_kernel_of_another_kind_is_interrupted_when_it_hangs() -> None:
    place = Place(FakeKernel(ours=False))
    task = await place.ask(COMPLETE)
    await elapse(2.1)
    assert isinstance(await refused(task), KernelBusy)
    assert place.kernel.interrupts == 1


async def test_open_questions_are_bounded_and_each_end_makes_room() -> None:
    place = Place(FakeKernel())
    tasks = [await place.ask(VARIABLES) for _ in range(place.limits.questions)]
    assert isinstance(await refused(await place.ask(VARIABLES)), QueueFull)
    place.say({"status": "ok", "variables": []})
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    another = await place.ask(VARIABLES)
    assert not another.done()
    place.questions.lose()
    for task in [*tasks[:-1], another]:
        assert isinstance(await refused(task), KernelBusy)


async def test_questions_wait_for_a_kernel_that_is_on_its_way() -> None:
    place = Place(None)
    task = await place.ask(VARIABLES)
    assert not task.done()
    place.kernel = FakeKernel()
    place.questions.begin()
    for _ in range(5):
        await asyncio.sleep(0)
    assert place.say({"status": "ok", "variables": []})
    assert await task == {"variables": []}


async def test_a_session_without_a_kernel_says_so_at_once() -> None:
    place = Place(None)
    place.is_opening = False
    assert isinstance(await refused(await place.ask(VARIABLES)), KernelBusy)


async def test_only_the_answer_to_an_open_question_is_one() -> None:
    place = Place(FakeKernel())
    task = await place.ask(VARIABLES)
    assert not place.say({"status": "ok"}, parent="q_77")
    assert not place.say({"status": "ok"}, kind="execute_reply")
    assert place.say({"status": "ok", "variables": []})
    assert not place.say({"status": "ok", "variables": [{"name": "forged"}]})
    assert await task == {"variables": []}


async def test_a_kernel_that_reads_nothing_is_busy() -> None:
    place = Place(FakeKernel())
    place.kernel.channels.full = True
    assert isinstance(await refused(await place.ask(VARIABLES)), KernelBusy)


@pytest.mark.parametrize("content", [{}, {"status": "busy"}, {"status": ["ok"]}])
async def test_an_answer_that_says_no_is_busy(content: object) -> None:
    place = Place(FakeKernel())
    task = await place.ask(VARIABLES)
    place.say(content)
    assert isinstance(await refused(task), KernelBusy)


async def test_an_answer_over_the_bound_is_not_decoded() -> None:
    place = Place(FakeKernel())
    task = await place.ask(VARIABLES)
    place.say({"status": "ok", "variables": ["x" * questions.MOST_BYTES]})
    assert isinstance(await refused(task), KernelBusy)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"name": "a", "type": "int", "preview": "1"}, True),
        ({"name": "a", "type": "int", "preview": "1", "more": 1, "size": -1, "length": True}, True),
        ({"name": "a", "type": "int", "preview": "\x1b[31m1", "shape": [1, "x"]}, True),
        ({"name": "", "type": "int", "preview": "1"}, False),
        ({"name": "a" * 300, "type": "int", "preview": "1"}, False),
        ({"name": "a", "type": 5, "preview": "1"}, False),
        ({"name": "a", "type": "int"}, False),
        ("a", False),
    ],
)
async def test_only_rows_of_the_right_form_are_told(row: object, told: bool) -> None:
    fields = await answered(VARIABLES, {"status": "ok", "variables": [row]})
    kept = [{"name": "a", "type": "int", "preview": "1"}]
    assert fields["variables"] == (kept if told else [])


async def test_a_row_keeps_shape_module_length_and_size() -> None:
    row = {"name": "a", "type": "ndarray", "preview": "", "module": "numpy", "shape": [2, 3]}
    row |= {"length": 2, "size": 48}
    fields = await answered(VARIABLES, {"status": "ok", "variables": [row], "more": 3})
    assert fields == {"variables": [row], "more": 3}


WORDS = st.sampled_from(
    ["", "ok", "name", "type", "preview", "shape", "text/plain", "\x1b[0m", "é"]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=8,
)
FIELDS = (
    *("matches", "types", "cursor_start", "cursor_end", "metadata", "found", "data"),
    *("variables", "more", "missing"),
)
fields_of_answers = st.dictionaries(
    st.sampled_from(
        [
            "matches",
            "types",
            "cursor_start",
            "cursor_end",
            "metadata",
            "found",
            "data",
            "variables",
            "more",
            "missing",
        ]
    ),
    json_values,
)


@given(content=fields_of_answers, question=st.sampled_from([COMPLETE, INSPECT, VARIABLES]))
def test_whatever_a_kernel_answers_has_the_form_of_an_answer(
    content: dict[str, Any], question: Question
) -> None:
    fields: Any = questions.CHECKS[type(question)](
        question, message(content, "question_reply", "q")
    )
    if isinstance(question, Complete):
        assert 0 <= fields["cursor_start"] <= fields["cursor_end"] <= len(question.code)
        assert all(isinstance(match, str) for match in fields["matches"])
        assert len(fields.get("types", fields["matches"])) == len(fields["matches"])
    elif isinstance(question, Inspect):
        assert isinstance(fields["found"], bool)
        assert all(isinstance(text, str) for text in fields["data"].values())
    else:
        assert all({"name", "type", "preview"} <= set(row) for row in fields["variables"])
