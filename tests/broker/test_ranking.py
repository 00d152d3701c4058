"""The rows of `broker top`: rates, orders, filters, and which one is selected."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from broker.cli.keys import parse
from broker.cli.ranking import EXTRA, ORDERS, Ranking
from broker.cli.top import made

Row = dict[str, Any]


def row(name: str, cpu: float | None = 0.0, **fields: Any) -> Row:
    usage = None if cpu is None else {"cpu_seconds": cpu, "memory": fields.pop("memory", 1)}
    known: Row = {
        "session": name, "tenant": "default", "state": "ready", "profile": "python", "idle": 1.0,
        "kernel": f"k-{name}", "cell": None, "usage": usage, "generation": 1, "clients": 0,
        "last_error": None,
    }  # fmt: skip
    return known | fields


def names(ranking: Ranking) -> list[str]:
    return [one["session"] for one in ranking.rows]


def rated(**seconds: float) -> Ranking:
    """Return a ranking in which each has used so many CPU seconds in one."""
    ranking = Ranking()
    ranking.take([row(name) for name in seconds], 10.0)
    ranking.take([row(name, used) for name, used in seconds.items()], 11.0)
    return ranking


def test_a_rate_takes_two_looks() -> None:
    ranking = Ranking()
    ranking.take([row("a", 5.0)], 10.0)
    assert ranking.rows[0]["cpu_percent"] is None
    ranking.take([row("a", 5.5)], 12.0)
    assert ranking.rows[0]["cpu_percent"] == 25.0


def test_a_new_kernel_of_a_session_has_a_rate_of_its_own() -> None:
    ranking = rated(a=1.0)
    ranking.take([row("a", 0.1, kernel="another")], 12.0)
    assert ranking.rows[0]["cpu_percent"] is None


def test_where_no_group_counts_the_measured_time_makes_the_rate() -> None:
    ranking = Ranking()
    for used, now in ((1.0, 10.0), (2.0, 12.0)):
        ranking.take([row("a", None)], now)
        ranking.measure([{"kernel": "k-a", "pss": 5, "uss": 4, "cpu_seconds": used}], now)
    shown = ranking.rows[0]
    assert (shown["cpu_percent"], shown["pss"], shown["uss"], shown["held"]) == (50.0, 5, 4, 5)


@pytest.mark.parametrize(
    ("key", "first"),
    [("c", "b"), ("m", "c"), ("u", "a"), ("i", "c"), ("s", "b"), ("t", "b"), ("n", "a")],
)
def test_each_key_sorts_and_again_the_other_way(key: str, first: str) -> None:
    ranking = Ranking()
    busy = {"state": "busy", "cell": {"id": "e", "seconds": 3.0}}
    for now in (1.0, 2.0):
        ranking.take(
            [
                row("a", 0.1 * now, idle=2.0),
                row("b", 0.9 * now, idle=0.0, **busy),
                row("c", 0.0, idle=9.0, memory=100),
            ],
            now,
        )
    ranking.measure([{"kernel": "k-a", "pss": 1, "uss": 7}, {"kernel": "k-b", "uss": 2}], 2.0)
    ranking.order = "c" if key == "n" else "n"
    ranking.sort(key)
    forth = names(ranking)
    assert forth[0] == first
    ranking.sort(key)
    assert names(ranking) != forth
    assert set(ORDERS) == set("cmuistn")


def test_a_row_without_the_number_comes_last() -> None:
    ranking = rated(a=0.1, b=0.9)
    ranking.take([row("a", 0.1), row("b", 1.0), row("c", None)], 12.0)
    assert names(ranking)[-1] == "c"


def test_the_selection_stays_on_its_session_wherever_that_goes() -> None:
    ranking = rated(a=0.9, b=0.5, c=0.1)
    ranking.move(1)
    assert ranking.selected == ("default", "b")
    ranking.sort("n")
    ranking.sort("n")
    assert (names(ranking), ranking.selected) == (["c", "b", "a"], ("default", "b"))
    ranking.move(-9)
    assert ranking.selected == ("default", "c")
    ranking.take([row("z")], 20.0)
    assert ranking.selected == ("default", "z")
    ranking.take([], 21.0)
    assert ranking.selected is None
    ranking.move(1)
    assert ranking.screen(5) == []


def test_the_screen_follows_the_selection() -> None:
    ranking = Ranking(order="n")
    ranking.take([row(f"s{number:02}") for number in range(20)], 1.0)
    assert [one["session"] for one in ranking.screen(3)] == ["s00", "s01", "s02"]
    ranking.move(4)
    assert [one["session"] for one in ranking.screen(3)] == ["s02", "s03", "s04"]
    ranking.move(-2)
    assert [one["session"] for one in ranking.screen(3)] == ["s02", "s03", "s04"]
    ranking.move(99)
    assert [one["session"] for one in ranking.screen(3)] == ["s17", "s18", "s19"]
    assert len(ranking.screen(50)) == 20


def test_a_filter_looks_into_name_tenant_state_and_profile() -> None:
    ranking = Ranking(order="n")
    rows = [row("chat-1"), row("b", state="busy"), row("c", tenant="acme")]
    ranking.take(rows, 1.0)
    for text, found in (("CHAT", ["chat-1"]), ("busy", ["b"]), ("acme", ["c"]), ("nope", [])):
        ranking.narrow(text)
        assert names(ranking) == found
    ranking.narrow("")
    assert len(ranking.rows) == 3


def test_what_is_on_the_screen_is_measured_and_some_of_the_rest_in_turn() -> None:
    ranking = Ranking(order="n")
    ranking.take([row(f"s{number:02}") for number in range(30)], 1.0)
    seen: set[str] = set()
    for now in (1.0, 2.0, 3.0, 4.0):
        wanted = ranking.to_measure(4)
        assert wanted[:4] == [f"k-s{number:02}" for number in range(4)]
        assert len(wanted) == 4 + EXTRA
        seen.update(wanted)
        ranking.measure([{"kernel": kernel, "pss": 1, "uss": 1} for kernel in wanted], now)
    assert len(seen) == 30


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        ("ab", ["a", "b"]),
        ("\x1b[A\x1b[B\x1bOA", ["up", "down", "up"]),
        ("\x1b[5~j\x1b[6~", ["page up", "j", "page down"]),
        ("\x1b", ["escape"]),
        ("\x1bq", ["escape", "q"]),
        ("\x1b[1;5Cx", ["x"]),
        ("\x1b[200~", []),
        ("\x1b[", []),
        ("\r\x7f\x03", ["enter", "backspace", "stop"]),
        ("ü", ["ü"]),
    ],
)
def test_keys_have_names_and_what_is_no_key_is_nothing(sent: str, keys: list[str]) -> None:
    assert list(parse(sent)) == keys


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_a_long_error_takes_no_other_columns_room(width: int) -> None:
    ranking = rated(a=0.1, b=0.9)
    long = row("session-of-some-length", 1.0, last_error="ValueError: " + "x" * 300)
    ranking.take([long, row("b", 1.0)], 12.0)
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(made(ranking, ranking.rows, width))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in lines)
    assert "SESSION" in lines[0]
    assert "CPU %" in lines[0]
    assert any(line.startswith("session-of-some-length ") for line in lines)
    assert ("LAST ERROR" in lines[0]) is (width >= 100)
    assert ("CLIENTS" in lines[0]) is (width >= 120)
