"""Find an installed Jupyter kernelspec, and what its program needs to be shown of the host."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import string
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from jupyter_client.kernelspec import KernelSpec as Installed
from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

from kernels.errors import LaunchError
from kernels.isolation import SYSTEM, interpreter_paths
from kernels.spec import KernelSpec

# Of those who start kernels on this machine. Others start theirs where no sandbox of ours is.
LOCAL: Final = ("local-provisioner", "kernel-broker-zygote")
INHERITED: Final = ("PATH", "LANG", "TZ")  # a kernelspec's program is found on the server's path
PYTHON: Final = re.compile(r"(python|pypy)[0-9.]*")
PROGRAMS: Final = ("bin", "sbin", "libexec")
FIELD: Final = re.compile(r"\{([A-Za-z0-9_]+)\}")


@dataclass(frozen=True)
class Program:
    """What a kernelspec starts. `argv` has fields in braces, `paths` are shown in its sandbox."""

    name: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    resource_dir: str
    interrupt_mode: str
    paths: tuple[str, ...]
    inherited: tuple[tuple[str, str], ...]  # what of this process's environment it gets

    def command(self, connection_file: str) -> list[str]:
        """Return what is executed."""
        fields = {
            "connection_file": connection_file,
            "resource_dir": self.resource_dir,
            "prefix": sys.prefix,
        }
        return [
            FIELD.sub(lambda found: fields.get(found.group(1), found.group()), word)
            for word in self.argv
        ]

    def environment(self, given: Mapping[str, str]) -> dict[str, str]:
        """Return the whole environment; what is `given` gives way to the kernelspec's own."""
        base = {**dict(self.inherited), **given}  # as in Jupyter, whose values may name others
        own = {name: string.Template(text).safe_substitute(base) for name, text in self.env}
        return {**base, **own}


def inherited() -> dict[str, str]:
    """Return what of this process's environment a kernelspec's program gets."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}


def find(specs: KernelSpecManager, name: str) -> Installed:
    """Return an installed kernelspec. Raises LaunchError naming those there are."""
    try:
        return specs.get_kernel_spec(name)
    except NoSuchKernel:
        installed = specs.find_kernel_specs()
    if name in installed:  # and its provisioner is not
        return Installed.from_resource_dir(installed[name])
    raise LaunchError(
        f"no kernelspec {name!r}; installed: {', '.join(sorted(installed)) or 'none'}"
    )


def look_up(name: str) -> Program:
    """Return what a kernelspec starts in a sandbox. Raises LaunchError if that cannot be."""
    found = find(KernelSpecManager(), name)
    provisioner = found.metadata.get("kernel_provisioner", {}).get("provisioner_name", LOCAL[0])
    if provisioner not in LOCAL:
        raise LaunchError(
            f"kernels of {name!r} are started by {provisioner!r}, where this broker cannot shut "
            "them in; use them with isolation `none`, if what starts them isolates them itself"
        )
    argv = list(found.argv)
    if not argv:
        raise LaunchError(f"kernelspec {name!r} names no program")
    if argv[0] in ("python", "python3", f"python3.{sys.version_info.minor}"):
        argv[0] = sys.executable  # as in Jupyter
    program = shutil.which(argv[0].replace("{resource_dir}", found.resource_dir))
    if program is None:
        raise LaunchError(f"cannot start {name!r}: there is no program {argv[0]!r}")
    argv[0] = os.path.abspath(program)
    return Program(
        name=name,
        argv=tuple(argv),
        env=tuple((key, str(value)) for key, value in found.env.items()),
        resource_dir=found.resource_dir,
        interrupt_mode=found.interrupt_mode,
        paths=(found.resource_dir, *needed(argv[0], homes())),
        inherited=tuple(inherited().items()),
    )


def homes() -> set[str]:
    """Return the directories of people on this host."""
    people = {entry.pw_dir for entry in pwd.getpwall()} | {os.path.expanduser("~")}
    return {os.path.realpath(home) for home in people} - {"/", *SYSTEM}


def needed(program: str, private: Iterable[str]) -> list[str]:
    """Return the directories a program needs: its own, its prefix, its interpreter's.

    Of a tree in somebody's home it is only the directory of programs: `~/.local` and its like have
    keys and histories beside them. What else a program needs there, its profile must show. Raises
    LaunchError for a program that lies in such a place itself.
    """
    real = os.path.realpath(program)
    folders = [os.path.dirname(program), os.path.dirname(real)]
    for folder in folders:
        system = any(folder == top or folder.startswith(f"{top}/") for top in SYSTEM)
        if not system and any(_holds(home, folder) for home in private):
            raise LaunchError(
                f"{program} lies beside somebody's files, which kernels would see with it: move it"
                " to a directory of programs"
            )
    if PYTHON.fullmatch(os.path.basename(program)):
        return [*folders, *interpreter_paths(KernelSpec(python=program))]
    paths = list(folders)
    for folder in folders:
        prefix, last = os.path.split(folder)
        python = os.path.join(folder, "python")
        if os.path.exists(os.path.join(prefix, "pyvenv.cfg")) and os.path.exists(python):
            paths += interpreter_paths(KernelSpec(python=python))
        elif last in PROGRAMS and not any(_holds(home, prefix) for home in private):
            paths.append(prefix)
    return paths


def _holds(home: str, prefix: str) -> bool:
    """Tell whether a tree is a home, above one, or a person's own directory of everything."""
    above = home == prefix or home.startswith(f"{prefix.rstrip('/')}/")
    return above or (os.path.dirname(prefix) == home and os.path.basename(prefix).startswith("."))
