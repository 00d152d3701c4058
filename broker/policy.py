"""Decide what a pool should do, and which sessions have had their time.

Pure: views in, actions out. A pool's reconciler calls `decide()` on every event and deadline and
does what it says; the service does the same with `reap()`. Times are seconds of whichever clock
the caller uses throughout.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds and targets of one profile's pool. Counts and seconds."""

    warm: int = 4  # kernels kept started and unbound
    cap: int = 64  # kernels in any state, those still stopping included
    max_starting: int = 2  # starts at once: a fork storm would slow the kernels that work
    backoff_first: float = 0.5  # after the first failed start; doubles with each further one
    backoff_most: float = 60.0
    bind_pause: float = 2.0  # a binding longer than this no longer holds back the refill
    settle: float = 5.0  # a warm kernel that dies younger than this is a failed start
    start_timeout: float = 60.0  # a start without an answer has failed


@dataclass(frozen=True, slots=True)
class PoolView:
    """What `decide()` needs to know of a pool."""

    starting: int = 0
    warm: tuple[str, ...] = ()  # kernel ids, oldest first
    bound: int = 0
    stopping: int = 0
    binding: tuple[float, ...] = ()  # of the bound: when those still being bound were claimed
    waiting: int = 0  # callers that found nothing warm
    direct: int = 0  # callers that need a start of their own, whatever is warm
    promised: int = 0  # of the starting: such a caller's
    failures: int = 0  # failed starts in a row
    failed_at: float = 0.0  # when the last of them failed
    room: int | None = None  # kernels the node can still hold; None is no such bound
    owed: int = 0  # callers of other pools that still need a start; set with `room`
    ending: int = 0  # kernels of the node that are on their way out already; set with `room`

    @property
    def total(self) -> int:
        """Count the kernels that have, or may still have, a process."""
        return self.starting + len(self.warm) + self.bound + self.stopping


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and when to ask again if nothing happens before."""

    start: int = 0
    direct: int = 0  # starts of a caller's own, beside the others
    stop: tuple[str, ...] = ()
    wake_at: float | None = None


def next_attempt(failures: int, failed_at: float, limits: PoolLimits) -> float | None:
    """Return when the next start may be tried after failures in a row, or None for at once."""
    if failures == 0:
        return None
    # The exponent is bounded so that a profile broken for days does not overflow a float.
    delay = limits.backoff_first * 2.0 ** min(failures - 1, 64)
    return failed_at + min(delay, limits.backoff_most)


def startable(view: PoolView, limits: PoolLimits) -> int:
    """Return how many more kernels the pool's cap and the node have room for."""
    free = limits.cap - view.total
    return max(0, free if view.room is None else min(free, view.room))


def unserved(view: PoolView, limits: PoolLimits) -> int:
    """Return how many callers need a start that has not begun, and that the cap allows."""
    if view.failures:
        return 0  # a profile that cannot start takes nothing from one that can
    coming = len(view.warm) + view.starting - view.promised + view.stopping
    return max(0, min(view.waiting + view.direct - coming, limits.cap - view.total))


def decide(view: PoolView, limits: PoolLimits, now: float) -> Decision:
    """Return the actions that bring the pool to its target.

    Callers that wait come first; then callers of other pools, for whom spare kernels make way;
    then the warm target. Refill rests while a claimed kernel is being bound, so that it never
    slows a first answer. After a failed start only one is tried at a time, with growing pauses.
    """
    stop = _spare(view, limits)
    coming = len(view.warm) - len(stop) + view.starting - view.promised
    for_callers = max(0, view.waiting - coming)
    for_target = max(0, view.waiting + limits.warm - coming - for_callers)

    retry_at = next_attempt(view.failures, view.failed_at, limits)
    if retry_at is not None and now < retry_at:
        return Decision(stop=stop, wake_at=retry_at)
    room = startable(view, limits)
    direct = min(view.direct, room)
    room -= direct
    start = min(for_callers, room)
    pauses = [at + limits.bind_pause for at in view.binding if now < at + limits.bind_pause]
    if not pauses:
        start += min(for_target, max(0, room - start - view.owed))
    most = (limits.max_starting if retry_at is None else 1) - view.starting
    direct = max(0, min(direct, most))
    start = max(0, min(start, most - direct))
    return Decision(start, direct, stop, max(pauses) if pauses and for_target else None)


def _spare(view: PoolView, limits: PoolLimits) -> tuple[str, ...]:
    """Return the warm kernels to stop: those over the target, or that make way on a full node."""
    surplus = len(view.warm) - view.waiting - limits.warm
    reclaimed = view.owed - max(0, view.room or 0) - view.ending if view.owed else 0
    # Their own callers outrank spare kernels as well, unless nothing can start in their place.
    leaving_already = max(view.stopping, view.ending)
    pressed = view.direct - startable(view, limits) - leaving_already if not view.failures else 0
    leaving = max(0, min(len(view.warm), max(surplus, reclaimed, pressed)))
    return view.warm[len(view.warm) - leaving :]  # the youngest: the oldest is claimed next


class Sharer(Protocol):
    """What a budget needs of a pool."""

    @property
    def limits(self) -> PoolLimits:
        """Give the pool's own bounds."""

    def view(self) -> PoolView:
        """Return the pool's own part of its view."""

    def wake(self) -> None:
        """Have the pool decide again soon."""


class Budget:
    """A bound on the kernels of all pools of a node.

    A caller that waits in one pool outranks the spare kernels of another: those make way.
    """

    def __init__(self, max_kernels: int) -> None:
        self.max_kernels = max_kernels
        self._pools: dict[Sharer, tuple[int, int]] = {}  # what each last told the others

    def join(self, pool: Sharer) -> None:
        """Count the pool's kernels from now on."""
        self._pools[pool] = (0, 0)

    def leave(self, pool: Sharer) -> None:
        """Forget the pool: its kernels are gone, or no longer this node's."""
        if self._pools.pop(pool, None) is not None:
            self._wake_all_but(pool)

    def complete(self, view: PoolView, pool: Sharer) -> PoolView:
        """Return the pool's view with what it must know of the node."""
        views = {other: other.view() for other in self._pools if other is not pool}
        return replace(
            view,
            room=self.max_kernels - view.total - sum(other.total for other in views.values()),
            owed=sum(unserved(theirs, other.limits) for other, theirs in views.items()),
            ending=view.stopping + sum(theirs.stopping for theirs in views.values()),
        )

    def reclaimable(self, pool: Sharer) -> int:
        """Return how many kernels of other pools would make way for a caller of this one."""
        views = [other.view() for other in self._pools if other is not pool]
        return sum(len(view.warm) + view.stopping for view in views)

    def publish(self, pool: Sharer, view: PoolView) -> None:
        """Wake the other pools when this one has left room, or its callers' need has changed."""
        total, need = self._pools[pool]
        self._pools[pool] = (view.total, unserved(view, pool.limits))
        if view.total < total or self._pools[pool][1] != need:
            self._wake_all_but(pool)

    def _wake_all_but(self, pool: Sharer) -> None:
        for other in self._pools:
            if other is not pool:
                other.wake()


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How long a session may live. Seconds; 0 is no bound."""

    idle_timeout: float = 1800.0
    max_lifetime: float = 43200.0


@dataclass(frozen=True, slots=True)
class SessionView:
    """What `reap()` needs to know of a session."""

    tenant: str
    session: str
    created: float
    last_used: float  # the end of the last execution, or the creation: traffic does not count
    busy: bool = False  # an execution is running or queued


@dataclass(frozen=True, slots=True)
class Reaping:
    """Sessions to end, each with its reason (`idle`, `lifetime`), and when to ask again."""

    ended: tuple[tuple[SessionView, str], ...] = ()
    wake_at: float | None = None


def session_deadline(view: SessionView, limits: SessionLimits) -> tuple[float, str] | None:
    """Return when the session's time is up and why, or None if it never is."""
    deadlines = []
    if limits.idle_timeout:
        deadlines.append((view.last_used + limits.idle_timeout, "idle"))
    if limits.max_lifetime:
        deadlines.append((view.created + limits.max_lifetime, "lifetime"))
    return min(deadlines, default=None)


def reap(sessions: Iterable[SessionView], limits: SessionLimits, now: float) -> Reaping:
    """Return the sessions whose time is up.

    A busy session is never among them, and sets no deadline either: the end of its execution is
    an event, after which the caller asks again.
    """
    ended: list[tuple[SessionView, str]] = []
    wake_at: float | None = None
    for view in sessions:
        deadline = None if view.busy else session_deadline(view, limits)
        if deadline is None:
            continue
        when, reason = deadline
        if when <= now:
            ended.append((view, reason))
        elif wake_at is None or when < wake_at:
            wake_at = when
    return Reaping(tuple(ended), wake_at)
