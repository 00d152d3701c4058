"""`broker replay`: a notebook's cells in a new session, and where their outputs differ."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker.redaction import Redaction

from .cells import Cell, Event, NotANotebook, Recording, read_file, read_from
from .compare import REDACTED, Verdict, clipped, judge
from .options import as_json, complete_profile, complete_session, connection
from .outages import tell_of_outages
from .printer import exit_status
from .run import interrupting, note_id, read_env
from .screen import still
from .text import Duration, plural

if TYPE_CHECKING:
    from broker.client import Broker, Session

ORIGIN = "replay"
STDIN = Path("-")
KINDS = ("same", "different", "error", "not run", "new")
SOUND = ("same", "new")
WIDTH = 60  # characters of a cell's first line that are shown


@click.command()
@click.argument("notebook", metavar="NOTEBOOK|-", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-s", "--session", "name", required=True, shell_complete=complete_session,
    help="The session to run it in, a new one.",
)  # fmt: skip
@click.option("--into", is_flag=True, help="Run it in a session that is there already.")
@click.option("--profile", shell_complete=complete_profile, help="The kernel's profile.")
@click.option(
    "--stop-on-error", is_flag=True, help="End at a cell that fails, unless it did before."
)
@click.option("--timeout", type=Duration(), help="Stop each cell after this time, such as 30s.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="Set a variable; repeatable.")
@click.option(
    "--tenant", help="Whose session, for the operator; with --into, for none is made for others."
)
@connection
@as_json
def replay(
    broker: Broker,
    *,
    notebook: Path,
    name: str,
    tenant: str | None,
    into: bool,
    profile: str | None,
    stop_on_error: bool,
    timeout: float | None,
    env: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run a notebook's code again, and say cell by cell whether it shows what it did.

    The notebook is a file, or what comes on standard input, `-`. A cell is `same`, `different`
    (with what differs), `error` (it fails, and did not, or cannot be sent), or `new` (nothing was
    recorded of it; if it fails, that is shown). Compared are texts and errors, without addresses,
    times and colours, and of images that they are there and how large. The exit status is 0 if
    nothing differs and nothing new fails, else 1, 130 when interrupted. The session stays.
    """
    if tenant and not into:
        raise click.UsageError("--tenant needs --into: another tenant's session is not made")
    if timeout is not None and timeout <= 0:
        raise click.UsageError("--timeout is over 0; leave it out for the server's own")
    given = read_env(env)
    cells = read_cells(notebook)
    if not into:
        refuse_known(broker, name)
    tell_of_outages()
    session = broker.session(name, profile, env=given, tenant=tenant)
    report = Report(len(cells), quiet=as_json)
    try:
        with session:
            Run(session, report, timeout, given or {}, stop_on_error=stop_on_error).all(cells)
    except KeyboardInterrupt:
        report.interrupted = True
    report.end(name, notebook, tenant)
    raise SystemExit(exit_status("interrupted") if report.interrupted else int(report.differs))


def read_cells(notebook: Path) -> list[Cell]:
    """Return the cells of a file, or of standard input for `-`."""
    name = "standard input" if notebook == STDIN else str(notebook)
    try:
        return read_from(sys.stdin.buffer) if notebook == STDIN else read_file(notebook)
    except NotANotebook as error:
        raise click.ClickException(f"{name} is no notebook: {still(str(error))}") from error
    except OSError as error:
        raise click.UsageError(f"cannot read {name}: {error.strerror}") from error


def refuse_known(broker: Broker, name: str) -> None:
    """Raise for a session that is there, or was: its cells would be mixed with these."""
    from broker.client import UnknownSession

    try:
        broker.notebook(name)
    except UnknownSession:
        return
    raise click.UsageError(f"session {name!r} has run something: take a new name, or give --into")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one cell."""

    cell: Cell
    verdict: Verdict
    status: str = ""
    duration: float = 0.0

    @property
    def fails(self) -> bool:
        """Tell whether it fails, and is not known to have failed before."""
        is_new = self.verdict.kind == "new"
        return self.verdict.kind == "error" or (is_new and self.status != "ok")

    def told(self, number: int) -> dict[str, Any]:
        """Return it as plain data."""
        told = {"cell": number, "verdict": self.verdict.kind, "status": self.status}
        told |= {"duration": self.duration, "code": self.cell.code}
        return told | ({"diff": list(self.verdict.diff)} if self.verdict.diff else {})


class Run:
    """One run of the cells in a session."""

    def __init__(
        self,
        session: Session,
        report: Report,
        timeout: float | None,
        env: Mapping[str, str],
        *,
        stop_on_error: bool,
    ) -> None:
        self._redaction = Redaction()  # as the broker's own: the notebook has none of its secrets
        self._redaction.learn(env)
        self._session = session
        self._report = report
        self._timeout = timeout
        self._stop_on_error = stop_on_error

    def all(self, cells: list[Cell]) -> None:
        """Run them in their order; those behind one that ends the run are reported as not run."""
        stopped = False
        for cell in cells:
            if stopped:
                self._report.add(Outcome(cell, Verdict("not run")))
                continue
            outcome = self._one(cell)
            self._report.add(outcome)
            self._report.interrupted = outcome.status == "interrupted"
            stopped = (self._stop_on_error and outcome.fails) or self._report.interrupted

    def _one(self, cell: Cell) -> Outcome:
        from broker.client import BadRequest, OutputLost, StateLost

        recording = Recording()
        seen: dict[str, str] = {}

        def event(event: Event) -> None:
            note_id(seen, event)
            recording.take(event)
            if event.get("type") == "started":
                self._report.begin(cell)

        how: dict[str, Any] = {"timeout": self._timeout, "metadata": {"origin": ORIGIN}}
        try:
            with interrupting(self._session, seen):
                result = self._session.execute(cell.code, on_event=event, **how)
        except (StateLost, OutputLost) as lost:
            return Outcome(cell, judge(cell, (), "lost", lost.message), "lost")
        except BadRequest as refused:  # this cell cannot be sent, or is not taken: others may be
            why = self._redaction.redacted(refused.message)
            return Outcome(cell, Verdict("error", tuple(clipped([why]))), "refused")
        why = result.error.short if result.error and result.status == "error" else result.status
        if result.reason and result.reason != why:
            why += f": {result.reason}"
        outputs = self._redaction.redacted([*recording.outputs()])
        verdict = judge(cell, outputs, result.status, self._redaction.redacted(why))
        return Outcome(cell, verdict, result.status, round(result.duration, 6))


class Report:
    """Tells what became of each cell: at once, or as one object at the end."""

    def __init__(self, total: int, *, quiet: bool) -> None:
        self.interrupted = False
        self._total = total
        self._quiet = quiet
        self._live = not quiet and sys.stderr.isatty()
        self._outcomes: list[Outcome] = []

    @property
    def differs(self) -> bool:
        """Tell whether something is not as it was, or fails and never ran before."""
        return any(one.fails or one.verdict.kind not in SOUND for one in self._outcomes)

    def begin(self, cell: Cell) -> None:
        """Show which cell runs, until it has ended."""
        if self._live:
            number = len(self._outcomes) + 1
            click.echo(
                f"[{number}/{self._total}] runs       {first_line(cell)}", nl=False, err=True
            )

    def add(self, outcome: Outcome) -> None:
        """Tell of a cell."""
        self._outcomes.append(outcome)
        if self._quiet:
            return
        if self._live:
            click.echo("\r\x1b[K", nl=False, err=True)
        kind, number = outcome.verdict.kind, len(self._outcomes)
        took = f"{outcome.duration:8.3f} s" if kind != "not run" else " " * 10
        click.echo(f"[{number}/{self._total}] {kind:<9} {took}  {first_line(outcome.cell)}")
        for line in outcome.verdict.diff:
            click.echo(f"    {still(line)}")
        if kind != "same" and REDACTED in outcome.cell.code:
            click.echo("    its code had a secret in it, which the notebook does not have")

    def end(self, name: str, notebook: Path, tenant: str | None = None) -> None:
        """Tell how many cells became what."""
        counts = Counter(one.verdict.kind for one in self._outcomes)
        new_failed = sum(one.fails and one.verdict.kind == "new" for one in self._outcomes)
        if self._quiet:
            told: dict[str, Any] = {"session": name, "notebook": str(notebook)}
            told |= {kind.replace(" ", "_"): counts[kind] for kind in KINDS}
            told["new_failed"] = new_failed
            told["cells"] = [one.told(number) for number, one in enumerate(self._outcomes, 1)]
            click.echo(json.dumps(told, indent=2))
            return
        parts = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
        parts += f" ({new_failed} of them failed)" if new_failed else ""
        click.echo(f"{plural(self._total, 'cell')}{f': {parts}' if parts else ''}")
        whose = f" --tenant {tenant}" if tenant else ""
        click.echo(f"broker: session {name} goes on (`broker attach {name}{whose}`)", err=True)


def first_line(cell: Cell) -> str:
    """Return the first line of a cell's code that says something."""
    line = next((line for line in cell.code.split("\n") if line.strip()), "")
    return still(line if len(line) <= WIDTH else f"{line[: WIDTH - 1]}…")
