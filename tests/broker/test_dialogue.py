"""What a cell asks of the clients of its session: a kernel that asks what a test has it ask."""

from __future__ import annotations

import pytest

from broker.dialogue import PROMPT
from broker.errors import NotRunning
from broker.execution import OutputLimits
from broker.requests import Batch, Cell, InputReply, Tools
from tests.broker.pool_fakes import on_manual_time
from tests.broker.session_fakes import FakeClient, Scene
from tests.broker.talking import CITY, Talking

# Input


@on_manual_time
async def test_all_clients_see_the_question_and_the_first_answer_counts() -> None:
    scene, other = Talking(), FakeClient()
    scene.session.attach(other)
    scene.ask(password=True)
    for client in (scene.client, other):
        asked = client.events[-1]
        assert (asked["type"], asked["id"], asked["prompt"]) == ("input_request", "a", "name? ")
        assert asked["password"] is True
    scene.dialogue.answer(InputReply(value="Ada"))
    assert scene.replies == [("input_reply", {"value": "Ada", "asked": "7"})]
    with pytest.raises(NotRunning):
        scene.dialogue.answer(InputReply(value="Bob"))


@on_manual_time
async def test_no_value_is_the_end_of_input() -> None:
    scene = Talking()
    scene.ask()
    scene.dialogue.answer(InputReply(value=None))
    assert scene.replies[0][1]["value"] == "\x04"


@on_manual_time
async def test_what_was_answered_is_in_no_event() -> None:
    scene = Talking()
    scene.ask(password=True)
    scene.dialogue.answer(InputReply(value="hunter2"))
    scene.kernel.end()
    late = FakeClient()
    scene.session.attach(late, 0)
    assert "hunter2" not in repr(late.events) + repr(scene.session) + repr(scene.session.work)


@on_manual_time
async def test_an_execution_whose_owner_cannot_answer_is_refused_at_once() -> None:
    scene = Talking(answers=False)
    scene.ask()
    assert scene.replies[0][1]["value"] == "\x04"
    assert "nobody can answer" in scene.replies[0][1]["refused"]
    assert "input_request" not in scene.client.kinds


@on_manual_time
async def test_an_adopted_kernel_that_asks_is_refused_at_once() -> None:
    scene = Scene(bound=False)
    scene.session.bind(scene.kernel, 3, "warm", "")
    scene.kernel.say("stdin", "input_request", {"prompt": ""}, "the last broker's")
    assert "refused" in scene.kernel.channels.answers[0][1]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("prompt", "told"),
    [("p" * (PROMPT + 5), "p" * PROMPT + " [5 characters left out]"), (7, ""), (None, ""),
     ("\x1b[31mred\x1b[0m", "red"), (["x"] * 1000, "")],
)  # fmt: skip
async def test_a_prompt_is_bounded_plain_text(prompt: object, told: str) -> None:
    scene = Talking()
    scene.ask(prompt)
    assert scene.client.events[-1]["prompt"] == told


@on_manual_time
async def test_a_second_question_takes_the_place_of_the_first() -> None:
    scene = Talking()
    scene.ask("one")
    scene.ask("two", "8")
    scene.dialogue.answer(InputReply(value="x"))
    with pytest.raises(NotRunning):
        scene.dialogue.answer(InputReply(value="y"))


@on_manual_time
async def test_a_question_asked_again_is_told_once() -> None:
    scene = Talking()
    scene.ask()
    scene.ask()
    assert scene.client.kinds.count("input_request") == 1


@on_manual_time
async def test_an_answer_that_names_its_question_answers_no_other() -> None:
    scene = Talking()
    scene.ask("one")
    scene.ask("two", "8")
    with pytest.raises(NotRunning):
        scene.dialogue.answer(InputReply(value="x", question="7"))
    scene.dialogue.answer(InputReply(value="y", question="8"))
    assert scene.replies == [("input_reply", {"value": "y", "asked": "8"})]


@on_manual_time
async def test_questions_that_nobody_could_answer_have_a_bound() -> None:
    scene = Talking(output=OutputLimits(displays=5000), replay_events=100_000)
    for number in range(100):
        scene.ask(number=str(number))
    asked = scene.client.kinds.count("input_request")
    assert 1 < asked < 20
    assert len(scene.replies) == 100 - asked


@on_manual_time
async def test_the_end_of_the_cell_ends_its_question() -> None:
    scene = Talking()
    scene.ask()
    scene.kernel.end()
    with pytest.raises(NotRunning):
        scene.dialogue.answer(InputReply(value="x"))
    assert scene.dialogue.waiting() == []


@on_manual_time
async def test_a_thread_that_outlives_its_cell_is_told_that_nobody_answers_it() -> None:
    scene = Talking()
    scene.ask()
    scene.kernel.end()
    assert scene.replies == [
        ("input_reply", {"value": "\x04", "refused": "the execution has ended", "asked": "7"})
    ]


@on_manual_time
async def test_a_kernel_that_numbers_no_questions_is_told_nothing_at_the_end_of_its_cell() -> None:
    scene = Talking()
    scene.kernel.say("stdin", "input_request", {"prompt": ""})
    scene.kernel.end()
    assert scene.replies == []


@on_manual_time
async def test_what_a_cell_of_a_batch_asks_names_the_cell() -> None:
    scene = Scene()
    batch = Batch(id="b", cells=[Cell(code="input()")])
    scene.session.work.submit(batch, scene.client, answers=True)
    scene.kernel.begin()
    scene.session.work.dialogue.register(scene.client, Tools(id="t", tools=[CITY]))
    scene.kernel.say("stdin", "input_request", {"prompt": ""}, metadata={"asked": "7"})
    named = {"call": "1", "name": "weather"}
    scene.kernel.say("stdin", "broker_tool_call", {"args": [], "kwargs": {}}, metadata=named)
    told = {event["type"]: event.get("cell") for event in scene.client.events}
    assert (told["input_request"], told["tool_call"]) == (0, 0)


@on_manual_time
async def test_a_cell_that_asks_before_it_says_that_it_runs_is_kept_all_the_same() -> None:
    scene = Scene()
    scene.submit("a", answers=True)
    scene.kernel.say("stdin", "input_request", {"prompt": ""}, metadata={"asked": "7"})
    assert scene.client.kinds[-2:] == ["started", "input_request"]
    scene.kernel.end()
    assert [kept.told["code"] for kept in scene.session.transcript.unwritten] == ["code a"]


@on_manual_time
async def test_who_comes_meanwhile_is_told_what_waits() -> None:
    scene, late, later = Talking(), FakeClient(), FakeClient()
    scene.offer(CITY)
    scene.ask()
    scene.call()
    scene.session.attach(late)
    asked, call = late.events[0]["waiting"]
    shown = {"type": "input_request", "id": "a", "prompt": "name? ", "password": False}
    assert asked == {**shown, "question": "7"}
    shown = {"type": "tool_call", "id": "a", "call": scene.calls[0]["call"], "name": "weather"}
    assert call == shown
    scene.dialogue.answer(InputReply(value="x"))
    scene.result(value=1)
    scene.session.attach(later)
    assert "waiting" not in later.events[0]


@on_manual_time
async def test_a_question_outlives_the_client_that_ran_the_cell() -> None:
    scene, other = Talking(), FakeClient()
    scene.ask()
    scene.session.detach(scene.client)
    scene.session.attach(other)
    assert other.events[0]["waiting"][0]["type"] == "input_request"
    scene.dialogue.answer(InputReply(value="x"))
    assert scene.replies[0][1]["value"] == "x"


@on_manual_time
async def test_a_lost_kernel_takes_its_questions_and_calls_along() -> None:
    scene = Talking()
    scene.offer(CITY)
    scene.ask()
    scene.call()
    scene.session.drop_kernel("oom")
    assert scene.dialogue.waiting() == []
    with pytest.raises(NotRunning):
        scene.dialogue.answer(InputReply(value="x"))
    with pytest.raises(NotRunning):
        scene.result(value=1)
