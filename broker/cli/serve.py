"""`broker serve` and `broker config`: settings from a file, the environment and flags."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .options import as_json
from .text import console, table

if TYPE_CHECKING:
    from broker.config import Loaded

Command = TypeVar("Command", bound=Callable[..., Any])


# fmt: off
def settings(command: Command) -> Command:
    """Add the flags that set what a server does; the command is called with `loaded` instead."""

    @click.option("--config", "file", type=click.Path(path_type=Path),
                  help="Settings in TOML; ./broker.toml if there is one.  [env: BROKER_CONFIG]")
    @click.option("--host", help="Address to listen on.")
    @click.option("--port", help="Port to listen on; 0 for a free one.")
    @click.option("--state-dir", help="Directory for the token, the store and the sockets.")
    @click.option("--isolation", help="How kernels are confined: full, standard or none.")
    @click.option("--redis-url", help="A Redis to use rather than the embedded store.")
    @click.option("--node", help="This node's name; the host's name by default.")
    @click.option("--warm", metavar="N", help="Kernels to keep warm, of the default profile.")
    @click.option("--preload", metavar="MODULE", multiple=True,
                  help="Import this once for all kernels of the default profile; repeatable.")
    @click.option("--log-level", help="debug, info, warning or error.")
    @functools.wraps(command)
    def configured(
        file: Path | None, warm: str | None, preload: tuple[str, ...], *,
        host: str | None, port: str | None, state_dir: str | None, isolation: str | None,
        redis_url: str | None, node: str | None, log_level: str | None, **rest: Any,
    ) -> Any:
        flags = {
            "host": host, "port": port, "state_dir": state_dir, "isolation": isolation,
            "redis.url": redis_url, "node": node, "log_level": log_level,
        }
        of_profile = {"warm": warm, "preload": ",".join(preload) or None}
        return command(loaded=load_settings(file, flags, of_profile, os.environ), **rest)

    return configured  # type: ignore[return-value]  # called with other arguments than it was given
# fmt: on


@click.command()
@settings
@click.option(
    "--ready-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write url, token and pid here as JSON, once ready.",
)
def serve(loaded: Loaded, ready_file: Path | None) -> None:
    """Run a broker until it is told to end."""
    from broker.app import main

    raise SystemExit(main(loaded, ready_file=ready_file))


@click.command()
@settings
@as_json
def config(loaded: Loaded, as_json: bool) -> None:
    """Show every setting, and where its value comes from."""
    if as_json:
        settings = {
            setting.name: {"value": setting.value, "origin": setting.origin}
            for setting in loaded.effective()
        }
        click.echo(json.dumps({"settings": settings}, indent=2))
        return
    from rich.text import Text

    listing = table("SETTING", "VALUE", "FROM")
    for setting in loaded.effective():
        style = "dim" if setting.origin == "default" else "green"
        listing.add_row(setting.name, Text(setting.value), Text(setting.origin, style=style))
    console().print(listing)


def load_settings(
    file: Path | None,
    flags: Mapping[str, str | None],
    of_profile: Mapping[str, str | None],
    environ: Mapping[str, str],
) -> Loaded:
    """Return the settings, or print each mistake on a line and leave with status 2.

    `of_profile` are the flags that set the default profile, whichever that turns out to be.
    """
    from broker.config import ConfigError, Loaded, load

    name, text = read_file(file, environ)
    try:
        profile = load(text, environ, flags, file=name).config.default_profile
    except ConfigError:
        profile = "python"  # the mistakes are told below, together with those of these flags
    # Flags have a name per setting, and profiles have any name: these go by the environment's.
    variables = {
        f"BROKER_PROFILES_{profile}_{part}".replace("-", "_").upper(): (f"--{part}", value)
        for part, value in of_profile.items()
        if value is not None
    }
    environ = {**environ, **{variable: value for variable, (_, value) in variables.items()}}
    origins = {variable: flag for variable, (flag, _) in variables.items()}
    try:
        loaded = load(text, environ, flags, file=name)
    except ConfigError as error:
        for problem in error.problems:
            told = replace(problem, origin=origins.get(problem.origin, problem.origin))
            click.echo(f"broker: {told}", err=True)
        sys.exit(2)
    found = {setting: origins.get(origin, origin) for setting, origin in loaded.origins.items()}
    return Loaded(loaded.config, found)


def read_file(file: Path | None, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the settings file's name and text; an absent ./broker.toml is an empty one."""
    named = file or (Path(environ["BROKER_CONFIG"]) if environ.get("BROKER_CONFIG") else None)
    path = named or Path("broker.toml")
    try:
        return str(path), path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if named is None:
            return str(path), ""
        raise click.UsageError(f"cannot read {path}: {error.strerror}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"cannot read {path}: {error}") from error
