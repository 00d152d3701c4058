"""`broker token`: make, list and revoke access tokens."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click
from click.shell_completion import CompletionItem

from .completing import given
from .options import as_json, complete_session, connection, connection_ahead
from .text import Duration, age, console, printable, table

if TYPE_CHECKING:
    from broker.client import Broker

SCOPES = ("run", "watch", "admin")
PATH = "/v1/tokens"


def complete_token(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the ids of the server's tokens; none when it does not answer at once."""
    from broker.client import BrokerError
    from broker.client.door import Door
    from broker.client.find import find

    try:
        place = find(given(ctx, "url"), given(ctx, "token"), given(ctx, "state_dir"))
        found = Door(place, timeout=1.0).call("GET", PATH)["tokens"]
    except BrokerError:
        return []
    return [
        CompletionItem(row["id"], help=row["name"] or row["tenant"])
        for row in found
        if row["id"].startswith(incomplete)
    ]


@click.group()
@connection_ahead
def token(**_: str | None) -> None:
    """Make, list and revoke access tokens.

    This takes a token with the scope admin, such as that of the state directory: it makes tokens
    for every tenant, another tenant's administrator makes them for that tenant alone.
    """


@token.command()
@click.option("--tenant", help="Whose it is; that of the token in use by default.")
@click.option(
    "--scope", "scopes", type=click.Choice(SCOPES), multiple=True, default=("run",),
    help="What it may do: run code, only watch, or administer; repeatable.  [default: run]",
)  # fmt: skip
@click.option("--session", shell_complete=complete_session, help="The only session it opens.")
@click.option("--expires", type=Duration(), help="How long it lasts, such as 30d; without an end.")
@click.option("--name", default="", help="What it is for, to know it again in the list.")
@connection
@as_json
def create(
    broker: Broker,
    *,
    tenant: str | None,
    scopes: tuple[str, ...],
    session: str | None,
    expires: float | None,
    name: str,
    as_json: bool,
) -> None:
    """Make a token and print it: this once, for the server keeps only its digest."""
    body = {
        "tenant": tenant,
        "scopes": list(dict.fromkeys(scopes)),
        "session": session,
        "expires_in": expires,
        "name": name or None,
    }
    made = _ask(broker, "POST", PATH, body)
    if as_json:
        click.echo(json.dumps(made, indent=2))
        return
    click.echo(made["token"])
    about = f"{' '.join(made['scopes'])} for tenant {made['tenant']}"
    about += f", session {made['session']} alone" if made["session"] else ""
    about += f", for {age(made['expires'] - time.time())}" if made["expires"] else ""
    click.echo(f"id {made['id']}: {about}; it is not shown again", err=True)


@token.command("list")
@connection
@as_json
def listing(broker: Broker, as_json: bool) -> None:
    """List the tokens, but for what opens anything."""
    found = _ask(broker, "GET", PATH)["tokens"]
    if as_json:
        click.echo(json.dumps({"tokens": found}, indent=2))
        return
    if not found:
        click.echo("no tokens (`broker token create` makes one)", err=True)
        return
    from rich.text import Text

    rows = table("ID", "TENANT", "SCOPES", "SESSION", "AGE", "EXPIRES IN", "NAME", right=("AGE",))
    now = time.time()
    for row in found:
        rows.add_row(
            row["id"],
            Text(row["tenant"]),
            " ".join(row["scopes"]),
            Text(row["session"] or "any"),
            age(now - row["created"]),
            age(row["expires"] - now) if row["expires"] else "never",
            Text(printable(row["name"])),
        )
    console().print(rows)


@token.command()
@click.argument("ids", nargs=-1, required=True, metavar="ID...", shell_complete=complete_token)
@connection
@as_json
def revoke(broker: Broker, ids: tuple[str, ...], as_json: bool) -> None:
    """End tokens, and what is connected with them."""
    ended = [_ask(broker, "DELETE", f"{PATH}/{quote(one, safe='')}") for one in ids]
    if as_json:
        click.echo(json.dumps({"revoked": ended}, indent=2))
        return
    for row in ended:
        click.echo(f"{row['id']}: revoked")


def _ask(broker: Broker, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    from broker.client.door import Door

    return Door(broker.place).call(method, path, body=body)
