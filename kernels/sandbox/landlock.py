"""Restrict the files a process may reach with Landlock: a second line under the mounts.

Each ABI added rights; what the running kernel does not know is left out, so an older one restricts
less and never fails. TCP is left alone (ABI 4): servers on localhost, inside the kernel's own
network namespace, must work, and there is no other network to reach. Abstract unix sockets and
signals are scoped (ABI 6): processes made after this share the domain and still reach each other.

Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Sequence
from typing import Final

from .system import syscall

NEWEST: Final = 7  # the last ABI this file was written for

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
REMOVE_DIR: Final = 1 << 4
REMOVE_FILE: Final = 1 << 5
MAKE_CHAR: Final = 1 << 6
MAKE_DIR: Final = 1 << 7
MAKE_REG: Final = 1 << 8
MAKE_SOCK: Final = 1 << 9
MAKE_FIFO: Final = 1 << 10
MAKE_BLOCK: Final = 1 << 11
MAKE_SYM: Final = 1 << 12
REFER: Final = 1 << 13  # to rename or link from one directory to another
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15

READABLE: Final = EXECUTE | READ_FILE | READ_DIR
DEVICE: Final = READ_FILE | WRITE_FILE
# Everything but devices: neither making them nor their ioctls.
WRITABLE: Final = (1 << 15) - 1 & ~(MAKE_CHAR | MAKE_BLOCK)
OF_A_FILE: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

SCOPE_ABSTRACT_UNIX_SOCKET: Final = 1 << 0
SCOPE_SIGNAL: Final = 1 << 1
# Refusals of hostile code would fill the host's audit log.
LOG_SAME_EXEC_OFF: Final = 1 << 0

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1


def abi() -> int:
    """Return the newest ABI that the kernel and this file both know; 0 where there is none."""
    try:
        version = syscall("landlock_create_ruleset", None, 0, _CREATE_RULESET_VERSION)
    except OSError:  # ENOSYS: not built in; EOPNOTSUPP: not enabled at boot
        return 0
    return min(version, NEWEST)


def rights(version: int) -> int:
    """Return every right to files that an ABI can restrict."""
    added = {1: REFER, 2: TRUNCATE, 3: IOCTL_DEV, 4: IOCTL_DEV}
    return added.get(version, IOCTL_DEV << 1) - 1


def _ruleset(version: int) -> int:
    # struct landlock_ruleset_attr: handled_access_fs, handled_access_net, scoped. The kernel
    # takes a longer one than it knows if the rest is zero.
    scoped = SCOPE_ABSTRACT_UNIX_SOCKET | SCOPE_SIGNAL if version >= 6 else 0
    attributes = struct.pack("=QQQ", rights(version), 0, scoped)
    return syscall("landlock_create_ruleset", attributes, len(attributes), 0)


def _allow(ruleset: int, path: str, allowed: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            allowed &= OF_A_FILE  # EINVAL for a right that only directories have
        # struct landlock_path_beneath_attr, packed
        beneath = struct.pack("=Qi", allowed, descriptor)
        syscall("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, beneath, 0)
    finally:
        os.close(descriptor)


def restrict(
    readable: Sequence[str],
    writable: Sequence[str],
    devices: Sequence[str],
    listed: Sequence[str] = (),
) -> int:
    """Leave this thread and its children these paths; return the ABI applied, 0 for none.

    NO_NEW_PRIVS must be set. Call it with one thread: others stay as they are. `readable` may be
    read and executed, in `writable` everything but devices may also be made, `devices` may be read
    and written, directories in and below `listed` be listed. Paths that do not exist are skipped.
    OSError names the call that failed.
    """
    version = abi()
    if version == 0:
        return 0
    handled = rights(version)
    ruleset = _ruleset(version)
    try:
        kinds = (readable, READABLE), (writable, WRITABLE), (devices, DEVICE), (listed, READ_DIR)
        for paths, allowed in kinds:
            for path in paths:
                _allow(ruleset, path, allowed & handled)
        syscall("landlock_restrict_self", ruleset, LOG_SAME_EXEC_OFF if version >= 7 else 0)
    finally:
        os.close(ruleset)
    return version
