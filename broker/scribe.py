"""Writes what sessions have run into the store, behind their backs.

Nothing that is executed waits for it. What is lost by a kill of this process is what ended in the
last WRITE_BEHIND seconds; while the store is away, cells wait in their transcript, whose bounds
hold for them, too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import Self

from broker.errors import BrokerError
from broker.service import Key, Service
from broker.session import Session
from broker.store.cells import Cells, Part
from broker.transcript import Kept, Transcript
from kernels.state import SessionState

logger = logging.getLogger(__name__)

WRITE_BEHIND = 0.1  # s that cells are gathered before they are written
AT_ONCE = 100  # cells of a session written in one round trip,
BYTES_AT_ONCE = 256 << 10  # unless a single one is larger,
SESSIONS_AT_ONCE = 4  # and sessions: between two of them others have their turn
RETRY = 1.0  # s, while the store is away
MOST_ENDED = 32  # sessions that have ended and whose cells wait for the store; the oldest go


class Scribe:
    """The transcripts of one service's sessions, while its `async with` lasts."""

    def __init__(self, service: Service, cells: Cells) -> None:
        self._service = service
        self._cells = cells
        self._keep = service.limits.record_ttl
        self._dirty: dict[Session, None] = {}
        self._due = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        service.on_change(self._changed)

    def __repr__(self) -> str:
        return f"<Scribe: {len(self._dirty)} sessions to write>"

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._work())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        with suppress(BrokerError):
            await self._write()

    async def cells(self, key: Key, most: int) -> list[Kept]:
        """Return the last cells that a session has run, wherever it is served, the newest last.

        Raises StoreUnavailable: a part of them would be taken for all.
        """
        live = self._service.sessions.get(key)
        ended = [one for one in self._dirty if one.key == key and one is not live]
        here = ended if live is None else [*ended, live]
        waiting = [kept for session in here for kept in session.transcript.unwritten]
        stored = await self._cells.read(key, most)
        there = set(stored)
        # They are written in order: what stands before one that is there was written, too.
        written = max((n for n, kept in enumerate(waiting, 1) if kept.packed in there), default=0)
        found = [Kept(None, 0, packed) for packed in stored]
        return [*found, *waiting[written:]][-most:]

    def _changed(self, session: Session) -> None:
        transcript = session.transcript
        if session.passing or not transcript.is_kept:
            return
        closed = session.state is SessionState.CLOSED
        if transcript.unwritten or (closed and transcript.is_stored):
            self._dirty[session] = None
            self._due.set()

    async def _work(self) -> None:
        while True:
            await self._due.wait()
            await asyncio.sleep(WRITE_BEHIND)
            try:
                await self._write()
            except BrokerError as error:
                logger.warning("transcripts not written: %s", error)
                await asyncio.sleep(RETRY)
                self._due.set()

    async def _write(self) -> None:
        async with self._writing:
            self._due.clear()
            try:
                while some := tuple(islice(self._dirty, SESSIONS_AT_ONCE)):
                    await self._write_each(some)
            except BrokerError:
                self._forget_ended()
                raise

    async def _write_each(self, sessions: Sequence[Session]) -> None:
        """Write some cells of each; a session that cannot be written keeps no other from it."""
        try:
            await self._write_some(sessions)
        except BrokerError:
            raise
        except Exception:
            if len(sessions) > 1:
                for session in sessions:
                    await self._write_each([session])
                return
            logger.exception(
                "session=%s/%s not written; again with its next cell", *sessions[0].key
            )
            self._dirty.pop(sessions[0], None)

    async def _write_some(self, sessions: Sequence[Session]) -> None:
        """Write some cells of each; those of which all is written are not dirty any more."""
        kept = [self._next(session.transcript) for session in sessions]
        parts = [self._part(*both) for both in zip(sessions, kept, strict=True)]
        await self._cells.append(parts)
        for session, cells in zip(sessions, kept, strict=True):
            session.transcript.written(cells)
            if not session.transcript.unwritten:
                self._dirty.pop(session, None)

    def _next(self, transcript: Transcript) -> list[Kept]:
        some: list[Kept] = []
        room = BYTES_AT_ONCE
        for kept in islice(transcript.unwritten, AT_ONCE):
            if some and kept.size > room:
                break
            room -= kept.size
            some.append(kept)
        return some

    def _part(self, session: Session, cells: Sequence[Kept]) -> Part:
        rest = max(0.0, session.expires - time.time()) if session.expires else 0.0
        packed, transcript = [one.packed for one in cells], session.transcript
        return Part(
            session.key, packed, transcript.max_cells, transcript.max_bytes, self._keep + rest
        )

    def _forget_ended(self) -> None:
        ended = [one for one in self._dirty if one.state is SessionState.CLOSED]
        for session in ended[: max(0, len(ended) - MOST_ENDED)]:
            del self._dirty[session]
