"""Run a command as an ordinary user, though the interpreter may live where only root can go.

`python ordinary.py UID PATHS -- COMMAND…` replaces itself by the command, as that user
and in a mount namespace of its own. PATHS, separated by colons, are what the command needs beside
the interpreter, its environment and this work tree. All keep their names: a directory on the way
that is closed to strangers (`/root`, `mktemp -d`) is covered by an empty one, in which nothing but
them is mounted again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from kernels.sandbox import system

ROOT = Path(__file__).resolve().parent.parent.parent
FIRST_UID = 61_000  # of nobody in /etc/passwd; one for each worker of a test run
SEARCH = 0o001  # what others need to pass a directory


def uid_of_worker(worker: str) -> int:
    """Return a user id that no other worker of this test run has; `worker` is gw0, gw1, … or ""."""
    return FIRST_UID + int(worker.removeprefix("gw") or 0)


def command_as(uid: int, command: Sequence[str], *paths: Path) -> list[str]:
    """Return the command line that runs `command` as that user."""
    module = [sys.executable, str(Path(__file__).resolve()), str(uid), ":".join(map(str, paths))]
    return [*module, "--", *command]


def needed_paths(paths: Iterable[str]) -> list[str]:
    """Return the directories that must be reachable, outermost only."""
    executable = os.path.realpath(sys.executable)
    wanted = [sys.prefix, sys.base_prefix, os.path.dirname(executable), str(ROOT), *paths]
    kept: list[str] = []
    for path in sorted({os.path.realpath(path) for path in wanted if path}):
        if not any(path.startswith(f"{top}/") for top in kept):
            kept.append(path)
    return kept


def closed_above(path: str) -> str:
    """Return the outermost directory above `path` that strangers cannot pass, or nothing."""
    for above in reversed(Path(path).parents):
        if not above.stat().st_mode & SEARCH:
            return str(above)
    return ""


def open_ways(paths: Iterable[str]) -> None:
    """Make the paths reachable for strangers, in this process's mounts alone."""
    system.unshare(system.CLONE_NEWNS)
    system.mount("none", "/", flags=system.MS_REC | system.MS_PRIVATE)
    behind: dict[str, list[tuple[str, int]]] = {}
    for path in paths:
        if closed := closed_above(path):
            behind.setdefault(closed, []).append((path, system.open_tree(path, recursive=True)))
    for closed, trees in behind.items():
        system.mount("ways", closed, "tmpfs", data="mode=755")
        for path, tree in trees:
            os.makedirs(path, exist_ok=True)
            system.move_mount(tree, path)
            os.close(tree)


def main(uid: int, paths: str, command: Sequence[str]) -> None:
    """Become the user and the command; never returns."""
    os.umask(0o022)
    open_ways(needed_paths(paths.split(":")))
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.chdir("/")
    home = paths.split(":", maxsplit=1)[0] or "/"
    environment = {**os.environ, "HOME": home, "USER": f"u{uid}", "PYTHONDONTWRITEBYTECODE": "1"}
    os.execve(command[0], list(command), environment)  # noqa: S606


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[4:])
