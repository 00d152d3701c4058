"""`broker status`: the nodes, the pools, and what the kernels hold in memory."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from .options import as_json, connection
from .text import age, console, plural, printable, short, size, table

if TYPE_CHECKING:
    from rich.console import Console

    from broker.client import Broker

MEMORY = ("RSS", "PSS", "USS")


@click.command()
@connection
@click.option("--memory/--no-memory", default=True, help="Measure memory (slower).")
@as_json
def status(broker: Broker, memory: bool, as_json: bool) -> None:
    """Show the nodes, the pools, and the memory of each kernel.

    RSS counts shared pages in full, PSS in shares, USS only what the process alone holds.
    """
    if as_json:
        click.echo(json.dumps(broker.status(memory=memory), indent=2))
        return
    if memory and sys.stderr.isatty():
        with console(sys.stderr).status("measuring memory …"):
            told = broker.status(memory=True)
    else:
        told = broker.status(memory=memory)
    screen = console()
    _nodes(screen, told)
    _pools(screen, told)
    _processes(screen, told)


def _nodes(screen: Console, told: dict[str, Any]) -> None:
    nodes = table(
        *("NODE", "URL", "VERSION", "UP", "ISOLATION", "CAPACITY", "WARM", "BOUND", ""),
        right=("UP", "CAPACITY", "WARM", "BOUND"),
    )
    for node in told.get("nodes", ()):
        up = time.time() - node["started"] if node.get("started") else None
        figures = [str(node.get(name, "-")) for name in ("capacity", "warm", "bound")]
        nodes.add_row(
            *(str(node.get(name, "-")) for name in ("node", "url", "version")),
            age(up),
            _isolation(node),
            *figures,
            "draining" if node.get("draining") else "",
        )
    screen.print(nodes)
    store = told.get("store")
    if store:
        kind = "embedded" if store.get("embedded") else "external"
        restarts = f", {plural(store['restarts'], 'restart')}" if store.get("restarts") else ""
        screen.print(f"\nstore {store.get('url')} ({kind}{restarts})")


def _pools(screen: Console, told: dict[str, Any]) -> None:
    names = ("warm", "target", "starting", "bound", "stopping", "waiting", "cap")
    titles = tuple(map(str.upper, names))
    pools = table("POOL", *titles, "ISOLATION", "", right=titles)
    for pool in told.get("pools", ()):
        trouble = ""
        if pool.get("state") not in (None, "ok"):
            again = age(pool["retry_in"]) if pool.get("retry_in") is not None else "soon"
            trouble = f"{pool['state']}, again in {again}: {pool.get('error') or 'no reason given'}"
        pools.add_row(
            str(pool.get("profile")),
            *(str(pool.get(name, "-")) for name in names),
            _isolation(pool),
            printable(trouble),
        )
    screen.print()
    screen.print(pools)


def _processes(screen: Console, told: dict[str, Any]) -> None:
    listing = table(
        *("PROCESS", "STATE", "SESSION", "GEN", "PID", "AGE", *MEMORY),
        right=("GEN", "PID", "AGE", *MEMORY),
    )
    for name, process in [("broker", told.get("broker"))] + [
        (f"zygote {zygote.get('profile')}", zygote) for zygote in told.get("zygotes", ())
    ]:
        if process:
            listing.add_row(name, "", "", "", str(process.get("pid", "-")), "", *_memory(process))
    for kernel in (kernel for pool in told.get("pools", ()) for kernel in pool.get("kernels", ())):
        listing.add_row(
            short(kernel.get("kernel")),
            str(kernel.get("state", "-")),
            str(kernel.get("session") or ""),
            str(kernel.get("generation") or ""),
            str(kernel.get("pid", "-")),
            age(kernel.get("age")),
            *_memory(kernel),
        )
    screen.print()
    screen.print(listing)


def _isolation(told: dict[str, Any]) -> str:
    mode = f" ({told['mode']})" if told.get("mode") else ""
    return str(told.get("isolation") or "-") + mode


def _memory(process: dict[str, Any]) -> list[str]:
    return [size(process.get(name.lower())) for name in MEMORY]
