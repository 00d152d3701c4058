"""The first and the last of a cell's text, in the commands that tell of cells."""

from __future__ import annotations

import io
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from broker.cli.cells import Cell
from broker.cli.printer import Printer
from broker.cli.shortening import CHARACTERS, LINES, Ends
from broker.cli.telling import Teller

FAILED = {"type": "error", "name": "E", "message": "no", "traceback": ["E: no"]}


def text(words: str, name: str = "stdout") -> dict[str, Any]:
    return {"type": "stream", "name": name, "text": words}


def lines(first: int, last: int) -> str:
    return "".join(f"line {n}\n" for n in range(first, last))


def told(*outputs: dict[str, Any]) -> str:
    out = io.StringIO()
    Teller(Printer(out, out), out).cells([Cell("x", outputs, 1, status="ok")])
    said = out.getvalue()
    return said.partition("> x\n")[2].removesuffix("[ok]\n\n")


def cut(number: int) -> str:
    return f"… {number} more lines: --full shows what is kept\n"


def test_the_last_lines_stand_before_the_error() -> None:
    said = told(text(lines(0, 100)), FAILED)
    assert said == lines(0, 10) + cut(80) + lines(90, 100) + "E: no\n"


def test_what_ran_before_is_shortened_beside_what_is_told_in_full() -> None:
    out = io.StringIO()
    teller = Teller(Printer(out, out), out, full=True)
    cell = Cell("x", (text(lines(0, 100)),), 1, status="ok")
    teller.shortened("`broker logs --full`").cells([cell])
    before = out.getvalue()
    assert "… 80 more lines: `broker logs --full` shows what is kept\n" in before
    assert "line 50\n" not in before
    teller.event({"type": "started", "id": "a", "cell": 1, "execution_count": 2, "code": "x"})
    teller.event({**text(lines(0, 100)), "id": "a", "cell": 1})
    assert "line 50\n" in out.getvalue()


def test_what_has_room_is_told_whole() -> None:
    assert told(text(lines(0, 20))) == lines(0, 20)
    assert told(*(text(f"line {n}\n") for n in range(20)), FAILED) == lines(0, 20) + "E: no\n"


def test_what_is_shown_amid_text_stays_in_its_order() -> None:
    image = {"type": "display", "data": {"image/png": b"x", "text/plain": "<Image>"}}
    words = {"type": "result", "data": {"text/plain": "words"}}
    said = told(text(lines(0, 100)), image, text(lines(0, 30) + "open"), words)
    first = lines(0, 10) + cut(80) + lines(90, 100) + "[image/png 1 B]\n"
    assert said == first + cut(22) + lines(22, 30) + "open\nwords\n"


def test_a_line_without_an_end_is_cut_in_the_middle() -> None:
    said = told(text("a" * CHARACTERS * 3 + "b" * CHARACTERS))
    note = "\n… 1 more line: --full shows what is kept\n"
    assert said == "a" * CHARACTERS + note + "b" * CHARACTERS + "\n"


@given(st.lists(st.text("ab\n", max_size=60), max_size=30))
def test_the_ends_are_those_of_the_text_however_it_comes(pieces: list[str]) -> None:
    ends, whole = Ends(), "".join(pieces)
    shown = "".join(ends.take(piece) for piece in pieces)
    left_out, rest = ends.rest()
    assert whole.startswith(shown)
    assert whole.endswith(rest)
    assert max(shown.count("\n"), rest.count("\n")) <= LINES
    assert (len(shown) + len(rest) == len(whole)) == (not left_out)
    assert left_out in (0, whole.count("\n") - shown.count("\n") - rest.count("\n"), 1)
    assert ends.rest() == (0, "")
