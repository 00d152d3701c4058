"""What a kernel is made from: a frozen recipe, with every bound in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_PRELOAD = (
    "numpy",
    "pandas",
    "matplotlib.pyplot",
    "matplotlib_inline.backend_inline",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one kernel. Bytes and counts; 0 means no bound of ours."""

    output_bytes: int = 1 << 20  # text of one execution: half of it head, half tail
    message_bytes: int = 8 << 20  # one rich output; a larger one becomes a note with its size
    open_files: int = 4096  # RLIMIT_NOFILE


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """Name everything that makes one kernel of a profile like the next.

    `python` is an interpreter with ipykernel installed; empty means the one that runs this.
    `preload` is imported once, before the first fork, and must start no thread.
    `kernelspec` names an installed Jupyter kernelspec instead, started by its own provisioner.
    """

    name: str = "python"
    python: str = ""
    preload: tuple[str, ...] = DEFAULT_PRELOAD
    env: tuple[tuple[str, str], ...] = ()
    kernelspec: str = ""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Order:
    """Ask for one kernel as a Jupyter manager wants it, rather than as a profile makes it.

    `env` is the kernel's whole environment. `argv` is what would follow `ipykernel_launcher` on
    a command line. The kernel behaves as ipykernel does by itself: its history and settings files
    are those of the user, and its output has no bound.
    """

    kernel_id: str
    key: str = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    cwd: str
    argv: tuple[str, ...] = ()
    connection_file: str = ""
    umask: int = 0o077
