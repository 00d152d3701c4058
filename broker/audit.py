"""Who did what, from where and when: one JSON line for each event, to a log and to a file.

It is off unless the settings say where it goes: who does what, and when, is personal data, and
nobody should keep it without having decided to. A line names a session, a tenant, a token by its id
and an address; code only by its SHA-256, unless the settings want it whole. No secret is in it.

The file is appended to, in batches and beside the loop; it may be moved away at any moment, and the
next batch begins a new one. A full or slow disk costs lines, which are counted, and no time.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from broker.errors import StateDirError
from broker.principal import Principal
from broker.session import Session
from broker.settings import Audit as Settings
from kernels.state import SessionState

logger = logging.getLogger(__name__)

LINE_MOST = 8 << 10  # bytes
CODE_MOST = 4096  # characters of code, where that is wanted
TEXT_MOST = 300  # characters of anything else
PENDING_MOST = 4 << 20  # bytes that wait to be written
GATHER = 0.1  # s in which lines are gathered for one write
REFUSALS = 20  # in a second; more are counted, so that nobody fills the disk by guessing
LOOK_AGAIN = 60.0  # s in which the same look is noted once: pages and tables look all the time
LOOKS = 10_000  # that are remembered
SHORTEST = ("at", "event", "tenant", "token", "ip", "session")


class AuditFile:
    """A file of lines, readable by its owner alone. Raises StateDirError if it cannot be made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[bytes] = []
        self._size = 0
        self._lost = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        try:
            self._descriptor = _opened(path)
        except OSError as error:
            raise StateDirError(
                f"audit.file: {path} cannot be written: {error.strerror}; name another file",
                field="audit.file",
            ) from error

    def add(self, line: bytes) -> None:
        """Have a line written soon; one that finds too many waiting is lost, and counted."""
        if self._descriptor < 0:
            return
        if self._size + len(line) > PENDING_MOST:
            self._lost += 1
            return
        self._pending.append(line)
        self._size += len(line)
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(GATHER, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        try:
            while self._pending:
                await asyncio.to_thread(self._write_now, self._taken())
        finally:
            self._writing = None

    def _taken(self) -> bytes:
        lost, self._lost = self._lost, 0
        if lost:
            told = {"at": round(time.time(), 3), "event": "lost", "lines": lost}
            self._pending.append(json.dumps(told).encode() + b"\n")
        data = b"".join(self._pending)
        self._pending.clear()
        self._size = 0
        return data

    def _write_now(self, data: bytes) -> None:
        try:
            if not _is_same(self._path, self._descriptor):  # it was moved away, or removed
                # The old one last: a number that was closed may be somebody else's by now.
                before, self._descriptor = self._descriptor, _opened(self._path)
                os.close(before)
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            self._lost += data.count(b"\n")
            logger.error("audit: lines are lost: %s: %s", self._path, error.strerror)

    async def aclose(self) -> None:
        """Write what waits, and close the file. Safe to call again."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await self._writing
        if self._pending:
            self._write_now(self._taken())
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


class Audit:
    """The lines. Without a file and a log it does nothing, and costs nothing."""

    def __init__(
        self,
        file: AuditFile | None = None,
        *,
        log: bool = False,
        code: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._log = log
        self._code = code
        self._clock = clock
        self._bound: WeakKeyDictionary[Session, int] = WeakKeyDictionary()  # generations told of
        self._second, self._refusals, self._untold = 0.0, 0, 0
        self._looks: dict[tuple[object, ...], float] = {}  # when each was noted, the oldest first
        self.on = log or file is not None

    async def aclose(self) -> None:
        """Write what waits."""
        if self._file is not None:
            await self._file.aclose()

    def record(
        self, event: str, who: Principal | None = None, ip: str | None = None, **more: Any
    ) -> None:
        """Note an event; of what else is known about it, None is left out."""
        if not self.on:
            return
        fields: dict[str, Any] = {"at": round(self._clock(), 3), "event": event}
        if who is not None:
            fields |= {"tenant": who.tenant, "token": who.token_id}
        fields |= {"ip": ip, **more}
        known = {
            name: value[:TEXT_MOST] if isinstance(value, str) and name != "code" else value
            for name, value in fields.items()
            if value is not None
        }
        line = json.dumps(known)  # in ASCII: what a client has named cannot break the line
        if len(line) > LINE_MOST:
            known = {name: known[name] for name in SHORTEST if name in known} | {"cut": True}
            line = json.dumps(known)
        if self._log:
            logger.info("%s", line)
        if self._file is not None:
            self._file.add(line.encode() + b"\n")

    def code(self, text: str) -> dict[str, Any]:
        """Return what is told of code: its digest and its size, and itself if that is wanted."""
        data = text.encode(errors="surrogatepass")
        told: dict[str, Any] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        if self._code:
            told["code"] = text[:CODE_MOST]
        return told

    def refused(self, who: Principal | None, ip: str | None, **more: Any) -> None:
        """Note that somebody was not let in; so many in a second, and then their number."""
        now = self._clock()
        if now - self._second >= 1:
            self._second, self._refusals = now, 0
        self._refusals += 1
        if self._refusals > REFUSALS:
            self._untold += 1
            return
        untold, self._untold = self._untold, 0
        self.record("refused", who, ip, **more, untold=untold or None)

    def looked(
        self, event: str, who: Principal | None, ip: str | None, **about: str | None
    ) -> None:
        """Note that somebody has looked at something; the same again only after a while."""
        key, now = (event, who, ip, *about.values()), self._clock()
        if now - self._looks.get(key, 0.0) < LOOK_AGAIN:
            return
        self._looks.pop(key, None)
        self._looks[key] = now
        if len(self._looks) > LOOKS:
            del self._looks[next(iter(self._looks))]
        self.record(event, who, ip, **about)

    def session_changed(self, session: Session) -> None:
        """Note that a session has got a kernel, has lost one, or has ended: call it on each change.

        What has not changed since costs a look into a table.
        """
        if not self.on:
            return
        before, now = self._bound.get(session, 0), session.generation
        ended = session.state is SessionState.CLOSED
        about: dict[str, Any] = {"tenant": session.tenant, "session": session.name}
        about["generation"] = now
        if now > abs(before) and session.kernel is not None:
            self._bound[session] = now
            self.record("opened", **about, profile=session.profile)
        elif before > 0 and session.kernel is None:
            self._bound[session] = -now  # told
            event = "ended" if ended else "lost"
            self.record(event, **about, reason=session.lost_reason)


def audit_of(settings: Settings) -> Audit:
    """Return the audit that the settings' `[audit]` wants. Raises StateDirError."""
    file = AuditFile(Path(settings.file).expanduser().absolute()) if settings.file else None
    return Audit(file, log=settings.log, code=settings.code)


def _opened(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)  # it may have been there before
    return descriptor


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        there, ours = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
