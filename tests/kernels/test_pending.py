"""Text that waits to be sent, and a signal handler that prints or flushes at any moment."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

import pytest

from kernels.inside.streams import MANY_TURNS, MAX_PENDING, Pending

PARENT = {"msg_id": "1"}


class Stream:
    def __init__(self, name: str, log: list[tuple[str, str]]) -> None:
        self.name = name
        self.log = log

    def publish(self, parent: dict[str, Any], text: str) -> None:
        self.log.append((self.name, text))


class Stage:
    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.pending = Pending()
        self.out, self.err = Stream("out", self.log), Stream("err", self.log)

    def add(self, stream: Stream, text: str) -> None:
        self.pending.add(stream, PARENT, text)  # type: ignore[arg-type]

    def do(self, deeds: str) -> None:
        for deed in deeds:
            if deed == "f":
                self.pending.hand_over()
            else:
                self.add(self.out if deed == "o" else self.err, "!")

    def text(self, stream: Stream) -> str:
        return "".join(text for name, text in self.log if name == stream.name)


def broken_in(work: Callable[[], None], handler: Callable[[], None], moment: int) -> bool:
    """Run `handler` before an instruction of what is called by `work`; tell whether it came."""
    left = moment

    def trace(frame: FrameType, event: str, _arg: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != Pending.add.__code__.co_filename:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if left == -1:
                sys.settrace(None)
                handler()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return left < 0


# What a handler does: "o" and "e" print to either stream, "f" flushes.
@pytest.mark.parametrize("turns", [0, 1, 2, MANY_TURNS + 4])
@pytest.mark.parametrize("deeds", ["o", "e", "f", "of", "ofo", "efo", "oeoe"])
def test_a_handler_that_breaks_in_anywhere_costs_no_text(deeds: str, turns: int) -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"[:turns]
    for moment in itertools.count():
        stage = Stage()
        for number, letter in enumerate(letters):
            stage.add((stage.out, stage.err)[number % 2], letter)
        came = broken_in(partial(stage.add, stage.out, "."), partial(stage.do, deeds), moment)
        stage.pending.hand_over()
        said = {"out": stage.text(stage.out), "err": stage.text(stage.err)}
        assert {name: text.replace("!", "") for name, text in said.items()} == {
            "out": letters[::2] + ".",
            "err": letters[1::2],
        }
        if not came:
            assert moment > 20
            return
        assert [text.count("!") for text in said.values()] == [deeds.count("o"), deeds.count("e")]
        assert stage.pending.size == 0


def test_what_a_handler_cost_the_count_is_made_good() -> None:
    stage = Stage()
    stage.pending.size = MAX_PENDING + 1
    stage.add(stage.out, "text")
    stage.pending.hand_over()
    assert (stage.pending.size, stage.pending.is_large) == (0, False)
