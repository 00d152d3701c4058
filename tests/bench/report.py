"""What the samples say: percentiles, verdicts, the table, the chart. Pure but for the writing."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from tests.bench.lab import OURS, Samples
from tests.bench.rows import Against, Row

WIDE = 140  # columns that the whole table needs
NOISY = 5.0  # percent of stolen time above which a run says so
HEADINGS = (
    *("row", "ours p50", "p95", "p99", "± half", "peer", "peer p50", "p95", "p99", "± half"),
    *("ratio", "target", "met"),
)


@dataclass(frozen=True)
class Summary:
    """The percentiles of one contestant in one row."""

    n: int
    p50: float
    p95: float
    p99: float
    spread: float = 0.0  # of the middle half: the third quartile less the first

    @classmethod
    def of(cls, samples: Sequence[float]) -> Summary:
        p25, p50, p75, p95, p99 = (percentile(samples, s) for s in (0.25, 0.5, 0.75, 0.95, 0.99))
        return cls(len(samples), p50, p95, p99, p75 - p25)


def percentile(samples: Sequence[float], share: float) -> float:
    """Return the value below which that share of the samples lies, between neighbours linearly."""
    ordered = sorted(samples)
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def compare(
    row: Row, samples: Samples, mood: Mapping[str, float], *, quick: bool = False
) -> dict[str, Any]:
    """Return a row's result as plain data: what goes into the JSON file and all else is made of.

    Where a quick look measures something less, it has a title that says so, and no verdict.
    """
    less = quick and row.quick_title
    summaries = {name: Summary.of(values) for name, values in samples.items() if values}
    return {
        "name": row.name,
        "title": less or row.title,
        "unit": row.unit,
        "contestants": {
            name: {**asdict(summary), "samples": [round(v, 4) for v in samples[name]]}
            for name, summary in summaries.items()
        },
        "comparisons": [
            judge(against, row, summaries.get(OURS), summaries.get(against.peer))
            | ({"target": "", "met": None} if less else {})
            for against in row.against
            if not less or against.peer in summaries
        ],
        "machine": dict(mood),
    }


def judge(against: Against, row: Row, ours: Summary | None, peer: Summary | None) -> dict[str, Any]:
    """Return ratio and verdict of one comparison; None where a side was not measured."""
    ratio, unit = None, row.unit
    if ours and peer and against.peer != OURS:
        ratio = ours.p50 / peer.p50 if row.more_is_better else peer.p50 / ours.p50
    wanted, verdicts = [], []
    if against.ours_at_least is not None:
        wanted.append(f"≥ {against.ours_at_least:g} {unit}")
        verdicts.append(None if ours is None else ours.p50 >= against.ours_at_least)
    if against.p99_at_most is not None:
        wanted.append(f"p99 ≤ {against.p99_at_most:g} {unit}")
        verdicts.append(None if ours is None else ours.p99 <= against.p99_at_most)
    if against.ours_at_most is not None:
        wanted.append(f"≤ {against.ours_at_most:g} {unit}")
        verdicts.append(None if ours is None else ours.p50 <= against.ours_at_most)
    if against.ratio is not None:
        wanted.append(f"≥ {against.ratio:.3g}x")
        verdicts.append(None if ratio is None else ratio >= against.ratio)
    if against.more_at_most is not None:
        wanted.append(f"≤ {against.more_at_most:g} {unit} more")
        more = ours.p50 - peer.p50 if ours and peer else None
        verdicts.append(None if more is None else more <= against.more_at_most)
    if against.tail_at_most is not None:
        wanted.append(f"p95 ≤ {against.tail_at_most:g}x")
        tail = ours.p95 / peer.p95 if ours and peer else None
        verdicts.append(None if tail is None else tail <= against.tail_at_most)
    met = None if not verdicts or None in verdicts else all(verdicts)
    return {"peer": against.peer, "ratio": ratio, "target": ", ".join(wanted), "met": met}


def lines(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Return the table's cells, one line per comparison."""
    table = []
    for result in results:
        for index, comparison in enumerate(result["comparisons"]):
            contestants, unit = result["contestants"], result["unit"]
            met = {True: "yes", False: "NO", None: "-"}[comparison["met"]]
            table.append(
                [
                    "" if index else f"{result['title']} ({unit})",
                    *figures(contestants.get(OURS)),
                    *others(comparison["peer"], contestants),
                    "-" if comparison["ratio"] is None else f"{comparison['ratio']:.3g}x",
                    comparison["target"] or "-",
                    met,
                ]
            )
    return table


def others(peer: str, contestants: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Return a peer's cells; a row that only judges us has none."""
    return ["-"] * 5 if peer == OURS else [peer, *figures(contestants.get(peer))]


def figures(summary: Mapping[str, float] | None) -> list[str]:
    if summary is None:
        return ["-"] * 4
    values = [summary["p50"], summary["p95"], summary["p99"], summary["spread"] / 2]
    return [f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in values]


def terminal(report: Mapping[str, Any], width: int) -> Table:
    """Return the table for people: without the percentiles on a terminal of few columns."""
    table = Table(caption=caption(report), caption_justify="left", padding=(0, 0, 0, 1))
    right = {1, 2, 3, 4, 6, 7, 8, 9, 10}
    shown = [i for i in range(len(HEADINGS)) if width >= WIDE or i not in {2, 3, 4, 7, 8, 9}]
    for index in shown:
        right_or_left = "right" if index in right else "left"
        table.add_column(HEADINGS[index], justify=right_or_left, no_wrap=index in right)  # type: ignore[arg-type]
    for cells in lines(report["rows"]):
        colour = {"yes": "green", "NO": "red"}.get(cells[-1], "")
        cells[-1] = f"[{colour}]{cells[-1]}[/]" if colour else cells[-1]
        table.add_row(*(cells[index] for index in shown))
    return table


def caption(report: Mapping[str, Any]) -> str:
    """Return the circumstances, in words: without them no figure is worth anything."""
    machine, mood = report["machine"], report["mood"]
    counts = "; ".join(
        f"{row['name']}: n = {'/'.join(str(c['n']) for c in row['contestants'].values())}"
        for row in report["rows"]
    )
    text = (
        f"{machine['processor']}, {machine['processors']} processors, shared by clients, servers "
        f"and kernels; CPU steal {mood['steal_percent']:.1f} %, load {mood['load_1m']:.2f}; "
        f"a million additions between the rows: {median(mood['pace_ms']):.0f} ms "
        f"({min(mood['pace_ms']):.0f} to {max(mood['pace_ms']):.0f}). "
        f"Python {machine['python']}, jupyter_kernel_gateway "
        f"{machine['versions']['jupyter-kernel-gateway']}, ipykernel "
        f"{machine['versions']['ipykernel']}. {counts}."
    )
    if report["quick"]:
        text = f"A quick look: of few rounds, the tails are a guess. {text}"
    if mood["steal_percent"] > NOISY:
        text += " Much of the processor's time was taken by other machines: trust the ratios only."
    if mood["load_1m"] > machine["processors"]:
        text += (
            " Other programs kept the processors busy: the times are not those of a quiet machine."
        )
    return text


def markdown(report: Mapping[str, Any]) -> str:
    """Return the table for the README."""
    rule = ["---" if index in {0, 5, 11, 12} else "---:" for index in range(len(HEADINGS))]
    table = [list(HEADINGS), rule, *lines(report["rows"])]
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in table)
    return f"{body}\n\n{caption(report)}\n"


def chart(report: Mapping[str, Any]) -> str:
    """Return the chart as SVG: a panel per row, a bar per contestant to p50, a line on to p95."""
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    mpl.rcParams["svg.hashsalt"] = "bench"
    rows = [row for row in report["rows"] if row["contestants"]]
    heights = [len(row["contestants"]) + 0.9 for row in rows]
    figure, panels = plt.subplots(
        len(rows),
        1,
        figsize=(8, 0.42 * sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for panel, row in zip(panels[:, 0], rows, strict=True):
        names = list(row["contestants"])
        p50 = [row["contestants"][name]["p50"] for name in names]
        p95 = [row["contestants"][name]["p95"] for name in names]
        colours = ["#2a6fdb" if name == OURS else "#b8bec9" for name in names]
        panel.barh(names, p50, color=colours, height=0.6)
        panel.hlines(names, p50, p95, color="#444b57", linewidth=1)
        for name, low, high in zip(names, p50, p95, strict=True):
            panel.annotate(
                f"{low:.3g} {row['unit']}",
                (max(low, high), name),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        panel.set_title(row["title"], loc="left", fontsize=9)
        if max(p95) > 30 * min(p50):  # else a bar would not be seen beside the other
            panel.set_xscale("log")
            panel.set_xlim(min(p50) / 3, 3 * max(p95))
        else:
            panel.set_xlim(0, 1.18 * max(p95))
        panel.invert_yaxis()
        panel.tick_params(labelsize=8, length=0)
        panel.spines[["top", "right", "left"]].set_visible(False)
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    plt.close(figure)
    return out.getvalue()


def write(report: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write the JSON, the chart and the README's table; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    contents = {
        "results.json": json.dumps(report, indent=1) + "\n",
        "chart.svg": chart(report),
        "table.md": markdown(report),
    }
    for name, text in contents.items():
        (directory / name).write_text(text, encoding="utf-8")
    return [directory / name for name in contents]
