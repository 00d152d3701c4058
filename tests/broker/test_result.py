"""What a client gathers of an execution's events."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.client.result import CHART, DATAFRAME, collect, collect_answer
from broker.client.terminal import shown

TABLE = {"columns": [{"name": "a", "dtype": "int64"}], "shape": [1, 1], "rows": [[1]]}
DRAWN = {"title": "T", "axes": []}


def stream(text: str, name: str = "stdout") -> dict[str, Any]:
    return {"type": "stream", "name": name, "text": text}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("plain\n", "plain\n"),
        ("\r 1%\r 2%\r100%\n", "100%\n"),
        ("longer\rab\n", "abnger\n"),
        ("50%\r51%\r", "51%"),
        ("a\r\nb\r\n", "a\nb\n"),
        ("longer\r\x1b[Kab", "ab"),
        ("longer\rab\x1b[K", "ab"),
        ("longer\rab\x1b[2K\rc", "c "),
        ("\r\x1b[32m50%\x1b[0m", "50%"),
        ("\x1b[32mgreen\x1b[0m", "\x1b[32mgreen\x1b[0m"),  # nothing goes back: as it is
        ("a\r\x1b", ""),
        ("abc\b\bX", "aXc"),
        ("\b\ba", "a"),
        ("", ""),
    ],
)
def test_text_is_as_a_terminal_shows_it_in_the_end(text: str, seen: str) -> None:
    seen = seen or ("a" if text else "")
    assert shown(text) == seen
    assert collect([stream(text)]).text == seen
    assert collect([stream(text)]).stdout == text


@given(st.text("ab\r\b\n\x1b[K2m"))
def test_no_text_raises_or_grows(text: str) -> None:
    assert len(shown(text)) <= len(text)
    assert "\r" not in shown(text)


def test_a_bar_that_came_in_pieces_is_one_line() -> None:
    bars = [stream(f"\r{n:3}%", "stderr") for n in range(101)]
    assert collect([*bars, stream("\n", "stderr"), stream("done\n")]).text == "100%\ndone\n"


def test_tables_and_charts_are_gathered_the_displayed_ones_first() -> None:
    result = collect([
        {"type": "result", "data": {DATAFRAME: TABLE | {"shape": [2, 2]}, "text/plain": "t"}},
        {"type": "display", "data": {DATAFRAME: TABLE}},
        {"type": "display", "data": {CHART: DRAWN, "image/png": b"x"}},
        {"type": "display", "data": {CHART: "no chart", DATAFRAME: [1]}},
    ])  # fmt: skip
    assert [table["shape"] for table in result.dataframes] == [[1, 1], [2, 2]]
    assert result.charts == [DRAWN]


def test_what_was_left_out_is_told() -> None:
    cut = {"shown": 1, "total": 9, "file": ".outputs/1.txt"}
    assert collect([{"type": "done", "status": "ok", "truncated": cut}]).truncated == cut
    assert collect([{"type": "done", "status": "ok"}]).truncated is None
    answer = {"status": "ok", "outputs": [], "done": {"truncated": cut}}
    assert collect_answer(answer).truncated == cut


@pytest.mark.parametrize(
    ("event", "short"),
    [
        ({"name": "E", "message": "m", "short": "E: m, cell line 3"}, "E: m, cell line 3"),
        ({"name": "E", "message": "m\nmore"}, "E: m"),  # of a server that tells none
        ({"name": "E"}, "E"),
    ],
)
def test_an_error_has_a_short_form(event: dict[str, Any], short: str) -> None:
    error = collect([{"type": "error", **event}]).error
    assert error is not None
    assert error.short == short


@pytest.mark.parametrize(
    ("told", "done", "state"),
    [
        ([], {}, "warm"),
        ([], {"state": "fresh"}, "fresh"),
        ([], {"state": "lost"}, "lost"),
        (["fresh"], {}, "fresh"),
        (["fresh"], {"state": "warm"}, "warm"),  # another's code was the first to run
        (["lost", "lost"], {"state": "warm"}, "lost"),  # and the loss is news all the same
    ],
)
def test_the_state_is_that_of_done_unless_a_loss_is_news(
    told: list[str], done: dict[str, str], state: str
) -> None:
    events = [{"type": "session", "state": one} for one in told]
    result = collect([*events, {"type": "done", "status": "ok", **done}])
    assert result.state == state
