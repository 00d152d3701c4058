"""`broker inspect`: all there is to tell of one session."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from .options import as_json, complete_session, connection, of_tenant
from .text import age, console, printable, seconds, short, size, table

if TYPE_CHECKING:
    from rich.console import Console

    from broker.client import Broker

Row = dict[str, Any]
TIMES = ("execution_timeout", "idle_timeout", "max_lifetime", "cpu_time")
SIZES = ("memory", "workspace_bytes", "output_bytes")


@click.command()
@click.argument("session", shell_complete=complete_session)
@of_tenant
@connection
@as_json
def inspect(broker: Broker, session: str, tenant: str | None, as_json: bool) -> None:
    """Show a session's limits and use, its generations with their ends, and its last errors.

    What only the session's own node knows is left out by another one.
    """
    told = broker.describe(session, tenant=tenant)
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    screen = console()
    _facts(screen, told)
    _limits(screen, told)
    _generations(screen, told)
    _errors(screen, told)


def _facts(screen: Console, told: Row) -> None:
    from rich.text import Text

    lost = f" (before it: {told['reason']})" if told["reason"] else ""
    if told["state"] == "closed":
        lost = f": {told['reason']}" if told["reason"] else ""
    facts = {
        "session": f"{told['session']} of tenant {told['tenant']}",
        "state": f"{told['state']}, generation {told['generation']}{lost}",
        "node": told["node"],
        "profile": told["profile"],
        "kernel": _kernel(told),
        "created": f"{_when(told['created'])}, {age(time.time() - told['created'])} ago",
        "last used": "now" if told["state"] == "busy" else f"{age(told['idle'])} ago",
        "runs": _cell(told),
        "executions": _counted(told, "executions", "ended"),
        "clients": _clients(told),
    }
    listing = table("", "")
    listing.show_header = False
    for name, fact in facts.items():
        if fact:
            listing.add_row(Text(name, style="dim"), Text(printable(str(fact))))
    screen.print(listing)


def _kernel(told: Row) -> str:
    return f"{short(told['kernel'])}, pid {told['pid']}" if told["pid"] else ""


def _cell(told: Row) -> str:
    cell, waiting = told["cell"], told["queued"]
    behind = f", {waiting} behind it" if waiting else ""
    return f"{cell['id']} for {seconds(cell['seconds'])}{behind}" if cell else ""


def _counted(told: Row, name: str, word: str) -> str:
    return f"{told[name]} {word}" if told[name] is not None else ""


def _clients(told: Row) -> str:
    attached = told["attached"]
    return f"{attached['run']} run, {attached['watch']} watch" if attached else ""


def _limits(screen: Console, told: Row) -> None:
    limits, usage = told["limits"], told["usage"] or {}
    if limits is None:
        return
    of = {
        "memory": size(usage.get("memory")),
        "processes": _plain(usage.get("processes")),
        "workspace_bytes": size(told["workspace_bytes"]),
        "queue": _plain(told["queued"]),
    }
    listing = table("LIMIT", "USED", "OF", right=("USED", "OF"))
    for name, bound in limits.items():
        shown = size(bound) if name in SIZES else age(bound) if name in TIMES else f"{bound:g}"
        listing.add_row(name, of.get(name, ""), shown if bound else "no bound")
    listing.add_row("memory, at its peak", size(usage.get("memory_peak")), "")
    listing.add_row("cpu, in all", _used(usage.get("cpu_seconds")), "")
    screen.print()
    screen.print(listing)


def _generations(screen: Console, told: Row) -> None:
    listing = table("GENERATION", "BEGAN", "LASTED", "ENDED", right=("GENERATION", "LASTED"))
    for one in told["history"]:
        began, ended = one["began"], one["ended"]
        lasted = None if began is None else (ended or time.time()) - began
        reason = "lives" if ended is None else printable(one["reason"] or "unknown")
        listing.add_row(str(one["generation"]), _when(began), seconds(lasted), reason)
    if told["history"]:
        screen.print()
        screen.print(listing)


def _errors(screen: Console, told: Row) -> None:
    from rich.text import Text

    listing = table("ERROR", "EXECUTION", "AGE", right=("AGE",))
    for one in told["errors"] or ():
        ago = age(time.time() - one["at"])
        listing.add_row(Text(printable(one["error"])), Text(printable(one["id"])), ago)
    if told["errors"]:
        screen.print()
        screen.print(listing)


def _when(at: float | None) -> str:
    return "-" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _plain(count: int | None) -> str:
    return "-" if count is None else str(count)


def _used(cpu: float | None) -> str:
    return f"{cpu:.2f}s" if cpu is not None and cpu < 1 else seconds(cpu)
