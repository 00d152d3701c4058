"""Run a command where some files are covered by others, for it alone.

`python -m tests.kernels.covered COVER:FILE… -- COMMAND…` replaces itself by the command, in a mount
namespace of its own. Needs root.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence

from kernels.sandbox import system


def command_under(covers: dict[str, str], command: Sequence[str]) -> list[str]:
    """Return the command line that runs `command` with each file covered by another."""
    pairs = [f"{cover}:{file}" for file, cover in covers.items()]
    return [sys.executable, "-m", "tests.kernels.covered", *pairs, "--", *command]


def main(pairs: Iterable[str], command: Sequence[str]) -> None:
    """Cover the files and become the command; never returns."""
    system.unshare(system.CLONE_NEWNS)
    system.mount("none", "/", flags=system.MS_REC | system.MS_PRIVATE)
    for pair in pairs:
        cover, file = pair.split(":")
        system.mount(cover, file, flags=system.MS_BIND)
    os.execv(command[0], list(command))  # noqa: S606 - the test's own


if __name__ == "__main__":
    end = sys.argv.index("--")
    main(sys.argv[1:end], sys.argv[end + 1 :])
