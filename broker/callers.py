"""Those who wait for a kernel of one pool, and what becomes of one who stops waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias

from broker import refusals
from broker.errors import BrokerError
from broker.policy import PoolView
from broker.stock import K
from broker.turns import Turns

Caller: TypeAlias = asyncio.Future[K]

TELL_AFTER = 0.05  # s in which moves of the queue are gathered before they are told
SMOOTH = 0.2  # the part that the newest gap between two turns has in the pace
AGAIN_LEAST, AGAIN_MOST = 1.0, 60.0  # s


def _nothing(position: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Asker:
    """For whom a kernel is asked.

    `may_wait` is how many of the tenant's may wait in a full pool, and `told` is called with the
    asker's place among all who wait there, from 1, whenever it has changed.
    """

    tenant: str = ""
    may_wait: int = 0
    told: Callable[[int], None] = _nothing


NOBODY = Asker()


@dataclass(slots=True, eq=False)
class Wait:
    """What is known of one who waits."""

    told: Callable[[int], None] | None = None
    workspace: object = None
    position: int = 0  # told last


class Callers(Generic[K]):
    """Waiting callers, in turns of their tenants; each future is one.

    `changed` is called when one comes or goes, `abandoned` with a kernel whose caller has gone.
    """

    def __init__(
        self, profile: str, *, changed: Callable[[], None], abandoned: Callable[[K], None]
    ) -> None:
        self._profile = profile
        self._changed = changed
        self._abandoned = abandoned
        self._any: Turns[Caller[K], Wait] = Turns()
        self._direct: Turns[Caller[K], Wait] = Turns()
        self._telling: asyncio.TimerHandle | None = None
        self._since = 0.0  # when somebody's turn came, last, or the first began to wait
        self._pace = 0.0  # s between two turns, of late, while somebody waits

    @property
    def waiting(self) -> int:
        """Count those whom any kernel serves; who is about to leave is among them."""
        return len(self._any)

    @property
    def direct(self) -> int:
        """Count those who need a start of their own, on a workspace of theirs."""
        return len(self._direct)

    def of(self, tenant: str) -> int:
        """Count those of a tenant."""
        return self._any.of(tenant) + self._direct.of(tenant)

    def check(self, asker: Asker, view: PoolView, cap: int) -> bool:
        """Return whether the asker may wait in a full pool: true, or it raises AtCapacity."""
        waiting = self.of(asker.tenant)
        if waiting >= asker.may_wait:
            raise refusals.no_room(self._profile, view, cap, waiting=waiting, again=self.again)
        return True

    @property
    def again(self) -> float:
        """Return the seconds after which one more may find room: a turn of each tenant."""
        return min(max(AGAIN_LEAST, self._pace * self._any.tenants), AGAIN_MOST)

    async def wait(self, timeout: float, asker: Asker = NOBODY, *, full: bool = False) -> K:
        """Wait for any kernel. Raises AtCapacity after `timeout` s, or what the pool fails with.

        `full` is whether somebody has to leave first: such a one is told its place.
        """
        caller = self._come(self._any, asker, Wait(asker.told if full else None))
        return await self._wait(caller, timeout, full=full)

    async def wait_direct(
        self, workspace: object, timeout: float, asker: Asker = NOBODY, *, full: bool = False
    ) -> K:
        """Wait for a kernel on this workspace; raises as `wait()` does."""
        caller = self._come(self._direct, asker, Wait(asker.told if full else None, workspace))
        return await self._wait(caller, timeout, full=full)

    def _come(self, turns: Turns[Caller[K], Wait], asker: Asker, wait: Wait) -> Caller[K]:
        loop = asyncio.get_running_loop()
        if not len(self._any) and not len(self._direct):
            self._since = loop.time()
        caller: Caller[K] = loop.create_future()
        turns.add(asker.tenant, caller, wait)
        return caller

    def next(self) -> Caller[K] | None:
        """Take out the first of those whom any kernel serves, or None."""
        found = self._next(self._any)
        return None if found is None else found[0]

    def next_direct(self) -> tuple[Caller[K], object] | None:
        """Take out the first of the others, with its workspace, or None."""
        found = self._next(self._direct)
        return None if found is None else (found[0], found[1].workspace)

    def _next(self, turns: Turns[Caller[K], Wait]) -> tuple[Caller[K], Wait] | None:
        while (found := turns.next()) is not None:
            if not found[0].done():
                self._note_turn()
                return found
        return None

    def _note_turn(self) -> None:
        now = asyncio.get_running_loop().time()
        gap = min(now - self._since, AGAIN_MOST)
        self._pace += SMOOTH * (gap - self._pace)
        self._since = now
        self._tell_soon()

    def fail(self, error: BrokerError) -> None:
        """Tell all of them that nothing will come."""
        for caller in (*self._any.clear(), *self._direct.clear()):
            if not caller.done():
                caller.set_exception(error)

    # Their places

    def _tell_soon(self) -> None:
        if self._telling is None and (len(self._any) or len(self._direct)):
            self._telling = asyncio.get_running_loop().call_later(TELL_AFTER, self._tell)

    def _tell(self) -> None:
        self._telling = None
        # Who needs a start of their own is served beside the others, with what there is room for.
        for turns in (self._direct, self._any):
            for position, (_, wait) in enumerate(turns.order(), 1):
                if wait.told is not None and wait.position != position:
                    wait.position = position
                    wait.told(position)

    async def _wait(self, caller: Caller[K], timeout: float, *, full: bool) -> K:
        self._changed()
        self._tell_soon()
        try:
            async with asyncio.timeout(timeout):
                return await caller
        except (TimeoutError, asyncio.CancelledError) as error:
            late = refusals.too_late(self._profile, timeout, self.again, full=full)
            return self._left(caller, error, late)

    def _left(self, caller: Caller[K], error: BaseException, late: BrokerError) -> K:
        """Settle with a caller whose time is up, or who was cancelled."""
        self._any.remove(caller)
        self._direct.remove(caller)
        self._changed()
        self._tell_soon()
        timed_out = isinstance(error, TimeoutError)
        if caller.done() and not caller.cancelled():
            failure = caller.exception()
            if failure is not None and timed_out:
                raise failure
            if failure is None and timed_out:
                return caller.result()  # it came in the very moment
            if failure is None:
                self._abandoned(caller.result())
        if timed_out:
            raise late from None
        raise error
