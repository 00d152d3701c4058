"""What makes a forked child a process of its own: environment, directory, path, randomness."""

from __future__ import annotations

import os
import random
import site
import struct
import sys
from typing import Any

from . import packages


def reseed() -> None:
    """Give the child its own randomness: what was seeded before the fork is everybody's."""
    random.seed()
    if "numpy.random" in sys.modules:  # else it seeds itself, when it is imported
        # Seeded with one number it would have but four billion beginnings; with none it imports.
        sys.modules["numpy.random"].seed(list(struct.unpack("8I", os.urandom(32))))
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


def prepare_process(options: dict[str, Any]) -> None:
    """Make the process its own: environment, directory, randomness."""
    os.environ.clear()
    os.environ.update(options["env"])
    os.chdir(options["cwd"])
    extend_path(options)
    packages.use(options.get("packages", ""))
    reseed()


def extend_path(options: dict[str, Any]) -> None:
    """Put on the path what the environment asks for: the zygote was started without one."""
    environment = options["env"]
    entries = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[0:0] = [entry for entry in entries if entry not in sys.path]
    if (
        options.get("plain")
        and sys.prefix == sys.base_prefix
        and not environment.get("PYTHONNOUSERSITE")
        and os.path.isdir(site.getusersitepackages())
    ):
        site.addsitedir(site.getusersitepackages())
