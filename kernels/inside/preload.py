"""Import once what all kernels of a zygote share."""

from __future__ import annotations

import importlib
import sys

# The kernel itself, and what it would otherwise import at its start.
KERNEL_IMPORTS = (
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
    "ipykernel.zmqshell",
    "ipykernel.debugger",
    "IPython.core.magics",
    "IPython.core.completer",
    "IPython.core.historyapp",
    "jupyter_client.session",
    "IPython.core.completerlib",
    "IPython.core.debugger",
    "IPython.core.logger",
    "IPython.core.oinspect",
    "IPython.extensions.storemagic",
    "IPython.utils.wildcard",
    "faulthandler",
    "pdb",
    "tornado.platform.asyncio",
    "_kernel.inside.app",
    "_strptime",
    "stack_data",
    "encodings.idna",
)
OPTIONAL = {"ipykernel.debugger"}


def preload(modules: list[str], *, kernel: bool) -> None:
    """Import the modules, and what an IPython kernel is made of. Raises ImportError naming one."""
    for module in (*(KERNEL_IMPORTS if kernel else ()), *modules):
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            if module in OPTIONAL and isinstance(error, ImportError):
                continue
            raise ImportError(f"cannot import {module!r} in {sys.executable}: {error}") from error
