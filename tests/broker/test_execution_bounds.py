"""What an execution may put out: its bounds, and a kernel that means harm."""

from __future__ import annotations

from typing import Any
from unittest.mock import ANY

import pytest

from broker.batches import Order
from broker.execution import EVENT_COST, OutputLimits
from broker.outputs import HEAD, LINE, TAIL, Event, error_event
from kernels.errors import BadFrame
from kernels.messages import MAX_NESTED, Message
from tests.broker.kernel_words import DATA, KINDS, execution, idle, message, reply

# Bounds


def test_text_over_the_bound_is_cut_and_told() -> None:
    run = execution(OutputLimits(text=100))
    room = 2 * 100 + 256
    for _ in range(3):
        list(run.take("iopub", message("stream", {"name": "stdout", "text": "x" * 200})))
    reply(run)
    assert run.done(now=101.0)["truncated"] == {"shown": room, "total": 600}


def test_what_the_kernel_cut_itself_is_told() -> None:
    run = execution()
    list(run.take("iopub", message("stream", {"name": "stdout", "text": "x" * 10})))
    reply(run, metadata={"truncated": {"shown": 10, "total": 500}})
    assert run.done(now=101.0)["truncated"] == {"shown": 10, "total": 500}


@pytest.mark.parametrize("said", [None, [], {"total": "many"}, {}])
def test_a_cut_of_the_wrong_form_is_not_told(said: object) -> None:
    run = execution()
    reply(run, metadata={"truncated": said})
    assert "truncated" not in run.done(now=101.0)


def test_a_display_over_the_bound_becomes_a_note() -> None:
    run = execution(OutputLimits(display=100))
    data = {"image/png": "A" * 8000}
    [event] = run.take("iopub", message("display_data", {"data": data}))
    assert list(event["data"]) == ["text/plain"]
    assert "left out" in event["data"]["text/plain"]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("broker_value", {"value": "A" * 9000}),
        ("broker_value", {"data": {"text/plain": "A" * 9000}}),
        ("display_data", {"data": {"text/plain": "A" * 9000}}),
    ],
)
def test_what_is_left_out_counts_as_left_out_and_not_as_shown(kind: str, content: Event) -> None:
    run = execution(OutputLimits(display=100))
    run.order = Order({"call": "f"})
    said = message(kind, content)
    [event] = run.take("iopub", said)
    assert "left out" in event["data"]["text/plain"]
    reply(run)
    done = run.done(now=101.0)
    assert done["output_bytes"] == 0
    assert done["truncated"] == {"shown": 0, "total": len(said.content_bytes)}


def test_a_value_within_the_bound_counts_as_shown() -> None:
    run = execution()
    run.order = Order({"call": "f"})
    said = message("broker_value", {"value": "A" * 9000})
    assert [event["value"] for event in run.take("iopub", said)] == ["A" * 9000]
    reply(run)
    done = run.done(now=101.0)
    assert (done["output_bytes"], "truncated" in done) == (len(said.content_bytes), False)


def test_events_stop_at_the_bound_but_for_the_error() -> None:
    run = execution(OutputLimits(displays=3 * EVENT_COST))
    shown = [
        event
        for _ in range(9)
        for event in run.take("iopub", message("display_data", {"data": {"a": 1}}))
    ]
    assert 0 < len(shown) < 3
    assert list(run.take("iopub", message("clear_output", {}))) == []
    error = message("error", {"ename": "E"})
    assert [event["name"] for event in run.take("iopub", error)] == ["E"]
    assert list(run.take("iopub", error)) == []
    reply(run, "error")
    assert run.done(now=101.0)["truncated"]["total"] > 0


@pytest.mark.parametrize(
    "content",
    [
        {"data": {"k" * 5000: ""}},
        {"data": {}, "metadata": {"k" * 5000: ""}},
        {"data": {}, "transient": {"display_id": "k" * 5000}},
        {"data": {}, "metadata": {"a": [[]] * 100}},
    ],
    ids=["key", "metadata", "display id", "small items"],
)
def test_a_display_costs_all_that_it_holds(content: dict[str, Any]) -> None:
    run = execution(OutputLimits(displays=10_000))
    shown = [e for _ in range(9) for e in run.take("iopub", message("display_data", content))]
    assert 0 < len(shown) < 3


def test_the_note_of_a_large_display_has_none_of_its_metadata() -> None:
    run = execution(OutputLimits(display=100))
    content = {"data": {"a": "b"}, "metadata": {"k" * 8000: ""}}
    [event] = run.take("iopub", message("display_data", content))
    assert (event["metadata"], list(event["data"])) == ({}, ["text/plain"])


def test_a_traceback_of_millions_of_lines_keeps_its_head_and_tail() -> None:
    lines = error_event("e", {"traceback": ["first\n" + "ab\n" * 2_000_000, "last"]})["traceback"]
    assert (lines[0], lines[-2:]) == ("first", ["ab", "last"])
    assert len(lines) == HEAD + TAIL + 1
    assert lines[HEAD] == f"[{2_000_002 - HEAD - TAIL:,} lines left out]"


@pytest.mark.parametrize("count", [HEAD - 1, HEAD, HEAD + 1, HEAD + TAIL, HEAD + TAIL + 1])
def test_a_traceback_within_the_bound_is_whole(count: int) -> None:
    text = [f"line {n}" for n in range(count)]
    assert error_event("e", {"traceback": text})["traceback"] == text
    assert error_event("e", {"traceback": ["\n".join(text)]})["traceback"] == text


def test_long_lines_and_words_of_an_error_are_cut() -> None:
    long = "x" * 1_000_000
    event = error_event("e", {"ename": long, "evalue": long, "traceback": [long]})
    [line] = event["traceback"]
    assert line == "x" * LINE + f" [{1_000_000 - LINE:,} characters left out]"
    assert len(event["name"]) < 300
    assert len(event["message"]) < 66_000


def test_control_sequences_are_looked_for_in_so_much_text_alone() -> None:
    # Each of these takes the search as long as a hundred characters.
    long = ("\x1b[" + "0" * 100) * 100_000
    event = error_event(
        "e", {"ename": long, "evalue": "\x1b[31mred" + "x" * 4_000_000, "traceback": []}
    )
    assert len(event["name"]) < 300
    assert event["message"].startswith("redxxx")
    assert len(event["message"]) < 66_000


def test_an_error_nested_too_deep_to_be_shown_is_told_all_the_same() -> None:
    deep: list[Any] = []
    for _ in range(1000):
        deep = [deep]
    event = error_event("e", {"ename": "E", "evalue": deep, "traceback": [deep, "line"]})
    assert (event["name"], event["traceback"][-1]) == ("E", "line")


# A kernel that means harm


def heavy(**fields: Any) -> dict[str, Any]:
    return {**fields, "data": {"a": [[]] * (MAX_NESTED + 1)}}


@pytest.mark.parametrize("channel", ["control", "stdin", ""])
@pytest.mark.parametrize("kind", [*KINDS, "execute_reply"])
def test_what_comes_on_another_channel_is_left_out(channel: str, kind: str) -> None:
    run = execution()
    content = {"execution_state": "idle", "status": "ok", "name": "stdout", "text": "a"}
    assert list(run.take(channel, message(kind, content | {"data": DATA}))) == []
    assert not run.taken
    reply(run)
    assert not run.finished


def test_publications_on_the_shell_channel_and_replies_on_iopub_are_left_out() -> None:
    run = execution()
    assert list(run.take("shell", message("stream", {"name": "stdout", "text": "a"}))) == []
    assert list(run.take("shell", message("status", {"execution_state": "idle"}))) == []
    assert list(run.take("iopub", message("execute_reply", {"status": "ok"}))) == []
    idle(run)
    assert not run.finished


def test_only_the_first_reply_counts() -> None:
    run = execution()
    reply(run, "error", execution_count=1)
    again = {"status": "ok", "execution_count": 2, "payload": [{"data": DATA}]}
    assert list(run.take("shell", message("execute_reply", again))) == []
    assert (run.done(now=101.0)["status"], run.count) == ("error", 1)


def test_what_a_pager_would_show_is_within_the_budget() -> None:
    run = execution(OutputLimits(displays=10 * EVENT_COST))
    payload = [{"data": {"text/plain": "a"}}] * 1000
    shown = list(run.take("shell", message("execute_reply", {"status": "ok", "payload": payload})))
    assert 0 < len(shown) < 10


def test_a_display_too_heavy_to_be_decoded_becomes_a_note() -> None:
    [event] = execution().take("iopub", message("display_data", heavy()))
    assert "left out" in event["data"]["text/plain"]


@pytest.mark.parametrize("kind", ["stream", "error", "execute_input", "clear_output"])
def test_anything_else_as_heavy_is_a_bad_frame(kind: str) -> None:
    with pytest.raises(BadFrame, match="more than 200,000"):
        list(execution().take("iopub", message(kind, heavy())))


@pytest.mark.parametrize("kind", ["comm_msg", "comm_open", "no such type", ""])
def test_what_stands_for_nothing_is_not_decoded(kind: str) -> None:
    assert list(execution().take("iopub", message(kind, heavy()))) == []


def test_a_status_of_many_words_is_none() -> None:
    run = execution()
    list(run.take("iopub", message("status", {"execution_state": "idle", "more": "x" * 5000})))
    reply(run)
    assert not run.finished


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("display_data", {"data": {"a": "x" * 5000}}),
        ("display_data", {"data": "x" * 5000}),
        ("stream", {"name": "stdout", "text": "", "more": "x" * 5000}),
        ("stream", {"name": "stdout", "text": "x" * 5000}),
        ("error", {"ename": "x" * 5000}),
    ],
)
def test_what_is_decoded_in_vain_is_bounded_too(kind: str, content: object) -> None:
    run = execution(OutputLimits(text=1, displays=3000))
    list(run.take("iopub", message("error", {})))  # the first of them is always told
    for _ in range(100):
        assert list(run.take("iopub", message(kind, content))) in ([], [ANY])
    # From now on its content is not looked at: nothing notices that it is none.
    bad = Message({"msg_type": kind}, {}, {}, b"not even JSON", [])
    assert list(run.take("iopub", bad)) == []


def test_an_error_is_told_after_all_that_was_in_vain() -> None:
    run = execution(OutputLimits(displays=3000))
    for _ in range(10):
        list(run.take("iopub", message("display_data", {"data": {"a": "x" * 5000}})))
    assert len(list(run.take("iopub", message("error", {"ename": "E"})))) == 1
    assert list(run.take("iopub", message("error", {"ename": "E"}))) == []


def test_an_error_of_millions_of_parts_is_cut_before_they_are_looked_at() -> None:
    lines = error_event("e", {"traceback": ["a"] * 3_000_000})["traceback"]
    assert lines[0] == lines[-1] == "a"
    assert len(lines) == HEAD + TAIL + 1


def test_words_of_an_error_that_are_a_large_structure_are_left_out() -> None:
    large = [0] * 3_000_000
    event = error_event("e", {"ename": large, "evalue": {"a": large}, "traceback": [large, "b"]})
    assert (event["name"], event["message"], event["traceback"]) == ("", "", ["b"])
