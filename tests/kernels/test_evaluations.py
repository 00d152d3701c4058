"""What stops an evaluation strikes nothing that comes after it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from kernels.inside.evaluations import TookTooLong, stop_evaluations, withdraw

PYDEVD = "def do_it(began, gate):\n    began.set()\n    gate.acquire()\n"


class Evaluating(threading.Thread):
    """A thread at a command of pydevd's, in C code, until `gate` is open."""

    def __init__(self, file: str = "pydevd_comm.py") -> None:
        super().__init__(daemon=True)
        self.began, self.gate = threading.Event(), threading.Lock()
        self.raised: BaseException | None = None
        names: dict[str, object] = {}
        exec(compile(PYDEVD, f"/x/{file}", "exec"), names)  # noqa: S102 - the test's own
        self._do_it = names["do_it"]

    def run(self) -> None:
        """Evaluate."""
        try:
            self._do_it(self.began, self.gate)
            for _ in range(100):
                threading.get_ident()  # where an exception that came late would strike
        except TookTooLong as error:
            self.raised = error


@contextmanager
def evaluating(file: str = "pydevd_comm.py") -> Iterator[Evaluating]:
    """Run a block while a thread evaluates, and have it end."""
    one = Evaluating(file)
    one.gate.acquire()
    one.start()
    one.began.wait()
    try:
        yield one
    finally:
        one.gate.release()
        one.join()


def test_what_is_evaluated_is_stopped() -> None:
    with evaluating() as one:
        assert stop_evaluations() == {one.ident}
    assert one.raised is not None


def test_what_is_not_pydevds_is_left_alone() -> None:
    with evaluating("cell.py") as one:
        assert stop_evaluations() == set()
    assert one.raised is None


def test_a_stop_that_was_not_noticed_is_withdrawn() -> None:
    with evaluating() as one:
        withdraw(stop_evaluations())
    assert one.raised is None


@pytest.mark.parametrize("is_there", [True, False])
def test_an_evaluation_that_ends_while_it_is_looked_for_is_not_stopped(is_there: bool) -> None:
    looks = 0

    def frames() -> dict[int, FrameType]:
        nonlocal looks
        looks += 1
        found = sys._current_frames()
        if looks > 1 and one.ident is not None:
            del found[one.ident]  # it has gone on
            if is_there:
                found[one.ident] = sys._getframe()  # elsewhere
        return found

    with evaluating() as one:
        assert stop_evaluations(frames) == set()
    assert looks == 2
    assert one.raised is None
