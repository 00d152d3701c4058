"""`broker ls` and `broker kill`."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from .options import as_json, complete_session, connection, of_tenant, rows
from .text import Duration, age, console, short, table

if TYPE_CHECKING:
    from broker.client import Broker

COUNTS = ("clients", "executions")  # known to the session's own node only
STATES = ("ready", "busy", "opening", "suspended", "closed", "all")
STYLES = {"busy": "yellow", "ready": "green", "opening": "cyan", "suspended": "red"}


@click.command()
@click.option("--state", type=click.Choice(STATES), help="Only sessions in this state.")
@click.option("--idle", type=Duration(), help="Only sessions idle for at least this long.")
@of_tenant
@connection
@as_json
def ls(
    broker: Broker, *, state: str | None, idle: float | None, tenant: str | None, as_json: bool
) -> None:
    """List the sessions."""
    found = rows(broker, state=state, idle=idle, tenant=tenant)
    if as_json:
        click.echo(json.dumps({"sessions": found}, indent=2))
        return
    if not found:
        click.echo("no sessions (`broker run -s NAME 'code'` starts one)", err=True)
        return
    from rich.text import Text

    listing = table(
        *("SESSION", "STATE", "GEN", "PROFILE", "KERNEL", "IDLE", "CLIENTS", "EXECUTIONS"),
        "REASON",  # why its last kernel ended
        right=("GEN", "IDLE", "CLIENTS", "EXECUTIONS"),
    )
    now = time.time()
    for row in found:
        told = str(row.get("state", "-"))
        listing.add_row(
            Text(str(row["session"])),
            Text(told, style=STYLES.get(told, "dim")),
            str(row.get("generation", "-")),
            Text(str(row.get("profile") or "-")),
            short(row.get("kernel")),
            "-" if told == "busy" or not row.get("last_used") else age(now - row["last_used"]),
            *("-" if row.get(name) is None else str(row[name]) for name in COUNTS),
            Text(str(row.get("reason") or "-")),
        )
    console().print(listing)


@click.command()
@click.argument("sessions", nargs=-1, metavar="SESSION...", shell_complete=complete_session)
@click.option("--all", "every", is_flag=True, help="End every session.")
@click.option("--idle", type=Duration(), help="End the sessions idle for at least this long.")
@click.option("--reason", help="What its next execution is told; `killed by operator` by default.")
@click.option("--yes", is_flag=True, help="Do not ask before ending all.")
@of_tenant
@connection
@as_json
def kill(
    broker: Broker,
    *,
    sessions: tuple[str, ...],
    every: bool,
    idle: float | None,
    reason: str | None,
    yes: bool,
    tenant: str | None,
    as_json: bool,
) -> None:
    """End the kernels of sessions: their variables and files are gone."""
    if bool(sessions) + every + (idle is not None) != 1:
        raise click.UsageError("name sessions, or give either --all or --idle")
    names = list(sessions) or _live(broker, idle, tenant)
    if every and names and not yes and sys.stdin.isatty():
        click.confirm(f"End {len(names)} session(s)?", abort=True, err=True)
    ended, refused = _end(broker, names, patient=not sessions, reason=reason, tenant=tenant)
    if as_json:
        click.echo(json.dumps({"killed": ended, "refused": refused}, indent=2))
    else:
        for row in ended:
            click.echo(f"{row['session']}: generation {row.get('generation', '?')} ended")
        for row in refused:
            click.echo(f"broker: {row['session']}: {row['message']}", err=True)
        if not names:
            click.echo("no session to end", err=True)
    if refused:
        raise SystemExit(1)


def _live(broker: Broker, idle: float | None, tenant: str | None) -> list[str]:
    """Return the sessions that have a kernel; a busy one is never idle."""
    return [
        str(row["session"])
        for row in rows(broker, idle=idle, tenant=tenant)
        if row.get("state") != "closed" and (idle is None or row.get("state") != "busy")
    ]


def _end(
    broker: Broker, names: list[str], *, patient: bool, **how: str | None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """End sessions one after another; one that is refused does not stop the rest."""
    from broker.client import Refused, UnknownSession

    ended, refused = [], []
    for name in names:
        try:
            ended.append(broker.kill(name, **how))
        except UnknownSession as error:
            if not patient:  # one that was listed a moment ago has ended by itself
                refused.append({"session": name, "code": error.code, "message": error.message})
        except Refused as error:
            if error.code in ("unauthorized", "forbidden"):
                raise
            refused.append({"session": name, "code": error.code, "message": error.message})
    return ended, refused
