"""The command line: `python -m tests.bench [--quick] [--rows a,b] [--side …] [--json-only]`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import json
import shutil
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench import report as reporting
from tests.bench.lab import Lab, Mood, machine, pace
from tests.bench.rows import ROWS

RESULTS = Path("bench-results")
for _module in (
    "rows",
    "trips",
    "starts",
    "held",
    "bounced",
    "jupyter",
    "sandbox",
):  # the table's order
    importlib.import_module(f"tests.bench.{_module}")  # enters its rows


def arguments() -> argparse.Namespace:
    names = ", ".join(ROWS)
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds, and 100 sessions for 1,000: a look"
    )
    parser.add_argument("--rows", default="", metavar="A,B", help=f"only these rows of: {names}")
    parser.add_argument("--side", choices=("both", "ours", "peers"), default="both")
    parser.add_argument("--json-only", action="store_true", help="print the JSON and nothing else")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="DIR")
    options = parser.parse_args()
    options.rows = [name.strip() for name in options.rows.split(",") if name.strip()] or list(ROWS)
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"unknown rows {', '.join(sorted(unknown))}; there are: {names}")
    return options


async def measure(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Measure the rows one after the other and return the report; a row that fails is named."""
    # Short: Unix socket paths have to fit below.
    directory = Path(tempfile.mkdtemp(prefix="kb-"))
    results, failures, paces = [], {}, []
    began = Mood.now()
    task = progress.add_task("", total=len(options.rows), step="")

    def advance(step: str) -> None:
        # Drawn between two measurements, never during one.
        progress.update(task, step=step)
        progress.refresh()

    try:
        async with contextlib.AsyncExitStack() as stack:
            lab = Lab(directory, stack, side=options.side, advance=advance)
            gc.collect()
            gc.freeze()
            for name in options.rows:
                row = ROWS[name]
                progress.update(task, description=row.title)
                paces.append(pace())
                before = Mood.now()
                try:
                    samples = await row.measure(
                        lab, row.quick_rounds if options.quick else row.rounds
                    )
                except Exception as error:  # the other rows are still worth having
                    failures[name] = f"{type(error).__name__}: {error}"
                else:
                    mood = Mood.now().since(before)
                    results.append(reporting.compare(row, samples, mood, quick=options.quick))
                progress.advance(task)
            advance("stopping what was started")
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "quick": options.quick,
        "machine": machine(),
        "mood": Mood.now().since(began) | {"pace_ms": [round(each, 1) for each in paces]},
        "rows": results,
        "failures": failures,
    }


def main() -> int:
    options = arguments()
    # Its own thread would wake up in the middle of a measurement: hence no automatic refresh.
    columns = (
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        BarColumn(bar_width=20),
        TextColumn("{task.description}"),
        TextColumn("[dim]{task.fields[step]}"),
        TimeElapsedColumn(),
    )
    errors = Console(stderr=True)
    with Progress(
        *columns, console=errors, auto_refresh=False, transient=True, disable=options.json_only
    ) as progress:
        report = asyncio.run(measure(options, progress))
    files = reporting.write(report, options.output) if report["rows"] else []
    if options.json_only:
        print(json.dumps(report))
    else:
        console = Console()
        # A pipe has no width of its own: 80 columns would break every cell.
        if not console.is_terminal:
            console.width = 180
        console.print(reporting.terminal(report, console.width))
        console.print("written:", *files)
    for name, reason in report["failures"].items():
        errors.print(f"{name} could not be measured: {reason}", style="red", markup=False)
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
