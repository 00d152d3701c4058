"""What a session has been through, as far as it is kept."""

from __future__ import annotations

from typing import Any

from broker.past import (
    MOST_ERRORS,
    MOST_GENERATIONS,
    Generation,
    Past,
    failures,
    read_generations,
)

TEXT = "1\t100.5\t200\toom\n2\t0\t300.25\tkilled by operator\n"
READ = [Generation(1, 100.5, 200.0, "oom"), Generation(2, None, 300.25, "killed by operator")]


def test_the_stores_lines_are_generations() -> None:
    assert read_generations(TEXT) == READ
    assert read_generations("") == []


def test_a_line_that_is_none_is_left_out() -> None:
    assert read_generations("x\n1\t2\n" + TEXT + "3\tsoon\t1\tidle\n") == READ


def test_what_was_seen_here_stands_against_what_the_store_tells() -> None:
    past = Past()
    past.begin(2, 201.0)
    past.end(2, "oom", 250.0)
    past.know(READ)
    assert past.generations == [READ[0], Generation(2, 201.0, 250.0, "oom")]


def test_a_kernel_that_is_taken_up_again_began_when_it_did() -> None:
    past = Past()
    past.begin(3, 50.0)
    past.begin(3, None)
    assert past.generations == [Generation(3, 50.0)]


def test_the_oldest_generations_and_errors_go() -> None:
    past = Past()
    for number in range(1, 40):
        past.begin(number, float(number))
        past.end(number, "idle", number + 0.5)
        past.note({"type": "error", "id": f"e{number}", "short": f"E: {number}"}, 1.0, str)
    assert [one.generation for one in past.generations] == list(range(40 - MOST_GENERATIONS, 40))
    assert [one.id for one in past.errors] == [f"e{n}" for n in range(40 - MOST_ERRORS, 40)]
    assert past.last_error == "E: 39"


def test_an_execution_that_was_lost_is_an_error_and_one_that_ended_is_none() -> None:
    past = Past()
    past.note({"type": "done", "id": "a", "status": "ok"}, 1.0, str)
    assert past.last_error is None
    past.note({"type": "done", "id": "b", "status": "lost", "reason": "oom"}, 2.0, str)
    assert list(past.errors) == [("b", "lost: oom", 2.0)]


CELLS: list[dict[str, Any]] = [
    {"id": "a", "started": 10.0, "duration": 0.5, "outputs": [{"type": "stream", "text": "x"}]},
    {
        "id": "b",
        "started": 20.0,
        "duration": 0.25,
        "outputs": [{"type": "error", "name": "E", "message": "m", "short": "E: m, cell line 1"}],
    },
    {"id": "c", "outputs": [{"type": "error", "name": "E", "message": "one\ntwo"}]},
    {"id": "d", "started": 30.0, "status": "lost", "reason": "oom", "outputs": []},
]
FAILED = [("b", "E: m, cell line 1", 20.25), ("c", "E: one", 0.0), ("d", "lost: oom", 30.0)]


def test_a_transcript_tells_of_errors() -> None:
    assert failures(CELLS) == FAILED
    assert failures([]) == []
    many = failures([{**CELLS[1], "id": str(number)} for number in range(100)])
    assert [one.id for one in many] == [str(n) for n in range(100 - MOST_ERRORS, 100)]


def test_errors_from_before_are_recalled_each_once() -> None:
    past = Past()
    past.note({"type": "done", "id": "d", "status": "lost", "reason": "oom"}, 30.5, str)
    past.note({"type": "error", "id": "e", "short": "E: new"}, 40.0, str)
    past.recall(None)
    assert not past.is_recalled
    past.recall(failures(CELLS))
    assert past.is_recalled
    assert [(one.id, one.error) for one in past.all_errors] == [
        ("b", "E: m, cell line 1"),
        ("c", "E: one"),
        ("d", "lost: oom"),
        ("e", "E: new"),
    ]


def test_what_is_recalled_changes_nothing_of_what_lists_tell() -> None:
    past = Past()
    past.recall(failures(CELLS))
    assert (list(past.errors), past.last_error) == ([], None)
    assert past.all_errors == FAILED
    for number in range(MOST_ERRORS):
        past.note({"type": "error", "id": str(number), "short": "E: new"}, 40.0, str)
    assert past.all_errors == list(past.errors)


def test_a_long_line_is_cut() -> None:
    past = Past()
    past.note({"type": "error", "id": "a", "short": "x" * 10_000}, 1.0, str)
    assert len(past.errors[0].error) == 300


def test_a_secret_in_an_error_is_not_told() -> None:
    past = Past()
    past.note(
        {"type": "error", "id": "a", "short": "E: s3cret"},
        1.0,
        lambda text: text.replace("s3cret", "-"),
    )
    assert past.last_error == "E: -"
