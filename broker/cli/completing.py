"""What a shell offers in place of a word: names that the server knows.

Each asks the server, and offers nothing when that does not answer at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import click
from click.shell_completion import CompletionItem

PATIENCE = 1.0  # s
MOST = 1000  # names
# Code in a kernel chooses the names of files: what a shell would act upon is not offered.
SAFE = re.compile(r"[\w.@:+/][\w.@:+/-]*")
Items = list[CompletionItem]


def given(ctx: click.Context, name: str) -> str | None:
    """Return an option that may stand behind a command, or in front of it in its group."""
    value: str | None = ctx.params.get(name)
    return given(ctx.parent, name) if value is None and ctx.parent else value


def complete_session(ctx: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """Return the names of sessions, each with its state."""
    found: Items = []
    query = {"tenant": ctx.params.get("tenant"), "limit": MOST}
    for row in _ask(ctx, "/v1/sessions", query).get("sessions", ()):
        found += _items([str(row["session"])], incomplete, help=str(row["state"]))
    return found


def complete_node(ctx: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """Return the names of the live nodes; for who may not see these, those of the sessions."""
    nodes = _ask(ctx, "/v1/nodes").get("nodes") or _ask(ctx, "/v1/sessions").get("sessions", ())
    return _items(sorted({str(node["node"]) for node in nodes}), incomplete)


def complete_profile(ctx: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """Return the node's profiles; for who may not see these, those of the sessions."""
    pools = _ask(ctx, "/v1/pools").get("pools") or _ask(ctx, "/v1/sessions").get("sessions", ())
    return _items(sorted({str(pool["profile"]) for pool in pools}), incomplete)


def complete_path(ctx: click.Context, _: click.Parameter, incomplete: str) -> Items:
    """Return the names in one directory of a session's files; directories end with a slash."""
    from broker.client.wire import session_path

    folder, slash, _name = incomplete.rpartition("/")
    above = (ctx.parent or ctx).params
    session, tenant = str(above.get("session") or ""), ctx.params.get("tenant")
    query = {"path": folder or None, "limit": MOST, "tenant": tenant or above.get("tenant")}
    found = _ask(ctx, session_path(session, "/files"), query).get("files", ())
    shown = [f"{one['path']}{'/' * (one['type'] == 'directory')}" for one in found]
    hidden = incomplete[len(folder) + len(slash) :].startswith(".")
    safe = [one for one in shown if SAFE.fullmatch(one) and (hidden or not _is_hidden(one))]
    return _items(safe, incomplete)


def _is_hidden(path: str) -> bool:
    return path.rstrip("/").rpartition("/")[2].startswith(".")


def _items(names: Iterable[str], incomplete: str, **more: Any) -> Items:
    return [CompletionItem(name, **more) for name in names if name.startswith(incomplete)]


def _ask(ctx: click.Context, path: str, query: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask the server that the words before this one name; what goes wrong is nobody's to read."""
    from broker.client import BrokerError
    from broker.client.door import Door
    from broker.client.find import find

    try:
        place = find(given(ctx, "url"), given(ctx, "token"), given(ctx, "state_dir"))
        told: dict[str, Any] = Door(place, timeout=PATIENCE).call("GET", path, query=query)
    except BrokerError:
        return {}
    return told
