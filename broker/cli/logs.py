"""`broker logs`: what a session has run, as text, and what it runs."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .cells import Cell, Event, Recording, newest, read
from .options import as_json, complete_session, connection, of_tenant
from .outages import tell_of_outages
from .printer import Printer
from .screen import Screen, still
from .telling import Teller

if TYPE_CHECKING:
    from broker.client import Broker


@click.command()
@click.argument("session", shell_complete=complete_session)
@click.option("-f", "--follow", is_flag=True, help="Go on with what it runs, until Ctrl-C.")
@click.option("-n", "last", type=click.IntRange(min=0), help="Only the last N of its cells.")
@click.option("--full", is_flag=True, help="All of the outputs, not their first and last lines.")
@click.option(
    "--save-images", type=click.Path(path_type=Path, file_okay=False), help="Write images here."
)
@of_tenant
@connection
@as_json
def logs(
    broker: Broker,
    *,
    session: str,
    tenant: str | None,
    follow: bool,
    last: int | None,
    full: bool,
    save_images: Path | None,
    as_json: bool,
) -> None:
    """Show what a session has run: code, outputs, time, and how each cell ended.

    Also of a session that has ended, but for -f. With --json: one object with the cells; with -f
    too, a line for each cell once it has ended.
    """
    if as_json and save_images is not None:
        raise click.UsageError("give either --json or --save-images: the object has the images")
    screen = Screen()
    # In a log both streams are one: what came first stands first.
    teller = Teller(Printer(screen.out, screen.out, save_images), screen.out, full=full)
    try:
        if follow:
            tell_of_outages()
            _follow(broker, session, last, None if as_json else teller, tenant)
            return
        cells = newest(read(broker.notebook(session, tenant=tenant)), last)
        if as_json:
            told = [cell.told() for cell in cells]
            click.echo(json.dumps({"session": session, "cells": told}, indent=2))
        else:
            teller.cells(cells)
            if not cells:
                click.echo("no cells", err=True)
    except KeyboardInterrupt:
        pass
    finally:
        screen.settle()
        sys.stdout.flush()


def _follow(
    broker: Broker, name: str, last: int | None, teller: Teller | None, tenant: str | None
) -> None:
    from broker.client import SessionGone, UnknownSession

    from .follow import follow

    lines = Lines()

    def before(cells: list[Cell]) -> None:
        if teller is not None:
            teller.cells(newest(cells, last))
        else:
            for cell in newest(cells, last):
                lines.put(cell.told())

    try:
        for event in follow(broker, name, before, tenant):
            if teller is None:
                lines.take(event)
                continue
            teller.event(event)
    except SessionGone as gone:
        click.echo(f"broker: {still(gone.message)}", err=True)
    except UnknownSession as unknown:
        hint = (
            "`broker ls` shows the live ones; without -f, `broker logs` tells what others have run"
        )
        raise click.ClickException(f"{unknown.message} ({hint})") from unknown


class Lines:
    """A line of JSON for each cell that ends."""

    def __init__(self) -> None:
        self._cells: dict[tuple[object, object], tuple[Event, Recording]] = {}

    def take(self, event: Event) -> None:
        """Take in an event of the session."""
        key = event.get("id"), event.get("cell")
        kind = event.get("type")
        if kind == "session":
            self._cells = {} if event.get("missed") else self._cells
        elif kind == "started":
            self._cells[key] = event, Recording()
        elif key in self._cells and kind != "done":
            self._cells[key][1].take(event)
        elif key in self._cells:
            started, recording = self._cells.pop(key)
            ending = ("status", "reason", "duration", "generation")
            told = {name: event[name] for name in ending if event.get(name) is not None}
            told |= {"origin": started["origin"]} if "origin" in started else {}
            count, code = started.get("execution_count"), str(started.get("code", ""))
            outputs = tuple(recording.outputs())
            self.put(Cell(code, outputs, count, str(event["id"]), **told).told())

    def put(self, told: dict[str, Any]) -> None:
        """Print a cell."""
        click.echo(json.dumps(told))
        sys.stdout.flush()
