"""Numbers and what runs, kept in a file that outlives who wrote it, and believed only if sound."""

from __future__ import annotations

import signal
import subprocess
import sys
import zlib
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.marks import HEAD, RECORD, SLOT, UNKEPT, WITHHELD, Mark, Marks, Running, beyond

RUNNING = Running(
    "cell", "k_1", 1.5, 30.0, silent=False, answers=True, used=2.5, started=True, failed=True
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "marks"


def written(path: Path) -> None:
    """Have a mark written by a process that is killed."""
    script = f"""
import os, signal, pathlib
from broker.marks import Marks, Running
mark = Marks(pathlib.Path({str(path)!r}), 8).of("t", "s")
mark.bound(3, fresh=True)
mark.taking(1); mark.number(41)
mark.taking(2); mark.number(42)
mark.run(Running("cell", "k_1", 1.5, 30.0, answers=True, used=2.5))
mark.told("started"); mark.told("error")
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def test_what_was_marked_outlives_a_killed_process(path: Path) -> None:
    written(path)
    mark = Marks(path, 8).of("t", "s")
    assert (mark.last, mark.generation, mark.taken) == (42, 3, 2)
    assert mark.running == RUNNING
    assert Marks(path, 8).of("t", "other").last == 0


def test_a_message_that_had_given_no_number_is_taken_in_again() -> None:
    mark = Mark()
    mark.number(7)
    mark.taking(5)
    assert mark.taken == 4
    mark.number(8)
    assert mark.taken == 5


def test_a_message_that_is_to_come_again_does_so_after_a_second_death() -> None:
    mark = Mark()
    mark.bound(1, fresh=True)
    mark.number(7)
    mark.taking(5)
    mark.bound(1, fresh=False)
    mark.number(8)  # of the adoption itself
    assert mark.taken == 4
    mark.taking(5)
    mark.number(9)
    assert mark.taken == 5


def test_a_fresh_kernel_runs_nothing_and_the_numbers_go_on() -> None:
    mark = Mark()
    mark.number(7)
    mark.taking(5)
    mark.run(RUNNING)
    mark.bound(2, fresh=True)
    assert (mark.last, mark.taken, mark.running) == (7, 0, None)


def test_the_numbers_of_an_ended_session_go_on_when_it_comes_again(path: Path) -> None:
    marks = Marks(path, 8)
    mark = marks.of("t", "s")
    mark.number(7)
    mark.end()
    assert marks.of("t", "s").last == 7
    marks.of("t", "s").end()
    assert Marks(path, 8).of("t", "s").last == 7


def test_a_session_that_nobody_comes_back_to_leaves_its_slot_at_once() -> None:
    marks = Marks(None, 2)
    for number in range(100):
        mark = marks.of("t", f"once-{number}")
        assert mark.last == 0
        mark.number(5)
        mark.forget()
    assert marks.of("t", "once-99").last == 0


def test_the_session_longest_ended_gives_its_slot_up_and_no_live_one_does() -> None:
    marks = Marks(None, 3)
    live = marks.of("t", "live")
    live.number(1)
    for name in ("old", "new"):
        mark = marks.of("t", name)
        mark.number(9)
        mark.end()
    assert marks.of("t", "third").last == 0
    assert live.last == 1
    assert marks.of("t", "new").last == 9
    nowhere = marks.of("t", "one too many")
    nowhere.number(5)  # kept in memory alone
    assert (nowhere.last, live.last, marks.of("t", "one too many").last) == (5, 1, 0)


def test_sessions_without_a_kernel_are_swept_and_keep_their_numbers(path: Path) -> None:
    written(path)
    marks = Marks(path, 8)
    adopted = marks.of("t", "adopted")
    adopted.run(RUNNING)
    marks.sweep()
    assert adopted.running == RUNNING
    mark = marks.of("t", "s")
    assert (mark.last, mark.running) == (42, RUNNING)  # whoever takes it up tells its end
    mark.bound(2, fresh=True)
    assert mark.running is None


def test_what_an_older_broker_has_noted_is_read_and_nobody_answers_its_questions() -> None:
    mark = Mark()
    mark.run(RUNNING)
    text = orjson.dumps(RUNNING[:7])
    mark._bytes[RECORD : RECORD + len(text)] = text
    mark._numbers[HEAD] = len(text) << 32 | zlib.crc32(text)
    assert mark.running == RUNNING._replace(answers=False, used=None, kept=WITHHELD)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"something else"),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"x" + path.read_bytes()[1:]),
        lambda path: path.write_bytes(path.read_bytes()[:17] + b"?" + path.read_bytes()[18:]),
    ],
    ids=["empty", "foreign", "short", "another format", "another life of the machine"],
)
def test_a_file_that_is_not_ours_is_begun_anew(path: Path, spoil: object) -> None:
    written(path)
    assert callable(spoil)
    spoil(path)
    mark = Marks(path, 8).of("t", "s")
    assert (mark.last, mark.running) == (0, None)
    mark.number(3)
    assert Marks(path, 8).of("t", "s").last == 3


def test_a_place_that_cannot_be_written_costs_only_the_survival(tmp_path: Path) -> None:
    (tmp_path / "marks").symlink_to(tmp_path / "elsewhere")
    mark = Marks(tmp_path / "marks", 8).of("t", "s")
    mark.number(3)
    assert mark.last == 3
    assert not (tmp_path / "elsewhere").exists()


@given(st.lists(st.tuples(st.integers(0, 3 * SLOT - 1), st.integers(0, 255)), max_size=200))
def test_whatever_stands_in_the_file_is_read_without_an_error(edits: list[tuple[int, int]]) -> None:
    content = bytearray(3 * SLOT)
    for at, value in edits:
        content[at] = value
    mark = Mark(memoryview(content).cast("Q"), SLOT // 8)
    assert 0 <= mark.last < 2**53
    assert mark.taken >= 0
    assert mark.running is None or isinstance(mark.running, Running)


@given(st.text(min_size=1, max_size=64), st.floats(0, 1e10), st.integers(0, 10**6))
def test_what_runs_is_read_as_it_was_written_or_not_at_all(
    request_id: str, began: float, timeout: int
) -> None:
    mark = Mark()
    mark.run(Running(request_id, "k_1", began, timeout))
    assert mark.running in (Running(request_id, "k_1", began, timeout), None)
    mark.end()
    assert mark.running is None


def test_numbers_beyond_are_above_all_that_were_and_json_carries_them() -> None:
    assert 10**15 < beyond() < 2**53
    assert beyond() <= beyond()


def test_of_what_an_older_broker_has_noted_nothing_is_kept_that_may_be_secret() -> None:
    for silent, kept in ((False, WITHHELD), (True, UNKEPT)):
        mark = Mark()
        mark.run(RUNNING._replace(silent=silent))
        text = orjson.dumps([*RUNNING[:4], silent, *RUNNING[5:9]])
        start = RECORD
        mark._bytes[start : start + len(text)] = text
        mark._numbers[HEAD] = len(text) << 32 | zlib.crc32(text)
        running = mark.running
        assert running is not None
        assert (running.kept, running.visits, running.used) == (kept, False, 2.5)
