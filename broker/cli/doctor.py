"""`broker doctor`: what this host has to shut kernels in with, and what is missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from .options import as_json
from .serve import settings
from .text import console, table

if TYPE_CHECKING:
    from rich.console import Console

    from broker.config import Loaded
    from broker.doctor import Checkup
    from kernels.spec import Finding


@click.command()
@click.option("--profile", help="The profile to try; the default one otherwise.")
@settings
@as_json
def doctor(loaded: Loaded, profile: str | None, as_json: bool) -> None:
    """Show what this host has to shut kernels in with, and try it. Needs no server.

    The layers are looked up; then hostile code tries its ways out of a real kernel's sandbox. The
    last line is the isolation there is. The exit status is 0 if that is what the settings ask for.
    """
    import asyncio

    from broker.doctor import check

    name = profile or loaded.config.default_profile
    if name not in loaded.config.profiles:
        known = ", ".join(sorted(loaded.config.profiles))
        raise click.UsageError(f"no profile {name!r}; known: {known}")
    found = asyncio.run(check(loaded.config, name))
    if as_json:
        click.echo(json.dumps(plain(found), indent=2))
    else:
        show(found)
    raise SystemExit(0 if found.is_enough else 1)


def plain(found: Checkup) -> dict[str, object]:
    """Return the checkup as plain data."""
    return {
        "profile": found.profile,
        "isolation": found.level,
        "mode": found.mode,
        "least": found.least,
        "enough": found.is_enough,
        "trouble": found.trouble,
        "layers": [finding._asdict() for finding in found.layers],
        "cases": [finding._asdict() for finding in found.cases],
    }


def show(found: Checkup) -> None:
    """Print the checkup for people."""
    screen = console()
    show_findings(screen, "FOR", found.layers)
    if found.cases:
        show_findings(screen, "TRIED IN A KERNEL", found.cases)
    else:
        screen.print(f"nothing could be tried: {found.trouble or 'there is no sandbox'}\n")
    mode = f" ({found.mode})" if found.mode else ""
    verdict = "enough" if found.is_enough else "too little"
    screen.print(f"isolation {found.level}{mode}: {verdict}, {found.least} is configured")


def show_findings(screen: Console, case: str, findings: tuple[Finding, ...]) -> None:
    """Print a table of findings, and what to do about those that are amiss."""
    from rich.text import Text

    rows = table("LAYER", case, "", "EVIDENCE")
    for one in findings:
        state, style = ("ok", "green") if one.safe else ("MISSING", "red")
        if one.safe and one.remedy:
            state, style = "could be better", "yellow"
        rows.add_row(Text(one.layer), Text(one.case), Text(state, style=style), Text(one.evidence))
    screen.print(rows)
    for one in findings:
        if one.remedy:
            screen.print(f"{one.layer}: {one.remedy}")
    screen.print()
