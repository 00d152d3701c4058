"""Tell which files of a workspace have changed, at next to no cost while none does.

inotify(7) says that something in a directory has changed, once; only then the workspace is looked
through and compared with how it was. Each watch ends with its first event (IN_ONESHOT), so that a
stranger who changes a million files wakes nobody a million times; what is looked at, and how long
that may take, is bounded.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
import struct
import time
from contextlib import suppress
from operator import itemgetter
from typing import Any, Final

from kernels.errors import UnsafePath
from kernels.safe_open import open_directory
from kernels.sandbox import system
from kernels.walk import PREFIX

logger = logging.getLogger(__name__)

# inotify(7), linux/inotify.h
IN_MODIFY: Final = 0x2
IN_CLOSE_WRITE: Final = 0x8
IN_MOVED: Final = 0xC0
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
IN_Q_OVERFLOW: Final = 0x4000
IN_IGNORED: Final = 0x8000
IN_ONLYDIR: Final = 0x1000000
IN_ONESHOT: Final = 0x80000000
MASK: Final = (
    # A file written through a mapping shows when it is closed.
    IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED | IN_CREATE | IN_DELETE | IN_ONLYDIR | IN_ONESHOT
)
HEAD: Final = struct.Struct("iIII")  # wd, mask, cookie, len
READ: Final = 64 << 10

MAX_WATCHES: Final = 4096  # of all workspaces; two events each fit the queue, 16,384 by default
MAX_DEEP: Final = 3072  # of them, when a directory in a workspace may have one more
FAIR: Final = 3  # times as many as are free: what one owner may have, so that some always are
DIRECTORIES: Final = 128  # of one workspace that are watched and looked through
ENTRIES: Final = 1000  # of one workspace that are looked at
MAX_PREFIX: Final = 1000  # characters of a path of directories that are looked through
TOLD: Final = 100  # changes told of one execution
TOLD_BYTES: Final = 16 << 10  # of all their paths
# What a workspace may have us look through it: for so many s at once, and this share of the time.
CREDIT: Final = 0.05
SHARE: Final = 0.1
SKIPPED: Final = frozenset({"__pycache__", "node_modules"})  # and what begins with a dot

Version = tuple[int, int, int]  # size, time of change in ns, inode


class Watches:
    """The inotify instance of this process. `workspaces` are told when something has changed."""

    def __init__(self) -> None:
        self._changes: dict[int, Changes] = {}  # by the watch
        self.held: dict[str, int] = {}  # how many are of which owner's workspaces
        self._silent = False
        self.is_full = False  # for what was last to be watched; others may make room
        try:
            flags = os.O_NONBLOCK | os.O_CLOEXEC  # IN_NONBLOCK, IN_CLOEXEC
            self._descriptor = system.syscall("inotify_init1", flags)
        except OSError as error:
            self._descriptor = -1
            self._complain(error)

    def add(self, changes: Changes, directory: int, *, is_root: bool) -> bool:
        """Watch a directory until something in it changes; tell whether it is watched.

        Each workspace shall have one watch at least, however many directories others have made; and
        however many one owner's workspaces have, there are some left for those of others.
        """
        if self._descriptor < 0:
            return False
        if is_root:
            self.is_full = len(self._changes) >= MAX_WATCHES
        else:
            free = MAX_DEEP - len(self._changes)
            self.is_full = self.held.get(changes.owner, 0) >= FAIR * free
        if self.is_full:
            return False
        try:
            path = b"/proc/self/fd/%d" % directory
            watch = system.syscall("inotify_add_watch", self._descriptor, path, MASK)
        except OSError as error:
            self.is_full = error.errno == errno.ENOSPC
            self._complain(error)
            return False
        if (before := self._changes.get(watch)) is not changes:
            if before is not None:  # its directory has another's number
                before.watches.discard(watch)
                self.count(before.owner, -1)
            self.count(changes.owner, 1)
        self._changes[watch] = changes
        changes.watches.add(watch)
        return True

    def count(self, owner: str, more: int) -> None:
        """Count so many more watches of an owner, or fewer."""
        self.held[owner] = self.held.get(owner, 0) + more
        if not self.held[owner]:
            del self.held[owner]

    def forget(self, changes: Changes) -> None:
        """Watch nothing of a workspace any more."""
        for watch in changes.watches:
            if self._changes.pop(watch, None) is not None:
                self.count(changes.owner, -1)
            with suppress(OSError):  # it has ended by itself
                system.syscall("inotify_rm_watch", self._descriptor, watch)
        changes.watches.clear()

    def drain(self) -> None:
        """Note which workspaces have changed."""
        if self._descriptor < 0:
            return
        while True:
            try:
                data = os.read(self._descriptor, READ)
            except BlockingIOError:
                return
            offset = 0
            while offset < len(data):
                watch, mask, _, length = HEAD.unpack_from(data, offset)
                offset += HEAD.size + length
                if mask & IN_Q_OVERFLOW:
                    for changes in self._changes.values():
                        changes.dirty = True
                    continue
                found = self._changes.get(watch)
                if found is not None:
                    found.dirty = True
                    if mask & IN_IGNORED:
                        del self._changes[watch]
                        self.count(found.owner, -1)
                        found.watches.discard(watch)

    def close(self) -> None:
        """End every watch."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _complain(self, error: OSError) -> None:
        if not self._silent:
            self._silent = True
            hint = " (fs.inotify.max_user_watches)" if error.errno == errno.ENOSPC else ""
            logger.warning("some changes of files will not be told: %s%s", error, hint)


@functools.cache
def of_this_process() -> Watches:
    """Return the one instance: a user may have 128 of them, fs.inotify.max_user_instances."""
    return Watches()


class Changes:
    """What has become of the files in one workspace since it was asked last."""

    def __init__(self, watches: Watches) -> None:
        self.dirty = False
        self.watches: set[int] = set()
        self._watches = watches
        self._known: dict[str, Version] = {}
        self._is_known = self._is_told = False
        self._is_cut = False
        self._owner = ""
        self._credit, self._counted = CREDIT, time.monotonic()

    @property
    def owner(self) -> str:
        """Return whose the workspace is, among whom the watches are shared; nobody's at first."""
        return self._owner

    @owner.setter
    def owner(self, owner: str) -> None:
        self._watches.count(self._owner, -len(self.watches))
        self._watches.count(owner, len(self.watches))
        self._owner = owner

    def begin(self, root: int) -> None:
        """Take the files as they are; what changes from now on is told.

        Where this host cannot have them read now, it is from a later `take` on.
        """
        try:
            self._known, self._is_known = self._look(root), True
        except OSError:
            self.dirty = True

    def stop(self) -> None:
        """Watch nothing; at the next `take` everything is looked at again."""
        self._watches.forget(self)
        self.dirty = True

    def take(self, root: int) -> dict[str, Any]:
        """Return `files`, what has changed since the last time, and how much more has.

        Each is {path, size, change}; `files_more` counts what else was found to have changed,
        `files_cut` tells that not everything was looked at. Nothing is returned where nothing has
        changed, or nothing can be watched at all.
        """
        self._watches.drain()
        if not self.dirty:
            return {}
        now = time.monotonic()
        self._credit = min(CREDIT, self._credit + SHARE * (now - self._counted))
        self._counted = now
        if self._credit <= 0:
            return {"files_cut": True}  # told the next time, what has changed by then
        before = time.thread_time()
        try:
            told = self._compared(root)
        except OSError:  # no descriptor is left: no reason to lose the end of an execution
            self.dirty = True
            told = {"files_cut": True}
        self._credit -= time.thread_time() - before
        return told

    def settle(self, root: int, path: str) -> None:
        """Know of a change that is not the kernel's: this file is as it is now, or gone."""
        parts = [part for part in path.split("/") if part not in ("", ".")]
        path = "/".join(parts)
        for known in [one for one in self._known if one.startswith(f"{path}/")] + [path]:
            self._known.pop(known, None)
        with suppress(OSError, UnsafePath):
            directory = open_directory(root, "/".join(parts[:-1]) or ".")
            try:
                status = os.lstat(parts[-1], dir_fd=directory)
            finally:
                os.close(directory)
            if stat.S_ISREG(status.st_mode):
                self._known[path] = _version(status)

    def moved(self, path: str, to: str) -> None:
        """Know that somebody who is not the kernel has renamed a file or a directory."""
        old, new = (
            "/".join(part for part in one.split("/") if part not in ("", ".")) for one in (path, to)
        )
        for known in [one for one in self._known if one == old or one.startswith(f"{old}/")]:
            self._known[new + known[len(old) :]] = self._known.pop(known)

    def _compared(self, root: int) -> dict[str, Any]:
        old, new = self._known, self._look(root)
        if not self._is_known:
            self._known, self._is_known = new, True
            return {"files_cut": True} if self._is_told else {}
        if self._is_cut:  # what was not seen need not be gone
            new = {**old, **new} if len(old) <= ENTRIES else new
        self._known = new
        changed: list[tuple[str, int | None, str]] = [
            (path, version[0], "modified" if path in old else "created")
            for path, version in new.items()
            if old.get(path) != version
        ]
        changed += [(path, None, "deleted") for path in old if path not in new]
        if not self._is_told:
            return {}
        told = _told(sorted(changed, key=itemgetter(0)))
        if self._is_cut:
            told["files_cut"] = True
        return told

    def _look(self, root: int) -> dict[str, Version]:
        """Return the version of each file, and watch every directory from before it was read."""
        self.dirty = False
        found: dict[str, Version] = {}
        seen, self._is_cut = 0, False
        waiting = [""]
        for number in range(DIRECTORIES):
            if not waiting:
                break
            prefix = waiting.pop(0)
            try:
                directory = open_directory(root, prefix or ".")
            except UnsafePath:  # it has gone
                continue
            try:
                watched = self._watches.add(self, directory, is_root=number == 0)
                # Where all watches are taken, everything is looked at again, in the same bounds.
                looked_at = not watched and self._watches.is_full
                self.dirty |= looked_at
                self._is_told = (watched or looked_at) if number == 0 else self._is_told
                self._is_cut |= not (watched or looked_at)
                seen += _read(directory, prefix, ENTRIES - seen, waiting, found)
                if seen > ENTRIES:
                    self._is_cut = True
                    return found
            finally:
                os.close(directory)
        self._is_cut |= bool(waiting)
        return found


def _read(
    directory: int, prefix: str, most: int, waiting: list[str], found: dict[str, Version]
) -> int:
    """Note the files and the directories in one; return how many names, one over `most` at most."""
    # Written for its speed: it runs on the event loop, once for each of `most` names.
    seen = 0
    with os.scandir(directory) as entries:
        for entry in entries:
            seen += 1
            if seen > most:
                break
            name = entry.name
            if entry.is_dir(follow_symlinks=False):
                if not name.startswith(".") and name not in SKIPPED and len(prefix) < MAX_PREFIX:
                    waiting.append(f"{prefix}{name}/")
            elif entry.is_file(follow_symlinks=False) and not name.startswith(PREFIX):
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:  # it has gone
                    continue
                found[prefix + name] = _version(status)
    return seen


def _version(status: os.stat_result) -> Version:
    return status.st_size, status.st_mtime_ns, status.st_ino


def _told(changed: list[tuple[str, int | None, str]]) -> dict[str, Any]:
    files: list[dict[str, Any]] = []
    room = TOLD_BYTES
    for path, size, change in changed[:TOLD]:
        shown = path.encode(errors="replace")
        room -= len(shown)
        if room < 0:
            break
        files.append({"path": shown.decode(), "size": size, "change": change})
    told: dict[str, Any] = {"files": files} if files else {}
    if more := len(changed) - len(files):
        told["files_more"] = more
    return told
