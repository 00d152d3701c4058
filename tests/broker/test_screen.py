"""What a stranger's text becomes before it is shown: on a terminal, and where there is none."""

from __future__ import annotations

import io
import re
import unicodedata
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.cli.cells import Cell
from broker.cli.group import RefusedByBroker
from broker.cli.printer import Printer
from broker.cli.replay import first_line
from broker.cli.screen import Screen, settled, still
from broker.cli.telling import Teller

HOSTILE = [
    "\x1b]52;c;cm0gLXJm\x07",  # the clipboard
    "\x1b]0;title\x1b\\",
    "\x1bP+q544e\x1b\\",  # DCS
    "\x1b[2J\x1b[1;1H",  # clears, and moves
    "\x1b[6n",  # asks for an answer, which would be typed into the shell
    "\x1b[5A\x1b[?1049h",
    "\x9d0;title\x9c",
    "\x1bc",
    "\x07\x00\x0e\x7f",
    "\u202eevil",
]


# What sequences are made of, so that some are made of what is left of others.
PARTS = (
    *("\x1b", "\x1b[", "\x1b[0m", "\x1b[2K", "[", "0m", "8m", "2K", "]0;", "\x07", "\\", "\x7f"),
    *("\n", "\r", "\b", "\t", "a", "\x9b", "\x9d", "\x85", "\u2028", "\ud800"),
    *("\u202a", "\u202e", "\u2066", "\u2069"),
)
ESCAPES = ("\x1b", "\x1b[", "\x1b[0m", "0m", "8m", "[2K")
stranger = st.lists(st.sampled_from(ESCAPES), max_size=12).map("".join) | st.lists(
    st.sampled_from(PARTS) | st.characters(), max_size=16
).map("".join)
TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def acting(words: str) -> set[str]:
    """Return what acts on a terminal, but for ends of lines and tabs."""
    return {
        one
        for one in words
        if unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(one) in TURNING
    } - {"\n", "\t"}


def through(pieces: list[str], *, is_drawn: bool) -> str:
    """Return what the screen makes of what comes in pieces."""
    tube = Tube(is_drawn=is_drawn)
    with redirect_stdout(tube):
        screen = Screen()
        for piece in pieces:
            screen.out.write(piece)
        screen.settle()
    return tube.getvalue()


class Tube(io.StringIO):
    """A stream that says whether it is a terminal."""

    def __init__(self, *, is_drawn: bool) -> None:
        super().__init__()
        self._is_drawn = is_drawn

    def isatty(self) -> bool:
        return self._is_drawn


@pytest.fixture
def tube(request: pytest.FixtureRequest) -> Tube:
    return Tube(is_drawn=request.param)


terminal = pytest.mark.parametrize("tube", [True], indirect=True)
pipe = pytest.mark.parametrize("tube", [False], indirect=True)
both = pytest.mark.parametrize("tube", [True, False], indirect=True)


def told(tube: Tube, cell: Cell) -> str:
    """Return all that is shown once this cell was told as well."""
    with redirect_stdout(tube):
        screen = Screen()
        Teller(Printer(screen.out, screen.out), screen.out).cells([cell])
        screen.settle()
    return tube.getvalue()


def text(words: str, name: str = "stdout") -> dict[str, Any]:
    return {"type": "stream", "name": name, "text": words}


@both
def test_no_text_of_a_kernel_acts_on_the_terminal(tube: Tube) -> None:
    for words in HOSTILE:
        error = {"type": "error", "name": words, "message": words, "traceback": [words]}
        shown = {"type": "display", "data": {"text/plain": words, words: "x"}}
        outputs = (text(words), text(words, "stderr"), error, shown)
        told(tube, Cell(words, outputs, 1, words, "lost", words, origin=words, lost=words))
    said = tube.getvalue()
    assert "\\x1b]52;c;cm0gLXJm\\x07" in said
    assert not set("\x07\x00\x0e\x7f\x9d\x9c\u202e") & set(said)
    assert re.sub(r"\x1b\[[0-9;]*m", "", said).count("\x1b") == 0


@pipe
def test_in_a_pipe_there_is_no_escape_and_a_bar_is_as_it_ended(tube: Tube) -> None:
    bar = "".join(f"\r{n:3} %" for n in range(101))
    output = text(f"{bar}\nabc\b\bX\n\x1b[31mred\x1b[0m\n")
    said = told(tube, Cell("x", (output,), 1, status="ok"))
    assert "\x1b" not in said
    assert "\n100 %\naXc\nred\n[ok]\n" in said


@pytest.mark.parametrize(
    ("words", "left"),
    [
        ("\x1b[\x1b[0m8msecret\n", "\\x1b[8msecret\n"),
        ("\x1b\x1b[0m[2Kover\n", "\\x1b[2Kover\n"),
        ("\x1b\x1b[0m]0;title\x07\n", "\\x1b]0;title\\x07\n"),
    ],
)
def test_no_sequence_is_made_of_what_is_left_of_others(words: str, left: str) -> None:
    assert settled(words) == left


@given(st.lists(stranger, max_size=4))
def test_in_a_pipe_nothing_is_left_but_text_ends_of_lines_and_tabs(pieces: list[str]) -> None:
    said = through(pieces, is_drawn=False)
    assert not acting(said)
    assert through([said], is_drawn=False) == said


@given(st.lists(stranger, max_size=4))
def test_on_a_terminal_nothing_is_left_but_colours_and_what_stays_in_a_line(
    pieces: list[str],
) -> None:
    said = through(pieces, is_drawn=True)
    assert acting(re.sub(r"\x1b\[(?:[0-9;:]*m|[012]?K)", "", said)) <= {"\r", "\b"}
    assert through([said], is_drawn=True) == said


HIDDEN = "\x9b2J\u202e\u2066\r\b\n\x1b[8m"


@both
def test_names_and_reasons_in_lines_of_ours_are_still(tube: Tube) -> None:
    printer = Printer(tube, tube)
    lost = {"type": "session", "generation": 2, "state": "lost", "reason": HIDDEN, "lost": [HIDDEN]}
    for event in (
        lost,
        {"type": "display", "data": {HIDDEN: "x"}},
        {"type": "display", "data": {f"image/{HIDDEN}": "x"}},
        {"type": "done", "status": "lost", "reason": HIDDEN, "truncated": {"file": HIDDEN}},
    ):
        printer.event(event)
    said = tube.getvalue()
    assert not acting(said.replace("\x1b[0m", ""))
    assert said.count("\\x9b2J") == 6


@terminal
def test_on_a_terminal_colours_stay_and_end_before_words_of_ours(tube: Tube) -> None:
    said = told(tube, Cell("x", (text("\x1b[31mred\x1b[8m"),), 1, status="ok"))
    assert "\x1b[31mred\x1b[8m\n\x1b[0m[ok]\n" in said


@terminal
def test_a_bar_of_a_cell_that_ended_is_its_last_state(tube: Tube) -> None:
    said = told(tube, Cell("x", (text("  1 %\r 50 %\r100 %\n"),), 1, status="ok"))
    assert "\n100 %\n" in said
    assert " 50 %" not in said


@pipe
def test_a_line_that_comes_in_pieces_goes_out_whole(tube: Tube) -> None:
    with redirect_stdout(tube):
        out = Screen().out
        for piece in (" 1 %", "\r 2 %", "\r 3 %", "\nnext"):
            out.write(piece)
            out.flush()
        assert tube.getvalue() == " 3 %\n"
        out.write("x" * 200_000)  # it waits for no end that may never come
        assert len(tube.getvalue()) > 200_000


@terminal
def test_code_goes_back_over_nothing(tube: Tube) -> None:
    said = told(tube, Cell("x\r[ok, 0.1 s]\x1b[2K\b\b", (), 1, status="ok"))
    assert "\\r" in said
    assert "\r" not in said
    assert "\x1b[2K" not in said


@given(st.text() | st.sampled_from(HOSTILE))
def test_what_is_still_stays_in_its_line(words: str) -> None:
    shown = still(words)
    assert len(shown.splitlines()) <= 1
    assert not set("\x1b\r\b\n") & set(shown)
    assert still(shown) == shown
    assert "\r" not in first_line(Cell(words))


def test_a_refusal_with_a_kernels_words_is_still() -> None:
    said = RefusedByBroker("X", "a\x1b]0;t\x07\rb\nc").format_message()
    assert said == "a\\x1b]0;t\\x07\\rb\nc"


def test_images_are_named_by_forms_that_are_no_paths(tmp_path: Path) -> None:
    out = io.StringIO()
    printer = Printer(out, out, tmp_path)
    printer.event({"type": "display", "data": {"image/../../x": "aGk="}})
    assert [path.name for path in tmp_path.iterdir()] == ["image-001.bin"]
