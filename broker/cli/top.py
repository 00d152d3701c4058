"""`broker top`: what the sessions of a node use, as a table that lives."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from .options import as_json, connection, of_tenant
from .ranking import ORDERS, Ranking
from .sampling import Source
from .text import Duration, age, console, printable, seconds, size, table

if TYPE_CHECKING:
    from rich.table import Table

    from broker.client import Broker

FIRST = 1.0  # s between the two samples that a first rate takes, at most
ROWS = 100  # measured where there is no screen
STYLES = {"busy": "yellow", "ready": "green", "opening": "cyan", "suspended": "red"}
SORTS = {"cpu": "c", "memory": "m", "uss": "u", "idle": "i", "state": "s", "cell": "t", "name": "n"}


@click.command()
@click.option("--once", is_flag=True, help="Print the table once.")
@click.option(
    "--interval", type=Duration(), default=2.0, show_default="2s", help="Between two looks."
)
@click.option("--sort", type=click.Choice(list(SORTS)), default="cpu", help="What comes first.")
@of_tenant
@connection
@as_json
def top(
    broker: Broker, *, once: bool, interval: float, sort: str, tenant: str | None, as_json: bool
) -> None:
    """Show what the sessions of a node use, as a table that lives.

    \b
    up down j K      select             c m u s t n, I   sort by CPU, memory, USS, state,
    k                kill, asks first                    cell time, name, idle; again: reverse
    i                interrupt          /                filter; Escape clears it
    q                quit               space            look now

    Of all tenants for the operator. MEM is what the kernel's cgroup counts, PSS and USS are its
    own process's. With --json, one line of JSON for each look.
    """
    from broker.client.door import Door

    interval = max(0.1, interval)
    source, ranking = Source(Door(broker.place), tenant), Ranking(SORTS[sort])
    if once or as_json:
        look(source, ranking)
        wait = min(FIRST, interval)
        while True:
            time.sleep(wait)
            node = look(source, ranking)
            if as_json:
                click.echo(json.dumps({"node": node, "sessions": ranking.rows}, indent=None))
            elif not ranking.rows:
                click.echo(nothing(node), err=True)
            else:
                console().print(made(ranking, ranking.rows))
            if once:
                return
            wait = interval
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("a table that lives takes a terminal; add --once, or --json")
    from .screen import Screen

    Screen(broker, source, ranking, interval).run()


def look(source: Source, ranking: Ranking) -> str:
    """Take a sample and measure the first rows; return the node's name."""
    sample = source.sample()
    ranking.take(sample.rows, sample.at)
    ranking.measure(source.measure(ranking.to_measure(ROWS)), time.monotonic())
    return sample.node


def nothing(node: str) -> str:
    """Return what a node without sessions says."""
    return f"no sessions on node {node} (`broker run -s NAME 'code'` starts one)"


def made(ranking: Ranking, rows: list[dict[str, Any]], *, selects: bool = False) -> Table:
    """Return the table of some rows."""
    from rich.text import Text

    titles = ("CPU %", "MEM", "PSS", "USS", "CELL", "IDLE", "GEN", "CLIENTS")
    listing = table(*("SESSION", "TENANT", "STATE"), *titles, "LAST ERROR", right=titles)
    for row in rows:
        chosen = selects and (row["tenant"], row["session"]) == ranking.selected
        state = str(row["state"])
        listing.add_row(
            Text(row["session"]),
            Text(row["tenant"]),
            Text(state, style="" if chosen else STYLES.get(state, "dim")),
            "-" if row["cpu_percent"] is None else f"{row['cpu_percent']:.1f}",
            size((row.get("usage") or {}).get("memory")),
            size(row["pss"]),
            size(row["uss"]),
            seconds(row["cell_seconds"]),
            "-" if state == "busy" else age(row["idle"]),
            str(row["generation"]),
            "-" if row["clients"] is None else str(row["clients"]),
            Text(printable(row["last_error"] or "-")),
            style="reverse" if chosen else None,
        )
    return listing


def headline(ranking: Ranking, node: str, total: int) -> str:
    """Return what stands above the table."""
    rows = ranking.rows
    busy = sum(row["state"] == "busy" for row in rows)
    cpu = sum(row["cpu_percent"] or 0.0 for row in rows)
    held = sum(row["held"] or 0 for row in rows)
    order = ORDERS[ranking.order].title + (", reversed" if ranking.reverse else "")
    parts = [f"node {node}", f"{total} sessions, {busy} busy", f"CPU {cpu:.0f} %", size(held)]
    shown = f"{len(rows)} shown with {ranking.filter!r}" if ranking.filter else ""
    return "  ".join(filter(None, [*parts, f"by {order}", shown]))
