"""Open a file below a directory in which a stranger makes, moves and replaces everything.

What a path means is decided once, by the system, while it opens (openat2(2)); what was opened is
then looked at through the descriptor. Nothing is checked by name, so nothing can be exchanged
between a check and its use.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from kernels.errors import UnsafePath
from kernels.sandbox.system import syscall

MAX_PATH: Final = 4095  # bytes; PATH_MAX, limits.h, has one for the NUL
MAX_NAME: Final = 255  # bytes of one component; NAME_MAX, likewise
ATTEMPTS: Final = 16

# openat2(2), linux/openat2.h
RESOLVE_NO_XDEV: Final = 0x01
RESOLVE_NO_MAGICLINKS: Final = 0x02
RESOLVE_NO_SYMLINKS: Final = 0x04
RESOLVE_BENEATH: Final = 0x08

# O_NONBLOCK: a FIFO without a writer, and a file under somebody's lease, would be waited for.
FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | os.O_NOFOLLOW
RESOLVE: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV

_REASONS: Final = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ELOOP: "symlink",
    errno.EXDEV: "another mount",  # or `..` and `/`, which are refused before
    errno.ENXIO: "not a regular file",  # open(2): a unix socket, or a device nobody drives
    errno.ENODEV: "not a regular file",
    errno.EACCES: "not allowed",
    errno.EPERM: "not allowed",
    errno.ENAMETOOLONG: "bad name",
    errno.EINVAL: "bad name",  # to some file systems
    errno.EAGAIN: "busy",
    errno.ETXTBSY: "busy",
}


def open_beneath(directory: int, path: str) -> int:
    """Open a regular file below a directory for reading, and return its descriptor.

    `directory` is a descriptor; `path` is relative, with `/` between its parts. The caller closes
    the descriptor, and bounds what it reads: the file may grow, shrink and be sparse meanwhile.
    Raises UnsafePath with the reason `bad name` (empty, too long, or not a name at all), `outside`
    (absolute, or with `..`), `symlink` (anywhere on the way), `another mount`, `missing`,
    `not a regular file`, `hard link` (it has a second name, which may be anywhere), `not allowed`
    or `busy` (renamed or leased again and again); and OSError when the fault is this host's.
    """
    name = encoded(path)
    descriptor = _open(directory, name, path)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnsafePath(path, "not a regular file")
        if status.st_nlink != 1:
            raise UnsafePath(path, "hard link" if status.st_nlink else "missing")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_directory(directory: int, path: str) -> int:
    """Open a directory below a directory for reading; "." is the directory itself.

    Raises UnsafePath as `open_beneath` does, and with `not a directory`.
    """
    # A link is refused as one: with O_NOFOLLOW it would count as no directory.
    return _open(directory, encoded(path), path, (FLAGS & ~os.O_NOFOLLOW) | os.O_DIRECTORY)


def encoded(path: str) -> bytes:
    """Return the bytes of a path that may lie below a directory. Raises UnsafePath."""
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:
        raise UnsafePath(path, "bad name") from None
    if not name or b"\0" in name or len(name) > MAX_PATH:
        raise UnsafePath(path, "bad name")
    parts = name.split(b"/")
    if name.startswith(b"/") or b".." in parts:
        raise UnsafePath(path, "outside")
    if max(map(len, parts)) > MAX_NAME:
        raise UnsafePath(path, "bad name")
    return name


def _open(directory: int, name: bytes, path: str, flags: int = FLAGS) -> int:
    # struct open_how: flags, mode, resolve
    how = b"".join(value.to_bytes(8, "little") for value in (flags, 0, RESOLVE))
    attempts = ATTEMPTS
    while True:
        attempts -= 1
        try:
            return syscall("openat2", directory, name, how, len(how))
        except InterruptedError:
            attempts += 1  # a signal came; that says nothing of the file
        except OSError as error:
            # EAGAIN: something was renamed on the way, or the file is leased, which opening ends.
            if error.errno == errno.EAGAIN and attempts:
                continue
            if error.errno == errno.ENOTDIR and flags & os.O_DIRECTORY:
                raise UnsafePath(path, "not a directory") from None
            raise refusal(error, path) from None


def refusal(error: OSError, path: str) -> Exception:
    """Return the UnsafePath that an error of the system means, or that error itself."""
    reason = _REASONS.get(error.errno or 0)
    return error if reason is None else UnsafePath(path, reason)
