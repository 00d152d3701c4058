"""Where the broker is: arguments, then the environment, then the local server's own file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import NoServer

NAME = "server.json"


@dataclass(frozen=True, slots=True)
class Place:
    """An address and the token for it."""

    url: str
    token: str = field(repr=False)


def find(
    url: str | None = None,
    token: str | None = None,
    state_dir: str | Path | None = None,
    *,
    environ: Mapping[str, str] = os.environ,
) -> Place:
    """Return where the broker is.

    `url` and `token` come first, then BROKER_URL and BROKER_TOKEN, then the `server.json` that
    a local broker writes. Its token is used for its own address alone.

    Raises NoServer when no address is known.
    """
    url = url or environ.get("BROKER_URL") or None
    token = token or environ.get("BROKER_TOKEN") or None
    if url and token:
        return Place(url.rstrip("/"), token)
    directory = find_state_dir(state_dir, environ=environ)
    local = read_server_file(directory)
    if url:
        same = local is not None and local.url == url.rstrip("/")
        return Place(url.rstrip("/"), local.token if same and local else "")
    if local is None:
        raise NoServer(f"no broker runs here: there is no {directory / NAME}", code="no_server")
    return Place(local.url, token or local.token)


def find_state_dir(
    state_dir: str | Path | None = None, *, environ: Mapping[str, str] = os.environ
) -> Path:
    """Return the state directory in which a local broker would have left its address."""
    given = state_dir or environ.get("BROKER_STATE_DIR")
    if given:
        return Path(given).expanduser()
    here = Path(".state")  # where `make run` puts it
    return here if (here / NAME).is_file() else user_state_dir()


def user_state_dir() -> Path:
    """Return the directory of the user's own broker, and of the prompt's history."""
    return Path.home() / ".local" / "state" / "kernel-broker"


def read_server_file(directory: Path) -> Place | None:
    """Return what a running broker wrote about itself, or None when there is no such file."""
    path = directory / NAME
    try:
        told: Any = json.loads(path.read_text(encoding="utf-8"))
        return Place(str(told["url"]).rstrip("/"), str(told["token"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NoServer(f"{path} cannot be used: {error}", code="no_server") from error
