"""Find out what this host has to shut kernels in with, and what to do about what is missing.

Facts are read and nothing is changed. Whether the layers hold is for the self-test to say, which
runs in a real sandbox.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from kernels.errors import IsolationUnavailable
from kernels.isolation import proc_covers, start_mode, subordinate_ids
from kernels.sandbox import landlock
from kernels.sandbox.cgroup_v2 import LEAF, is_delegated
from kernels.sandbox.cgroups import REQUIRED, WANTED, Hierarchy, own_hierarchies, user
from kernels.spec import Finding, Limits

# From here on RLIMIT_NPROC counts for each user namespace: before, kernels of one id would share
# one count. mount_setattr(2), which makes a whole tree of mounts read-only, is there since 5.12.
LEAST_KERNEL = (5, 14)
MACHINES = ("x86_64", "aarch64")  # those whose system calls the filter knows
# capabilities(7), by number: what root needs to set a sandbox up in each start mode. In `root` the
# rest comes with the zygote's user namespace; `root-plain` has none. Other users need nothing.
POWERS = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_ADMIN": 12,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21,
}
NEEDED = {
    "root-plain": (*POWERS,),
    "root": ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETGID", "CAP_SETUID"),
}
NAMESPACES = {
    "mount": ("mnt", "CONFIG_NAMESPACES", "its own view of files"),
    "pid": ("pid", "CONFIG_PID_NS", "its own processes"),
    "network": ("net", "CONFIG_NET_NS", "no network"),
    "ipc": ("ipc", "CONFIG_IPC_NS", "no shared memory of others"),
    "uts": ("uts", "CONFIG_UTS_NS", "a host name of its own"),
    "cgroup": ("cgroup", "CONFIG_CGROUPS", "no view of the host's groups"),
}
NO_SANDBOX = "the sandbox cannot be made"  # as the warden says it
IN_A_CONTAINER = "in a container, use the seccomp profile that comes with the broker"
V2_REMEDY = (
    "run the broker as a systemd unit with Delegate=yes, or under systemd-run --user --scope -p"
    " Delegate=yes; in a container, with --cgroupns=private and a writable /sys/fs/cgroup"
)


@dataclass(frozen=True)
class Host:
    """The facts of a host, as far as they are read here; a test makes up its own."""

    root: Path = Path("/")
    uid: int = field(default_factory=os.geteuid)
    release: str = field(default_factory=platform.release)
    machine: str = field(default_factory=platform.machine)
    landlock: int = field(default_factory=landlock.abi)
    open_files: int = field(default_factory=lambda: resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    mode: Callable[[], str] = start_mode
    ids: Callable[[], tuple[int, int] | None] = subordinate_ids
    which: Callable[[str], str | None] = shutil.which
    hierarchies: Callable[[], list[Hierarchy]] = own_hierarchies

    def read(self, path: str) -> str | None:
        """Return what a file says, or None if it says nothing."""
        try:
            return (self.root / path.lstrip("/")).read_text().strip()
        except OSError:
            return None


def examine(host: Host | None = None, limits: Limits | None = None) -> list[Finding]:
    """Return a finding for each layer: whether it is to be had, by which evidence, else the remedy.

    A finding that is `safe` and has a remedy could be better, but is not needed.
    """
    here, bounds = host or Host(), limits or Limits()
    rows = (
        *(_system(here), _users(here), _apparmor(here)),
        *_namespaces(here),
        *(_proc(here), _mode(here), _ranges(here)),
        *_cgroups(here),
        *(_landlock(here), _seccomp(here), _capabilities(here), _rlimits(here, bounds)),
        *(_workspace(here), _yama(here)),
    )
    return [*rows]


def why_not(words: str) -> IsolationUnavailable | None:
    """Return the refusal for a warden's last words, if they are of a sandbox it could not make.

    Its layer and remedy are those of the first thing amiss here.
    """
    _, found, said = words.partition(f"{NO_SANDBOX}: ")
    if not found:
        return None
    amiss = next((finding for finding in examine() if not finding.safe), None)
    return IsolationUnavailable(
        f"{NO_SANDBOX}: {said.strip()}",
        layer=amiss.layer if amiss else "namespaces",
        remedy=amiss.remedy
        if amiss
        else f"something above forbids it: {IN_A_CONTAINER}, with"
        " systempaths=unconfined; in a systemd unit, leave out what restricts namespaces",
    )


def _system(host: Host) -> Finding:
    numbers = tuple(int(one) for one in re.findall(r"\d+", host.release)[:2])
    recent = numbers >= LEAST_KERNEL
    known = host.machine in MACHINES
    return Finding(
        "system",
        "Linux 5.14 or later, on a machine whose system calls the filter knows",
        recent and known,
        f"Linux {host.release} on {host.machine}",
        "" if recent and known else f"use Linux 5.14 or later, on {' or '.join(MACHINES)}",
    )


def _users(host: Host) -> Finding:
    most = host.read("/proc/sys/user/max_user_namespaces")
    debian = host.read("/proc/sys/kernel/unprivileged_userns_clone")
    remedy = ""
    if most is None:
        remedy = "use a Linux kernel with CONFIG_USER_NS"
    elif most == "0":
        remedy = "sysctl -w user.max_user_namespaces=65536"
    elif debian == "0" and host.uid:
        remedy = "sysctl -w kernel.unprivileged_userns_clone=1, or start the broker as root"
    told = f"user.max_user_namespaces = {most or 'absent'}"
    if debian is not None:
        told += f", kernel.unprivileged_userns_clone = {debian}"
    return Finding("user namespace", "no right over anything outside", not remedy, told, remedy)


def _apparmor(host: Host) -> Finding:
    name = "kernel.apparmor_restrict_unprivileged_userns"
    value = host.read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    refused = value == "1" and host.uid != 0
    return Finding(
        "apparmor",
        "user namespaces for ordinary users",
        not refused,
        f"{name} = {'absent' if value is None else value}" + (", as root" if not host.uid else ""),
        "install an AppArmor profile with `userns,` for the interpreter that runs the broker, at a"
        f" path of its own (never /usr/bin/python3), or sysctl -w {name}=0"
        if refused
        else "",
    )


def _namespaces(host: Host) -> Iterator[Finding]:
    for name, (file, option, purpose) in NAMESPACES.items():
        there = os.path.lexists(host.root / f"proc/self/ns/{file}")
        yield Finding(
            f"{name} namespace",
            purpose,
            there,
            f"/proc/self/ns/{file} {'is there' if there else 'is absent'}",
            "" if there else f"use a Linux kernel with {option}",
        )


def _proc(host: Host) -> Finding:
    covers = proc_covers(host.read("/proc/self/mountinfo") or "")
    advice = (
        "start the container with systempaths=unconfined (Kubernetes: procMount: Unmasked),"
        " for a zygote that is nobody outside"
    )
    return Finding(
        "proc",
        "a view of its own processes alone",
        not covers or host.uid == 0,
        f"covered: {', '.join(covers[:3])}" if covers else "fully visible",
        advice if covers else "",
    )


def _mode(host: Host) -> Finding:
    try:
        mode = host.mode()
    except IsolationUnavailable as error:
        return Finding("start mode", "a zygote in its namespaces", False, str(error), error.remedy)
    return Finding("start mode", "a zygote in its namespaces", True, f"{mode}, as uid {host.uid}")


def _ranges(host: Host) -> Finding:
    case = "a user id for each kernel"
    if host.uid == 0:
        return Finding("user ids", case, True, "root gives them")
    ids, tools = host.ids(), all(map(host.which, ("newuidmap", "newgidmap")))
    told = f"/etc/subuid has {ids[1] if ids else 0} for us, newuidmap is {'' if tools else 'not '}"
    advice = (
        f"apt-get install uidmap; usermod --add-subuids 100000-165535 --add-subgids 100000-165535"
        f" {user()}: without, all kernels have the broker's own id outside"
    )
    return Finding("user ids", case, True, f"{told}there", "" if ids and tools else advice)


def _cgroups(host: Host) -> Iterator[Finding]:
    purposes = {"memory": "memory", "pids": "processes", "cpu": "processors"}
    hierarchies = host.hierarchies()
    for controller in WANTED:
        there, told, remedy = _controller(controller, hierarchies)
        yield Finding(
            f"cgroup {controller}",
            f"a bound on the {purposes[controller]} of a process tree",
            there or controller not in REQUIRED,
            told,
            remedy,
        )


def _controller(name: str, hierarchies: list[Hierarchy]) -> tuple[bool, str, str]:
    """Return whether we may use a controller, the evidence, and the remedy."""
    for hierarchy in hierarchies:
        if hierarchy.version == 1 and name in hierarchy.controllers:
            place = Path(hierarchy.directory)
            for one in (place, *place.glob("kernel-broker-*")):
                if os.access(one, os.W_OK):
                    return True, f"v1, {one}", ""
            return (
                False,
                f"v1, {place} is not writable for us",
                f"start the broker once: it names a directory below {place}; make that one as root"
                f" and chown it to {user()}",
            )
    for hierarchy in hierarchies:
        if hierarchy.version == 2:
            own = hierarchy.directory
            base = os.path.dirname(own) if os.path.basename(own) == LEAF else own
            given = _words(f"{base}/cgroup.controllers")
            if name not in given:
                return False, f"v2, {base} has {' '.join(sorted(given)) or 'none'}", V2_REMEDY
            if not os.access(f"{base}/cgroup.procs", os.W_OK) or not is_delegated(base):
                return False, f"v2, {base} is not ours to divide", V2_REMEDY
            return True, f"v2, {base}", ""
    return False, "not mounted", V2_REMEDY


def _words(path: str) -> set[str]:
    try:
        return set(Path(path).read_text().split())
    except OSError:
        return set()


def _landlock(host: Host) -> Finding:
    there = host.landlock > 0
    return Finding(
        "landlock",
        "a second line for files",
        there,
        f"ABI {host.landlock}" if there else "absent",
        "" if there else "boot Linux 5.13 or later with `landlock` in lsm=",
    )


def _seccomp(host: Host) -> Finding:
    actions = host.read("/proc/sys/kernel/seccomp/actions_avail")
    there = {"kill_process", "errno"} <= set((actions or "").split())
    return Finding(
        "seccomp",
        "few system calls",
        there,
        f"actions: {actions or 'absent'}",
        "" if there else "use a Linux kernel with CONFIG_SECCOMP_FILTER",
    )


def _capabilities(host: Host) -> Finding:
    case = "the powers to set it up, and none left inside"
    try:
        needed = NEEDED.get(host.mode(), ())
    except IsolationUnavailable:  # told on its own line; root may lack what it takes to tell
        needed = () if host.uid else NEEDED["root-plain"]
    if not needed:
        return Finding("capabilities", case, True, "those of its own user namespace")
    found = re.search(
        r"^CapEff:\s*([0-9a-f]+)$", host.read("/proc/self/status") or "", re.MULTILINE
    )
    held = int(found[1], 16) if found else 0
    missing = [name for name in needed if not held >> POWERS[name] & 1]
    return Finding(
        "capabilities",
        case,
        not missing,
        f"root lacks {', '.join(missing)}" if missing else "root has them",
        f"start the container with --cap-add {','.join(missing)}; {IN_A_CONTAINER}"
        if missing
        else "",
    )


def _rlimits(host: Host, limits: Limits) -> Finding:
    most = host.open_files
    enough = most in (-1, resource.RLIM_INFINITY) or most >= limits.open_files
    return Finding(
        "rlimits",
        f"{limits.open_files} open files for a process",
        enough,
        f"at most {most} for us",
        "" if enough else f"ulimit -Hn {limits.open_files} (systemd: LimitNOFILE=)",
    )


def _workspace(host: Host) -> Finding:
    there = "tmpfs" in (host.read("/proc/filesystems") or "").split()
    return Finding(
        "workspace quota",
        "a bound on a session's files",
        there,
        "tmpfs with a size" if there else "tmpfs is absent",
        "" if there else "use a Linux kernel with CONFIG_TMPFS",
    )


def _yama(host: Host) -> Finding:
    scope = host.read("/proc/sys/kernel/yama/ptrace_scope")
    told = "absent" if scope is None else f"ptrace_scope = {scope}"
    return Finding("yama", "no tracing of others", True, f"{told}; the other layers do without it")
