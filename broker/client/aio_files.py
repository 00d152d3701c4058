"""A session's files for asyncio: the twin of `files`, whose work is done in threads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import BinaryIO

from .files import PIECE, FileInfo, Files, Progress, Source


class AsyncFiles:
    """The files of one session; see `Files`. `on_progress` is called in a thread."""

    def __init__(self, files: Files, begin: Callable[[], Awaitable[object]] | None = None) -> None:
        self._files = files
        self._begin = begin

    async def list(self, path: str = "", *, recursive: bool = False) -> list[FileInfo]:
        """Return what is in a directory, by path; with all that is below it when asked."""
        await self._ready()
        return await asyncio.to_thread(self._files.list, path, recursive=recursive)

    async def upload(
        self,
        source: Source,
        path: str | None = None,
        *,
        replace: bool = True,
        on_progress: Progress | None = None,
    ) -> FileInfo:
        """Send a local file, by its name, or bytes, or what an open binary file has left."""
        await self._ready()
        return await asyncio.to_thread(
            self._files.upload, source, path, replace=replace, on_progress=on_progress
        )

    async def stream(
        self, path: str, *, start: int = 0, end: int | None = None, size: int = PIECE
    ) -> AsyncGenerator[bytes, None]:
        """Yield a file's bytes in pieces of `size`, from `start` to before `end`."""
        await self._ready()
        pieces = self._files.stream(path, start=start, end=end, size=size)
        try:
            while True:
                pending = asyncio.ensure_future(asyncio.to_thread(next, pieces, None))
                try:
                    piece = await asyncio.shield(pending)
                except asyncio.CancelledError:
                    await asyncio.wait([pending])  # nobody else may close what its thread runs
                    pending.cancelled() or pending.exception()
                    raise
                if piece is None:
                    return
                yield piece
        finally:
            await asyncio.to_thread(pieces.close)

    async def read(self, path: str, *, start: int = 0, end: int | None = None) -> bytes:
        """Return a file's bytes, from `start` to before `end`."""
        await self._ready()
        return await asyncio.to_thread(self._files.read, path, start=start, end=end)

    async def download(
        self,
        path: str,
        to: str | os.PathLike[str] | BinaryIO | None = None,
        *,
        on_progress: Progress | None = None,
    ) -> Path | None:
        """Fetch a file to a local path, a directory, or an open binary file."""
        await self._ready()
        return await asyncio.to_thread(self._files.download, path, to, on_progress=on_progress)

    async def delete(self, path: str, *, recursive: bool = False) -> None:
        """Remove a file, or a directory: an empty one, or with `recursive` all that is in it."""
        await self._ready()
        await asyncio.to_thread(self._files.delete, path, recursive=recursive)

    async def move(self, path: str, to: str, *, replace: bool = False) -> FileInfo:
        """Rename a file or a directory within the workspace; raises FileExists unless told."""
        await self._ready()
        return await asyncio.to_thread(self._files.move, path, to, replace=replace)

    async def mkdir(self, path: str) -> FileInfo:
        """Make a directory and those above it; one that is there already is left alone."""
        await self._ready()
        return await asyncio.to_thread(self._files.mkdir, path)

    async def _ready(self) -> None:
        if self._begin is not None:
            await self._begin()
