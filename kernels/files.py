"""A session's files, for somebody who is not its kernel: read, list, write, move, remove.

Everything goes beneath a descriptor of the workspace, by descriptors of the directories on the way
(`safe_open`), and with the rights of whoever owns it: its kernel replaces names while we work, and
gains nothing. All calls block; those that walk (`entries`, `remove`) may take seconds.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from kernels.errors import NoRoom, UnsafePath
from kernels.removal import lift, remove_tree
from kernels.safe_open import encoded, open_beneath, open_directory, refusal
from kernels.sandbox import system
from kernels.walk import PREFIX, Entry, entry_of, walk

NO_REPLACE: Final = 1  # RENAME_NOREPLACE, linux/fs.h
DIRECTORY_MODE: Final = 0o755
FILE_MODE: Final = 0o644
FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SWEPT: Final = 1000  # names that are removed in one sweep
SWEEP_PATIENCE: Final = 1.0  # s for a directory that is filled again while it is removed
# What is written or removed goes by such a name until it is done: this process's, and one of its
# own. Names that end otherwise are somebody's.
_OURS: Final = PREFIX + secrets.token_hex(4)
_UNFINISHED: Final = re.compile(re.escape(PREFIX) + r"(?:[0-9a-f]{16}|[0-9a-f]{24})", re.ASCII)
CONFLICTS: Final = {
    errno.EEXIST: "exists",
    errno.EISDIR: "is a directory",
    errno.ENOTDIR: "not a directory",
    errno.ENOTEMPTY: "not empty",
    errno.EINVAL: "into itself",
}


@dataclass(frozen=True, slots=True)
class Opened:
    """A regular file, open for reading. Whoever has it closes `descriptor`."""

    descriptor: int
    size: int
    mtime_ns: int
    inode: int


class Files:
    """The files below a directory, whose descriptor it holds a copy of until it is closed.

    Paths are relative, with `/` between their parts. Raises UnsafePath for a path that does not
    lead where it should: with the reasons of `safe_open`, and with `exists`, `is a directory`,
    `not a directory`, `not empty` and `into itself`; NoRoom at the workspace's bound; OSError when
    the fault is this host's.
    """

    def __init__(self, directory: int) -> None:
        self._root = os.dup(directory)
        status = os.fstat(self._root)
        self._owner = status.st_uid, status.st_gid

    def close(self) -> None:
        """Let go of the directory. Safe to call again."""
        root, self._root = self._root, -1
        if root >= 0:
            os.close(root)

    def copy(self) -> Files:
        """Return the same files with a descriptor of their own, for another thread."""
        return Files(self._root)

    @property
    def is_reachable(self) -> bool:
        """Tell whether this process can act as the files' owner."""
        return os.geteuid() in (0, self._owner[0])

    def open(self, path: str) -> Opened:
        """Open a regular file for reading."""
        with self._acting(path):
            try:
                descriptor = open_beneath(self._root, path)
            except UnsafePath as error:
                if error.reason == "not a regular file" and self._is_directory(path):
                    raise UnsafePath(path, "is a directory") from None
                raise
        status = os.fstat(descriptor)
        return Opened(descriptor, status.st_size, status.st_mtime_ns, status.st_ino)

    def entry(self, path: str) -> Entry:
        """Describe what stands at a path, itself and not where it leads to."""
        with self._acting(path), self._parent(path) as (directory, name):
            return entry_of("/".join(parts_of(path)), os.lstat(name, dir_fd=directory))

    def make_directory(self, path: str) -> bool:
        """Make a directory and those above it; return whether it was not there."""
        parts = parts_of(path)
        with self._acting(path):
            there = self._is_directory(path)
            os.close(self._made(parts, path))
        return not there

    def write(self, path: str, *, replace: bool = True) -> Upload:
        """Begin to write a file, which is there under its name only when it is whole.

        The directories above it are made.
        """
        parts = parts_of(path)
        with self._acting(path), self._parent(path, make=True) as (directory, name):
            _refuse_target(directory, name, path, replace=replace)
            temporary = _OURS + secrets.token_hex(8)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(temporary, flags, FILE_MODE, dir_fd=self._root)
        return Upload(self, "/".join(parts), temporary, descriptor, replace=replace)

    def place(self, temporary: str, path: str, *, replace: bool) -> bool:
        """Give what was written its name; return whether that is new."""
        with self._acting(path), self._parent(path, make=True) as (directory, name):
            there = _refuse_target(directory, name, path, replace=replace)
            rename(self._root, temporary, directory, name, replace=replace)
        return not there

    def forget(self, temporary: str) -> None:
        """Remove what is not to be a file after all."""
        with suppress(OSError, UnsafePath), self._acting(temporary):
            os.unlink(temporary, dir_fd=self._root)

    def move(self, path: str, to: str, *, replace: bool = False) -> None:
        """Rename within the workspace; the directories above the new name are made."""
        with self._acting(path), self._parent(path) as (source, name):
            os.lstat(name, dir_fd=source)
            with self._acting(to), self._parent(to, make=True) as (target, new):
                rename(source, name, target, new, replace=replace)

    def remove(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, or whatever else has the name; a directory that is not empty if asked."""
        with self._acting(path), self._parent(path) as (directory, name):
            if not stat.S_ISDIR(os.lstat(name, dir_fd=directory).st_mode):
                os.unlink(name, dir_fd=directory)
                return
            with suppress(OSError):
                os.rmdir(name, dir_fd=directory)
                return
            if not recursive:
                raise UnsafePath(path, "not empty")
            # Gone from where it was at once; what is then removed is in nobody's way.
            aside = _OURS + secrets.token_hex(8)
            lift(directory, name, self._root, aside)
            remove_tree(self._root, aside)

    def sweep(self, most: int = SWEPT) -> int:
        """Remove what another process has left unfinished, a killed one; return how much it was.

        At most `most` names. What this process is about to write or to remove stays.
        """
        with self._acting("."):
            with os.scandir(self._root) as entries:
                left = (one for one in entries if _is_left(one.name))
                found = [(one.name, one.is_dir(follow_symlinks=False)) for one in left]
            for name, is_directory in found[:most]:
                with suppress(OSError, UnsafePath):  # its kernel was faster, or fills it again
                    if is_directory:
                        remove_tree(self._root, name, patience=SWEEP_PATIENCE)
                    else:
                        os.unlink(name, dir_fd=self._root)
        return min(len(found), most)

    def entries(
        self, path: str = "", *, recursive: bool = False, after: str = "", limit: int = 1000
    ) -> list[Entry]:
        """Return up to `limit` entries of a directory in the order of their paths, from `after` on.

        Each directory comes right before what is in it. What is below a path too long to be named
        is left out.
        """
        top, past = parts_of(path, root=True), parts_of(after, root=True)
        with self._acting(path):
            os.close(self._directory(top, path))
            return walk(self._root, tuple(top), recursive=recursive, after=tuple(past), limit=limit)

    # Ways

    def _directory(self, parts: list[str], path: str) -> int:
        try:
            return open_directory(self._root, "/".join(parts) or ".")
        except UnsafePath as error:
            raise UnsafePath(path, error.reason) from None

    def _is_directory(self, path: str) -> bool:
        try:
            os.close(open_directory(self._root, path))
        except UnsafePath:
            return False
        return True

    def _made(self, parts: list[str], path: str) -> int:
        """Return a descriptor of a directory that is made where it is not there."""
        with suppress(UnsafePath):
            return self._directory(parts, path)
        here = open_directory(self._root, ".")
        try:
            for part in parts:
                with suppress(FileExistsError):
                    os.mkdir(part, DIRECTORY_MODE, dir_fd=here)
                below = open_directory(here, part)
                os.close(here)
                here = below
        except BaseException as error:
            os.close(here)
            if isinstance(error, UnsafePath):
                raise UnsafePath(path, error.reason) from None
            raise
        return here

    @contextmanager
    def _parent(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """Yield the directory that a path's last part is in, and that part."""
        *above, name = parts_of(path)
        directory = (self._made if make else self._directory)(above, path)
        try:
            yield directory, name
        finally:
            os.close(directory)

    @contextmanager
    def _acting(self, path: str) -> Iterator[None]:
        """Act with the owner's rights and no others, and tell the system's errors as ours."""
        encoded(path or ".")
        uid, gid = self._owner
        # Both are the calling thread's own; each returns what was there before, setfsuid(2).
        old_gid = system.syscall("setfsgid", gid)
        old_uid = system.syscall("setfsuid", uid)
        try:
            if system.syscall("setfsuid", uid) != uid:
                raise UnsafePath(path, "not allowed")
            yield
        except OSError as error:
            raise self._told(error, path) from error
        finally:
            system.syscall("setfsuid", old_uid)
            system.syscall("setfsgid", old_gid)

    def _told(self, error: OSError, path: str) -> Exception:
        number = error.errno or 0
        if number in FULL:
            return self.no_room(number)
        if number in CONFLICTS:
            return UnsafePath(path, CONFLICTS[number])
        return refusal(error, path)

    def no_room(self, number: int) -> NoRoom:
        """Return the error of a workspace that takes no more: of bytes, or of files."""
        space = os.fstatvfs(self._root)
        if number != errno.EFBIG and space.f_files and not space.f_ffree:
            return NoRoom("files", space.f_files)
        return NoRoom("bytes", space.f_blocks * space.f_frsize)


class Upload:
    """A file that is being written. Whoever has it ends it, with `commit` or with `abort`."""

    def __init__(
        self, files: Files, path: str, temporary: str, descriptor: int, *, replace: bool
    ) -> None:
        self.path = path
        self.size = 0
        self.mtime = 0.0  # Unix s, once it is whole
        self._files = files
        self._temporary = temporary
        self._descriptor = descriptor
        self._replace = replace

    def write(self, data: bytes) -> None:
        """Append. Raises NoRoom."""
        view = memoryview(data)
        try:
            while view:
                written = os.write(self._descriptor, view)
                self.size += written
                view = view[written:]
        except OSError as error:
            if error.errno in FULL:
                raise self._files.no_room(error.errno or 0) from error
            raise

    def commit(self) -> bool:
        """Give the file its name; return whether that is new. Raises UnsafePath, NoRoom."""
        self.mtime = os.fstat(self._descriptor).st_mtime
        self._close()
        try:
            made = self._files.place(self._temporary, self.path, replace=self._replace)
        except BaseException:
            self.abort()
            raise
        self._temporary = ""
        return made

    def abort(self) -> None:
        """Let nothing be left of it. Safe to call again, and after `commit`."""
        self._close()
        temporary, self._temporary = self._temporary, ""
        if temporary:
            self._files.forget(temporary)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def _is_left(name: str) -> bool:
    return not name.startswith(_OURS) and _UNFINISHED.fullmatch(name) is not None


def parts_of(path: str, *, root: bool = False) -> list[str]:
    """Return the names that a path is made of. Raises UnsafePath; for the root unless allowed."""
    if not (path == "" and root):
        encoded(path)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts and not root:
        raise UnsafePath(path, "bad name")
    return parts


def rename(source: int, name: str, target: int, new: str, *, replace: bool) -> None:
    """Rename from one directory to another. Raises OSError."""
    old, fresh = os.fsencode(name), os.fsencode(new)
    system.syscall("renameat2", source, old, target, fresh, 0 if replace else NO_REPLACE)


def _refuse_target(directory: int, name: str, path: str, *, replace: bool) -> bool:
    """Tell whether a file is there to be replaced. Raises UnsafePath for what is to stay.

    A courtesy: what comes there afterwards, the renaming replaces or not as the system has it.
    """
    try:
        status = os.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(status.st_mode):
        raise UnsafePath(path, "is a directory")
    if not replace:
        raise UnsafePath(path, "exists")
    if stat.S_ISLNK(status.st_mode):
        raise UnsafePath(path, "symlink")
    if not stat.S_ISREG(status.st_mode):
        raise UnsafePath(path, "not a regular file")
    if status.st_nlink > 1:
        raise UnsafePath(path, "hard link")
    return True
