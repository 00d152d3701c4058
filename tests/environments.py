"""Virtual environments for other projects' programs, made from a lock file once per machine."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(__file__).parents[1] / ".cache"


def environment(name: str, lock: Path, below: Path | None = None) -> Path:
    """Return the Python of a virtual environment, made when its lock file has changed.

    What is not in the lock is found in the environment of the interpreter `below`. Whoever comes
    while it is being made waits. Raises CalledProcessError, with what pip said.
    """
    directory = CACHE / name
    stamp, python = directory / ".lock-sha256", directory / "bin" / "python"
    wanted = hashlib.sha256(lock.read_bytes() + str(below or "").encode()).hexdigest()
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == wanted and python.exists():
            return python
        shutil.rmtree(directory, ignore_errors=True)
        _run(sys.executable, "-m", "venv", str(directory))
        pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        # Most of what is installed is never imported, and what is, is compiled as it is.
        _run(*pip, "--no-compile", "--no-deps", "--require-hashes", "-r", str(lock))
        if below is not None:
            own, other = (_packages(one) for one in (python, below))
            (own / "below.pth").write_text(f"{other}\n")
        stamp.write_text(wanted)
    return python


def _packages(python: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return python.parents[1] / "lib" / version / "site-packages"


def _run(*argv: str) -> None:
    ran = subprocess.run(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if ran.returncode:
        failed = subprocess.CalledProcessError(ran.returncode, argv, ran.stdout)
        failed.add_note(ran.stdout[-2000:])
        raise failed
