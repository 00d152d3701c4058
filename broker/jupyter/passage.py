"""Requests of Jupyter's clients that the kernel itself serves, until they are answered in full."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import takewhile

from broker.errors import BrokerError, KernelBusy, QueueFull, StoreUnavailable
from broker.jupyter.follower import Follower
from broker.jupyter.request import Request, State
from broker.session import Session
from kernels.state import SessionState

MOST_OPEN = 256  # requests of a session,
MOST_EACH = 64  # and of one client
MOST_AWAITING = 64  # requests that wait for a kernel,
MOST_WAITING = 8 << 20  # and their bytes
AWAIT = 30.0  # s that each of these does
DOUBT = 10.0  # s that a free kernel has to begin with what it was sent long ago, or to answer it
INFO = "kernel_info_request"
# What runs nobody's code, or the debugger's. The rest is served where its time is bounded: code
# that the control thread runs would keep it from hearing an interrupt.
CONTROL = (
    "create_subshell_request",
    "debug_request",
    "delete_subshell_request",
    "list_subshell_request",
    "usage_request",
)


class Passage:
    """The way of such requests to one session's kernel.

    `refuse` answers those it cannot take; `rest` is called when none is open any more.
    """

    def __init__(
        self,
        session: Session,
        refuse: Callable[[Request, BrokerError], None],
        rest: Callable[[], None],
    ) -> None:
        self._session = session
        self._refuse = refuse
        self._rest = rest
        self._open: dict[str, Request] = {}  # by the kernel's id of each
        self._awaiting: deque[Request] = deque()
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Passage: {len(self._open)} open, {len(self._awaiting)} wait for a kernel>"

    def __len__(self) -> int:
        return len(self._open)

    def find(self, msg_id: str) -> Request | None:
        """Return what the kernel knows by this id."""
        return self._open.get(msg_id)

    def send(self, request: Request) -> None:
        """Pass a request on, now or when there is a kernel.

        Raises QueueFull, KernelBusy, and what no code may run for.
        """
        session, kernel, asked = self._session, self._session.kernel, request.asked
        if asked.type != INFO:
            session.host.quotas.check(session.tenant, session)
            if session.state is SessionState.SUSPENDED:
                raise StoreUnavailable("the session store is out of reach; the session is safe")
        if len(self._open) >= MOST_OPEN:
            raise QueueFull(f"{MOST_OPEN} requests of this session are open already")
        if sum(one.follower is request.follower for one in self._open.values()) >= MOST_EACH:
            raise QueueFull(f"{MOST_EACH} requests of this client are open already")
        if kernel is None:
            self._await_kernel(request)
            return
        # Only kernels of ours are known to answer beside a cell what a cell has nothing to do with.
        request.is_beside = (asked.type in CONTROL and asked.channel == "control") or (
            asked.type == INFO and kernel.is_ours
        )
        channel = "control" if request.is_beside else "shell"
        subshell = asked.header.get("subshell_id")
        msg_id = kernel.channels.next_id()
        before = session.work.request_id if session.occupied else None
        self._open[msg_id] = request
        try:
            kernel.channels.send(
                channel,
                asked.type,
                asked.content_bytes,
                msg_id=msg_id,
                metadata=asked.metadata,
                subshell=subshell if isinstance(subshell, str) else None,
                buffers=asked.buffers,
            )
        except BlockingIOError:
            del self._open[msg_id]
            raise KernelBusy("the kernel reads no more requests") from None
        request.lighten()
        request.kernel = kernel
        self._wait(request, before)

    def _await_kernel(self, request: Request) -> None:
        size = request.asked.size + sum(one.asked.size for one in self._awaiting)
        if len(self._awaiting) >= MOST_AWAITING or size > MOST_WAITING:
            raise KernelBusy("the session has no kernel yet; ask again")
        self._awaiting.append(request)
        self._loop.call_later(AWAIT, self._leave_waiting, request)
        if request.follower.runs:  # who only watches starts nothing
            self._session.host.need_kernel(self._session)

    def _wait(self, request: Request, before: str | None) -> None:
        """Bound the time until it begins, or beside a cell, until it is answered.

        `before` is the kernel's id of what it ran when it was sent this, or None.
        """
        if seconds := self._session.limits.execution_timeout:
            act = partial(self._doubt, request, before)
            if request.is_beside:
                act = partial(self._give_up, request, "the kernel has not answered in time")
            request.set_timer(self._loop.call_later(seconds, act))

    def _doubt(self, request: Request, before: str | None) -> None:
        """Wait on if the kernel has something else to do first; or give it a last moment."""
        if self._is_behind(request, before):
            self._wait(request, before)
        else:
            request.set_timer(self._loop.call_later(DOUBT, self._expire, request))

    def _is_behind(self, request: Request, before: str | None) -> bool:
        """Tell whether what it was sent earlier keeps a kernel from a request."""
        session = self._session
        if session.occupied and session.work.request_id == before:
            return True
        earlier = takewhile(lambda one: one is not request, self._open.values())
        # Or it has begun, and what it says is held back for a client that reads slowly.
        return any(not (one.is_beside or one.is_idle) for one in earlier) or session.pace()

    def started(self, request: Request) -> None:
        """Bound the time of what runs in a cell's place, as a cell's is."""
        seconds = self._session.limits.execution_timeout
        if seconds and not request.is_beside:
            request.set_timer(self._loop.call_later(seconds, self._expire, request))

    def idle(self, request: Request) -> None:
        """Wait a little for the reply to what the kernel is done with: it may know of none."""
        request.set_timer(self._loop.call_later(DOUBT, self.drop, request))

    def drop(self, request: Request) -> None:
        """Forget one."""
        request.set_timer(None)
        for key in [key for key, one in self._open.items() if one is request]:
            del self._open[key]
        if not self._open:
            self._rest()

    def forget(self, follower: Follower) -> None:
        """Ask nothing more for a client; what the kernel has been asked goes on, for its time."""
        self._awaiting = deque(one for one in self._awaiting if one.follower is not follower)

    def begin(self, inform: Callable[[Request], None]) -> None:
        """Pass on what has waited for a kernel; `inform` tells what that is."""
        waiting, self._awaiting = self._awaiting, deque()
        for request in waiting:
            try:
                (inform if request.asked.type == INFO else self.send)(request)
            except BrokerError as error:
                self._refuse(request, error)

    def take_all(self) -> list[Request]:
        """Return what is open, of which nothing is any more."""
        taken = [*self._open.values()]
        for request in taken:
            self.drop(request)
        return taken

    def _leave_waiting(self, request: Request) -> None:
        if request in self._awaiting:
            self._awaiting.remove(request)
            self._give_up(request, "the session still has no kernel; ask again")

    def _give_up(self, request: Request, why: str) -> None:
        self._refuse(request, KernelBusy(why))
        request.follower.dispatch()

    def _expire(self, request: Request) -> None:
        msg_id = next((key for key, one in self._open.items() if one is request), "")
        kernel = self._session.kernel
        if kernel is None or kernel is not request.kernel:
            self.drop(request)
            return
        if msg_id:
            kernel.interrupt(msg_id)  # and not what runs beside it
        if request.state is State.SENT and not kernel.is_ours:
            self._give_up(request, "the kernel takes no notice of it")  # others may know no such
            return
        grace = self._session.limits.interrupt_grace
        request.set_timer(self._loop.call_later(grace, self._end_kernel, request))

    def _end_kernel(self, request: Request) -> None:
        if self._session.kernel is request.kernel:  # which takes what is open with it
            self._session.kill("timeout")
        else:
            self.drop(request)
