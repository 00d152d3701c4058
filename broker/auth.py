"""Access tokens as they are presented, and the one that is made once and kept in a file.

No message and no repr of this module shows one.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from broker.errors import StateDirError, Unauthorized

# As RFC 6750 has it: one scheme, then one token of visible characters.
_HEADER = re.compile(r" *(\S+) +([!-~]+) *")
_SCHEMES = {"bearer", "token"}  # Jupyter's clients say `token`
_TOKEN = re.compile(r"[!-~]{16,512}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_VISIBLE = re.compile(rb"[!-~]+")
_MAX_FILE = 1024
MAX_TOKEN = 8192  # characters; a signed one has a few hundred
OFFERED = "broker.token."  # and the token in base64url, as a subprotocol that nobody ever selects


def presented_token(header: str | None, query: str | None, offered: Iterable[str] = ()) -> str:
    """Return the token of an Authorization header, else of a subprotocol, else of `?token=`.

    A browser's WebSocket sets no headers; what it offers as subprotocols stands in no URL. Raises
    Unauthorized.
    """
    if header is not None:
        match = _HEADER.fullmatch(header)
        if match is None or match[1].lower() not in _SCHEMES:
            raise Unauthorized("expected the header `Authorization: Bearer <token>`")
        return _bounded(match[2])
    for name in offered:
        if name.startswith(OFFERED):
            return _unpacked(name.removeprefix(OFFERED))
    if query:
        return _bounded(query)
    raise Unauthorized("an access token is needed: `Authorization: Bearer <token>`, or ?token=")


def load_or_make_token(path: Path) -> str:
    """Return the token in a file of mode 0600, which is made with a new token if there is none.

    Two brokers that start at once get the same token. Raises StateDirError, naming the remedy, for
    a file that others can read, that holds no token, or that cannot be made.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            return _load(path)
        _make(path)
        return _load(path)
    except OSError as error:
        raise StateDirError(
            f"the access token cannot be kept in {path}: {error.strerror or error};"
            " make room there, or give a directory that can be written with --state-dir"
        ) from error


def _load(path: Path) -> str:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())  # of what was opened, not of what stands there by now
        text = file.read(_MAX_FILE).decode(errors="replace").strip()
    if status.st_uid not in (os.geteuid(), 0):
        raise StateDirError(f"{path} belongs to another user; remove it and start again")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise StateDirError(
            f"{path} can be read by other users; if none may have seen it: chmod 600 {path}"
            " - otherwise remove it and start again for a new token"
        )
    if _TOKEN.fullmatch(text) is None:
        raise StateDirError(
            f"{path} holds no token (16 to 512 visible characters); remove it and start again"
        )
    return text


def _make(path: Path) -> None:
    """Write a new token under a name of its own, then link it: never half a token, never two."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(f"{secrets.token_hex(32)}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):  # another broker was first: its token it is
            os.link(draft, path)
    finally:
        draft.unlink()


def _unpacked(text: str) -> str:
    """Return the token in base64url, without padding."""
    _bounded(text[: len(text) * 3 // 4])  # before it is decoded
    token = b""
    if _BASE64URL.fullmatch(text):
        with contextlib.suppress(ValueError):
            token = base64.urlsafe_b64decode(f"{text}{'=' * (-len(text) % 4)}")
    if _VISIBLE.fullmatch(token) is None:
        raise Unauthorized(f"expected the subprotocol {OFFERED}<token in base64url>")
    return _bounded(token.decode())


def _bounded(token: str) -> str:
    if len(token) > MAX_TOKEN:
        raise Unauthorized(f"the access token is longer than {MAX_TOKEN} characters")
    return token
