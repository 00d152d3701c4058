"""Namespaces: what a process tree can see and name, and who it is there.

A zygote lives in a user namespace of its own, U1, which owns its mounts, processes and network.
Each kernel lives in another below it, U2: it owns none of them, so no capability that code in a
kernel could ever regain there has power over them.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from . import system

KERNEL_UID = 1000  # what a kernel sees itself as
ZYGOTE = (
    system.CLONE_NEWNS
    | system.CLONE_NEWPID
    | system.CLONE_NEWIPC
    | system.CLONE_NEWUTS
    | system.CLONE_NEWCGROUP
)
# The filter refuses inotify; without it these hold, for each slot's uid. In all they count for the
# host's root, or the broker's user, who by default has 128 instances.
ZYGOTE_COUNTS = {"max_inotify_instances": 64, "max_inotify_watches": 1 << 16}
KERNEL_COUNTS = {
    "max_inotify_instances": 4,
    "max_inotify_watches": 1 << 12,
    **dict.fromkeys(
        (
            f"max_{kind}_namespaces"
            for kind in ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time")
        ),
        0,
    ),
}
KERNEL = ZYGOTE & ~system.CLONE_NEWPID  # its pid namespace begins with the fork that makes it


def enter_user_namespace(mode: str, first: int, count: int) -> None:
    """Enter U1 as its root. `first` and `count` are the host's ids of the range behind 1, 2, ….

    In mode `root` they stand behind 0 as well; in `user-range` 0 is the caller; in `user` there is
    no other. Raises OSError.
    """
    uid, gid = os.geteuid(), os.getegid()
    if mode == "user":
        system.unshare(system.CLONE_NEWUSER)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"0 {uid} 1")
        _write("/proc/self/gid_map", f"0 {gid} 1")
        return
    # Only a process outside may map more than one id: a child made before, which then ends.
    ready, go = os.pipe()
    parent = os.getpid()
    writer = os.fork()
    if writer == 0:
        status = 1
        try:
            os.close(go)
            os.read(ready, 1)
            _map_range(parent, mode, (uid, gid), first, count)
            status = 0
        finally:
            os._exit(status)
    os.close(ready)
    try:
        system.unshare(system.CLONE_NEWUSER)
    finally:
        os.close(go)
        _, status = os.waitpid(writer, 0)
    if status:
        raise PermissionError(1, f"the ids {first} to {first + count - 1} could not be mapped")


def _map_range(pid: int, mode: str, own: tuple[int, int], first: int, count: int) -> None:
    if mode == "root":
        _write(f"/proc/{pid}/uid_map", f"0 {first} {count}")
        _write(f"/proc/{pid}/gid_map", f"0 {first} {count}")
        return
    for command, caller in zip(("newuidmap", "newgidmap"), own, strict=True):
        ranges = ["0", str(caller), "1", "1", str(first), str(count)]
        subprocess.run([command, str(pid), *ranges], check=True)


def become(uid: int, *, groups: bool) -> None:
    """Take an id for good, real and effective; without supplementary ones where that is allowed."""
    if groups:
        os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def shrink_to_one_user(uid: int, sysctl: int) -> None:
    """Enter U2, where `uid` is the only id and has the name KERNEL_UID, and close it to more.

    `sysctl` is a descriptor of /proc/sys opened where that could be seen.
    """
    system.prctl(system.PR_SET_DUMPABLE, 1)  # the change of id made /proc/self root's
    system.unshare(system.CLONE_NEWUSER)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{KERNEL_UID} {uid} 1")
    _write("/proc/self/gid_map", f"{KERNEL_UID} {uid} 1")
    become(KERNEL_UID, groups=False)
    allow(KERNEL_COUNTS, sysctl)


def allow(counts: Mapping[str, int], sysctl: int) -> None:
    """Bound what the caller's user namespace may have of what is counted for its owner above.

    `sysctl` is a descriptor of /proc/sys.
    """
    for name, most in counts.items():
        try:
            limit = os.open(f"user/{name}", os.O_WRONLY, dir_fd=sysctl)
        except FileNotFoundError:  # a Linux that does not count it
            continue
        try:
            os.write(limit, str(most).encode())
        finally:
            os.close(limit)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
