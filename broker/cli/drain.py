"""`broker drain`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .completing import complete_node
from .options import as_json, connection
from .text import plural

if TYPE_CHECKING:
    from broker.client import Broker


@click.command()
@click.argument("node", shell_complete=complete_node)
@click.option("--keep", is_flag=True, help="Let idle sessions live until they end by themselves.")
@click.option("--undo", is_flag=True, help="Have the node take new sessions again.")
@connection
@as_json
def drain(broker: Broker, node: str, *, keep: bool, undo: bool, as_json: bool) -> None:
    """Empty a node: it takes no new sessions, and ends each one that runs nothing.

    The node must be the one that answers; `broker status` names the nodes and their addresses, and
    shows how many kernels are still bound.
    """
    if keep and undo:
        raise click.UsageError("give either --keep or --undo")
    told = broker.drain(node, keep=keep, undo=undo)
    if as_json:
        click.echo(json.dumps(told, indent=2))
    elif undo:
        click.echo(f"{node} takes new sessions again")
    else:
        left, busy = told["sessions"], told["busy"]
        click.echo(f"{node} is draining: {plural(left, 'session')} left, {busy} of them busy")
