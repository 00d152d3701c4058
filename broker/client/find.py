"""Where the broker is: arguments, then the environment, then the local server's own file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import BadRequest, NoServer
from .patience import USUAL, Patience

NAME = "server.json"
SCHEMES = ("http", "https")
LOOPBACK = re.compile(r"(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d*)?(?:/.*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """An address and the token for it."""

    url: str
    token: str = field(repr=False)
    patience: Patience = USUAL


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

    Raises NoServer when no address is known, and BadRequest for what is none.
    """
    url = url or environ.get("BROKER_URL") or None
    token = token or environ.get("BROKER_TOKEN") or None
    if url:
        check(url)
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


def check(url: str) -> None:
    """Raise BadRequest for what is no address, with the one that was probably meant."""
    scheme, found, rest = url.partition("://")
    if found and scheme.lower() in SCHEMES:
        return
    rest = rest if found else url
    # Only to this machine is it safe to suggest what sends a token in clear.
    secure = "" if LOOPBACK.fullmatch(rest) else "s"
    raise BadRequest(
        f"{url!r} is no address: one begins with http:// or https://, as in http{secure}://{rest}",
        field="url",
    )


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
