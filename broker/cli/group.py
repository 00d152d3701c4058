"""The command's root: each subcommand is imported when it is asked for, so that all start fast."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from .screen import still_lines

COMMANDS = {
    "serve": "broker.cli.serve",
    "run": "broker.cli.run",
    "ls": "broker.cli.sessions",
    "top": "broker.cli.top",
    "inspect": "broker.cli.describing",
    "interrupt": "broker.cli.sessions",
    "kill": "broker.cli.sessions",
    "vars": "broker.cli.transcript",
    "export": "broker.cli.transcript",
    "logs": "broker.cli.logs",
    "attach": "broker.cli.attach",
    "replay": "broker.cli.replay",
    "files": "broker.cli.files",
    "status": "broker.cli.status",
    "token": "broker.cli.tokens",
    "drain": "broker.cli.drain",
    "config": "broker.cli.serve",
    "doctor": "broker.cli.doctor",
    "completion": "broker.cli.completion",
}
COMPLETING = "_BROKER_COMPLETE"  # set by the scripts of `broker completion`
FUNCTIONS = {"vars": "variables"}  # of commands that would hide a name of Python's

# What to do next, by the name of the client's error class.
NEXT_STEP = {
    "NoServer": "start one with `make run` or `broker serve`, or name one with --url and --token",
    "Unauthorized": "give the server's token with --token or BROKER_TOKEN",
    "Forbidden": "use a token with wider rights; `broker token create` makes one",
    "UnknownSession": "`broker ls` shows the sessions",
    "UnknownToken": "`broker token list` shows the tokens",
    "QuotaExceeded": "wait, or have the operator raise the tenant's quota",
    "AtCapacity": "try again soon, or free kernels with `broker kill --idle 10m`",
    "ProfileBroken": "mend the profile; its zygote.log in the state directory says more",
    "QueueFull": "wait for the session's executions to end, or `broker kill` it",
    "KernelBusy": "ask again when it is idle, or end what it runs",
    "Draining": "try again, on another node",
    "StoreUnavailable": "try again soon; `broker status` shows the store",
    "ServerFault": "the server's log says more",
    "SlowClient": "run it again with less output, or into a file",
    "ConnectionLost": "run it again; the session may still have its variables",
    "NotRunning": "`broker ls --state busy` shows what runs",
    "SessionElsewhere": "ask that node: give its address with --url",
    "NoSuchFile": "`broker files SESSION ls` shows the files",
    "FileExists": "choose another name, or replace it",
    "WorkspaceFull": "remove files with `broker files SESSION rm`",
    "SessionMoved": "run it again, with the --url of the node that serves the session",
    "OutputLost": "the code ran all the same; the session has its variables",
    "StateLost": "run it again; the session starts anew",
    "SessionGone": "run it again; the session starts anew",
}

OPERATORS = "this is for the operator"  # so begins what the server says where no scope is enough


class RefusedByBroker(click.ClickException):
    """A refusal, told in one line with the next step."""

    def __init__(self, kind: str, message: str, hint: str | None = None) -> None:
        hint = hint or NEXT_STEP.get(kind)
        if kind == "Forbidden" and message.startswith(OPERATORS):
            hint = "give the operator's token with --token or BROKER_TOKEN"
        message = still_lines(message)  # it may have words of a kernel's in it
        super().__init__(f"{message} ({hint})" if hint else message)

    def show(self, file: Any = None) -> None:
        """Print the line on stderr."""
        click.echo(f"broker: {self.format_message()}", file=file, err=file is None)


class Commands(click.Group):
    """A group whose commands are named here and live elsewhere."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name])
        command: click.Command = getattr(module, FUNCTIONS.get(cmd_name, cmd_name))
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what the broker refuses becomes one line and exit status 1."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # or what cannot be written would be told in the interpreter's words
        except click.ClickException:
            raise
        except Exception as error:
            from broker.client import BrokerError

            if isinstance(error, BrokerError):
                raise RefusedByBroker(type(error).__name__, error.message) from error
            raise
        return result


def show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the version and leave."""
    if not wanted or ctx.resilient_parsing:
        return
    from importlib.metadata import version

    click.echo(f"broker {version('kernel-broker')}")
    ctx.exit()


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=show_version,
    help="Show the version.",
)  # fmt: skip
def cli() -> None:
    """Warm, stateful Python kernels for chat sessions.

    The client commands find the server by --url and --token, BROKER_URL and BROKER_TOKEN, or the
    server.json that a local server writes to its state directory.
    """


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        # What code prints may hold what the terminal's encoding lacks.
        if callable(reconfigure := getattr(stream, "reconfigure", None)):
            reconfigure(errors="backslashreplace")
    if COMPLETING in os.environ:  # a shell asks what may come next
        importlib.import_module("broker.cli.completion")
    try:
        cli(prog_name="broker", complete_var=COMPLETING)
    except OSError as error:  # a full disk, most of the time; a closed pipe click ends quietly for
        where = error.filename or "the output"
        click.echo(f"broker: {where}: {error.strerror or error}", err=True)
        os._exit(1)  # what is left of the output cannot be written either
