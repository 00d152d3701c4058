"""A session's own packages: where `pip install` puts them, or that it is not to."""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from typing import Any, NoReturn

from IPython.core.error import UsageError

REFUSAL = (
    "nothing can be installed here: this session has the packages of its interpreter, and no"
    " others. Who runs the server can allow it, with `pip = session` in the profile."
)


def use(prefix: str) -> None:
    """Let this process and those it starts import what is installed below a prefix, if any."""
    if not prefix:
        return
    base = {"base": prefix, "platbase": prefix}
    folder = sysconfig.get_path("purelib", "posix_prefix", vars=base)
    os.makedirs(folder, exist_ok=True)  # the import system remembers what is not there
    before = list(sys.path)
    site.addsitedir(folder)
    # A session's own version goes before the interpreter's: whoever installed it wants it.
    added = [entry for entry in sys.path if entry not in before]
    at = next((i for i, entry in enumerate(before) if "-packages" in entry), len(before))
    sys.path[:] = [*before[:at], *added, *before[at:]]
    rest = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, *([rest] if rest else [])])


def refuse(shell: Any) -> None:
    """Say at once, and why, what `%pip` would find out after a while."""

    def pip(line: str) -> NoReturn:
        raise UsageError(REFUSAL)

    for name in ("pip", "uv"):
        shell.register_magic_function(pip, "line", name)
