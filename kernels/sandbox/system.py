"""Call the system where Python has no function for it. The sandbox's only door to ctypes.

Every call raises OSError with the call's name as its `filename`, so that a log says what failed.
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Final

MACHINE: Final = platform.machine()

# Numbers of the calls made raw, from the kernel's own tables; those of 424 and later are the same
# on every machine.
_NUMBERS: Final = {
    "x86_64": {
        "pivot_root": 155,
        "keyctl": 250,
        "seccomp": 317,
        "capget": 125,
        "capset": 126,
        "inotify_add_watch": 254,
        "inotify_init1": 294,
        "inotify_rm_watch": 255,
        "renameat2": 316,
        "setfsgid": 123,
        "setfsuid": 122,
        "arch_prctl": 158,
        "rseq": 334,
    },
    "aarch64": {
        "pivot_root": 41,
        "keyctl": 219,
        "seccomp": 277,
        "capget": 90,
        "capset": 91,
        "inotify_init1": 26,
        "inotify_add_watch": 27,
        "inotify_rm_watch": 28,
        "renameat2": 276,
        "setfsgid": 152,
        "setfsuid": 151,
    },
}
_EVERYWHERE: Final = {
    "open_tree": 428,
    "move_mount": 429,
    "openat2": 437,
    "mount_setattr": 442,
    "landlock_create_ruleset": 444,
    "landlock_add_rule": 445,
    "landlock_restrict_self": 446,
}

AT_FDCWD: Final = -100
AT_EMPTY_PATH: Final = 0x1000
AT_RECURSIVE: Final = 0x8000

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_REMOUNT: Final = 32
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2
OPEN_TREE_CLONE: Final = 1
MOVE_MOUNT_F_EMPTY_PATH: Final = 4
MOUNT_ATTR_RDONLY: Final = 1
MOUNT_ATTR_NOSUID: Final = 2
MOUNT_ATTR_NODEV: Final = 4

PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_CAPBSET_DROP: Final = 24
PR_SET_SECUREBITS: Final = 28
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.unshare.argtypes = [ctypes.c_int]
_libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def _checked(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


def syscall(name: str, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Make a system call by its name. Integers are passed as longs, bytes as pointers."""
    number = _EVERYWHERE.get(name) or _NUMBERS[MACHINE][name]
    passed = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *passed), name)


def prctl(option: int, *arguments: int) -> int:
    """Call prctl(2)."""
    padded = (*arguments, 0, 0, 0, 0)[:4]
    return _checked(_libc.prctl(option, *padded), f"prctl({option})")


def mprotect(address: int, size: int, protection: int) -> None:
    """Set what may be done with memory."""
    _checked(_libc.mprotect(address, size, protection), "mprotect")


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name for new ones."""
    _checked(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(descriptor: int, kind: int) -> None:
    """Enter the namespace that the descriptor refers to."""
    _checked(_libc.setns(descriptor, kind), f"setns({kind:#x})")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """Call mount(2); an empty `kind` or `data` is no pointer."""
    encoded = [text.encode() if text else None for text in (kind, data)]
    result = _libc.mount(source.encode(), target.encode(), encoded[0], flags, encoded[1])
    _checked(result, f"mount {target}")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """Call umount2(2)."""
    _checked(_libc.umount2(target.encode(), flags), f"umount {target}")


def pivot_root(new: str, old: str) -> None:
    """Make `new` the root; the old one is then mounted on `old`."""
    syscall("pivot_root", new.encode(), old.encode())


def open_tree(path: str, *, recursive: bool = False, at: int = AT_FDCWD) -> int:
    """Return a descriptor of a detached copy of the mount at `path`; with "", that of `at`."""
    flags = OPEN_TREE_CLONE | os.O_CLOEXEC | (AT_RECURSIVE if recursive else 0)
    return syscall("open_tree", at, path.encode(), flags | (0 if path else AT_EMPTY_PATH))


def move_mount(descriptor: int, target: str) -> None:
    """Attach a detached mount at `target`."""
    encoded = target.encode()
    syscall("move_mount", descriptor, b"", AT_FDCWD, encoded, MOVE_MOUNT_F_EMPTY_PATH)


def protect_mount(descriptor: int, attributes: int) -> None:
    """Set mount attributes on a detached tree, every mount in it."""
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
    fields = b"".join(value.to_bytes(8, "little") for value in (attributes, 0, 0, 0))
    flags = AT_EMPTY_PATH | AT_RECURSIVE
    syscall("mount_setattr", descriptor, b"", flags, fields, len(fields))
