"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .completing import complete_profile, complete_session, given
from .outages import tell_of_outages
from .text import Duration

if TYPE_CHECKING:
    from broker.client import Broker

__all__ = [
    "as_json",
    "complete_profile",
    "complete_session",
    "connection",
    "connection_ahead",
    "of_tenant",
    "of_tenants",
    "rows",
]

WHERE = ("url", "token", "state_dir")
NOTICE = 2.0  # s without an answer, after which a person is told
Command = TypeVar("Command", bound=Callable[..., Any])

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


of_tenant = click.option("--tenant", help="Whose session, for the operator; your own by default.")
of_tenants = click.option(
    "--tenant", help="Whose sessions, for the operator, * for all; your own by default."
)

_PLACE = (
    click.option("--url", help="The server's address.  [env: BROKER_URL]"),
    click.option("--token", help="The access token.  [env: BROKER_TOKEN]"),
    click.option(
        "--state-dir", type=click.Path(), help="A local server's state.  [env: BROKER_STATE_DIR]"
    ),
)


def connection_ahead(command: Command) -> Command:
    """Add what says where the broker is: for a group, too, in front of its commands."""
    for option in reversed(_PLACE):
        command = option(command)
    return command


def connection(command: Command) -> Command:
    """Add what says where the broker is, and how long to wait; the command gets `broker`."""

    @connection_ahead
    @click.option(
        "--answer-timeout", type=Duration(), envvar="BROKER_ANSWER_TIMEOUT",
        help="How long to wait for the server's answer; 30s, or 10s for a session to open."
        "  [env: BROKER_ANSWER_TIMEOUT]",
    )  # fmt: skip
    @functools.wraps(command)
    def connected(answer_timeout: float | None, **rest: Any) -> Any:
        from broker.client import Broker
        from broker.client.patience import Patience

        if answer_timeout is not None and answer_timeout <= 0:
            raise click.UsageError("--answer-timeout is over 0; leave it out for the usual one")
        # A program that reads JSON waits by itself.
        patience = Patience(answer_timeout, None if rest.get("as_json") else NOTICE)
        if patience.notice is not None:
            tell_of_outages()
        context = click.get_current_context()
        url, token, state_dir = (given(context, name) for name in WHERE)
        broker = Broker(url, token, state_dir=state_dir, patience=patience)
        left = {name: value for name, value in rest.items() if name not in WHERE}
        return command(broker=broker, **left)

    return connected  # type: ignore[return-value]  # called with other arguments than it was given


def rows(broker: Broker, **filters: Any) -> list[dict[str, Any]]:
    """Return the sessions' rows, the most recently used first, unless they are to be sorted."""
    found = list(broker.sessions(**filters))
    if filters.get("sort"):
        return found
    return sorted(found, key=lambda row: -float(row.get("last_used") or 0))
