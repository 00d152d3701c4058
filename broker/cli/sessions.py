"""`broker ls`, `broker kill` and `broker interrupt`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from .completing import complete_node
from .options import (
    as_json,
    complete_profile,
    complete_session,
    connection,
    of_tenant,
    of_tenants,
    rows,
)
from .text import STATE_STYLES, Duration, age, console, plural, printable, short, table

if TYPE_CHECKING:
    from broker.client import Broker

Row = dict[str, Any]
COUNTS = ("clients", "executions")  # known to the session's own node only
STATES = ("ready", "busy", "opening", "suspended", "closed", "all")
SORTS = ("name", "tenant", "state", "used", "idle", "cell", "cpu", "memory")


@click.command()
@click.option("--state", type=click.Choice(STATES), help="Only sessions in this state.")
@click.option("--idle", type=Duration(), help="Only sessions idle for at least this long.")
@click.option("--node", shell_complete=complete_node, help="Only sessions of this node.")
@click.option("--profile", shell_complete=complete_profile, help="Only sessions of this profile.")
@click.option(
    "--sort", type=click.Choice(SORTS), help="What comes first; the last used one by default."
)
@of_tenants
@connection
@as_json
def ls(broker: Broker, *, as_json: bool, **filters: Any) -> None:
    """List the sessions."""
    found = rows(broker, **filters)
    if as_json:
        click.echo(json.dumps({"sessions": found}, indent=2))
        return
    if not found:
        asked = sorted(f"--{name}" for name, value in filters.items() if value is not None)
        with_these = f" with {' '.join(asked)}" if asked else ""
        click.echo(f"no sessions{with_these} (`broker run -s NAME 'code'` starts one)", err=True)
        return
    from rich.text import Text

    nodes = {str(row.get("node") or "") for row in found}
    apart = {"TENANT": filters["tenant"] == "*", "NODE": len(nodes) > 1}
    more = [title for title, is_shown in apart.items() if is_shown]
    listing = table(
        *("SESSION", *more, "STATE", "GEN", "PROFILE", "KERNEL", "IDLE", "CLIENTS", "EXECUTIONS"),
        "REASON",  # why its last kernel ended
        right=("GEN", "IDLE", "CLIENTS", "EXECUTIONS"),
    )
    for row in found:
        told = str(row.get("state", "-"))
        listing.add_row(
            Text(printable(str(row["session"]))),
            *(Text(printable(str(row.get(title.lower()) or "-"))) for title in more),
            Text(printable(told), style=STATE_STYLES.get(told, "dim")),
            str(row.get("generation", "-")),
            Text(printable(str(row.get("profile") or "-"))),
            short(row.get("kernel")),
            "-" if told == "busy" else _idle(row),
            *("-" if row.get(name) is None else str(row[name]) for name in COUNTS),
            Text(printable(str(row.get("reason") or "-"))),
        )
    console().print(listing)


def _idle(row: Row) -> str:
    """Return for how long it is idle: by the server's clock, unless that is too old to tell."""
    if row.get("idle") is None:
        return age(time.time() - row["last_used"]) if row.get("last_used") else "-"
    return age(row["idle"])


@click.command()
@click.argument("sessions", nargs=-1, metavar="SESSION...", shell_complete=complete_session)
@click.option("--all", "every", is_flag=True, help="End every session.")
@click.option("--idle", type=Duration(), help="End the sessions idle for at least this long.")
@click.option("--state", type=click.Choice(STATES[:4]), help="End the sessions in this state.")
@click.option("--node", shell_complete=complete_node, help="End the sessions of this node.")
@click.option("--profile", shell_complete=complete_profile, help="End those of this profile.")
@click.option(
    "--reason",
    help="What its next execution is told; by default `killed by operator`, or `by its owner`.",
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask before ending more than are named.")
@of_tenants
@connection
@as_json
def kill(
    broker: Broker,
    *,
    sessions: tuple[str, ...],
    every: bool,
    reason: str | None,
    yes: bool,
    tenant: str | None,
    as_json: bool,
    **filters: Any,
) -> None:
    """End the kernels of sessions: their variables and files are gone.

    Those that are named, --all, or those that every given filter lets through. The reason is told
    to whoever runs code in the session next, and to the log and the audit.
    """
    filters = {name: value for name, value in filters.items() if value is not None}
    if bool(sessions) + every + bool(filters) != 1:
        raise click.UsageError(
            "name sessions, or give either --all or filters: --idle, --state, --node, --profile"
        )
    if sessions and tenant == "*":
        raise click.UsageError("a session that is named is of one tenant; --tenant says which")
    found: list[Row] = [{"session": name, "tenant": tenant} for name in sessions]
    if not sessions:
        found = _live(rows(broker, **filters, tenant=tenant), is_idle="idle" in filters)
        found = [row if tenant else {**row, "tenant": None} for row in found]
        if found and every and not yes and not sys.stdin.isatty():
            raise click.UsageError(
                f"--all ends {plural(len(found), 'session')}; give -y where nobody is asked"
            )
        if found and not yes and sys.stdin.isatty():
            names = ", ".join(row["session"] for row in found[:5])
            dots = " …" if len(found) > 5 else ""
            click.confirm(
                f"End {plural(len(found), 'session')}: {names}{dots}?", abort=True, err=True
            )
    ended, refused = _end(broker, found, reason, patient=not sessions)
    if as_json:
        click.echo(json.dumps({"killed": ended, "refused": refused}, indent=2))
    else:
        for row in ended:
            click.echo(f"{row['session']}: generation {row.get('generation', '?')} ended")
        _tell(refused)
        if not found:
            click.echo("no session to end", err=True)
    if refused:
        raise SystemExit(1)


def _live(found: Iterable[Row], *, is_idle: bool) -> list[Row]:
    """Return the sessions that have a kernel; a busy one is never idle."""
    states = ("closed", "busy") if is_idle else ("closed",)
    return [row for row in found if row.get("state") not in states]


def _end(
    broker: Broker, found: Iterable[Row], reason: str | None, *, patient: bool
) -> tuple[list[Row], list[Row]]:
    """End sessions one after another; one that is refused does not stop the rest."""
    from broker.client import Refused, UnknownSession

    ended, refused = [], []
    for row in found:
        name = str(row["session"])
        try:
            ended.append(broker.kill(name, reason=reason, tenant=row["tenant"]))
        except UnknownSession as error:
            if not patient:  # one that was listed a moment ago has ended by itself
                refused.append({"session": name, "code": error.code, "message": error.message})
        except Refused as error:
            if error.code in ("unauthorized", "forbidden"):
                raise
            refused.append({"session": name, "code": error.code, "message": error.message})
    return ended, refused


@click.command()
@click.argument(
    "sessions", nargs=-1, required=True, metavar="SESSION...", shell_complete=complete_session
)
@of_tenant
@connection
@as_json
def interrupt(broker: Broker, sessions: tuple[str, ...], tenant: str | None, as_json: bool) -> None:
    """Interrupt what sessions run: it ends as a Ctrl-C ends it, and the variables stay."""
    from broker.client import Refused

    told, refused = [], []
    for name in sessions:
        try:
            told.append({"session": name, **broker.interrupt(name, tenant=tenant)})
        except Refused as error:
            if error.code in ("unauthorized", "forbidden"):
                raise
            refused.append({"session": name, "code": error.code, "message": error.message})
    if as_json:
        click.echo(json.dumps({"interrupted": told, "refused": refused}, indent=2))
    else:
        for row in told:
            click.echo(
                f"{row['session']}: execution {printable(row['interrupted'] or '?')} interrupted"
            )
        _tell(refused)
    if refused:
        raise SystemExit(1)


def _tell(refused: Iterable[Row]) -> None:
    for row in refused:
        click.echo(f"broker: {row['session']}: {printable(row['message'])}", err=True)
