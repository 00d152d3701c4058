"""What a forked child is told to become: plain data, sent down its own socket.

`kernels/inside/child.py` reads it. The paths are those the child sees.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from kernels.channels import PORTS
from kernels.kernelspecs import Program
from kernels.spec import KernelSpec, Limits, Order

INLINE = "module://matplotlib_inline.backend_inline"
HOME = "/home/user"  # of a kernel in a sandbox
PREFIX = "/run/k"  # its sockets' address there: a name only, nothing is at it
CONNECTION_FILE = "/tmp/kernel.json"  # noqa: S108 - of a program that binds its sockets itself
SOCKETS = "/tmp/.sockets"  # noqa: S108 - its own, where it has no network of its own
PORT = 61_000  # its ports follow this one: above those that connections are made from
PACKAGES = ".local"  # below the home: where a session's own packages are
NO_CORE = 1  # byte: core(5): with 0 a dump would still go to a program that takes them
STACK = 8 << 20  # bytes of the main thread's stack
# Bytes that an interpreter of another kind may map and not use, in stacks and heaps. A limit on
# mappings is for where nothing counts memory: there it is better than none.
RESERVED = 1 << 30
PENDING_SIGNALS = 1024  # and POSIX timers
LOCKED = 64 << 10  # bytes of memory that cannot be paged out


def child_options(
    spec: KernelSpec,
    key: str,
    order: Order | None = None,
    program: Program | None = None,
    outside: Place | None = None,
    *,
    counted: bool = True,
) -> dict[str, Any]:
    """Return what a child is told: of an order, a kernelspec's program, or as its profile says.

    `outside` is where it is if that is not in a sandbox; `counted` tells of a memory cgroup.
    """
    if outside is not None:
        if order is not None:
            return ordered_options(order, outside.prefix)
        return kernel_options(spec, key, outside)
    bounds = sandbox_options(spec.limits)
    if order is not None:
        return moved_into_sandbox(ordered_options(order, "")) | bounds
    if program is not None:
        memory = spec.limits.memory
        bounds["limits"]["memory"] = memory + RESERVED if memory and not counted else 0
        return program_options(spec, program, key) | bounds
    place = Place(HOME, PREFIX, "/tmp", programs_of(spec))  # noqa: S108
    return kernel_options(spec, key, place) | bounds


def programs_of(spec: KernelSpec) -> str:
    """Return the directory of a profile's interpreter, where its other programs are too."""
    return os.path.dirname(spec.python or sys.executable)


class Place(NamedTuple):
    """Where a kernel is, as it sees that itself."""

    home: str
    prefix: str
    scratch: str  # for what libraries like to write into a home
    programs: str  # the directory of its interpreter


def kernel_options(spec: KernelSpec, key: str, place: Place) -> dict[str, Any]:
    """Return what a kernel of a profile is told."""
    return {
        "part": "kernel",
        "key": key,
        "prefix": place.prefix,
        "cwd": place.home,
        "env": {
            "PATH": f"{place.programs}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "HOME": place.home,
            "USER": "user",
            "IPYTHONDIR": f"{place.scratch}/.ipython",
            "MPLCONFIGDIR": f"{place.scratch}/.matplotlib",
            "MPLBACKEND": INLINE,
            "TERM": "dumb",
            **pip_environment(spec, place.home),
            **dict(spec.env),
        },
        "packages": f"{place.home}/{PACKAGES}" if spec.pip == "session" else "",
        "output_bytes": spec.limits.output_bytes,
        "message_bytes": spec.limits.message_bytes,
        "tool_calls": spec.limits.tool_calls,
        "allow_imports": list(spec.allow_imports),
        "deny_imports": list(spec.deny_imports),
        "limits": {"open_files": spec.limits.open_files, "core_bytes": NO_CORE},
    }


def pip_environment(spec: KernelSpec, home: str) -> dict[str, str]:
    """Return the settings of pip: where it may install to and from, or that it may not.

    Who may not is told at once, instead of after the time-outs of a network that is not there; what
    keeps anybody from installing is that network's absence, and the interpreter's being read-only.
    """
    always = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1", "PIP_NO_INPUT": "1"}
    if spec.pip == "off":
        return always | {"PIP_NO_INDEX": "1"}
    index = {"PIP_INDEX_URL": spec.pip_index} if spec.pip_index else {}
    # A prefix, and no target: what the interpreter has already is not installed once more.
    return always | index | {"PIP_PREFIX": f"{home}/{PACKAGES}"}


def ordered_options(order: Order, prefix: str) -> dict[str, Any]:
    """Return what an ordered kernel is told: no settings and no bounds of ours."""
    return {
        "part": "kernel",
        "plain": True,
        "key": order.key,
        "prefix": prefix,
        "cwd": order.cwd,
        "env": dict(order.env),
        "argv": list(order.argv),
        "connection_file": order.connection_file,
        "umask": order.umask,
        "output_bytes": 0,
        "message_bytes": 0,
        "allow_imports": [],
        "deny_imports": [],
        "limits": {"core_bytes": NO_CORE},
    }


def program_options(spec: KernelSpec, program: Program, key: str) -> dict[str, Any]:
    """Return what a kernelspec's program is told; it is always in a sandbox.

    It binds ports where it has a network of its own. On the host's, others could reach those, and
    it binds unix sockets in its own /tmp.
    """
    home = {"HOME": HOME, "USER": "user", "TERM": "dumb", "IPYTHONDIR": "/tmp/.ipython"}  # noqa: S108
    alone = spec.network != "host"
    connection: dict[str, Any] = {
        "transport": "tcp" if alone else "ipc",
        "ip": "127.0.0.1" if alone else f"{SOCKETS}/k",
        "key": key,
        "signature_scheme": "hmac-sha256",
        "kernel_name": program.name,
    }
    for channel, number in PORTS.items():
        connection[f"{channel}_port"] = PORT + number if alone else number
    return {
        "part": "program",
        "argv": program.command(CONNECTION_FILE),
        "env": program.environment({**home, **dict(spec.env)}),
        "cwd": HOME,
        "connection": connection,
        "connection_file": CONNECTION_FILE,
    }


def sandbox_options(limits: Limits) -> dict[str, Any]:
    """Return what a child in a sandbox is told beside: the bounds on its processes and files."""
    return {
        "umask": 0o022,
        "tmp": f"size={limits.tmp_bytes or '50%'},nr_inodes={limits.tmp_files}",
        "limits": {
            "memory": limits.memory,
            "processes": limits.processes,
            "open_files": limits.open_files,
            "file_bytes": limits.file_bytes,
            "core_bytes": NO_CORE,
            "message_queue_bytes": 0,
            "locked_bytes": LOCKED,
            "realtime_priority": 0,
            "pending_signals": PENDING_SIGNALS,
            "stack_bytes": STACK,
        },
    }


def moved_into_sandbox(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return an ordered kernel's options for a sandbox, where the host's directories are not."""
    env = {**options["env"], "HOME": HOME, "IPYTHONDIR": "/tmp/.ipython"}  # noqa: S108
    return {**options, "prefix": PREFIX, "cwd": HOME, "connection_file": "", "env": env}
