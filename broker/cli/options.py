"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .completing import complete_profile, complete_session

if TYPE_CHECKING:
    from broker.client import Broker

__all__ = [
    "as_json",
    "complete_profile",
    "complete_session",
    "connection",
    "of_tenant",
    "of_tenants",
    "rows",
]

Command = TypeVar("Command", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


of_tenant = click.option("--tenant", help="Whose session, for the operator; your own by default.")
of_tenants = click.option(
    "--tenant", help="Whose sessions, for the operator, * for all; your own by default."
)


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


def rows(broker: Broker, **filters: Any) -> list[dict[str, Any]]:
    """Return the sessions' rows, the most recently used first, unless they are to be sorted."""
    found = list(broker.sessions(**filters))
    if filters.get("sort"):
        return found
    return sorted(found, key=lambda row: -float(row.get("last_used") or 0))
