"""One execution: what each message of a kernel becomes, whatever a kernel sends."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.outputs import Event, error_event, plain, rich
from kernels.errors import BadFrame
from tests.broker.kernel_words import DATA, KINDS, execution, idle, message, reply

PNG = b"\x89PNG\r\n\x1a\n"


def take(kind: str, content: object, **fields: Any) -> list[Event]:
    return list(execution(**fields).take("iopub", message(kind, content)))


SHOWN = {"type": "display", "id": "e", "data": DATA, "metadata": {}}


@pytest.mark.parametrize(
    ("kind", "content", "event"),
    [
        (
            "execute_input",
            {"code": "sent back", "execution_count": 3},
            {"type": "started", "id": "e", "execution_count": 3, "code": "code"},
        ),
        (
            "stream",
            {"name": "stdout", "text": "a"},
            {"type": "stream", "id": "e", "name": "stdout", "text": "a"},
        ),
        (
            "stream",
            {"name": "stderr", "text": "a"},
            {"type": "stream", "id": "e", "name": "stderr", "text": "a"},
        ),
        ("display_data", {"data": DATA, "metadata": {}}, SHOWN),
        (
            "display_data",
            {"data": DATA, "metadata": {"text/plain": {"a": 1}}},
            SHOWN | {"metadata": {"text/plain": {"a": 1}}},
        ),
        (
            "display_data",
            {"data": DATA, "transient": {"display_id": "d"}},
            SHOWN | {"display_id": "d"},
        ),
        (
            "update_display_data",
            {"data": DATA, "transient": {"display_id": "d"}},
            SHOWN | {"display_id": "d", "update": True},
        ),
        (
            "execute_result",
            {"data": DATA, "metadata": {}, "execution_count": 3},
            {"type": "result", "id": "e", "data": DATA, "metadata": {}, "execution_count": 3},
        ),
        ("clear_output", {"wait": True}, {"type": "clear", "id": "e", "wait": True}),
        ("clear_output", {}, {"type": "clear", "id": "e", "wait": False}),
        (
            "error",
            {"ename": "E", "evalue": "v", "traceback": ["\x1b[31ma\x1b[0m\nb", "c"]},
            {
                "type": "error",
                "id": "e",
                "name": "E",
                "message": "v",
                "short": "E: v",
                "traceback": ["a", "b", "c"],
            },
        ),
    ],
)
def test_a_message_becomes_its_event(kind: str, content: object, event: Event) -> None:
    assert take(kind, content) == [event]


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("status", {"execution_state": "busy"}),
        ("status", {}),
        ("status", {"execution_state": ["idle"]}),
        ("stream", {}),
        ("stream", {"name": "stdout"}),
        ("stream", {"name": "stdout", "text": 1}),
        ("stream", {"name": "stdout", "text": None}),
        ("stream", {"name": "stdout", "text": ""}),
        ("stream", {"name": "stdin", "text": "a"}),
        ("stream", {"name": ["stdout"], "text": "a"}),
        ("stream", {"name": None, "text": "a"}),
        ("display_data", {}),
        ("display_data", {"data": "text"}),
        ("display_data", {"data": [1]}),
        ("display_data", {"data": None}),
        ("execute_result", {"execution_count": 1}),
        ("update_display_data", {"transient": {"display_id": "d"}}),
        ("comm_open", {"comm_id": "c", "data": {}}),
        ("execute_reply", {"status": "ok"}),
        ("", {}),
        ("no such type", {"data": DATA}),
    ],
)
def test_what_has_not_its_form_is_left_out(kind: str, content: object) -> None:
    assert take(kind, content) == []


@pytest.mark.parametrize(
    ("kind", "content", "event"),
    [
        ("execute_input", {"execution_count": "3"}, {"execution_count": None}),
        ("execute_input", {"execution_count": True}, {"execution_count": None}),
        ("execute_input", {}, {"execution_count": None, "code": "code"}),
        ("display_data", {"data": DATA, "metadata": []}, {"metadata": {}}),
        ("execute_result", {"data": DATA, "execution_count": {"a": 1}}, {"execution_count": None}),
        ("execute_result", {"data": DATA}, {"execution_count": None}),
        ("clear_output", {"wait": "yes"}, {"wait": True}),
        ("error", {}, {"name": "", "message": "", "traceback": []}),
        ("error", {"traceback": "text"}, {"traceback": []}),
        ("error", {"ename": None, "traceback": [1, None]}, {"traceback": ["1", "None"]}),
        ("error", {"ename": {"a": 1}}, {"name": "{'a': 1}"}),
    ],
)
def test_a_field_of_the_wrong_kind_is_left_out_or_made_plain(
    kind: str, content: object, event: Event
) -> None:
    [told] = take(kind, content)
    assert {key: told[key] for key in event} == event


@pytest.mark.parametrize("transient", [None, [], "d", {}, {"display_id": 3}, {"display_id": None}])
def test_a_display_id_that_is_none_is_left_out(transient: object) -> None:
    [event] = take("display_data", {"data": DATA, "transient": transient})
    assert "display_id" not in event


@pytest.mark.parametrize("content", [[], "text", 1, None])
def test_content_that_is_no_object_is_a_bad_frame_for_the_channels(content: object) -> None:
    with pytest.raises(BadFrame):
        take("stream", content)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


FIELDS = [
    "execution_state",
    "execution_count",
    "name",
    "text",
    "data",
    "metadata",
    "transient",
    "wait",
    "ename",
    "evalue",
    "traceback",
]


MIMES = st.sampled_from(["text/plain", "image/png", "application/json"]) | st.text(max_size=5)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.dictionaries(
                st.sampled_from(FIELDS), JSON | st.dictionaries(MIMES, JSON, max_size=3)
            ),
        ),
        max_size=4,
    ),
    st.dictionaries(st.sampled_from(["status", "execution_count"]), JSON),
    st.dictionaries(st.sampled_from(["cpu", "memory_peak", "truncated"]), JSON),
)
def test_no_content_at_all_raises_and_each_event_is_of_the_protocol(
    messages: list[tuple[str, object]], last: dict[str, Any], metadata: dict[str, Any]
) -> None:
    run = execution()
    events = [e for kind, content in messages for e in run.take("iopub", message(kind, content))]
    list(run.take("shell", message("execute_reply", last, metadata)))
    events.append(run.done(now=101.0))
    for event in events:
        assert event["id"] == "e"
        assert event["type"] in ("started", "stream", "display", "result", "clear", "error", "done")
        assert type(event.get("execution_count")) in (int, type(None))
    assert events[-1]["status"] in ("ok", "error", "aborted")


# The request


def test_the_kernel_is_never_told_to_stop_or_to_ask() -> None:
    assert execution().content() == {
        "code": "code",
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": False,
        "stop_on_error": False,
    }
    silent = execution(silent=True).content()
    assert (silent["silent"], silent["store_history"]) == (True, False)
    assert execution(store_history=False).content()["store_history"] is False


@pytest.mark.parametrize("late", [False, True], ids=["reply first", "idle first"])
@pytest.mark.parametrize("told", [False, True])
def test_an_error_that_only_the_reply_tells_is_told_once(late: bool, told: bool) -> None:
    run, failure = execution(), {"ename": "E", "evalue": "why", "traceback": []}
    answer = "shell", message("execute_reply", {"status": "error", **failure})
    end = "iopub", message("status", {"execution_state": "idle"})
    messages = [*([("iopub", message("error", failure))] if told else [])]
    messages += [end, answer] if late else [answer, end]
    events = [event for each in messages for event in run.take(*each)]
    assert [(event["type"], event["name"], event["message"]) for event in events] == [
        ("error", "E", "why")
    ]
    assert run.finished


def test_a_start_is_told_once() -> None:
    run = execution()
    first = message("execute_input", {"execution_count": 1})
    assert len(list(run.take("iopub", first))) == 1
    assert list(run.take("iopub", first)) == []


def test_a_silent_start_is_told_by_the_status() -> None:
    run = execution(silent=True)
    busy = message("status", {"execution_state": "busy"})
    [event] = run.take("iopub", busy)
    assert (event["type"], event["execution_count"]) == ("started", None)
    assert list(run.take("iopub", busy)) == []


# The end


def test_a_start_that_is_told_late_keeps_the_count_of_the_reply() -> None:
    run = execution()
    run.started = 101.0
    reply(run, execution_count=7)
    idle(run)
    event = run.late_start()
    assert event is not None
    assert (event["execution_count"], run.done(now=102.0)["execution_count"]) == (7, 7)


@pytest.mark.parametrize("reply_first", [True, False])
def test_it_is_finished_with_the_reply_and_idle_in_either_order(reply_first: bool) -> None:
    run = execution()
    steps = [lambda: reply(run), lambda: idle(run)]
    for step in steps if reply_first else reversed(steps):
        assert not run.finished
        step()
    assert run.finished


@pytest.mark.parametrize(
    ("replied", "interrupted", "status"),
    [
        ("ok", "", "ok"),
        ("error", "", "error"),
        ("aborted", "", "aborted"),
        ("abort", "", "error"),
        (None, "", "error"),
        (["ok"], "", "error"),
        ({}, "", "error"),
        ("error", "interrupted", "interrupted"),
        ("error", "timeout", "timeout"),
        ("ok", "interrupted", "ok"),  # it ended by itself, or caught the interrupt
    ],
)
def test_the_status_is_the_kernels_word_and_the_interrupts(
    replied: object, interrupted: str, status: str
) -> None:
    run = execution()
    run.interrupted = interrupted
    reply(run, replied)
    assert run.done(now=101.0)["status"] == status


def test_without_a_reply_it_is_lost() -> None:
    assert execution().done(now=101.0)["status"] == "lost"


def test_done_tells_the_times_the_costs_and_the_count() -> None:
    run = execution()
    run.started = 100.5
    list(run.take("iopub", message("stream", {"name": "stdout", "text": "four"})))
    reply(run, metadata={"cpu": 0.25, "memory_peak": 1 << 20}, execution_count=7)
    assert run.done(now=102.0) == {
        "type": "done",
        "id": "e",
        "status": "ok",
        "execution_count": 7,
        "duration": 1.5,
        "queued": 0.5,
        "cpu": 0.25,
        "memory_peak": 1 << 20,
        "output_bytes": 4,
    }


def test_what_never_started_took_no_time_and_waited_to_the_end() -> None:
    done = execution().done("cancelled", "because", now=103.0)
    assert (done["duration"], done["queued"], done["reason"]) == (0.0, 3.0, "because")


@pytest.mark.parametrize("value", ["1", None, [], True])
def test_costs_that_are_no_numbers_are_left_out(value: object) -> None:
    run = execution()
    reply(run, metadata={"cpu": value, "memory_peak": value})
    done = run.done(now=101.0)
    assert (done["cpu"], done["memory_peak"]) == (None, None)


# Rich output


def test_binary_values_become_bytes() -> None:
    text = base64.b64encode(PNG).decode()
    assert rich({"image/png": text, "text/plain": "x"}) == {"image/png": PNG, "text/plain": "x"}
    assert rich({"image/svg+xml": "<svg/>"}) == {"image/svg+xml": "<svg/>"}


@pytest.mark.parametrize("broken", ["A", "é", "\u2028", "=" * 3])
def test_an_image_that_is_no_base64_is_left_out(broken: str) -> None:
    assert rich({"image/png": broken, "text/plain": "x"}).get("image/png", b"") == b""
    assert rich({"image/png": broken, "text/plain": "x"})["text/plain"] == "x"


@pytest.mark.parametrize(
    ("coloured", "text"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[38;5;196mred\x1b[39m", "red"),
        ("\x1b]8;;http://a\x07link\x1b]8;;\x07", "link"),
        ("\x1b]0;title\x1b\\text", "text"),
        ("\x1bMup", "up"),
        ("plain [31m", "plain [31m"),
        ("", ""),
    ],
)
def test_colours_and_links_are_taken_out(coloured: str, text: str) -> None:
    assert plain(coloured) == text


def test_a_traceback_is_a_list_of_single_lines() -> None:
    event = error_event("e", {"traceback": ["a\nb\n", "", "c"]})
    assert event["traceback"] == ["a", "b", "c"]
