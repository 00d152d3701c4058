"""`broker serve` and `broker config`: settings from a file, the environment and flags."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
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
    shown = show_settings(loaded)
    if as_json:
        click.echo(json.dumps({"settings": shown}, indent=2))
        return
    listing = table("SETTING", "VALUE", "FROM")
    for name, setting in shown.items():
        from rich.text import Text

        origin = setting["origin"]
        style = "dim" if origin == "default" else "green"
        listing.add_row(name, Text(setting["value"]), Text(origin, style=style))
    console().print(listing)


def load_settings(
    file: Path | None,
    flags: Mapping[str, str | None],
    of_profile: Mapping[str, str | None],
    environ: Mapping[str, str],
) -> Loaded:
    """Return the settings, or print each mistake on a line and leave with status 2."""
    from broker.config import ConfigError, load

    text = read_file(file, environ)
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        profile = load(text, environ, given).config.default_profile
    except ConfigError:
        profile = "python"  # the mistakes are told below, together with those of these flags
    for name, value in of_profile.items():
        if value is not None:
            given[f"profiles.{profile}.{name}"] = value
    try:
        return load(text, environ, given)
    except ConfigError as error:
        click.echo(str(error), err=True)
        sys.exit(2)


def read_file(file: Path | None, environ: Mapping[str, str]) -> str:
    """Return the settings file's text; an absent ./broker.toml is an empty one."""
    named = file or (Path(environ["BROKER_CONFIG"]) if environ.get("BROKER_CONFIG") else None)
    try:
        return (named or Path("broker.toml")).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if named is None:
            return ""
        raise click.UsageError(f"cannot read {named}: {error.strerror}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"cannot read {named or 'broker.toml'}: {error}") from error


def show_settings(loaded: Loaded) -> dict[str, dict[str, str]]:
    """Return each setting's value as text, secrets hidden, and its origin, by dotted name."""
    return {
        name: {"value": value, "origin": loaded.origins.get(name, "default")}
        for name, value in _walk(loaded.config, "")
    }


def _walk(part: Any, prefix: str) -> Iterator[tuple[str, str]]:
    for field in fields(part):
        value = getattr(part, field.name)
        name = prefix + field.name
        if is_dataclass(value):
            yield from _walk(value, name + ".")
        elif isinstance(value, Mapping):
            for key in value:
                yield from _walk(value[key], f"{name}.{key}.")
        else:
            yield name, field.metadata["rule"].show(value)
