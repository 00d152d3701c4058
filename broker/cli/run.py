"""`broker run`: code in a session, from the command line, a file, a pipe, or a prompt."""

from __future__ import annotations

import getpass
import json
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from .answer import answer
from .options import as_json, complete_profile, complete_session, connection, of_tenant
from .outages import tell_of_outages
from .printer import Printer, exit_status
from .screen import Screen, calm, still
from .text import Duration

if TYPE_CHECKING:
    from types import FrameType

    from broker.client import Broker, Event, Session


@click.command()
@click.argument("code", required=False, metavar="[CODE|-|FILE]")
@click.option(
    "-s", "--session", "name", required=True, shell_complete=complete_session, help="The session."
)
@click.option("--file", type=click.Path(path_type=Path), help="Run this file, whatever its name.")
@click.option(
    "--profile",
    shell_complete=complete_profile,
    help="The kernel's profile, if the session is new.",
)
@click.option("--timeout", type=Duration(), help="Stop the code after this time, such as 30s.")
@click.option(
    "--env", multiple=True, metavar="NAME=VALUE", help="Set a variable for the code; repeatable."
)
@click.option("--cwd", metavar="DIRECTORY", help="Run the code there, from its home on.")
@click.option("--cpu-time", metavar="DURATION", help="CPU time of each execution, if it is new.")
@click.option("--memory", metavar="SIZE", help="Its kernel's memory, such as 256M, if it is new.")
@click.option("--processes", metavar="N", help="Its kernel's processes, if it is new.")
@click.option("--cpu", metavar="CORES", help="Its kernel's cores, such as 0.5, if it is new.")
@click.option(
    "--save-images", type=click.Path(path_type=Path, file_okay=False), help="Write images here."
)
@of_tenant
@connection
@as_json
def run(
    broker: Broker,
    *,
    code: str | None,
    name: str,
    tenant: str | None,
    file: Path | None,
    profile: str | None,
    timeout: float | None,
    save_images: Path | None,
    env: tuple[str, ...],
    cwd: str | None,
    as_json: bool,
    **limits: str | None,
) -> None:
    """Run code in a session, and print what a REPL would.

    Without code: what comes on standard input, or a prompt on a terminal. The exit status is 0,
    or 1 after an error in the code, 124 after a timeout, 130 when interrupted, 137 when the
    kernel was lost. Ctrl-C interrupts the code; a second one leaves.

    With --json: one object when the code has ended, as POST /v1/sessions/SESSION/execute answers
    it, images as base64 text; the exit status is the same. Code that asks for input gets none.
    """
    if as_json and save_images is not None:
        raise click.UsageError("give either --json or --save-images: the object has the images")
    if code is not None and file is not None:
        raise click.UsageError("give either code or --file")
    if timeout is not None and timeout <= 0:
        raise click.UsageError("--timeout is over 0; leave it out for the server's own")
    tell_of_outages()
    around = {"env": read_env(env), "cwd": cwd}
    source = read_source(code, file)
    if file is None and code in (None, "-") and source is not None and not source.strip():
        raise click.UsageError("there is no code on standard input")
    if as_json and source is None:
        raise click.UsageError("--json needs code: a prompt is for people")
    printer = None if as_json else Printer(*shown_on(), save_images)
    asked = {limit: text for limit, text in limits.items() if text is not None}
    session = broker.session(name, profile, limits=asked, tenant=tenant)
    try:
        if source is None and printer is not None:
            from .prompt import converse

            status = converse(session, printer, timeout, around)
        else:
            status = execute(session, printer, source or "", timeout, around)
    except KeyboardInterrupt:
        status = exit_status("interrupted")
    finally:
        session.detach()
    raise SystemExit(status)


def shown_on() -> tuple[TextIO, TextIO]:
    """Return where text goes: to a terminal calm, anywhere else as it is."""
    screen = Screen()
    return (
        screen.out if sys.stdout.isatty() else sys.stdout,
        screen.err if sys.stderr.isatty() else sys.stderr,
    )


# What a person means as a file rather than as an expression.
FILE_NAME = re.compile(r"[\w./~+-]+\.\w+|[\w.~+-]*/[\w./~+-]+")


def read_source(code: str | None, file: Path | None) -> str | None:
    """Return the code to run, or None for a prompt."""
    if file is None and code is not None and FILE_NAME.fullmatch(code):
        if Path(code).is_file():
            file = Path(code)
        elif code.endswith(".py"):
            raise click.UsageError(f"there is no file {code}")
    try:
        if file is not None:
            return file.read_text(encoding="utf-8")
        if code == "-" or (code is None and not sys.stdin.isatty()):
            return sys.stdin.read()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"cannot read {file or 'standard input'}: {error}") from error
    return code


def read_env(given: tuple[str, ...]) -> dict[str, str] | None:
    """Return the variables, or None without any."""
    found = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.UsageError("--env is NAME=VALUE")  # the value may be nobody's business
        found[name] = value
    return found or None


def execute(
    session: Session,
    printer: Printer | None,
    code: str,
    timeout: float | None,
    around: Mapping[str, Any],
) -> int:
    """Run code, print its events, and return the exit status that tells how it ended.

    Without a printer, all is printed as one JSON object at the end, and nobody is asked anything.
    `around` is what it has around it: `env` and `cwd`.
    """
    session.attach()
    seen: dict[str, str] = {}

    def event(event: Event) -> None:
        note_id(seen, event)
        if printer is not None:
            printer.event(event)

    with interrupting(session, seen) as press:
        on_input = ask_on(press) if printer is not None and sys.stdin.isatty() else None
        result = session.execute(code, timeout=timeout, on_event=event, on_input=on_input, **around)
    if printer is None:
        click.echo(json.dumps(answer(session.name, result.events), indent=2))
    return exit_status(result.status)


def note_id(seen: dict[str, str], event: Event) -> None:
    """Note under `queued` or `started` the id of our own execution, for `interrupting`."""
    if "id" in event:
        seen["queued" if event["type"] == "queued" else "started"] = event["id"]


@contextmanager
def interrupting(session: Session, seen: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    """Make the first Ctrl-C interrupt our own execution, and the second one leave.

    Yields what does as the first one.
    """
    pressed = 0

    def press(_: int, __: FrameType | None) -> None:
        nonlocal pressed
        pressed += 1
        if pressed > 1:
            raise KeyboardInterrupt
        # In a thread: this frame may stand inside the very call that holds the socket's lock.
        threading.Thread(target=ask, daemon=True).start()

    def ask() -> None:
        from broker.client import BrokerError

        try:
            # Somebody else's cell may be running: only ours is to stop.
            if "started" in seen:
                session.interrupt(seen["started"])
            elif "queued" in seen:
                session.cancel(seen["queued"])
            else:
                click.echo("broker: not started yet; Ctrl-C again leaves", err=True)
        except BrokerError as error:
            why = still(error.message)
            click.echo(f"broker: not interrupted: {why}; Ctrl-C leaves", err=True)

    earlier = signal.signal(signal.SIGINT, press)
    try:
        yield ask
    finally:
        signal.signal(signal.SIGINT, earlier)


def ask_on(interrupt: Callable[[], None]) -> Callable[[str, bool], str | None]:
    """Return what asks on the terminal for a line that the code wants.

    Ctrl-D is the end of input, and Ctrl-C interrupts the code.
    """

    def on_input(prompt: str, password: bool) -> str | None:
        earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
        prompt = calm(prompt)
        try:
            return getpass.getpass(prompt) if password else input(prompt)
        except EOFError:
            click.echo()
        except KeyboardInterrupt:
            click.echo()
            interrupt()
        finally:
            signal.signal(signal.SIGINT, earlier)
        return None

    return on_input
