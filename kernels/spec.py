"""What a kernel is made from: a frozen recipe, with every bound in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

DEFAULT_PRELOAD = (
    "numpy",
    "pandas",
    "matplotlib.pyplot",
    "matplotlib_inline.backend_inline",
)


ISOLATION = ("none", "standard", "full")  # weakest first


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one kernel. Bytes, counts, cores; 0 means no bound of ours.

    Without a sandbox (isolation `none`) only the first four hold.
    """

    output_bytes: int = 1 << 20  # text of one execution: half of it head, half tail
    message_bytes: int = 8 << 20  # one rich output; a larger one becomes a note with its size
    tool_calls: int = 64  # calls of host tools that are out at once; more wait; never 0
    open_files: int = 4096  # RLIMIT_NOFILE, of each process
    memory: int = 1 << 30  # of the whole process tree, files in its tmpfs included; no swap
    processes: int = 128  # and threads, of the whole tree
    cpu: float = 1.0  # cores
    workspace_bytes: int = 256 << 20
    workspace_files: int = 16_384  # inodes
    tmp_bytes: int = 128 << 20  # /tmp; /dev/shm has as much again
    tmp_files: int = 8_192  # inodes, likewise
    file_bytes: int = 256 << 20  # RLIMIT_FSIZE: one file


@dataclass(frozen=True, slots=True)
class KernelSpec:
    """Name everything that makes one kernel of a profile like the next.

    `python` is an interpreter with ipykernel installed; empty means the one that runs this.
    `preload` is imported once, before the first fork, and must start no thread.
    `kernelspec` names an installed Jupyter kernelspec instead. `paths` of the host are shown
    read-only inside the sandbox, beside the interpreter's own. `network` is `none` or `host`.
    `pip` is `off`, or `session` to install into the workspace, from `pip_index` if there is one.
    `allow_imports` and `deny_imports` are top-level modules that cells may or may not import: a
    guard rail, and no boundary. A zygote makes way for a fresh one after `recycle_forks` kernels
    or `recycle_after` seconds, because its kernels share their address layout and hash seed.
    """

    name: str = "python"
    python: str = ""
    preload: tuple[str, ...] = DEFAULT_PRELOAD
    env: tuple[tuple[str, str], ...] = ()
    kernelspec: str = ""
    paths: tuple[str, ...] = ()
    network: str = "none"
    pip: str = "off"
    pip_index: str = ""
    allow_imports: tuple[str, ...] = ()
    deny_imports: tuple[str, ...] = ()
    recycle_forks: int = 1000
    recycle_after: float = 21_600.0
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


class Usage(NamedTuple):
    """What a kernel's whole process tree has used so far; None where nobody knows. Bytes."""

    cpu_seconds: float | None = None
    memory: int | None = None
    memory_peak: int | None = None
    processes: int | None = None


class Finding(NamedTuple):
    """What was found out about one layer of the sandbox, or about one hostile case against it."""

    layer: str
    case: str  # what was tried; of a layer, what it is for
    safe: bool
    evidence: str
    remedy: str = ""  # what to change on this host, where something is amiss
