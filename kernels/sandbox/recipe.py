"""The order in which a forked child is shut in. Each step is one kernel feature; none is optional.

All of it happens before the first thread starts: Landlock, seccomp, capabilities and ids are per
thread, and a thread that was there before would keep its freedom.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field

from . import capabilities, landlock, mounts, namespaces, network, rlimits, seccomp, system

OOM_FIRST = "500"  # of 1000, proc(5)
KEYCTL_JOIN_SESSION_KEYRING = 1
READABLE = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/proc", "/dev")
WRITABLE = (mounts.HOME, mounts.ALIAS, mounts.TMP, mounts.SHM)


@dataclass
class Enclosure:
    """What one kernel's sandbox is made from. Descriptors are the child's own."""

    uid: int  # in the zygote's user namespace
    mode: str
    network: str
    workspace: str
    workspaces: int  # the mount namespace that has them
    shown: list[str]
    hidden: list[str]
    filter: bytes  # the seccomp program
    private_bytes: int  # what the zygote maps privately
    without: tuple[str, ...] = ()  # layers left out, to show what each is for
    tmp: str = ""  # size and inodes, as tmpfs options
    limits: dict[str, int] = field(default_factory=dict)
    cgroups: list[int] = field(default_factory=list)
    sysctl: int = -1
    tree: int = -1

    @property
    def groups(self) -> bool:
        """Tell whether supplementary groups can be dropped."""
        return self.mode != "user"


def join_cgroups(box: Enclosure) -> None:
    """Be counted from here on. The descriptors were opened by who may; "0" means the writer."""
    for descriptor in box.cgroups:
        os.write(descriptor, b"0")
        os.close(descriptor)


def take_workspace(box: Enclosure) -> None:
    """Fetch a copy of the workspace's mount from the namespace where it is kept."""
    here = os.open("/proc/self/ns/mnt", os.O_RDONLY)
    box.sysctl = os.open("/proc/sys", os.O_RDONLY | os.O_DIRECTORY)
    system.setns(box.workspaces, system.CLONE_NEWNS)
    box.tree = system.open_tree(f"{mounts.WORKSPACES}/{box.workspace}")
    system.setns(here, system.CLONE_NEWNS)
    os.close(here)
    os.close(box.workspaces)


def leave_namespaces(box: Enclosure) -> None:
    """Share no mounts, IPC objects, host name or cgroup root; the pid namespace is new already."""
    system.unshare(namespaces.KERNEL)


def cut_network(box: Enclosure) -> None:
    """Leave the network for an empty one, unless the profile asked for the host's by name."""
    if box.network != "host":
        system.unshare(system.CLONE_NEWNET)
        network.raise_loopback()


def mount_own(box: Enclosure) -> None:
    """See own files only, and only own processes."""
    mounts.dress_kernel(box.tree, box.shown, box.hidden, box.tmp)
    os.chdir(mounts.HOME)


def take_new_keyring(box: Enclosure) -> None:
    """Let go of the keys of whoever started the zygote."""
    try:
        system.syscall("keyctl", KEYCTL_JOIN_SESSION_KEYRING, None)
    except OSError as error:
        if error.errno != 38:  # a kernel without keyrings has none to share
            raise


def take_own_id(box: Enclosure) -> None:
    """Become a user of the host's that no other kernel is."""
    namespaces.become(box.uid, groups=box.groups)


def shrink_users(box: Enclosure) -> None:
    """Enter a user namespace that owns nothing, and that is the last."""
    namespaces.shrink_to_one_user(box.uid, box.sysctl)
    os.close(box.sysctl)


def set_limits(box: Enclosure) -> None:
    """Bound what a process may hold."""
    rlimits.apply(box.limits)
    # A host that runs short is to look here first.
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(OOM_FIRST)


def drop_capabilities(box: Enclosure) -> None:
    """Have no capability, now or ever."""
    capabilities.drop()


def forbid_privileges(box: Enclosure) -> None:
    """Gain nothing from an exec, and show memory to nobody. After the ids: they reset both."""
    system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
    system.prctl(system.PR_SET_DUMPABLE, 0)


def bound_files(box: Enclosure) -> None:
    """Landlock: a second word on files, for a mistake in the mounts."""
    devices = [f"/dev/{name}" for name in mounts.DEVICES]
    landlock.restrict((*READABLE, *box.shown), WRITABLE, devices, listed=("/",))


def filter_calls(box: Enclosure) -> None:
    """Leave of the system's calls those that Python code needs."""
    seccomp.install(box.filter)


STEPS: tuple[tuple[str, Callable[[Enclosure], None]], ...] = (
    ("cgroup", join_cgroups),
    ("workspace", take_workspace),
    ("namespaces", leave_namespaces),
    ("network", cut_network),
    ("mounts", mount_own),
    ("keyring", take_new_keyring),
    ("own id", take_own_id),
    ("user namespace", shrink_users),
    ("rlimits", set_limits),
    ("capabilities", drop_capabilities),
    ("no new privileges", forbid_privileges),
    ("landlock", bound_files),
    ("seccomp", filter_calls),
)
LAYERS = tuple(layer for layer, _ in STEPS)


class StepFailed(Exception):
    """A layer could not be put on; `layer` is its name in STEPS. The child must end."""

    def __init__(self, layer: str, cause: OSError) -> None:
        super().__init__(f"{layer}: {cause}")
        self.layer = layer


def enter(box: Enclosure, layers: Collection[str] = LAYERS) -> None:
    """Shut the calling process in. Raises StepFailed; the process must end then.

    Who forks on the way gives each part those layers that it does not inherit.
    """
    for layer, step in STEPS:
        if layer in box.without or layer not in layers:
            continue
        try:
            step(box)
        except OSError as error:
            raise StepFailed(layer, error) from error
