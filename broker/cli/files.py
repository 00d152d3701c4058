"""`broker files SESSION ls|get|put|rm|mv`: a session's files from the command line."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from .completing import complete_path
from .options import as_json, complete_session, connection, connection_ahead, of_tenant
from .text import age, console, printable, size, table

if TYPE_CHECKING:
    from broker.client import Broker
    from broker.client.files import Files, Progress

LONG = 4 << 20  # bytes; what is larger shows how far it has come
SIGNS = {"directory": "/", "symlink": "@", "other": "="}  # as `ls -F` has them


@click.group()
@click.argument("session", shell_complete=complete_session)
@of_tenant
@connection_ahead
def files(**_: str | None) -> None:
    """List, fetch, send, remove and rename a session's files."""


@files.command("ls")
@click.argument("path", default="", shell_complete=complete_path)
@click.option("-r", "--recursive", is_flag=True, help="Go into directories.")
@click.option("-a", "--all", "every", is_flag=True, help="Show names that begin with a dot.")
@of_tenant
@connection
@as_json
def list_files(
    broker: Broker, *, tenant: str | None, path: str, recursive: bool, every: bool, as_json: bool
) -> None:
    """List a directory."""
    found = _files(broker, tenant).list(path, recursive=recursive)
    if not every:
        found = [one for one in found if not _is_hidden(one.path, path)]
    if as_json:
        click.echo(json.dumps({"files": [asdict(one) for one in found]}, indent=2))
        return
    from rich.text import Text

    listing = table("PATH", "SIZE", "AGE", right=("SIZE", "AGE"))
    now = time.time()
    for one in found:
        shown = printable(one.path) + SIGNS.get(one.type, "")
        count = size(one.size) if one.type == "file" else "-"
        listing.add_row(Text(shown), count, age(now - one.mtime))
    console().print(listing)


@files.command()
@click.argument("path", shell_complete=complete_path)
@click.argument("local", required=False, type=click.Path(path_type=Path))
@of_tenant
@connection
def get(broker: Broker, tenant: str | None, path: str, local: Path | None) -> None:
    """Fetch a file, to LOCAL (a file, a directory, or - for the standard output).

    A name with control characters is not given to a local file: name that, then.
    """
    with _progress(path) as tell, _local_faults():
        if local is not None and str(local) == "-":
            _files(broker, tenant).download(path, sys.stdout.buffer, on_progress=tell)
            return
        fetched = _files(broker, tenant).download(path, local, on_progress=tell)
    click.echo(f"{printable(path)} -> {printable(str(fetched))}", err=True)


@files.command()
@click.argument("local", type=click.Path(path_type=Path))
@click.argument("path", required=False, shell_complete=complete_path)
@click.option("--new", is_flag=True, help="Do not replace a file that is there.")
@of_tenant
@connection
def put(broker: Broker, tenant: str | None, local: Path, path: str | None, new: bool) -> None:
    """Send a local file, or - for the standard input, to PATH in the workspace."""
    from_input = str(local) == "-"
    if from_input and not path:
        raise click.UsageError("name the path that the standard input is to have")
    if path and path.endswith("/"):
        path += local.name
    with _progress(str(local)) as tell, _local_faults():
        source: Any = sys.stdin.buffer if from_input else local
        made = _files(broker, tenant).upload(source, path, replace=not new, on_progress=tell)
    told = f"{printable(str(local))} -> {printable(made.path)}"
    click.echo(f"{told}, {size(made.size)}", err=True)


@files.command()
@click.argument("paths", nargs=-1, required=True, metavar="PATH...", shell_complete=complete_path)
@click.option("-r", "--recursive", is_flag=True, help="Remove directories with what is in them.")
@of_tenant
@connection
def rm(broker: Broker, tenant: str | None, paths: tuple[str, ...], recursive: bool) -> None:
    """Remove files."""
    for path in paths:
        _files(broker, tenant).delete(path, recursive=recursive)


@files.command()
@click.argument("path", shell_complete=complete_path)
@click.argument("to", shell_complete=complete_path)
@click.option("-f", "--replace", is_flag=True, help="Replace a file that is there.")
@of_tenant
@connection
def mv(broker: Broker, tenant: str | None, path: str, to: str, replace: bool) -> None:
    """Rename a file or a directory within the workspace."""
    _files(broker, tenant).move(path, to, replace=replace)


def _is_hidden(path: str, folder: str) -> bool:
    """Tell whether a name that begins with a dot stands in the path, below the listed folder.

    Whoever names a folder wants to see what is in it, whatever the folder is called.
    """
    below = PurePosixPath(path).parts[len(PurePosixPath(folder).parts) :]
    return any(name.startswith(".") for name in below)


def _files(broker: Broker, tenant: str | None) -> Files:
    """Return the files that are meant; --tenant may stand before the session, or behind it all."""
    above = click.get_current_context().parent
    given: dict[str, Any] = above.params if above else {}
    return broker.files(str(given.get("session", "")), tenant=tenant or given.get("tenant"))


@contextmanager
def _local_faults() -> Iterator[None]:
    """Tell of a local file that cannot be read or written in one line."""
    try:
        yield
    except OSError as error:
        what = printable(str(error.filename or "the local file"))
        raise click.ClickException(f"{what}: {error.strerror or error}") from error


@contextmanager
def _progress(what: str) -> Iterator[Progress | None]:
    """Show how far a long transfer has come, to people."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console(sys.stderr), transient=True) as shown:
        task = None

        def tell(done: int, total: int | None) -> None:
            nonlocal task
            if task is None and (total is None or total > LONG):
                task = shown.add_task(printable(what), total=total)
            if task is not None:
                shown.update(task, completed=done)

        yield tell
