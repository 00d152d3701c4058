"""List a directory that a stranger fills, page by page, in memory that the page bounds."""

from __future__ import annotations

import heapq
import os
import stat
from contextlib import suppress
from typing import Final, NamedTuple

from kernels.errors import UnsafePath
from kernels.safe_open import MAX_PATH, open_directory

PREFIX: Final = ".broker-part-"  # of what is being written or removed, in the workspace's root
KINDS: Final = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
Parts = tuple[str, ...]


class Entry(NamedTuple):
    """A name in a workspace. `kind` is file, directory, symlink or other; `mtime` Unix seconds."""

    path: str
    kind: str
    size: int
    mtime: float


def entry_of(path: str, status: os.stat_result) -> Entry:
    """Return what a listing says of a name."""
    kind = KINDS.get(stat.S_IFMT(status.st_mode), "other")
    return Entry(path, kind, status.st_size if kind == "file" else 0, status.st_mtime)


def walk(root: int, top: Parts, *, recursive: bool, after: Parts, limit: int) -> list[Entry]:
    """Return up to `limit` entries below `top`, those whose paths come later than `after`.

    Each directory comes right before what is in it.
    """
    found: list[Entry] = []
    levels: list[list[Entry]] = []  # what is still to be told, the next of each last
    depth = len(top)
    if len(after) > depth and after[:depth] == top:
        # Back to where the last page ended: each directory on the way, behind the part of the way.
        last = len(after) if recursive else depth + 1
        ways = [(after[:index], after[index]) for index in range(depth, last)]
        if recursive:
            ways.append((after, ""))
    else:
        ways = [(top, "")]
    levels = [_page(root, where, behind, limit) for where, behind in ways]
    while levels and len(found) < limit:
        if not levels[-1]:
            levels.pop()
            continue
        entry = levels[-1].pop()
        found.append(entry)
        if recursive and entry.kind == "directory":
            left = limit - len(found)
            below = _page(root, tuple(entry.path.split("/")), "", left)
            if len(below) >= left:  # nothing else will be told
                levels.clear()
            levels.append(below)
    return found


def _page(root: int, where: Parts, behind: str, count: int) -> list[Entry]:
    """Return the first entries of one directory behind a name, the last one first."""
    prefix = "".join(f"{part}/" for part in where)
    room = MAX_PATH - len(os.fsencode(prefix))
    try:
        directory = open_directory(root, prefix or ".")
    except UnsafePath:  # it has gone, or is no directory
        return []
    try:
        with os.scandir(directory) as entries:
            names = (entry.name for entry in entries)
            shown = (
                name
                for name in names
                if name > behind
                and len(os.fsencode(name)) <= room
                and not (name.startswith(PREFIX) and not where)
            )
            first = heapq.nsmallest(count, shown)
        page = []
        for name in reversed(first):
            with suppress(FileNotFoundError):
                page.append(entry_of(prefix + name, os.lstat(name, dir_fd=directory)))
        return page
    finally:
        os.close(directory)
