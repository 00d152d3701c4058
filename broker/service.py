"""The service: the only place that sequences the store, the pools and the sessions.

A session's kernel is taken from the pool and claimed in the store under the session's gate, and
given up the same way, so that a release is never overtaken by the next claim.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from broker.adoption import Adopter, Label, ServiceKernel, is_shared, read_label, recall, tighten
from broker.claims import OUT_OF_REACH, Claims, changed_meanwhile
from broker.errors import BrokerError, Draining, SessionElsewhere, StoreUnavailable, UnknownSession
from broker.faults import bad_field
from broker.marks import Marks
from broker.metrics import Metrics
from broker.past import read_generations
from broker.pool import Pool
from broker.pools import Pools
from broker.protocol import OpenQuery
from broker.quotas import Quotas
from broker.reception import Reception
from broker.roles import Client, SessionKernel, SessionLimits
from broker.session import Session
from broker.store import Claim, SessionRecord, Store
from kernels.state import SessionState

logger = logging.getLogger(__name__)

# s after a binding before the pool is refilled, unless the first answer is out before, or still
# awaited then: forking a replacement at once would slow that very answer.
REFILL_AFTER = 0.15
CLOSE_AWAY = 1001
CLOSE_GONE = 4404
CLOSE_MOVED = 4409
Key = tuple[str, str]
Binding = asyncio.Task[BrokerError | None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ServiceLimits:
    """Bounds of the service. Seconds."""

    acquire_timeout: float = 30.0
    record_ttl: float = 86_400.0


class Service:
    """The sessions of this node."""

    def __init__(
        self,
        *,
        store: Store,
        pools: Pools,
        default_profile: str,
        session_limits: Mapping[str, SessionLimits],
        limits: ServiceLimits,
        metrics: Metrics,
        quotas: Quotas | None = None,
        marks: Marks | None = None,
    ) -> None:
        self.quotas = quotas or Quotas()
        self.store = store
        self.pools = pools
        self.default_profile = default_profile
        self.session_limits = session_limits
        self.limits = limits
        self.claims = Claims(store, limits.record_ttl)
        self.metrics = metrics
        self.marks = marks or Marks(None, 64)
        self.sessions: dict[Key, Session] = {}
        self.draining = False
        self._watchers: list[Callable[[Session], None]] = []
        self._gates: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._binding: dict[Session, Binding] = {}
        self._reception = Reception(
            limits.acquire_timeout, lambda tenant: self.quotas.of(tenant).waiting
        )
        self._ending: dict[Session, str] = {}  # why
        self._tasks: set[asyncio.Task[Any]] = set()
        metrics.watch_sessions(lambda: len(self.sessions))
        metrics.watch_clients(lambda: sum(len(s.audience.clients) for s in self.sessions.values()))

    def __repr__(self) -> str:
        return f"<Service {self.store.node}: {len(self.sessions)} sessions>"

    def on_change(self, watcher: Callable[[Session], None]) -> None:
        """Call the watcher whenever a session has come, gone, or done something."""
        self._watchers.append(watcher)

    def _changed(self, session: Session) -> None:
        for watcher in self._watchers:
            watcher(session)

    async def open(self, tenant: str, name: str, query: OpenQuery) -> Session:
        """Return the session, made if need be; its kernel may still be on its way.

        Who only watches starts nothing, and who joins makes nothing. Raises
        UnknownProfile, UnknownSession, SessionElsewhere, QuotaExceeded, Draining, StoreUnavailable.
        """
        key, watches = (tenant, name), query.mode == "watch"
        there = self.pools.profiles
        profile = self.quotas.profile(tenant, query.profile, self.default_profile, there)
        if key not in self.sessions and (watches or query.joins):
            await self.claims.refuse_elsewhere(tenant, name)
            if key not in self.sessions:
                raise UnknownSession(f"no session {name!r} is served")
        elif key not in self.sessions and not query.create:
            record = await self.store.get(tenant, name)
            if record is None or record.state == "closed":
                raise UnknownSession(f"no session {name!r}")
        session = self.sessions.get(key)
        if session is None:
            if self.draining:
                raise Draining("this node is draining and takes no new sessions")
            assured = self.pools.get(profile, tenant).source.assured
            limits = self.session_limits[profile].lowered(query.limits, assured)
            self.quotas.admit(tenant, limits.memory, self.sessions.values())
            session = self._new(key, profile, limits)
            self.sessions[key] = session
            self._changed(session)
        elif query.profile is not None and query.profile != session.profile:
            raise bad_field("profile", f"session {name!r} is of profile {session.profile!r}")
        else:
            session.limits.check_same(query.limits)
        if session.kernel is None and not watches:
            self.need_kernel(session)
        return session

    def need_kernel(self, session: Session) -> Binding | None:
        """Bind a kernel unless it has one, and return what tells what that is refused for."""
        if session not in self._binding and session.kernel is None:
            self._binding[session] = self._own(self._bind_or_refuse(session))
        return self._binding.get(session)

    async def _bind_or_refuse(self, session: Session) -> BrokerError | None:
        error: BrokerError | None = None
        try:
            async with session.gate:
                await self._bind(session)
        except BrokerError as refusal:
            logger.info("session=%s/%s no kernel: %s", *session.key, refusal)
            error = refusal
        except Exception:
            # A fault of ours: whoever waits must hear of it all the same.
            logger.exception("session=%s/%s no kernel", *session.key)
            error = BrokerError("internal error; the server's log has the details")
        finally:
            del self._binding[session]  # at once: a request that comes now needs another one
        if error is not None:
            session.work.refuse(error)
            self._changed(session)  # it is not busy any more
            if isinstance(error, SessionElsewhere):
                self._forget(session)
                session.close(CLOSE_MOVED, f"the session is on node {error.node} {error.url}")
            elif not session.audience.clients:
                self.left(session)
        return error

    async def _bind(self, session: Session) -> None:
        if session.kernel is not None or session.state is not SessionState.OPENING:
            return
        began = time.monotonic()
        pool = self.pool_of(session)
        kernel = await self._reception.kernel_for(session, pool)
        try:
            tighten(kernel, session.limits.asked)
            claim = await self._claim(session, kernel)
        except BaseException:
            self._own(pool.discard(kernel))
            raise
        session.created = claim.created
        session.past.know(read_generations(claim.history))
        kernel.keep_workspace = True  # it is the session's now, and goes with it
        session.workspace = kernel.workspace
        kernel.label(Label(*session.key, claim.generation, session.limits.asked).text)
        state = "fresh" if claim.generation == 1 else "lost"
        session.bind(kernel, claim.generation, state, claim.reason)
        later = asyncio.get_running_loop().call_later
        later(REFILL_AFTER, lambda: None if session.busy else pool.bound(kernel))
        self.metrics.kernel_bound(session.profile, time.monotonic() - began)
        self._changed(session)

    async def _claim(self, session: Session, kernel: ServiceKernel) -> Claim:
        claim = await self.claims.claim(session, kernel.kernel_id)
        if session.state is not SessionState.OPENING:
            refusal = changed_meanwhile(session.state)
            reason = self._ending.get(session, "node_lost")
            await self.claims.release(session, claim.generation, reason)
            raise refusal
        return claim

    # Ending

    def kernel_lost(self, session: Session, kernel: SessionKernel, reason: str) -> None:
        """Give the dead kernel's place back and write down why it ended."""
        self._own(self._after_loss(session, kernel, session.generation, reason))

    async def _after_loss(
        self, session: Session, kernel: SessionKernel, generation: int, reason: str
    ) -> None:
        async with session.gate:
            await self.pool_of(session).discard(kernel, reason)
            await self.claims.release(session, generation, reason)
        self._changed(session)

    async def end(
        self,
        key: Key,
        reason: str,
        *,
        spare: Client | None = None,
        code: int = CLOSE_GONE,
    ) -> int:
        """End a session and its kernel, and return the generation that ended.

        Raises UnknownSession, and SessionElsewhere if another node serves it.
        """
        session = self.sessions.pop(key, None)
        if session is None:
            await self.claims.refuse_elsewhere(*key)
            raise UnknownSession(f"no session {key[1]!r}")
        # Before the gate, which a binding may hold: no kernel gets what is queued from here on.
        kernel = session.drop_kernel(reason, last=True)
        session.close(code, reason, spare=spare)
        self._changed(session)
        self._ending[session] = reason
        self._reception.dismiss(session)
        try:
            async with session.gate:
                if kernel is not None:
                    await self.pool_of(session).discard(kernel, reason)
                if session.generation:
                    await self.claims.release(session, session.generation, reason)
        finally:
            del self._ending[session]
            self.drop_files(session)
        logger.info("session=%s/%s ended: %s", *key, reason)
        return session.generation

    async def restart(self, session: Session, *, keep_files: bool = True) -> int:
        """Replace the kernel by a new one and return its generation."""
        async with session.gate:
            if session.state is SessionState.CLOSED:
                raise UnknownSession(f"session {session.name!r} has ended")
            if session.state is SessionState.SUSPENDED:
                raise StoreUnavailable(OUT_OF_REACH)
            kernel = session.drop_kernel("restart")
            if kernel is not None:
                # To its end: two kernels are not to write to the same files.
                await self.pool_of(session).discard(kernel, "restart")
                await self.claims.release(session, session.generation, "restart")
            if not keep_files:
                self.drop_files(session)
            await self._bind(session)
        return session.generation

    def drop_files(self, session: Session) -> None:
        """Remove the files of a session that has no kernel any more."""
        workspace, session.workspace = session.workspace, None
        if workspace is not None:
            self.pool_of(session).source.drop_workspace(workspace)

    # Used by sessions

    def executed(
        self, session: Session, status: str, seconds: float, cpu: float | None = None
    ) -> None:
        """Count an execution; the pool may be refilled now that the session has its answer."""
        self.quotas.executed(session, cpu)
        self.metrics.execution_done(status, seconds)
        if session.kernel is not None:
            self.pool_of(session).bound(session.kernel)
        self._changed(session)

    def answered(self, seconds: float) -> None:
        """Count the wait for the first answer of a new kernel."""
        self.metrics.first_result(seconds)

    def caught_up(self, session: Session) -> None:
        """Have the adopted session's use written down."""
        self._changed(session)

    def left(self, session: Session) -> None:
        """Forget a session that never had a kernel, once nobody waits for one."""
        if not session.generation:
            self._reception.left(session)
        if not session.generation and session not in self._binding:
            self._forget(session)

    def _forget(self, session: Session) -> None:
        if self.sessions.get(session.key) is session:
            del self.sessions[session.key]
            (session.mark.forget if session.passing else session.mark.end)()
            self.drop_files(session)
            self._changed(session)

    # One-shot, adoption, listing

    @asynccontextmanager
    async def once(self, tenant: str, query: OpenQuery) -> AsyncIterator[Session]:
        """Open a session for one execution; it is gone, record and all, with the block."""
        name = f"once-{uuid.uuid4().hex}"
        session = await self.open(tenant, name, query)
        session.passing = True
        try:
            yield session
        finally:
            if session.key in self.sessions:
                await self.end(session.key, "done")

    async def adopt(self, profile: str, source: Adopter, tenant: str = "") -> int:
        """Take over the kernels that outlived the last broker; return how many sessions live on.

        `tenant` is whose they all are, where each has a source of its own.
        """
        pool = self.pools.get(profile, tenant)
        records = {record.kernel: record for record in await self.store.owned()}
        found = await source.adopt()
        before = len(self.sessions)
        for kernel, text in found:
            pool.adopt(kernel, bound=bool(text))
            label = read_label(text) if text else None
            if label is not None:
                self._adopt_session(profile, kernel, label, records.get(kernel.kernel_id))
            elif text:
                self._own(pool.discard(kernel, "restart"))
        return len(self.sessions) - before

    def _adopt_session(
        self, profile: str, kernel: ServiceKernel, label: Label, record: SessionRecord | None
    ) -> None:
        other = self.sessions.get(label.key)
        # Two kernels of one session are those of a restart that the last broker did not finish.
        if other is not None and other.generation >= label.generation:
            kernel.keep_workspace = is_shared(kernel, other.workspace)
            self._own(self.pools.get(profile, label.tenant).discard(kernel, "restart"))
            return
        if other is not None and (older := other.drop_kernel("restart")):
            older.keep_workspace = is_shared(kernel, other.workspace)
            self._own(self.pool_of(other).discard(older, "restart"))
        limits = self.session_limits[profile].still_lowered(label.asked)
        session = self._new(label.key, profile, limits)
        recall(session, record, label.generation)
        self.sessions[label.key] = session
        kernel.keep_workspace, session.workspace = True, kernel.workspace
        tighten(kernel, limits.asked, adopted=True)
        session.bind(kernel, label.generation, "warm", "")
        logger.info("session=%s/%s adopted, generation %d", *label.key, label.generation)
        self._changed(session)

    async def drain(self) -> None:
        """Take no new sessions from now on, and return once none is busy."""
        self.draining = True
        changed = asyncio.Event()
        self.on_change(lambda _: changed.set())
        while any(session.busy for session in self.sessions.values()):
            changed.clear()
            await changed.wait()

    async def aclose(self) -> None:
        """End every session."""
        self.draining = True
        for binding in tuple(self._binding.values()):
            binding.cancel()  # the ends would wait for them
        ends = [self.end(key, "shutdown", code=CLOSE_AWAY) for key in self.sessions]
        for failure in await asyncio.gather(*ends, return_exceptions=True):
            if failure is not None and not isinstance(failure, int):
                logger.error("a session did not end well", exc_info=failure)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)

    def pool_of(self, session: Session) -> Pool[Any]:
        """Return where the session's kernels come from."""
        return self.pools.get(session.profile, session.tenant)

    def _new(self, key: Key, profile: str, limits: SessionLimits) -> Session:
        # One gate a name, kept for as long as any session of that name is still ending.
        gate = self._gates.get(key) or self._gates.setdefault(key, asyncio.Lock())
        mark = self.marks.of(*key)
        return Session(*key, profile, limits=limits, gate=gate, host=self, mark=mark)

    def _own(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
