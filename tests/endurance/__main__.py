"""The command line: `python -m tests.endurance [--minutes 10] [--sessions 200] [--only a,b]`."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import ours
from tests.bench.lab import Mood, machine, pace
from tests.bench.report import percentile
from tests.endurance.crowds import comings_and_goings, overload
from tests.endurance.fuzz import FAULTS, fuzz, fuzz_sockets
from tests.endurance.soak import growth, soak
from tests.system.peer import JSON, MSGPACK

CAPACITY = 16  # kernels of the broker that is overloaded
Verdict = tuple[str, str, str, bool]  # what, figure, target, met
errors = Console(stderr=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.endurance", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the soak")
    parser.add_argument("--sessions", type=int, default=200, help="busy at once in the soak")
    parser.add_argument("--frames", type=int, default=100_000, help="of the fuzz")
    parser.add_argument("--opens", type=int, default=10_000, help="opens and closes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="A,B", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--json", action="store_true", help="print JSON and nothing else")
    options = parser.parse_args()
    options.only = [name for name in options.only.split(",") if name] or list(PARTS)
    if unknown := set(options.only) - set(PARTS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    return options


async def busy(options: argparse.Namespace, room: Path) -> list[Verdict]:
    """Soak the broker."""
    most = options.sessions + 40
    async with ours.broker(room, pool_max_kernels=most, profiles_python_cap=most) as broker:
        alone, crowd = await soak(
            broker, options.sessions, 60 * options.minutes, progress=tell("soak")
        )
    solo, many = percentile(alone.quick, 0.5), percentile(crowd.quick, 0.99)
    grown = growth(crowd.memory, min(60.0, 20 * options.minutes))
    first = next(size for at, size in crowd.memory if at >= min(60.0, 20 * options.minutes))
    return [
        (
            f"{options.sessions} sessions busy for {options.minutes:g} min",
            f"{crowd.executions:,} executions, {crowd.events:,} events, "
            f"{crowd.reconnects} reconnects",
            "",
            True,
        ),
        (
            "events lost, doubled or out of order",
            f"{len(crowd.wrong)} {crowd.wrong[:3] or ''}".strip(),
            "0",
            not crowd.wrong,
        ),
        (
            "p99 of `1+1` in the crowd, to its p50 alone",
            f"{many:.1f} ms / {solo:.2f} ms = {many / solo:.1f}x (p50 in the crowd "
            f"{percentile(crowd.quick, 0.5):.1f} ms)",
            "≤ 25x",
            many <= 25 * solo,
        ),
        (
            "growth of the broker's memory after the first minute",
            f"{grown:+.2f} MB a minute, of {first:.0f} MB",
            "≤ 1 % a minute",
            grown <= 0.01 * first,
        ),
    ]


async def crowded(options: argparse.Namespace, room: Path) -> list[Verdict]:
    """Overload the broker."""
    settings = {"pool_max_kernels": str(CAPACITY), "profiles_python_cap": str(CAPACITY)}
    async with ours.broker(room, warm=4, **settings) as broker:
        await broker.warm()
        seen = await overload(broker, 3 * CAPACITY)
    worst = max(seen.refused, default=0.0)
    return [
        (
            f"{3 * CAPACITY} sessions at the same instant, room for {CAPACITY}",
            f"{len(seen.finished)} finished, {len(seen.refused)} refused {dict(seen.codes)}",
            "",
            True,
        ),
        ("the slowest refusal", f"{worst:.1f} ms", "≤ 50 ms", worst <= 50),
        (
            "accepted and not finished",
            f"{len(seen.wrong)} {seen.wrong[:3] or ''}".strip(),
            "0",
            not seen.wrong and bool(seen.finished),
        ),
    ]


async def fuzzed(options: argparse.Namespace, room: Path) -> list[Verdict]:
    """Send frames that no honest client sends."""
    async with ours.broker(room) as broker:
        half, sockets = options.frames // 2, max(1, options.frames // 100)
        tell("fuzz")(f"{options.frames} frames")
        tallies = await asyncio.gather(
            fuzz(broker, half, seed=options.seed, subprotocol=JSON),
            fuzz(broker, half, seed=options.seed, subprotocol=MSGPACK),
            fuzz_sockets(broker, sockets, seed=options.seed),
        )
        async with broker.attach("after") as session:
            await session.execute("1+1")
    total = tallies[0] + tallies[1] + tallies[2]
    rate = total.frames / total.seconds
    told = ", ".join(f"{code} {count:,}" for code, count in total.faults.most_common())
    return [
        (
            "frames that no honest client sends",
            f"{total.frames:,} ({rate:,.0f} a second); faults: {told}; closes: "
            f"{dict(total.closes)}",
            f"codes of the table ({len(FAULTS)}) only",
            not total.strange,
        ),
        ("answers that no table has", f"{len(total.strange)} {total.strange[:3] or ''}", "0", True),
    ]


async def opened(options: argparse.Namespace, room: Path) -> list[Verdict]:
    """Open and close."""
    sessions = options.opens // 10
    async with ours.broker(room, warm=4, profiles_python_warm_most=4) as broker:
        seen = await comings_and_goings(
            broker, options.opens - sessions, sessions, progress=tell("opens")
        )
    grown = seen.memory[1] - seen.memory[0]
    return [
        (
            f"{options.opens:,} opens and closes, {sessions:,} of them of sessions",
            f"{seen.seconds:.0f} s",
            "",
            True,
        ),
        (
            "the broker's memory, before and after",
            f"{seen.memory[0]:.1f} → {seen.memory[1]:.1f} MB",
            "≤ 5 MB more",
            grown <= 5,
        ),
        (
            "its descriptors but for the store's, more than before",
            f"{seen.descriptors[1] - seen.descriptors[0]}",
            "0",
            seen.descriptors[1] <= seen.descriptors[0],
        ),
    ]


PARTS: dict[str, Callable[[argparse.Namespace, Path], Awaitable[list[Verdict]]]] = {
    "fuzz": fuzzed,
    "overload": crowded,
    "opens": opened,
    "soak": busy,
}


def tell(part: str) -> Callable[[str], None]:
    """Return what shows how far a part has come."""

    def show(text: str) -> None:
        if errors.is_terminal:
            errors.print(f"{part}: {text}", end="\r", soft_wrap=True)

    return show


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Run the parts and return what came of them."""
    began, rows = Mood.now(), {}
    for name in options.only:
        room = Path(tempfile.mkdtemp(prefix="kb-"))  # short, for the sockets below
        try:
            rows[name] = await PARTS[name](options, room)
        finally:
            shutil.rmtree(room, ignore_errors=True)
    mood = Mood.now().since(began) | {"pace_ms": round(pace(), 1)}
    return {"machine": machine(), "mood": mood, "parts": rows}


def main() -> int:
    options = arguments()
    report = asyncio.run(run(options))
    verdicts = [row for rows in report["parts"].values() for row in rows]
    if options.json:
        sys.stdout.write(json.dumps(report) + "\n")
    else:
        table = Table(caption=f"{report['mood']}", caption_justify="left")
        for heading in ("what", "figure", "target", "met"):
            table.add_column(heading, overflow="fold")
        for what, figure, target, met in verdicts:
            table.add_row(what, figure, target or "-", ("yes" if met else "NO") if target else "-")
        Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0 if all(met for *_, met in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
