"""What a session has told natively, as the messages of Jupyter that it stands for."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from broker.jupyter.recall import told_again

DATA = {"text/plain": "42", "image/png": b"\x89PNG"}
CARRIED = {"text/plain": "42", "image/png": "iVBORw=="}
CASES: dict[str, tuple[dict[str, Any], list[tuple[str, str, dict[str, Any]]]]] = {
    "started": (
        {"type": "started", "execution_count": 3, "code": "x"},
        [
            ("iopub", "status", {"execution_state": "busy"}),
            ("iopub", "execute_input", {"code": "x", "execution_count": 3}),
        ],
    ),
    "stream": (
        {"type": "stream", "name": "stderr", "text": "e"},
        [("iopub", "stream", {"name": "stderr", "text": "e"})],
    ),
    "clear": (
        {"type": "clear", "wait": True},
        [("iopub", "clear_output", {"wait": True})],
    ),
    "result": (
        {"type": "result", "data": DATA, "metadata": {}, "execution_count": 3},
        [
            (
                "iopub",
                "execute_result",
                {"data": CARRIED, "metadata": {}, "execution_count": 3},
            )
        ],
    ),
    "display": (
        {"type": "display", "data": DATA, "metadata": {"a": 1}},
        [("iopub", "display_data", {"data": CARRIED, "metadata": {"a": 1}, "transient": {}})],
    ),
    "update": (
        {"type": "display", "data": {}, "metadata": {}, "display_id": "d", "update": True},
        [
            (
                "iopub",
                "update_display_data",
                {"data": {}, "metadata": {}, "transient": {"display_id": "d"}},
            )
        ],
    ),
    "session": ({"type": "session", "state": "warm"}, []),
    "tool call": ({"type": "tool_call", "name": "t"}, []),
}


@pytest.mark.parametrize("case", CASES)
def test_each_event_stands_for_its_messages(case: str) -> None:
    event, messages = CASES[case]
    told = [*told_again([event | {"id": "cell"}])]
    assert [(one.channel, one.type, one.content) for one in told] == messages
    assert all(orjson.loads(one.parent)["msg_id"] == "cell" for one in told)


@pytest.mark.parametrize(
    ("status", "reason", "wanted"),
    [
        ("ok", None, {"status": "ok"}),
        ("aborted", None, {"status": "aborted"}),
        ("lost", "oom", {"status": "error", "ename": "lost", "evalue": "oom", "traceback": []}),
    ],
)
def test_a_done_is_idle_and_then_the_reply(
    status: str, reason: str | None, wanted: dict[str, Any]
) -> None:
    done = {"type": "done", "id": "cell", "status": status, "execution_count": 1}
    told = [*told_again([done | ({"reason": reason} if reason else {})])]
    assert [one.type for one in told] == ["status", "execute_reply"]
    assert {name: told[1].content[name] for name in wanted} == wanted


def test_the_reply_to_what_failed_names_its_error() -> None:
    error = {"type": "error", "id": "c", "name": "E", "message": "m", "traceback": ["l"]}
    done = {"type": "done", "id": "c", "status": "error", "execution_count": 1}
    *_, reply = told_again([error, done])
    assert (reply.content["ename"], reply.content["traceback"]) == ("E", ["l"])
