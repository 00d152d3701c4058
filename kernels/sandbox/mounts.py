"""Mounts: an empty root in which only what a kernel may see is shown, read-only.

`build_root` makes it once for a zygote; `dress_kernel` adds what is each kernel's own. Workspaces
are mounted in the warden's mount namespace alone, so that a kernel's copy of the tree stays small
and holds no other session's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from . import system

STAGE = "/tmp"  # where the new root is built; the old one's is gone afterwards  # noqa: S108
HOME = "/home/user"
ALIAS = "/mnt/data"  # the same directory, by the name hosted interpreters use
SHM = "/dev/shm"  # noqa: S108
TMP = "/tmp"  # noqa: S108
CACHE = "/.cache"
WORKSPACES = "/.workspaces"
DEVICES = ("null", "zero", "full", "random", "urandom")
SYSTEM = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
# Of the host's /etc, what programs look up and what says nothing of the host.
SHOWN_ETC = ("alternatives", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "fonts", "localtime")
ETC = {
    "passwd": "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n"
    f"user:x:1000:1000:user:{HOME}:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": "root:x:0:\nuser:x:1000:\nnogroup:x:65534:\n",
    "hosts": "127.0.0.1 localhost sandbox\n::1 localhost sandbox\n",
    "hostname": "sandbox\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "resolv.conf": "",
}
READ_ONLY = system.MOUNT_ATTR_RDONLY | system.MOUNT_ATTR_NOSUID
PLAIN = system.MS_NOSUID | system.MS_NODEV


def take_trees(shown: Sequence[str], cache: str) -> dict[str, int]:
    """Return detached copies of the host's directories, by the path they will have.

    Made before the caller's id changes: an interpreter may live below a directory that only its
    owner can pass. A path below another that is shown already is left out.
    """
    trees: dict[str, int] = {}
    for name in SYSTEM:
        if not os.path.islink(f"/{name}") and os.path.isdir(f"/{name}"):
            trees[f"/{name}"] = system.open_tree(f"/{name}", recursive=True)
    for path in sorted(shown):
        if not any(path == known or path.startswith(f"{known}/") for known in trees):
            trees[path] = system.open_tree(path, recursive=True)
    for name in SHOWN_ETC:
        if os.path.exists(f"/etc/{name}"):
            trees[f"/etc/{name}"] = system.open_tree(os.path.realpath(f"/etc/{name}"))
    for descriptor in trees.values():
        system.protect_mount(descriptor, READ_ONLY | system.MOUNT_ATTR_NODEV)
    for name in DEVICES:
        trees[f"/dev/{name}"] = system.open_tree(f"/dev/{name}")
        # Reading and writing a device are no writing to its file system.
        system.protect_mount(trees[f"/dev/{name}"], READ_ONLY)
    trees[CACHE] = system.open_tree(cache)
    return trees


def build_root(trees: dict[str, int], *, network: str) -> None:
    """Make the new root the only one. The caller is root of a new mount and pid namespace."""
    system.mount("none", "/", flags=system.MS_REC | system.MS_PRIVATE)
    links = {name: os.readlink(f"/{name}") for name in SYSTEM if os.path.islink(f"/{name}")}
    etc = dict(ETC)
    if network == "host":
        for name in ("resolv.conf", "hosts"):
            with open(f"/etc/{name}") as file:
                etc[name] = file.read()
    system.mount("root", STAGE, "tmpfs", PLAIN, "size=4m,nr_inodes=4096,mode=755")
    for path in ("/etc", "/dev", "/proc", HOME, ALIAS, SHM, TMP, WORKSPACES):
        os.makedirs(STAGE + path, exist_ok=True)
    for name, target in links.items():
        os.symlink(target, f"{STAGE}/{name}")
    for name, text in etc.items():
        with open(f"{STAGE}/etc/{name}", "w") as file:
            file.write(text)
    for name in ("fd", "stdin", "stdout", "stderr"):
        number = "" if name == "fd" else f"/{('stdin', 'stdout', 'stderr').index(name)}"
        os.symlink(f"/proc/self/fd{number}", f"{STAGE}/dev/{name}")
    system.mount("tmp", STAGE + TMP, "tmpfs", PLAIN, "size=64m,mode=1777")
    for path, descriptor in trees.items():
        attach(descriptor, STAGE + path)
    system.mount("workspaces", STAGE + WORKSPACES, "tmpfs", PLAIN, "size=4m,mode=700")
    # In the old root's sight: a user namespace may mount a procfs only beside one it sees whole.
    system.mount("proc", f"{STAGE}/proc", "proc", PLAIN | system.MS_NOEXEC)
    os.chdir(STAGE)
    system.pivot_root(".", ".")
    system.umount(".")
    os.chdir("/")
    system.mount("root", "/", flags=system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY | PLAIN)


def attach(descriptor: int, path: str) -> None:
    """Attach a detached mount at a path, which is made for it; the descriptor is closed."""
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            os.mkdir(path)
        else:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o444))
    system.move_mount(descriptor, path)
    os.close(descriptor)


def make_workspace(name: str, *, uid: int, size: int, files: int) -> int:
    """Mount an empty workspace in the caller's mount namespace; return a directory descriptor."""
    path = f"{WORKSPACES}/{name}"
    os.mkdir(path, 0o700)
    options = f"size={size or '50%'},nr_inodes={files},mode=700,uid={uid},gid={uid}"
    try:
        system.mount("workspace", path, "tmpfs", PLAIN, options)
    except OSError:
        os.rmdir(path)
        raise
    return open_workspace(name)


def open_workspace(name: str) -> int:
    """Return a directory descriptor of a workspace of the caller's mount namespace."""
    return os.open(f"{WORKSPACES}/{name}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def drop_workspace(name: str) -> None:
    """Unmount a workspace; it is gone with the last kernel that has it."""
    system.umount(f"{WORKSPACES}/{name}")
    os.rmdir(f"{WORKSPACES}/{name}")


def dress_kernel(workspace: int, shown: Sequence[str], hidden: Sequence[str], tmp: str) -> None:
    """Give the caller's copy of the tree its own /tmp, /dev/shm, home and /proc.

    `shown` are paths that the new mounts would cover; they are shown on top of them. `hidden` are
    mounts that were the zygote's alone. `tmp` is the size of each temporary directory, as tmpfs
    options.
    """
    covered = [path for path in shown if _is_covered(path) and path not in hidden]
    trees = [(path, system.open_tree(path, recursive=True)) for path in covered]
    for path in hidden:
        system.umount(path)
    for path in (TMP, SHM):
        system.mount("tmp", path, "tmpfs", PLAIN, f"{tmp},mode=1777")
    attach(workspace, HOME)
    attach(system.open_tree(HOME), ALIAS)
    for path, descriptor in trees:
        attach(descriptor, path)
    # Only what a process may know of its own kind: no host's name, memory, devices or settings.
    flags = PLAIN | system.MS_NOEXEC
    system.mount("proc", "/proc", "proc", flags, "subset=pid,hidepid=invisible")


def _is_covered(path: str) -> bool:
    return any(path == new or path.startswith(f"{new}/") for new in (TMP, SHM, HOME, ALIAS))
