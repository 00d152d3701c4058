"""Files of the session for what is too long to be shown: the text of a cell, and large outputs.

They are in the workspace, beneath the directory that the kernel began in, and so under its quota.
Nothing here raises because a file cannot be written: what cannot be kept is not, and says so.
"""

from __future__ import annotations

import os
import re
from binascii import a2b_base64
from collections.abc import Callable, Iterable
from typing import Any

from .publish import is_binary_type, pack

FOLDER = ".outputs"
MOST_FILES = 20  # the oldest make way
MOST_BYTES = 64 << 20  # of one file; and of all older ones, when one is made
CHUNK = 256 << 10  # characters that wait to be written together
ATTEMPTS = 100  # names tried: a count comes again where cells are not counted, and after a restart
_OURS = re.compile(r"\d{1,10}(?:-\d{1,3})?\.[a-z0-9]{1,5}")
_ENDS = {
    "text/plain": "txt",
    "text/html": "html",
    "text/markdown": "md",
    "text/latex": "tex",
    "image/png": "png",
    "image/jpeg": "jpg",
    "image/svg+xml": "svg",
    "application/pdf": "pdf",
    "application/javascript": "js",
}


class Outputs:
    """The folder of such files. Without a directory above it there are none."""

    def __init__(self, above: str = "", count: Callable[[], int] = lambda: 0) -> None:
        self._above = above
        self._count = count
        self._cell = 0

    def __repr__(self) -> str:
        return f"<Outputs in {self._above or 'no folder'}>"

    def begin(self) -> None:
        """Note which cell begins: later it counts as done."""
        if self._above:
            self._cell = self._count()

    def path(self, file: str) -> str:
        """Return where a file is, whatever directory the cell is in now."""
        return os.path.join(self._above, file)

    def create(self, end: str) -> tuple[str, int]:
        """Make an empty file; return its name, from where the kernel began, and its bound in bytes.

        It may take half of what is left of the quota: the rest is the session's. Raises OSError.
        """
        if not self._above:
            raise FileNotFoundError
        folder = self.path(FOLDER)
        os.makedirs(folder, exist_ok=True)
        self._make_way(folder)
        left = os.statvfs(folder)
        bound = min(MOST_BYTES, left.f_bavail * left.f_frsize // 2)
        for attempt in range(ATTEMPTS):
            name = f"{FOLDER}/{self._cell}{f'-{attempt}' if attempt else ''}.{end}"
            try:
                os.close(os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
            except FileExistsError:
                continue
            return name, bound
        raise FileExistsError

    def keep(self, data: Any) -> str:
        """Keep the largest form of an output; return the file's name, or none if it cannot be."""
        forms = ((mime, _bytes(mime, value)) for mime, value in dict(data).items())
        try:
            mime, content = max(forms, key=lambda form: len(form[1]))
            name, bound = self.create(_ENDS.get(mime) or ("json" if "json" in mime else "bin"))
            try:
                if len(content) > bound:
                    raise OSError
                _write(self.path(name), content, 0)
            except OSError:
                os.unlink(self.path(name))
                raise
        except (OSError, ValueError, TypeError):
            return ""
        return name

    def _make_way(self, folder: str) -> None:
        with os.scandir(folder) as entries:
            files = [(each.stat(follow_symlinks=False), each.path) for each in entries
                     if _OURS.fullmatch(each.name)]  # fmt: skip
        files.sort(key=lambda each: each[0].st_mtime_ns, reverse=True)
        size = 0
        for place, (status, path) in enumerate(files, 1):
            size += status.st_size
            if place >= MOST_FILES or size > MOST_BYTES:
                os.unlink(path)


class Spill:
    """All text of one execution, in a file: both streams, in the order in which it was written.

    The file is opened anew for each piece: a cell may close any descriptor, and have its number
    for a file of its own. Each piece has its place, so that one which a signal handler broke off
    is written once more.
    """

    def __init__(self, outputs: Outputs, before: Iterable[str]) -> None:
        self.file = ""
        self.kept = 0  # characters; of them the file has all, to the first that it has not
        self.whole = True  # there is nothing else
        self._waiting: list[str] = []
        self._size = 0  # characters that wait
        self._at = 0  # bytes
        self._path = ""
        try:
            self.file, self._left = outputs.create("txt")
            self._path = outputs.path(self.file)
        except OSError:
            self.whole = False
        for text in before:
            self.add(text)

    def add(self, text: str) -> None:
        """Take text; it is written with what comes next."""
        if not self.whole:
            return
        self._size += len(text)
        if self._size < CHUNK:
            self._waiting.append(text)
            return
        for start in range(0, len(text), CHUNK):  # what is written is encoded first
            if self.whole:
                self._waiting.append(text[start : start + CHUNK])
                self.write()

    def write(self) -> None:
        """Write what waits."""
        text = "".join(self._waiting)
        if not text or not self.whole:
            return
        data = text.encode(errors="replace")
        if len(data) > self._left - self._at:
            data = data[: max(0, self._left - self._at)]
            text = data.decode(errors="ignore")
            data = text.encode()
            self.whole = False
        try:
            _write(self._path, data, self._at)
        except OSError:  # no room, or the file is gone
            self.whole, self._waiting, self._size = False, [], 0
            if not self.kept:
                self.file = ""
            return
        self._at, self.kept, self._waiting, self._size = (
            self._at + len(data), self.kept + len(text), [], 0)  # fmt: skip

    @property
    def note(self) -> str:
        """Return what to say of the file where its text is missing."""
        if not self.file:
            return ""
        return f"; all are in {self.file}" if self.whole else (
            f"; the first {self.kept} of all are in {self.file}")  # fmt: skip


def _write(path: str, data: bytes, at: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, at)
            view, at = view[written:], at + written
    finally:
        os.close(descriptor)


def _bytes(mime: str, value: Any) -> bytes:
    """Return a value as it would be in a file. Raises ValueError for a picture that is none."""
    if not isinstance(value, str):
        return pack(value)
    return a2b_base64(value) if is_binary_type(mime) else value.encode(errors="replace")
