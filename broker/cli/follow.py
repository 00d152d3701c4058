"""A session's cells, from what was kept of it on to what runs now: each once, and in order."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from typing import TYPE_CHECKING

from .cells import Cell, Event, read

if TYPE_CHECKING:
    from broker.client import Broker


def follow(
    broker: Broker,
    name: str,
    before: Callable[[list[Cell]], object],
    tenant: str | None = None,
) -> Generator[Event, None, None]:
    """Yield a live session's events from now on, those of the running cell from its beginning.

    `before` gets the cells that have ended, first. A lost connection is made anew; where events are
    gone, a `session` event says which in `missed`. Raises UnknownSession, and SessionGone when the
    session ends.
    """
    session = broker.session(name, tenant=tenant)
    with closing(session.watch()) as watch:
        now = next(watch)  # how far it is, and what runs
    ended = read(broker.notebook(name, tenant=tenant))
    before(ended)
    last, running = int(now.get("seq") or 0), set(now.get("open") or ())
    # Whoever tells of generations knows by this which one is no news.
    yield {"type": "session", "state": "ready", "generation": now.get("generation")}
    known = {(cell.id, cell.count) for cell in ended if cell.id in running}
    told: set[object] = set()
    with closing(session.watch(after=0)) as watch:
        for event in watch:
            request = event.get("id")
            is_first = event.get("type") == "session" and (event.get("missed") or [0])[0] == 1
            if is_first or (request not in running and int(event.get("seq") or 0) <= last):
                continue
            cell = request, event.get("cell")
            if event.get("type") == "started" and (request, event["execution_count"]) in known:
                told.add(cell)
            if cell not in told:
                yield event
