"""`broker top`: what the sessions of a node use, as a table that lives."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from .options import as_json, connection, of_tenant
from .ranking import ORDERS, Ranking
from .sampling import Source
from .text import STATE_STYLES, Duration, age, console, plural, printable, seconds, size, table

if TYPE_CHECKING:
    from rich.table import Table

    from broker.client import Broker

FIRST = 1.0  # s between the two samples that a first rate takes, at most
ROWS = 100  # measured where there is no screen
ERROR, LEAST_ERROR = "LAST ERROR", 16  # characters, below which it tells nothing
GAP = 2  # between columns
LONG = 32  # characters of a name
# By title, what a row says there.
COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "SESSION": lambda row: clipped(row["session"]),
    "TENANT": lambda row: clipped(row["tenant"]),
    "STATE": lambda row: str(row["state"]),
    "CPU %": lambda row: "-" if row["cpu_percent"] is None else f"{row['cpu_percent']:.1f}",
    "MEM": lambda row: size((row.get("usage") or {}).get("memory")),
    "PSS": lambda row: size(row["pss"]),
    "USS": lambda row: size(row["uss"]),
    "CELL": lambda row: seconds(row["cell_seconds"]),
    "IDLE": lambda row: "-" if row["state"] == "busy" else age(row["idle"]),
    "GEN": lambda row: str(row["generation"]),
    "CLIENTS": lambda row: "-" if row["clients"] is None else str(row["clients"]),
    ERROR: lambda row: printable(row["last_error"] or "-"),
}
LEFT = ("SESSION", "TENANT", "STATE", ERROR)
SPARED = ("CLIENTS", "GEN", ERROR, "TENANT", "PSS", "IDLE", "USS", "CELL")  # on a narrow terminal
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
    from broker.client import Broker
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
                width = console().width if sys.stdout.isatty() else None
                console().print(made(ranking, ranking.rows, width))
            if once:
                return
            wait = interval
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("a table that lives takes a terminal; add --once, or --json")
    from .live import View

    # What is told of a wait would stand amid the table, which says itself that it looks.
    place = replace(broker.place, patience=replace(broker.place.patience, notice=None))
    View(Broker.at(place), Source(Door(place), tenant), ranking, interval).run()


def look(source: Source, ranking: Ranking) -> str:
    """Take a sample and measure the first rows; return the node's name."""
    sample = source.sample()
    ranking.take(sample.rows, sample.at)
    ranking.measure(source.measure(ranking.to_measure(ROWS)), time.monotonic())
    return sample.node


def nothing(node: str) -> str:
    """Return what a node without sessions says."""
    return f"no sessions on node {node} (`broker run -s NAME 'code'` starts one)"


def made(
    ranking: Ranking, rows: list[dict[str, Any]], width: int | None = None, *, selects: bool = False
) -> Table:
    """Return the table of some rows; of a `width`, without the columns that have no room."""
    from rich.text import Text

    cells = [{title: tell(row) for title, tell in COLUMNS.items()} for row in rows]
    titles = fitting(cells, width)
    right = tuple(title for title in titles if title not in LEFT)
    listing = table(*titles, right=right)
    if width is not None and titles[-1] == ERROR:
        listing.expand, listing.columns[-1].ratio = True, 1  # what is left, and no other's room
    for row, told in zip(rows, cells, strict=True):
        chosen = selects and (row["tenant"], row["session"]) == ranking.selected
        texts = [Text(told[title]) for title in titles]
        if not chosen and "STATE" in titles:
            texts[titles.index("STATE")].stylize(STATE_STYLES.get(str(row["state"]), "dim"))
        listing.add_row(*texts, style="reverse" if chosen else None)
    return listing


def fitting(cells: list[dict[str, str]], width: int | None) -> list[str]:
    """Return the titles of the columns that have room: the least wanted go first."""
    titles = list(COLUMNS)
    if width is None:
        return titles
    widths = {
        title: max([len(title), *(len(row[title]) for row in cells)]) + GAP for title in titles
    }
    widths[ERROR] = LEAST_ERROR
    for title in SPARED:
        if sum(widths[one] for one in titles) <= width:
            break
        titles.remove(title)
    return titles


def clipped(name: str) -> str:
    """Return a name, or as much of it as there is room for beside the rest."""
    return name if len(name) <= LONG else f"{name[: LONG - 1]}…"


def headline(ranking: Ranking, node: str, total: int) -> str:
    """Return what stands above the table."""
    rows = ranking.rows
    busy = sum(row["state"] == "busy" for row in rows)
    cpu = sum(row["cpu_percent"] or 0.0 for row in rows)
    held = sum(row["held"] or 0 for row in rows)
    order = ORDERS[ranking.order].title + (", reversed" if ranking.reverse else "")
    parts = [
        f"node {node}",
        f"{plural(total, 'session')}, {busy} busy",
        f"CPU {cpu:.0f} %",
        size(held),
    ]
    shown = f"{len(rows)} shown with {ranking.filter!r}" if ranking.filter else ""
    return "  ".join(filter(None, [*parts, f"by {order}", shown]))
