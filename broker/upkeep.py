"""What has to be done in time: leases renewed, uses written down, idle sessions ended.

Each task sleeps until an event or its next deadline. When the store is out of reach, no kernel is
killed for it: sessions refuse new work before their lease can end elsewhere, and go on when the
store is back and has no higher generation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Self

from broker.errors import BrokerError, StoreUnavailable
from broker.policy import Deadlines, SessionView, session_deadline
from broker.policy import SessionLimits as ReapLimits
from broker.roles import SessionKernel
from broker.service import CLOSE_MOVED, Key, Service
from broker.session import Session
from broker.store import Lease, NodeRecord, Renewal, Touch
from kernels.state import SessionState

logger = logging.getLogger(__name__)

END_PATIENCE = 5.0  # s that one session's end may keep the others from theirs
WRITE_BEHIND = 0.5  # s that uses are gathered before they are written in one round trip


class Upkeep:
    """The timed work of one service, while its `async with` lasts."""

    def __init__(
        self,
        service: Service,
        *,
        lease: float,
        describe: Callable[[], NodeRecord],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._lease = lease
        self._describe = describe
        self._clock = clock
        self._deadline: asyncio.TimerHandle | None = None  # when no lease is sure any more
        self._reachable = True
        self._suspended = False
        self._used: dict[tuple[str, str], Touch] = {}
        self._written = asyncio.Event()
        # Idleness and lifetime are no settings of a profile: one is as good as another.
        limits = service.session_limits[service.default_profile]
        self._bounds = ReapLimits(limits.idle_timeout, limits.max_lifetime)
        self._deadlines = Deadlines()
        self._earlier = asyncio.Event()  # one is before all others
        self._tasks: set[asyncio.Task[None]] = set()
        service.on_change(self._changed)

    @property
    def store_reachable(self) -> bool:
        """Tell whether the last renewal reached the store."""
        return self._reachable

    async def __aenter__(self) -> Self:
        self._trust_from(self._clock())
        await self._renew()
        for work in (self._renewing, self._writing, self._reaping):
            self._own(self._for_ever(work))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._deadline is not None:
            self._deadline.cancel()
        with suppress(BrokerError):
            await self._write()
            await self._service.store.drop_node()

    def _own(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _for_ever(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception:
                # A fault of ours must not end the renewals with it.
                logger.exception("upkeep: %s failed", work.__name__)
                await asyncio.sleep(1)

    def _changed(self, session: Session) -> None:
        # Only a release may write that a session is closed: it has more to write than that.
        if session.generation and session.state is not SessionState.CLOSED:
            self._used[session.key] = Touch(
                session.tenant,
                session.name,
                session.generation,
                str(session.state),
                session.work.last_used,
                session.expires,
            )
            self._written.set()
        if session.key in self._service.sessions:  # another of its name, perhaps
            self._expect(session)
        else:
            self._deadlines.forget(session.key)

    # Leases

    async def _renewing(self) -> None:
        began = self._clock()
        while True:
            # From the last beginning: an attempt that hung has used up the time to the next.
            await asyncio.sleep(max(0.0, began + self._lease / 3 - self._clock()))
            began = self._clock()
            await self._renew()

    async def _renew(self) -> None:
        """Renew every lease, and the node's record."""
        # Not those of one-shots: a renewal that comes after the release would write the record
        # again, and nobody else ever claims such a name.
        held = [
            (session, session.kernel)
            for session in self._service.sessions.values()
            if session.kernel is not None and not session.passing
        ]
        began = self._clock()
        try:
            answers = await self._service.store.renew([_lease(session) for session, _ in held])
        except StoreUnavailable as error:
            logger.warning("leases not renewed: %s", error)
            self._reachable = False
            return
        self._trust_from(began)
        moved: set[Session] = set()
        for (session, kernel), answer in zip(held, answers, strict=True):
            # An answer about a kernel that has gone meanwhile says nothing about the next one.
            if answer is Renewal.LOST and session.kernel is kernel:
                moved.add(session)
                self._own(self._give_up(session, kernel))
        self._resume(moved)
        if self._used:
            self._written.set()  # what could not be written before
        try:
            await self._service.store.put_node(self._describe())
        except StoreUnavailable as error:
            logger.warning("the node's record is not written: %s", error)

    def _trust_from(self, renewed_at: float) -> None:
        """Set the time to suspend: nobody may take a session over while it takes work here."""
        if self._deadline is not None:
            self._deadline.cancel()
        delay = renewed_at + self._lease * 2 / 3 - self._clock()
        self._deadline = asyncio.get_running_loop().call_later(delay, self._suspend)

    def _suspend(self) -> None:
        logger.error("leases are in doubt: sessions take no new work until the store answers")
        self._reachable = False
        self._suspended = True
        for session in self._service.sessions.values():
            session.suspend()

    def _resume(self, moved: set[Session]) -> None:
        if self._suspended:
            logger.warning("the store is back; %d sessions go on", len(self._service.sessions))
        self._reachable = True
        self._suspended = False
        for session in tuple(self._service.sessions.values()):
            if session not in moved:
                session.resume()

    async def _give_up(self, session: Session, kernel: SessionKernel) -> None:
        """End a kernel whose session the store gives to a higher generation."""
        async with session.gate:
            if session.kernel is not kernel:
                return  # it was lost or replaced while the gate was waited for
            logger.error("session=%s/%s has moved to another node", *session.key)
            self._service.sessions.pop(session.key)
            session.drop_kernel("moved", last=True)
            session.close(CLOSE_MOVED, "the session has moved; reconnect")
            await self._service.pool_of(session).discard(kernel, "moved")
            self._service.drop_files(session)

    # Uses

    async def _writing(self) -> None:
        while True:
            await self._written.wait()
            await asyncio.sleep(WRITE_BEHIND)
            await self._write()

    async def _write(self) -> None:
        rows, self._used = self._used, {}
        self._written.clear()
        try:
            await self._service.store.touch(list(rows.values()))
        except (StoreUnavailable, asyncio.CancelledError) as error:
            # Tried again with the next use, after the next renewal, or at the end.
            for key, row in rows.items():
                self._used.setdefault(key, row)
            if not isinstance(error, StoreUnavailable):
                raise
            logger.warning("uses not written: %s", error)

    # Idle sessions

    def _expect(self, session: Session) -> None:
        deadline = session_deadline(_view(session), self._bounds)
        if deadline is not None and self._deadlines.expect(session.key, deadline[0]):
            self._earlier.set()

    async def _reaping(self) -> None:
        for session in self._service.sessions.values():
            self._expect(session)
        while True:
            self._earlier.clear()
            for key in self._deadlines.due(time.time()):
                # One after another, but for what does not end: its kernel may hang.
                ending = self._own(self._end_if_due(key))
                if (await asyncio.wait([ending], timeout=END_PATIENCE))[0]:
                    ending.result()
            next_at = self._deadlines.next_at
            delay = None if next_at is None else max(0.0, next_at - time.time())
            with suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._earlier.wait()

    async def _end_if_due(self, key: Key) -> None:
        """End the session unless it has been used since it was expected to be idle."""
        session = self._service.sessions.get(key)
        if session is None:
            return
        deadline = session_deadline(_view(session), self._bounds)
        if deadline is not None and deadline[0] <= time.time():
            with suppress(BrokerError):
                await self._service.end(key, deadline[1])  # gone before anything is waited for
        else:
            self._expect(session)


def _view(session: Session) -> SessionView:
    return SessionView(session.created, session.work.last_used, session.busy)


def _lease(session: Session) -> Lease:
    return Lease(
        session.tenant,
        session.name,
        session.generation,
        session.kernel.kernel_id if session.kernel else "",
        session.profile,
        str(session.state),
        session.created,
        session.work.last_used,
        session.expires,
    )
