"""Those who wait for a kernel of one pool, and what becomes of one who stops waiting."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeAlias

from broker import refusals
from broker.errors import BrokerError
from broker.stock import K

Caller: TypeAlias = asyncio.Future[K]


class Callers(Generic[K]):
    """Waiting callers, first come first served; each future is one.

    `changed` is called when one comes or goes, `abandoned` with a kernel whose caller has gone.
    """

    def __init__(
        self, profile: str, *, changed: Callable[[], None], abandoned: Callable[[K], None]
    ) -> None:
        self._profile = profile
        self._changed = changed
        self._abandoned = abandoned
        self._any: OrderedDict[Caller[K], None] = OrderedDict()
        self._direct: OrderedDict[Caller[K], object] = OrderedDict()

    @property
    def waiting(self) -> int:
        """Count those whom any kernel serves; who is about to leave is among them."""
        return len(self._any)

    @property
    def direct(self) -> int:
        """Count those who need a start of their own, on a workspace of theirs."""
        return len(self._direct)

    async def wait(self, timeout: float) -> K:
        """Wait for any kernel. Raises AtCapacity after `timeout` s, or what the pool fails with."""
        caller: Caller[K] = asyncio.get_running_loop().create_future()
        self._any[caller] = None
        return await self._wait(caller, timeout)

    async def wait_direct(self, workspace: object, timeout: float) -> K:
        """Wait for a kernel on this workspace; raises as `wait()` does."""
        caller: Caller[K] = asyncio.get_running_loop().create_future()
        self._direct[caller] = workspace
        return await self._wait(caller, timeout)

    def next(self) -> Caller[K] | None:
        """Take out the first of those whom any kernel serves, or None."""
        while self._any:
            caller, _ = self._any.popitem(last=False)
            if not caller.done():
                return caller
        return None

    def next_direct(self) -> tuple[Caller[K], object] | None:
        """Take out the first of the others, with its workspace, or None."""
        while self._direct:
            caller, workspace = self._direct.popitem(last=False)
            if not caller.done():
                return caller, workspace
        return None

    def fail(self, error: BrokerError) -> None:
        """Tell all of them that nothing will come."""
        waiting = [*self._any, *self._direct]
        self._any.clear()
        self._direct.clear()
        for caller in waiting:
            if not caller.done():
                caller.set_exception(error)

    async def _wait(self, caller: Caller[K], timeout: float) -> K:
        self._changed()
        try:
            async with asyncio.timeout(timeout):
                return await caller
        except (TimeoutError, asyncio.CancelledError) as error:
            return self._left(caller, error, timeout)

    def _left(self, caller: Caller[K], error: BaseException, timeout: float) -> K:
        """Settle with a caller whose time is up, or who was cancelled."""
        self._any.pop(caller, None)
        self._direct.pop(caller, None)
        self._changed()
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
            raise refusals.too_late(self._profile, timeout) from None
        raise error
