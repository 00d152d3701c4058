"""`broker attach`: a terminal on a live session, beside whoever else uses it."""

from __future__ import annotations

import atexit
import shutil
import sys
import tempfile
import termios
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .cells import Event, newest, read
from .group import NEXT_STEP, RefusedByBroker
from .options import complete_profile, complete_session, connection, of_tenant
from .outages import tell_of_outages
from .printer import Printer
from .run import ask_on, interrupting, note_id
from .screen import Screen, still
from .telling import Teller

if TYPE_CHECKING:
    from broker.client import Broker, BrokerError, Session

    from .attach_prompt import Lines

ORIGIN = "attach"
HISTORY = 200  # cells of the session that the prompt has at hand
MOST_HELD = 1000  # events of others that wait for the end of our own cell; more are told before it


@click.command()
@click.argument("session", shell_complete=complete_session)
@click.option("--watch", is_flag=True, help="Only follow what others run; Ctrl-C leaves.")
@click.option("--create", is_flag=True, help="Start the session if there is none.")
@click.option(
    "--profile", shell_complete=complete_profile, help="The kernel's profile, if it is new."
)
@click.option(
    "-n", "last", default=3, show_default=True, type=click.IntRange(min=0),
    help="Show the last N cells first.",
)  # fmt: skip
@click.option(
    "--save-images", type=click.Path(path_type=Path, file_okay=False),
    help="Write images here rather than to a temporary directory.",
)  # fmt: skip
@of_tenant
@connection
def attach(
    broker: Broker,
    *,
    session: str,
    tenant: str | None,
    watch: bool,
    create: bool,
    profile: str | None,
    last: int,
    save_images: Path | None,
) -> None:
    """Open a live session on the terminal: its variables, and what others run in it.

    Tab completes, the arrow keys go back to what the session has run. Ctrl-C interrupts one's own
    cell, Ctrl-D leaves; the session stays. Cells of others appear as they run. What is run here is
    noted as such (`origin` attach, in another tenant's session operator) in its transcript.
    """
    if watch and create:
        raise click.UsageError("give either --watch or --create: who only watches starts nothing")
    if create and tenant:
        raise click.UsageError("--create is for your own: another tenant's session is not made")
    if profile and not create:
        raise click.UsageError("--profile needs --create: a session keeps the one it has")
    if not watch and not sys.stdin.isatty():
        raise click.UsageError("it needs a terminal; `broker run -s NAME CODE` does without")
    tell_of_outages()
    screen = Screen()
    with images(save_images) as directory:
        teller = Teller(Printer(screen.out, screen.err, directory), screen.out, full=True)
        if watch:
            try:
                look_on(broker, session, teller, last, tenant)
            finally:
                screen.settle()
        else:
            how = {"create": create, "profile": profile, "tenant": tenant}
            visit(broker, session, Visit(screen, teller), last, **how)


@contextmanager
def images(wanted: Path | None) -> Iterator[Path]:
    """Give the directory for images; one that is made here is gone again if it stays empty."""
    if wanted is not None:
        yield wanted
        return
    made = Path(tempfile.mkdtemp(prefix="broker-attach-"))
    try:
        yield made
    finally:
        if not any(made.iterdir()):
            shutil.rmtree(made, ignore_errors=True)


def look_on(
    broker: Broker, name: str, teller: Teller, last: int, tenant: str | None = None
) -> None:
    """Tell what others run, until Ctrl-C or the end of the session."""
    from broker.client import SessionGone

    from .follow import follow

    earlier = teller.shortened("`broker logs --full`")
    try:
        for event in follow(broker, name, lambda cells: earlier.cells(newest(cells, last)), tenant):
            teller.event(event)
    except SessionGone as gone:
        click.echo(f"broker: {still(gone.message)}", err=True)
    except KeyboardInterrupt:
        pass


class Visit:
    """What others cause in the session, told beside one's own cells."""

    def __init__(self, screen: Screen, teller: Teller) -> None:
        self.screen = screen
        self.teller = teller
        self.lines: Lines | None = None
        self.count = 0  # of the last cell
        self._own = False  # a cell of ours runs
        self._held: deque[Event] = deque()
        self._turn = threading.RLock()

    def hear(self, told: Event | BrokerError) -> None:
        """Tell what others cause; called by the thread that reads."""
        if not isinstance(told, dict):
            if self.lines is not None:
                self.lines.end(told)
            return
        with self._turn:
            # Behind the end of our own cell, which another thread may not have told yet.
            if self._own and told.get("id") is not None and len(self._held) < MOST_HELD:
                self._held.append(told)
            else:
                self._tell(told)

    def own(self, event: Event) -> None:
        """Tell an event of one's own cell."""
        with self._turn:
            kind = event.get("type")
            self._count_anew(event)
            if kind == "started":
                self._own = True
                self._note(event)
            elif kind == "queued":
                where = "behind what others run: Ctrl-C takes it back"
                self.teller.printer.note(f"broker: it waits, {where}")
            self.teller.printer.event(event)

    def ended(self) -> None:
        """Go on with what others have caused since."""
        with self._turn:
            self._own = False
            self.teller.printer.end_line()
            while self._held:
                self._tell(self._held.popleft())

    def _tell(self, event: Event) -> None:
        self._count_anew(event)
        if event.get("type") == "started":
            self._note(event)
            if self.lines is not None:
                self.lines.remember(str(event.get("code", "")))
                self.lines.renew()
        self.teller.event(event)

    def _count_anew(self, event: Event) -> None:
        """Show at once that another kernel counts from one on."""
        kind = event.get("type")
        told = event.get("state") if kind == "session" else event.get("status")
        if kind in ("session", "done") and told == "lost":
            self.count = 0
            if self.lines is not None:
                self.lines.renew()

    def _note(self, event: Event) -> None:
        self.count = event.get("execution_count") or self.count

    def words(self) -> str:
        """Return what stands before the line that one types."""
        return f"In [{self.count + 1}]: "


def visit(broker: Broker, name: str, here: Visit, last: int, **how: Any) -> None:
    """Read and run code in a session of others, until Ctrl-D or its end."""
    from broker.client import SessionGone, UnknownSession
    from broker.client.visiting import visit

    from .attach_prompt import Lines

    session = visit(broker.place, name, here.hear, **how)
    try:
        try:
            session.attach()
            told = session.history(HISTORY)["cells"]
            before = newest(read(broker.notebook(name, tenant=session.tenant)), last)
        except UnknownSession as error:
            hint = f"{NEXT_STEP['UnknownSession']}, --create starts one"
            if session.tenant:
                hint = f"`broker ls --tenant {session.tenant}` shows the sessions"
            raise click.ClickException(f"{error.message} ({hint})") from error
        here.count = max((cell["execution_count"] or 0 for cell in told), default=0)
        here.lines = Lines(session, [str(cell["code"]) for cell in told])
        here.teller.shortened("`broker logs --full`").cells(before)
        click.echo(f"session {name}; Ctrl-C interrupts, Ctrl-D leaves", err=True)
        converse(session, here, here.lines)
        over = here.lines.over
    finally:
        session.detach()
    if over is not None:
        atexit.register(forget_typed, sys.stdin.fileno())  # as late as can be
        step = what_starts(name, session.tenant) if isinstance(over, SessionGone) else None
        raise RefusedByBroker(type(over).__name__, over.message, step)
    click.echo(f"broker: session {name} goes on", err=True)


def what_starts(name: str, tenant: str | None) -> str:
    """Return what brings a session about that has ended: an attachment alone does not."""
    if tenant:
        return f"the next cell that {tenant} runs in it starts it anew"
    return f"`broker attach --create {name}` or `broker run -s {name}` starts it anew"


def forget_typed(terminal: int) -> None:
    """Drop the keys that nobody has read: they were for what is gone by now.

    A shell would run them, and so would the session's next kernel.
    """
    with suppress(termios.error, OSError):
        termios.tcflush(terminal, termios.TCIFLUSH)


def converse(session: Session, here: Visit, lines: Lines) -> None:
    """Read and run code until the end."""
    from broker.client import BrokerError

    from .prompt import typed

    def line() -> str:
        with here.screen.above_prompt():
            return lines.read(here.words)

    for code in typed(line):
        try:
            execute(session, here, code)
        except KeyboardInterrupt:
            return
        except BrokerError as error:
            if lines.over is None:
                RefusedByBroker(type(error).__name__, error.message).show()
        finally:
            here.ended()


def execute(session: Session, here: Visit, code: str) -> None:
    """Run code as one's own, and tell what comes of it."""
    seen: dict[str, str] = {}

    def event(event: Event) -> None:
        note_id(seen, event)
        here.own(event)

    with interrupting(session, seen) as press:
        metadata = {"origin": ORIGIN}
        options: dict[str, Any] = {"on_input": ask_on(press), "metadata": metadata}
        result = session.execute(code, on_event=event, **options)
    if result.status == "lost":
        forget_typed(sys.stdin.fileno())
