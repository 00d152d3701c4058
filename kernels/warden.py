"""Start the warden of a directory, or find it again: the process that keeps a profile's zygotes.

It outlives this process: it is started in a session of its own, and found again through its socket.
Its part is `kernels/inside/warden.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from kernels.errors import ZygoteFailed
from kernels.spec import KernelSpec

BOOT = Path(__file__).parent / "inside" / "boot.py"
MAX_PACKET = 64 << 10
LAST_WORDS = 2000  # characters of the log shown when it fails
STOP_WAIT = 5.0  # s for a zygote of an older configuration to end
VERSION = 3
KEPT_CACHE = "/.cache"  # where a sandboxed zygote sees its cache directory

_started: set[subprocess.Popen[bytes]] = set()  # by this process, and not yet ended


def recipe_of(spec: KernelSpec, sandbox: dict[str, Any] | None) -> str:
    """Return what the zygote was made from: another recipe needs another zygote."""
    return json.dumps([VERSION, _python(spec), list(spec.preload), spec.kernelspec, sandbox])


def _python(spec: KernelSpec) -> str:
    return spec.python or sys.executable


def connect(directory: Path, recipe: str) -> socket.socket | None:
    """Connect to a zygote that is already there and made from the same recipe.

    Raises ZygoteFailed if it takes nobody in.
    """
    connection = _reach(directory)
    if connection is None:
        return None
    with contextlib.suppress(OSError):
        if (directory / "zygote.json").read_text() == recipe:
            return connection
    _stop(connection)  # made for an older configuration: its kernels would be of the wrong kind
    return None


def stop(directory: Path) -> None:
    """End the warden of this directory with all it keeps, if there is one that takes us in."""
    with contextlib.suppress(ZygoteFailed):
        if (connection := _reach(directory)) is not None:
            _stop(connection)


def _reach(directory: Path) -> socket.socket | None:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.setblocking(False)  # before one that hangs we would wait in line for ever
    try:
        connection.connect(str(directory / "zygote.sock"))
    except BlockingIOError as error:
        connection.close()
        raise ZygoteFailed(f"the zygote in {directory} takes no connections: it hangs") from error
    except OSError:
        connection.close()
        return None
    connection.setblocking(True)
    return connection


def _stop(connection: socket.socket) -> None:
    # Closing before it has read that would lose the request.
    connection.settimeout(STOP_WAIT)
    with contextlib.suppress(OSError):
        connection.send(b'{"op": "stop"}')
        while connection.recv(MAX_PACKET):
            pass
    connection.close()


def spawn(
    spec: KernelSpec,
    directory: Path,
    recipe: str,
    orphan_ttl: float,
    sandbox: dict[str, Any] | None,
) -> socket.socket:
    """Start the warden on a socket made here; connecting needs no waiting for its zygote."""
    path = directory / "zygote.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    options = {
        "python": _python(spec),
        "preload": [] if spec.kernelspec else list(spec.preload),
        "kernel": not spec.kernelspec,
        "orphan_ttl": orphan_ttl,
        "sandbox": sandbox,
    }
    cache = directory / "cache"
    cache.mkdir(mode=0o700, exist_ok=True)
    try:
        if sandbox is not None and sandbox["mode"] == "root":
            os.chown(cache, sandbox["ids"][0], sandbox["ids"][0])
        listener.bind(str(path))
        listener.listen(4)
        connection.connect(str(path))
        with (directory / "zygote.log").open("wb") as log, TemporaryFile() as told:
            log.write(b"\n")  # takes the room that its last words may need on a full disk
            log.flush()
            # Not as arguments, which every kernel could read. -I: nothing from the environment or
            # the current directory is on the path.
            told.write(json.dumps(options).encode())
            told.seek(0)
            process = subprocess.Popen(
                [_python(spec), "-I", str(BOOT), "warden", str(listener.fileno())],
                pass_fds=[listener.fileno()],
                stdin=told,
                stdout=log,
                stderr=log,
                env=_environment(str(cache) if sandbox is None else KEPT_CACHE),
                cwd="/",
                start_new_session=True,
            )
        _reap(process)
        (directory / "zygote.json").write_text(recipe)
    except OSError as error:
        connection.close()
        raise ZygoteFailed(f"cannot start {_python(spec)} in {directory}: {error}") from error
    finally:
        listener.close()
    return connection


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Take the exit status when it comes, so that no zombie stays behind."""
    loop = asyncio.get_running_loop()
    pidfd = os.pidfd_open(process.pid)

    def ended() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        process.wait()
        _started.discard(process)

    _started.add(process)
    loop.add_reader(pidfd, ended)


def _environment(cache: str) -> dict[str, str]:
    """Return the zygote's whole environment; nothing of the broker's own is in it."""
    return {
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "HOME": cache,
        "IPYTHONDIR": f"{cache}/ipython",
        "MPLCONFIGDIR": f"{cache}/matplotlib",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        # One thread until the fork; a kernel's own setting comes with its environment.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def last_words(directory: Path) -> str:
    """Return the end of what the warden and its zygotes have written."""
    with contextlib.suppress(OSError):
        text = (directory / "zygote.log").read_text(errors="replace").strip()
        if text:
            return text[-LAST_WORDS:]
    return f"it said nothing in {directory}/zygote.log"


def lock(directory: Path) -> int:
    """Take the directory for this process. Raises BlockingIOError if another process has it."""
    descriptor = os.open(directory / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor
