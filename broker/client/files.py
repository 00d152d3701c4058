"""A session's files: listed, sent and fetched in pieces, moved and removed."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias
from urllib.parse import unquote_to_bytes

from .door import Door
from .errors import BadRequest
from .wire import file_path, session_path

PIECE = 256 << 10  # bytes in memory at once
CONTROL = ("Cc", "Zl", "Zp")  # of Unicode: no local file is called so because a session's is
UNFINISHED = ".part"  # how the name of a file ends that is being fetched

Progress: TypeAlias = Callable[[int, int | None], object]  # bytes so far, and in all if known
Source: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A name in a session's workspace. `size` in bytes, `mtime` in Unix seconds.

    `type` is file, directory, symlink or other. Of a name that is no UTF-8, `path` is what
    `os.fsdecode` makes of it.
    """

    path: str
    type: str
    size: int
    mtime: float


class Files:
    """The files of one session. Paths are relative to its workspace, which is where its code runs.

    Raises NoSuchFile, BadPath, FileExists, FileConflict, WorkspaceFull, NoWorkspace, beside what
    any request may raise. Safe to share between threads.
    """

    def __init__(
        self,
        door: Door,
        session: str,
        begin: Callable[[], object] | None = None,
        *,
        tenant: str | None = None,
    ) -> None:
        self.session = session
        self.tenant = tenant  # whose, for the operator
        self._door = door
        self._begin = begin  # brings the session about

    def list(self, path: str = "", *, recursive: bool = False) -> list[FileInfo]:
        """Return what is in a directory, by path; with all that is below it when asked."""
        return [*self.iterate(path, recursive=recursive)]

    def iterate(self, path: str = "", *, recursive: bool = False) -> Iterator[FileInfo]:
        """Yield what is in a directory, page by page."""
        after: str | None = None
        while True:
            query = {"path": path or None, "recursive": "true" if recursive else None}
            page = self._call("GET", None, query={**query, "after": after})
            yield from map(_info, page["files"])
            after = page.get("next")
            if not after:
                return

    def upload(
        self,
        source: Source,
        path: str | None = None,
        *,
        replace: bool = True,
        on_progress: Progress | None = None,
    ) -> FileInfo:
        """Send a local file, by its name, or bytes, or what an open binary file has left.

        It is there under its path only when it is whole; directories are made. Without a path it
        gets the local file's name. With `replace=False`, raises FileExists for one that is there.
        """
        if isinstance(source, str | os.PathLike):
            with open(source, "rb") as file:
                return self.upload(
                    file, path or Path(source).name, replace=replace, on_progress=on_progress
                )
        if not path:
            raise BadRequest("name the path that the bytes are to have", field="path")
        body: Iterable[bytes]
        if isinstance(source, bytes | bytearray | memoryview):
            whole = memoryview(source).cast("B")
            length: int | None = len(whole)
            body = (bytes(whole[at : at + PIECE]) for at in range(0, len(whole), PIECE))
        else:
            body, length = iter(lambda: source.read(PIECE), b""), _left(source)
        if on_progress is not None:
            body = _counted(body, length, on_progress)
        headers = {} if replace else {"If-None-Match": "*"}
        self._ready()
        where = file_path(self.session, path)
        with self._door.exchange(
            "PUT", where, query=self._whose, body=body, length=length, headers=headers
        ) as response:
            return _info(json.loads(b"".join(self._door.pieces(response, PIECE))))

    def stream(
        self, path: str, *, start: int = 0, end: int | None = None, size: int = PIECE
    ) -> Generator[bytes, None, None]:
        """Yield a file's bytes in pieces of `size`, from `start` to before `end`."""
        for piece, _ in self._stream(path, start, end, size):
            yield piece

    def read(self, path: str, *, start: int = 0, end: int | None = None) -> bytes:
        """Return a file's bytes, from `start` to before `end`."""
        return b"".join(self.stream(path, start=start, end=end))

    def download(
        self,
        path: str,
        to: str | os.PathLike[str] | BinaryIO | None = None,
        *,
        on_progress: Progress | None = None,
    ) -> Path | None:
        """Fetch a file to a local path, a directory, or an open binary file.

        Without `to`, into the current directory under its own name, as in any directory: raises
        BadRequest for one with control characters. Returns the local path; it is there only when
        the file is whole.
        """
        if to is not None and not isinstance(to, str | os.PathLike):
            self._fetch(path, to, on_progress)
            return None
        local = Path(to or ".")
        if local.is_dir():
            local /= _plain_name(path)
        unfinished = local.with_name(local.name + UNFINISHED)
        try:
            with unfinished.open("wb") as file:
                self._fetch(path, file, on_progress)
            unfinished.replace(local)
        finally:
            unfinished.unlink(missing_ok=True)
        return local

    def delete(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, or a directory: an empty one, or with `recursive` all that is in it."""
        self._call("DELETE", path, query={"recursive": "true" if recursive else None}, wait=True)

    def move(self, path: str, to: str, *, replace: bool = False) -> FileInfo:
        """Rename a file or a directory within the workspace; raises FileExists unless told."""
        return _info(self._call("POST", path, body={"move_to": to, "replace": replace}))

    def mkdir(self, path: str) -> FileInfo:
        """Make a directory and those above it; one that is there already is left alone."""
        return _info(self._call("POST", path, body={"directory": True}))

    def _ready(self) -> None:
        if self._begin is not None:
            self._begin()

    @property
    def _whose(self) -> dict[str, Any]:
        return {"tenant": self.tenant}

    def _call(
        self, method: str, path: str | None, query: Mapping[str, Any] | None = None, **rest: Any
    ) -> Any:
        self._ready()
        asked = self._whose | {**(query or {})}
        if path is None:
            return self._door.call(
                method, session_path(self.session, "/files"), query=asked, **rest
            )
        return self._door.call(method, file_path(self.session, path), query=asked, **rest)

    def _fetch(self, path: str, file: BinaryIO, on_progress: Progress | None) -> None:
        done = 0
        for piece, total in self._stream(path, 0, None, PIECE):
            file.write(piece)
            done += len(piece)
            if on_progress is not None:
                on_progress(done, total)

    def _stream(
        self, path: str, start: int, end: int | None, size: int
    ) -> Iterator[tuple[bytes, int | None]]:
        if start < 0 or (end is not None and end < start):
            raise BadRequest("start and end: expected 0 <= start <= end", field="start")
        self._ready()
        if end == start:
            return  # HTTP has no way to ask for nothing
        last = "" if end is None else str(end - 1)
        headers = {"Range": f"bytes={start}-{last}"} if start or last else {}
        where = file_path(self.session, path)
        with self._door.exchange("GET", where, query=self._whose, headers=headers) as answer:
            total = answer.length
            for piece in self._door.pieces(answer, size):
                yield piece, total


def _info(row: dict[str, Any]) -> FileInfo:
    path = os.fsdecode(unquote_to_bytes(row["encoded"])) if "encoded" in row else str(row["path"])
    return FileInfo(path, str(row["type"]), int(row["size"]), float(row["mtime"]))


def _left(file: BinaryIO) -> int | None:
    """Return how many bytes an open file has left, or None where that cannot be told."""
    try:
        here = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(here)
    except (OSError, ValueError, AttributeError):
        return None
    return max(0, end - here)


def _counted(body: Iterable[bytes], total: int | None, tell: Progress) -> Iterator[bytes]:
    done = 0
    for piece in body:
        yield piece
        done += len(piece)
        tell(done, total)


def _plain_name(path: str) -> str:
    """Return a path's last part: what a session calls a file names none outside a directory."""
    name = path.rstrip("/").rpartition("/")[2]
    if name in ("", ".", ".."):
        raise BadRequest(f"no name for a local file in {path!r}", field="path")
    if any(unicodedata.category(one) in CONTROL for one in name):
        # It would act on the terminal of whoever lists the directory.
        why = "has control characters: name the local file"
        raise BadRequest(f"the name {name!r} {why}", field="path")
    return name
