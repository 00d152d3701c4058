"""Lines that are rewritten: what is sent of them shows what all of it would have shown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.inside.rewrites import LONGEST, Line

PART = re.compile(r"\x1b\[[0-9;]*[mK]|.", re.DOTALL)


class Terminal:
    """A small terminal: characters, line ends, going back, erasing to the end, colours."""

    def __init__(self) -> None:
        self.lines = [""]
        self.at = 0

    def show(self, text: str) -> Terminal:
        for part in PART.findall(text):
            line = self.lines[-1]
            if part == "\n":
                self.lines.append("")
                self.at = 0
            elif part == "\r":
                self.at = 0
            elif part == "\x1b[2K":
                self.lines[-1] = " " * self.at
            elif part.endswith("K") and part[0] == "\x1b":
                self.lines[-1] = line[: self.at]
            elif part[0] != "\x1b":
                padded = line.ljust(self.at)
                self.lines[-1] = padded[: self.at] + part + padded[self.at + 1 :]
                self.at += 1
        return self

    @property
    def screen(self) -> tuple[list[str], int]:
        return [line.rstrip() for line in self.lines], self.at


def sent(writes: list[tuple[str, bool]]) -> str:
    """Return all that goes out of some writes, after each of which the line is taken or not."""
    line = Line()
    told = ""
    for text, take in writes:
        told += line.feed(text)
        if take:
            told += line.take()
    return told + line.take()


WRITES = st.lists(st.tuples(st.text("abc\r\n", max_size=12), st.booleans()), max_size=8)
STRANGE = st.lists(
    st.tuples(
        st.lists(st.sampled_from(["a", "bc", "\r", "\n", "\x1b[K", "\x1b[31m", "\x1b[0m"])).map(
            "".join
        ),
        st.booleans(),
    ),
    max_size=8,
)


@given(WRITES)
def test_a_terminal_shows_the_same_of_what_is_sent_as_of_what_was_written(
    writes: list[tuple[str, bool]],
) -> None:
    written = "".join(text for text, _ in writes)
    assert Terminal().show(sent(writes)).screen == Terminal().show(written).screen


@given(STRANGE)
def test_so_it_does_with_colours_and_what_erases_the_line(writes: list[tuple[str, bool]]) -> None:
    written = "".join(text for text, _ in writes)
    assert Terminal().show(sent(writes)).screen == Terminal().show(written).screen


@given(st.text("ab\n", max_size=30))
def test_text_that_never_goes_back_is_sent_as_it_is_and_at_once(text: str) -> None:
    line = Line()
    assert line.feed(text) == text
    assert not line.held


@pytest.mark.parametrize(
    ("writes", "told"),
    [
        (["\r 1%", "\r 2%", "\r 3%"], "\r 3%"),
        (["50%\r", "51%\r", "52%\r"], "50%\r52%\r"),
        (["\r 1%\r 2%\r100%\n"], "\r100%\n"),
        (["\rlonger", "\rab"], "\rlonger\rab"),
        (["\rlonger", "\rab\n"], "\rabnger\n"),
        (["\r\x1b[32m50%\x1b[0m", "\r\x1b[32m51%\x1b[0m"], "\r\x1b[32m51%\x1b[0m"),
        (["\rlong line", "\r\x1b[Kx"], "\r\x1b[Kx"),
        (["a\r\nb\r\n"], "a\r\nb\r\n"),
        (["a\r", "\nb\r", "\n"], "a\r\nb\r\n"),
        (["\r1\b2", "\r3"], "\r1\b2\r3"),  # goes back one place: nobody counts that
    ],
)
def test_what_a_later_update_covers_is_not_sent(writes: list[str], told: str) -> None:
    assert sent([(text, False) for text in writes]) == told


def test_ten_thousand_updates_are_one() -> None:
    bars = "".join(f"\r{i / 100:6.2f}% |{'#' * (i // 1000):10}|" for i in range(10_000))
    assert sent([(bars, False)]) == "\r 99.99% |#########|" or len(sent([(bars, False)])) < 30


def test_a_line_too_long_to_be_kept_says_so() -> None:
    line = Line()
    line.feed("\r" + "x" * LONGEST)
    assert not line.is_long
    line.feed("x")
    assert line.is_long
