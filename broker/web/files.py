"""A session's files over HTTP: listed, sent and received in pieces, moved and removed."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import closing, suppress
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, TypeVar
from urllib.parse import quote, unquote_to_bytes

from tornado import web
from tornado.iostream import StreamClosedError

from broker.errors import (
    BadMessage,
    BrokerError,
    TooLarge,
    UnknownSession,
    WorkspaceFull,
)
from broker.principal import Deed
from broker.protocol import check_session_name, file_body
from broker.requests import FileBody
from broker.web.delivery import content_type, disposition, etag, requested_range
from broker.web.door import Face, code_of
from broker.web.queries import flag, whole
from broker.workspaces import Holding, hold, told
from kernels.files import Files, Opened, Upload
from kernels.walk import Entry

T = TypeVar("T")
CHUNK: Final = 256 << 10  # bytes read at once: some 50 µs of the loop's time
DRAINED: Final = 16 << 20  # bytes of a refused upload read to its end, so that the answer arrives
MAX_ORDER: Final = 32 << 10  # bytes of a JSON body; two paths fit
MAX_PAGE: Final = 10_000  # entries
PATIENCE: Final = 60.0  # s without a byte, and a transfer is given up
UNBOUNDED: Final = 1 << 62  # to Tornado: the workspace has a bound of its own
SANDBOXED: Final = "sandbox; default-src 'none'"


class FileFace(Face):
    """A handler with a session's files in its hands."""

    _holding: Holding | None = None

    async def hold(self, session: str) -> Holding:
        """Return the session's files, this request's until it ends."""
        key = (self.tenant, check_session_name(session))
        may_start = self.principal.may(Deed.RUN) and not self.visited
        self._holding = await hold(self.service, key, may_start=may_start)
        return self._holding

    async def aside(self, work: Callable[[Files], T]) -> T:
        """Run in a thread what may take its time with the files held; only a few at once."""
        async with self.house.walks.of(self.principal.tenant):
            if self._holding is None:
                raise UnknownSession("whoever asked has gone")
            # The thread's own: who asked may go before it has ended, and let go of the others.
            files = self._holding.files.copy()

            def worked() -> T:
                with closing(files):
                    return work(files)

            return await asyncio.to_thread(worked)

    def on_finish(self) -> None:
        """Let go of the files."""
        holding, self._holding = self._holding, None
        if holding is not None:
            holding.close()

    def compute_etag(self) -> None:
        """Have no version made of what was written: a file has its own."""


class FileList(FileFace):
    """`GET /v1/sessions/{session}/files`."""

    async def get(self, session: str) -> None:
        """List a directory: `path`, `recursive`, `limit`, `after` (a path, percent-encoded)."""
        given = self.request.query_arguments
        # As bytes: a file's name need not be UTF-8.
        path, after = (given.get(name, [b""])[-1] for name in ("path", "after"))
        limit, recursive = whole(self, "limit", 1000, MAX_PAGE), flag(self, "recursive")
        await self.hold(session)
        with told():
            found = await self.aside(
                lambda files: files.entries(
                    os.fsdecode(path),
                    recursive=recursive,
                    after=os.fsdecode(unquote_to_bytes(after)),
                    limit=limit + 1,
                )
            )
        page = found[:limit]
        self.answer(
            {
                "files": [described(entry) for entry in page],
                "next": cursor(page[-1].path) if len(found) > limit else None,
            }
        )


@web.stream_request_body
class OneFile(FileFace):
    """`/v1/sessions/{session}/files/{path}`."""

    _upload: Upload | None = None
    _refused: BrokerError | None = None
    _order = b""
    _moved = 0  # bytes, either way
    _watch: asyncio.TimerHandle | None = None
    _sending = False

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """Take a path as the bytes it is."""
        return os.fsdecode(value) if name == "path" else super().decode_argument(value, name)

    async def prepare(self) -> None:
        """Open the way for the body of a PUT, which then comes in pieces."""
        self.request.connection.set_max_body_size(UNBOUNDED)  # type: ignore[union-attr]
        try:
            await super().prepare()
            if self.request.method == "PUT":
                await self._begin()
        except BrokerError as error:
            if not self._is_short():
                raise
            self._refused = error

    def _is_short(self) -> bool:
        """Tell whether a refused body is read to its end: else nobody may hear why."""
        length = self.request.headers.get("Content-Length", "")
        waits = self.request.headers.get("Expect", "").lower() == "100-continue"
        return length.isdecimal() and 0 < int(length[:18]) <= DRAINED and not waits

    async def _begin(self) -> None:
        wanted = self.request.headers.get("If-None-Match", "")
        if wanted not in ("", "*"):
            raise BadMessage("If-None-Match: only * is known here", field="If-None-Match")
        holding = await self.hold(self.path_kwargs["session"])
        length = self.request.headers.get("Content-Length", "")
        most = holding.session.limits.workspace_bytes
        if most and length.isdecimal() and int(length[:18]) > most:
            raise WorkspaceFull(
                f"{int(length[:18]):,} bytes: the workspace holds {most:,}", field="workspace"
            )
        self._take_place()
        with told():
            self._upload = holding.files.write(self.path_kwargs["path"], replace=not wanted)

    def data_received(self, chunk: bytes) -> None:
        """Write a piece down as it comes."""
        self._moved += len(chunk)
        if self._refused is not None:
            return
        try:
            if self.request.method == "PUT" and self._upload is not None:
                with told():
                    self._upload.write(chunk)
            elif self.request.method == "POST":
                self._order += chunk
                if len(self._order) > MAX_ORDER:
                    raise TooLarge(f"the body is over {MAX_ORDER} bytes", field="body")
        except (BrokerError, OSError) as error:
            self._drop_upload()
            if isinstance(error, BrokerError) and self._is_short():
                self._refused = error
            else:
                status, about = code_of(error).http, (type(error), error, error.__traceback__)
                self.log_exception(*about)
                self.send_error(status, exc_info=about)

    async def put(self, session: str, path: str) -> None:
        """Give what has come its name; it is whole."""
        self._raise_refusal()
        upload = self._upload
        if self._holding is None or upload is None or self._finished:
            return
        self._holding.check()
        with told():
            made = upload.commit()
            self._holding.settle(path)
        # Not what stands there now: that may be the kernel's, or nothing any more.
        entry = Entry(path, "file", upload.size, upload.mtime)
        self.answer(described(entry), 201 if made else 200)

    async def head(self, session: str, path: str) -> None:
        """Say what a GET would."""
        await self._send(session, path)

    async def get(self, session: str, path: str) -> None:
        """Send a file, or a part of it."""
        await self._send(session, path)

    async def post(self, session: str, path: str) -> None:
        """Rename a file or a directory, or make a directory."""
        self._raise_refusal()
        body = file_body(self._order, self.house.bounds)
        holding = await self.hold(session)
        self.answer(*self._changed(holding, path, body))

    def _changed(self, holding: Holding, path: str, body: FileBody) -> tuple[dict[str, Any], int]:
        """Return what is there then, and the status."""
        files, new = holding.files, body.move_to
        if (new is None) != body.directory:
            raise BadMessage("move_to: give this, or directory as true", field="move_to")
        with told(new):
            if new is not None:
                entry = files.entry(path)._replace(path=new)
                files.move(path, new, replace=body.replace)
                holding.settle(path, new)
                return described(entry), 200
            made = files.make_directory(path)
            return described(files.entry(path)), 201 if made else 200

    async def delete(self, session: str, path: str) -> None:
        """Remove a file, or with `recursive=true` a directory and what is in it."""
        self._raise_refusal()
        recursive = flag(self, "recursive")
        holding = await self.hold(session)
        with told():
            await self.aside(lambda files: files.remove(path, recursive=recursive))
        holding.settle(path)
        self.answer({"path": shown(path), "removed": True})

    def _raise_refusal(self) -> None:
        if self._refused is not None:
            raise self._refused

    # Sending

    async def _send(self, session: str, path: str) -> None:
        self._raise_refusal()
        files = (await self.hold(session)).files
        self._take_place()
        with told():
            opened = files.open(path)
        try:
            await self._deliver(opened, path.rpartition("/")[2])
        finally:
            os.close(opened.descriptor)

    async def _deliver(self, opened: Opened, name: str) -> None:
        version = etag(opened.size, opened.mtime_ns, opened.inode)
        self.set_header("Accept-Ranges", "bytes")
        self.set_header("ETag", version)
        self.set_header("Last-Modified", formatdate(opened.mtime_ns / 1e9, usegmt=True))
        self.set_header("Content-Type", content_type(name))
        self.set_header("Content-Disposition", disposition(name))
        self.set_header("Content-Security-Policy", SANDBOXED)
        if self.check_etag_header():
            self.set_status(HTTPStatus.NOT_MODIFIED)
            return
        start, end = 0, opened.size
        asked = self.request.headers.get("Range", "")
        if asked and self.request.headers.get("If-Range", version) == version:
            try:
                part = requested_range(asked, opened.size)
            except ValueError as error:
                self.set_header("Content-Range", f"bytes */{opened.size}")
                refusal = {"code": "bad_message", "message": f"Range: {error}", "field": "Range"}
                self.answer({"error": refusal}, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                return
            if part is not None:
                start, end = part
                self.set_status(HTTPStatus.PARTIAL_CONTENT)
                self.set_header("Content-Range", f"bytes {start}-{end - 1}/{opened.size}")
        self.set_header("Content-Length", str(end - start))
        if self.request.method == "HEAD":
            return
        with suppress(StreamClosedError):
            await self._pour(opened.descriptor, start, end)

    async def _pour(self, descriptor: int, start: int, end: int) -> None:
        """Send these bytes, and no others; a file that has shrunk ends the connection."""
        await self.flush()
        while start < end:
            data = os.pread(descriptor, min(CHUNK, end - start), start)
            if not data:
                self._hang_up()
                return
            self.write(data)
            await self.flush()
            start += len(data)
            self._moved += len(data)

    # Bounds

    def _take_place(self) -> None:
        """Count among the transfers, and be watched for standing still. Raises AtCapacity."""
        self.house.transfers.take(self.principal.tenant)
        self._sending = True
        self._look_again(-1)

    def _look_again(self, before: int) -> None:
        if before == self._moved:
            self._hang_up()
            return
        later = asyncio.get_running_loop().call_later
        self._watch = later(PATIENCE, self._look_again, self._moved)

    def _hang_up(self) -> None:
        self.request.connection.close()  # type: ignore[union-attr]

    def on_connection_close(self) -> None:
        """Leave nothing of what has not come whole."""
        super().on_connection_close()
        self.on_finish()

    def on_finish(self) -> None:
        """Leave nothing of what was refused, and make room for the next. Called once or twice."""
        self._drop_upload()
        if self._watch is not None:
            self._watch.cancel()
        if self._sending:
            self._sending = False
            self.house.transfers.give_back(self.principal.tenant)
        super().on_finish()

    def _drop_upload(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.abort()


def described(entry: Entry) -> dict[str, Any]:
    """Return a file as it is told of; a name that is no text comes `encoded`, as URLs have it."""
    row: dict[str, Any] = {"path": shown(entry.path), "type": entry.kind}
    if row["path"] != entry.path:
        row["encoded"] = cursor(entry.path)
    return row | {"size": entry.size, "mtime": entry.mtime}


def shown(path: str) -> str:
    """Return a path as text that any JSON reader takes."""
    return path.encode(errors="replace").decode()


def cursor(path: str) -> str:
    """Return a path percent-encoded, byte by byte."""
    return quote(os.fsencode(path), safe="/")
