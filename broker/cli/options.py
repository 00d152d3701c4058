"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from broker.client import Broker

Command = TypeVar("Command", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


of_tenant = click.option("--tenant", help="Whose sessions, for the operator; your own by default.")


def connection(command: Command) -> Command:
    """Add --url, --token and --state-dir; the command is called with `broker` instead."""

    @click.option("--url", help="The server's address.  [env: BROKER_URL]")
    @click.option("--token", help="The access token.  [env: BROKER_TOKEN]")
    @click.option(
        "--state-dir", type=click.Path(), help="A local server's state.  [env: BROKER_STATE_DIR]"
    )
    @functools.wraps(command)
    def connected(url: str | None, token: str | None, state_dir: str | None, **rest: Any) -> Any:
        from broker.client import Broker

        return command(broker=Broker(url, token, state_dir=state_dir), **rest)

    return connected  # type: ignore[return-value]  # called with other arguments than it was given


def complete_session(
    ctx: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the names of the server's sessions; none when it does not answer at once."""
    from broker.client import BrokerError
    from broker.client.door import Door
    from broker.client.find import find

    given = ctx.params
    try:
        place = find(given.get("url"), given.get("token"), given.get("state_dir"))
        door = Door(place, timeout=1.0)
        names = [str(row["session"]) for row in door.sessions(tenant=given.get("tenant"))]
    except BrokerError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def rows(broker: Broker, **filters: Any) -> list[dict[str, Any]]:
    """Return the sessions' rows, the most recently used first."""
    found = list(broker.sessions(**filters))
    return sorted(found, key=lambda row: -float(row.get("last_used") or 0))
