from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from tests.bench.held import QUICK_STEPS, live
from tests.bench.report import Summary, compare, judge, markdown, percentile, terminal
from tests.bench.rows import ROWS, Against

OURS = Summary(3, 10.0, 12.0, 12.0)
PEER = Summary(3, 300.0, 310.0, 320.0)


@pytest.mark.parametrize(
    ("samples", "share", "expected"),
    [
        ([1.0], 0.99, 1.0),
        ([3.0, 1.0, 2.0], 0.5, 2.0),
        ([1.0, 2.0], 0.5, 1.5),
        ([float(n) for n in range(101)], 0.95, 95.0),
    ],
)
def test_a_percentile_lies_between_its_neighbours(
    samples: list[float], share: float, expected: float
) -> None:
    assert percentile(samples, share) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("against", "ours", "peer", "met"),
    [
        (Against("p", ratio=20, ours_at_most=20), OURS, PEER, True),
        (Against("p", ratio=31), OURS, PEER, False),
        (Against("p", ratio=20, ours_at_most=9), OURS, PEER, False),
        (Against("p", ours_at_most=20), OURS, None, True),
        (Against("p", ratio=20), OURS, None, None),
        (Against("p", ratio=20), None, PEER, None),
        (Against("p"), OURS, PEER, None),
        (Against("p", p99_at_most=12), OURS, PEER, True),
        (Against("p", p99_at_most=11), OURS, PEER, False),
    ],
)
def test_a_target_is_met_only_when_every_part_of_it_was_measured_and_holds(
    against: Against, ours: Summary | None, peer: Summary | None, met: bool | None
) -> None:
    assert judge(against, ROWS["round_trip"], ours, peer)["met"] is met


def test_where_more_is_better_the_ratio_is_the_other_way_round() -> None:
    row = ROWS["throughput_10"]
    verdict = judge(Against("p", ours_at_least=9), row, Summary(3, 10.0, 12.0, 12.0), PEER)
    assert verdict["ratio"] == pytest.approx(1 / 30)
    assert verdict["met"] is True
    assert verdict["target"] == "≥ 9 /s"


MOOD: dict[str, Any] = {
    "steal_percent": 7.5,
    "idle_percent": 10.0,
    "load_1m": 1.0,
    "pace_ms": [40.4, 30.2, 35],
}


def report(*rows: dict[str, Any], quick: bool = False) -> dict[str, Any]:
    versions = {"jupyter-kernel-gateway": "3.0.1", "ipykernel": "7.4.0"}
    machine = {"processor": "one", "processors": 2, "python": "3.11", "versions": versions}
    return {"machine": machine, "mood": MOOD, "quick": quick, "rows": rows}


def compared(name: str, *, quick: bool = False) -> dict[str, Any]:
    row = ROWS[name]
    peers = [against.peer for against in row.against if against.peer != live(QUICK_STEPS[-1])]
    samples = {peer: [40.0, 50.0] for peer in peers} | {"broker": [4.0, 5.0]}
    return compare(row, samples, MOOD, quick=quick)


def test_the_readme_table_has_one_line_per_comparison_and_names_the_circumstances() -> None:
    text = markdown(report(compared("round_trip")))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(ROWS["round_trip"].against)
    assert "| 10x |" in table[2]
    assert "CPU steal 7.5 %" in text
    assert "35 ms (30 to 40)" in text
    assert "trust the ratios only" in text
    assert "quick" not in text


def test_a_quick_look_names_what_it_measured_and_judges_nothing_else() -> None:
    rows = [compared(name, quick=True) for name in ("growth_round_trip", "held_memory")]
    text = markdown(report(*rows, quick=True))
    assert "with 100 live sessions" in text
    assert "memory of 100 idle sessions" in text
    assert "1,000" not in text
    assert "yes" not in text
    assert "A quick look" in text
    assert compared("round_trip", quick=True)["comparisons"][0]["met"] is True


@pytest.mark.parametrize(("width", "columns"), [(80, 7), (139, 7), (140, 13)])
def test_no_figure_is_cut_on_a_narrow_terminal(width: int, columns: int) -> None:
    table = terminal(report(compared("round_trip")), width)
    assert len(table.columns) == columns
    out = io.StringIO()
    Console(file=out, width=width).print(table)
    assert "…" not in out.getvalue()
