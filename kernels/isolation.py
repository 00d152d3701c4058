"""Find out how well kernels can be shut in on this host, and what their sandbox is made from.

What is found is a plan: the zygote's interpreter carries it out (`kernels/inside/warden.py`), and
a self-test in a real sandbox says whether it held.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kernels.errors import IsolationUnavailable, ZygoteFailed
from kernels.sandbox.cgroups import Cgroup, Cgroups, Unavailable
from kernels.spec import KernelSpec, Limits, Usage

LEFT_BEHIND = re.compile(r"(w-)?[0-9a-f]{12}")  # directories of kernels and of their files
OWN = (Path(__file__).parent / "inside", Path(__file__).parent / "sandbox")
ROOT = Path(__file__).parent.parent
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
# Where a container manager may put ids, as systemd-nspawn does: above people's, below 2^31.
FIRST_ID = 1 << 29
RANGES = 16_384
RANGE = 65_536  # ids of one zygote
HARMLESS_PROC = {"/proc", "/proc/sys/fs/binfmt_misc"}
QUESTION = (
    "import json, sys; print(json.dumps([sys.prefix, sys.exec_prefix, sys.base_prefix,"
    " sys.base_exec_prefix, *sys.path]))"
)
ANSWER_TIME = 30.0  # s for an interpreter to say where it lives


@dataclass(frozen=True)
class Isolation:
    """How the kernels of one launcher are shut in; `sandbox` is what the warden is told."""

    level: str = "none"
    mode: str = ""
    sandbox: dict[str, Any] | None = None
    cgroups: Cgroups | None = None

    def make_cgroup(self, name: str, limits: Limits) -> Cgroup | None:
        """Make the control group of a kernel, where there are any. Raises OSError."""
        if self.cgroups is None or "cgroup" in (self.sandbox or {}).get("without", ()):
            return None
        try:
            return self.cgroups.make(
                name, memory=limits.memory, processes=limits.processes, cpu=limits.cpu
            )
        except OSError as error:
            raise IsolationUnavailable(
                f"no control group can be made: {error}",
                layer="cgroup",
                remedy="`broker doctor` tells what this host lacks",
            ) from error

    def used(self) -> Usage:
        """Return what the kernels there are use, with the CPU time of those that have ended."""
        return Usage(*self.cgroups.used()) if self.cgroups is not None else Usage()

    def sweep(
        self, directory: Path, kernels: AbstractSet[str], workspaces: AbstractSet[str]
    ) -> None:
        """Remove from a launcher's directory what kernels left that are not among these."""
        kept = kernels | {f"w-{workspace}" for workspace in workspaces}
        for entry in directory.iterdir():
            if LEFT_BEHIND.fullmatch(entry.name) and entry.name not in kept:
                shutil.rmtree(entry, ignore_errors=True)
        if self.cgroups is not None:
            self.cgroups.sweep(kernels)


def isolate(
    spec: KernelSpec,
    directory: Path,
    minimum: str,
    *,
    groups: Path | None = None,
    without: Sequence[str] = (),
) -> Isolation:
    """Return the best isolation this host offers. Raises IsolationUnavailable below `minimum`.

    `none` is what one asks for by name, and gets. Control groups are named for the directory, or
    for another one's: `groups`. `without` leaves layers out, for tests.
    """
    if minimum == "none":
        return Isolation()
    if sys.platform != "linux":
        raise IsolationUnavailable(
            f"{sys.platform} has no namespaces",
            layer="platform",
            remedy="run the broker on Linux, or in a virtual machine",
        )
    mode = start_mode()
    shown = interpreter_paths(spec)
    for path in (*SYSTEM, *shown):
        if _is_below(os.path.realpath(directory), os.path.realpath(path)):
            raise IsolationUnavailable(
                f"{directory} lies below {path}, which kernels can read",
                layer="mounts",
                remedy="choose a state directory elsewhere (--state-dir)",
            )
    cgroups = None
    try:
        cgroups = Cgroups.open(hashlib.sha256(os.fsencode(groups or directory)).hexdigest()[:12])
    except Unavailable as missing:
        if minimum == "full":
            raise IsolationUnavailable(
                missing.reason, layer="cgroup", remedy=missing.remedy
            ) from missing
    own = [str(path) for path in OWN if not any(_is_below(str(path), top) for top in shown)]
    level = "full" if cgroups is not None else "standard"
    sandbox = {
        "level": level,
        "mode": mode,
        "ids": list(_ids(mode, directory)),
        "network": spec.network,
        "shown": [*shown, *own],
        "own": own,
        "cache": str(directory / "cache"),
        "without": list(without),
    }
    return Isolation(level, mode, sandbox, cgroups)


def start_mode() -> str:
    """Return how a zygote gets its namespaces here: as root, or as an ordinary user.

    Raises IsolationUnavailable where neither way is open.
    """
    masked = proc_covers(Path("/proc/self/mountinfo").read_text())
    if os.geteuid() == 0:
        return "root-plain" if masked else "root"
    if masked:
        raise IsolationUnavailable(
            f"/proc is masked here ({', '.join(masked[:3])}), and only root could still mount one",
            layer="user namespace",
            remedy="start the container with systempaths=unconfined (Kubernetes: procMount: "
            "Unmasked)",
        )
    if subordinate_ids() and shutil.which("newuidmap") and shutil.which("newgidmap"):
        return "user-range"
    return "user"


def proc_covers(mountinfo: str) -> list[str]:
    """Return what is mounted over parts of /proc: a user namespace may then mount no other."""
    points = [line.split(" ")[4] for line in mountinfo.splitlines()]
    return [point for point in points if point.startswith("/proc/") and point not in HARMLESS_PROC]


def subordinate_ids() -> tuple[int, int] | None:
    """Return the first and the count of this user's subordinate ids, uids and gids alike."""
    uid = os.getuid()
    try:
        names = {str(uid), pwd.getpwuid(uid).pw_name}
    except KeyError:  # newuidmap does nothing for who has no name
        return None
    ranges = [_range_of(names, Path(file)) for file in ("/etc/subuid", "/etc/subgid")]
    if ranges[0] is None or ranges[0] != ranges[1]:
        return None
    return ranges[0]


def _range_of(names: Iterable[str], file: Path) -> tuple[int, int] | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, rest = line.partition(":")
        first, _, count = rest.partition(":")
        if name in names and first.isdigit() and count.isdigit():
            return int(first), min(int(count), RANGE)
    return None


def _ids(mode: str, directory: Path) -> tuple[int, int]:
    """Return the host's ids that a zygote's kernels may have: the first, and how many."""
    if mode == "user":
        return 0, 1
    if mode == "user-range":
        return subordinate_ids() or (0, 1)
    available = int(Path("/proc/self/uid_map").read_text().split()[2])
    if available < FIRST_ID + RANGES * RANGE:  # a container with ids of its own, and few of them
        return 1, min(available - 1, RANGE)
    # Apart from those of other brokers on this host, most likely; a clash costs a second line only.
    number = int.from_bytes(hashlib.sha256(os.fsencode(directory)).digest()[:4], "little")
    return FIRST_ID + RANGE * (number % RANGES), RANGE


def interpreter_paths(spec: KernelSpec) -> list[str]:
    """Return the directories a profile's interpreter needs, and those its profile shows.

    Raises ZygoteFailed if the interpreter does not run.
    """
    python = spec.python or sys.executable
    try:
        answer = subprocess.run(
            [python, "-I", "-c", QUESTION], capture_output=True, timeout=ANSWER_TIME, check=True
        )
        found = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise ZygoteFailed(f"cannot start {python}: {error}") from error
    if missing := [path for path in spec.paths if not os.path.exists(path)]:
        raise ZygoteFailed(f"the profile shows paths that are not there: {', '.join(missing)}")
    return outermost([*found, *spec.paths], shown=spec.paths)


def outermost(paths: Iterable[str], shown: Collection[str] = ()) -> list[str]:
    """Return the directories among the paths that lie below no other, nor below the system's.

    Of files only those of `shown`.
    """
    kept: list[str] = []
    for path in sorted({os.path.normpath(path) for path in paths if path}):
        hidden = path in (str(ROOT), "/")  # a work tree holds more than what is imported
        below = any(_is_below(path, top) for top in (*SYSTEM, *kept))
        if not hidden and not below and (os.path.isdir(path) or path in shown):
            kept.append(path)
    return kept


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top}/")
