"""Remove a directory with all that is in it, while a stranger renames and adds what it likes.

Nothing is followed and nothing is descended into: a directory found below is moved up beside the
one that is being emptied. Depth costs neither stack nor descriptors.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from contextlib import suppress
from typing import Final

from kernels.errors import UnsafePath
from kernels.safe_open import open_directory

PATIENCE: Final = 30.0  # s; who adds files as fast as we remove them is told `busy` then


def remove_tree(parent: int, name: str, *, patience: float = PATIENCE) -> None:
    """Remove the directory `name` of the directory `parent`.

    Raises OSError, and UnsafePath: `busy` if it was filled again for `patience` seconds.
    """
    deadline = time.monotonic() + patience
    top = _opened(parent, name)
    try:
        # What is a directory in it is emptied one after another; what those hold comes up here.
        while not _try_to_remove(parent, name):
            _empty(top, top)
            with os.scandir(top) as entries:
                found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
            for below in found:
                _empty_and_remove(top, below)
            if time.monotonic() > deadline:
                raise UnsafePath(name, "busy")
    finally:
        os.close(top)


def _empty_and_remove(top: int, name: str) -> None:
    try:
        here = _opened(top, name)
    except (UnsafePath, FileNotFoundError):
        return  # it is something else by now
    try:
        _empty(here, top)
    finally:
        os.close(here)
    _try_to_remove(top, name)


def _try_to_remove(directory: int, name: str) -> bool:
    try:
        os.rmdir(name, dir_fd=directory)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    return True


def _empty(directory: int, top: int) -> None:
    """Unlink the files of a directory, and move its directories to `top`."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        with suppress(FileNotFoundError, IsADirectoryError, UnsafePath):
            if not is_directory:
                os.unlink(name, dir_fd=directory)
            elif directory != top:
                lift(directory, name, top, secrets.token_hex(8))


def lift(directory: int, name: str, top: int, new: str) -> None:
    """Move a directory to another one under a new name, whatever its own mode is."""
    try:
        os.rename(name, new, src_dir_fd=directory, dst_dir_fd=top)
    except PermissionError:
        # rename(2): a directory must be writable to get another parent.
        os.close(_opened(directory, name))
        os.rename(name, new, src_dir_fd=directory, dst_dir_fd=top)


def _opened(directory: int, name: str) -> int:
    """Return a descriptor of a directory whose owner may read and change it from now on."""
    handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.chmod(f"/proc/self/fd/{handle}", stat.S_IRWXU)
    finally:
        os.close(handle)
    return open_directory(directory, name)
