"""The state directory: what a broker keeps between its lives, readable by nobody else."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from broker.errors import StateDirError


def find(setting: str) -> Path:
    """Return the directory that a setting means."""
    return Path(setting).expanduser().absolute()


def kernels(state: Path, profile: str) -> Path:
    """Return the directory of a profile's zygote and kernels."""
    return state / "k" / profile


def prepare(state: Path) -> Path:
    """Make the directory, and see that it can be written. Raises StateDirError."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        state.chmod(0o700)
        (state / "k").mkdir(mode=0o700, exist_ok=True)
        probe = state / ".probe"
        probe.write_bytes(b"\0" * 4096)  # a full disk says so here, and not half way through
        probe.unlink()
    except OSError as error:
        raise StateDirError(
            f"the state directory {state} cannot be used: {error.strerror}; "
            "free some space or choose another with --state-dir"
        ) from error
    return state


def take(state: Path) -> Callable[[], None]:
    """Keep other brokers out; return what lets them in again. Raises StateDirError."""
    descriptor = os.open(state / "broker.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise StateDirError(
            f"another broker uses {state}; stop it, or choose another with --state-dir"
        ) from None
    return lambda: os.close(descriptor)


def load_or_make_secret(path: Path) -> bytes:
    """Return the secret that kernels' keys are derived from; kept, so that they can be adopted."""
    with suppress(FileNotFoundError):
        kept = path.read_bytes()
        if len(kept) == 32:
            return kept
    made = secrets.token_bytes(32)
    write_private(path, made)
    return made


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only we can read, in one piece."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        part.replace(path)
    except OSError as error:
        raise StateDirError(f"{path} cannot be written: {error.strerror}") from error


def node_name(state: Path) -> str:
    """Return the same name at every start, and another for each broker of a host."""
    return f"{socket.gethostname()}-{zlib.crc32(os.fsencode(state)):08x}"
