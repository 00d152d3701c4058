"""`broker export` and `broker vars`: what a session has run, and what it holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TextIO

import click

from .options import as_json, complete_session, connection, of_tenant
from .text import console, printable, size, table

if TYPE_CHECKING:
    from broker.client import Broker


@click.command()
@click.argument("session", shell_complete=complete_session)
@click.option(
    "-o", "--output", type=click.File("w", encoding="utf-8", lazy=True), default="-",
    help="Write to this file.",
)  # fmt: skip
@of_tenant
@connection
def export(broker: Broker, session: str, output: TextIO, tenant: str | None) -> None:
    """Write a session's last cells as a Jupyter notebook."""
    made = broker.notebook(session, tenant=tenant)
    json.dump(made, output, indent=1, ensure_ascii=True)
    output.write("\n")


@click.command(name="vars")
@click.argument("session", shell_complete=complete_session)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@of_tenant
@connection
@as_json
def variables(
    broker: Broker, session: str, names: tuple[str, ...], tenant: str | None, as_json: bool
) -> None:
    """List a session's variables, also while it runs."""
    told = broker.variables(session, names=names or None, tenant=tenant)
    if as_json:
        click.echo(json.dumps(told, indent=2))
        return
    from rich.text import Text

    listing = table("NAME", "TYPE", "SIZE", "VALUE", right=("SIZE",))
    for row in told["variables"]:
        told_of = row["name"], _kind(row), _size(row), row["preview"]
        listing.add_row(*(Text(printable(str(part))) for part in told_of))
    if told["variables"]:
        console().print(listing)
    elif not names:
        click.echo("no variables", err=True)
    if more := told.get("more"):
        click.echo(f"and {more} more", err=True)
    if missing := told.get("missing"):
        click.echo(f"broker: no variable {', '.join(missing)}", err=True)
        raise SystemExit(1)


def _kind(row: dict[str, Any]) -> str:
    module = str(row.get("module") or "").partition(".")[0]
    return f"{module}.{row['type']}" if module and module != "__main__" else str(row["type"])


def _size(row: dict[str, Any]) -> str:
    if row.get("shape"):
        return " x ".join(map(str, row["shape"]))
    if row.get("length") is not None:
        return str(row["length"])
    return size(row.get("size")) if row.get("size") and row["type"] != "int" else ""
