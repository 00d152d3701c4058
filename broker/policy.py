"""Decide what a pool should do, and which sessions have had their time.

Pure: views in, actions out. A pool's reconciler calls `decide()` on every event and deadline and
does what it says; the service ends a session at its `session_deadline()`. Times are seconds of
whichever clock the caller uses throughout.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Final, Protocol, TypeAlias

Key: TypeAlias = tuple[str, str]  # tenant and session

BURST: Final = 1.0  # s; claims that come within it are one burst
FADE: Final = 60.0  # s in which the memory of a burst fades to 1/e
# s beyond the time to make a kernel: the refill rests while kernels are bound and first answers
# are on their way, which a burst on two cores keeps up for about so long.
MARGIN: Final = 1.0
SMOOTH: Final = 0.1  # the part that the newest start has in the time to make one
HEAP_SLACK: Final = 64  # deadlines that count no more and are still held, beside as many that do
LEAST_STEP: Final = 0.001  # s; a deadline that rounding brings forward is not met over and over


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """Bounds and targets of one profile's pool. Counts and seconds."""

    warm: int = 4  # kernels kept started and unbound
    warm_most: int = 0  # as many when they are claimed fast; below `warm` it means no more
    cap: int = 64  # kernels in any state, those still stopping included
    max_starting: int = 2  # starts at once: more than there are cores would only share them
    backoff_first: float = 0.5  # after the first failed start; doubles with each further one
    backoff_most: float = 60.0
    bind_pause: float = 2.0  # bindings that go on for longer no longer hold back the refill
    settle: float = 5.0  # a warm kernel that dies younger than this is a failed start
    start_timeout: float = 60.0  # a start without an answer has failed


@dataclass(frozen=True, slots=True)
class Demand:
    """How fast kernels have been claimed of late, and how long it takes to make one.

    The most claims of any second count, and fade from then on: what came once in a burst is
    expected again, and less so from minute to minute.
    """

    recent: float = 0.0  # claims of the last second, as of `at`; older ones fade within it
    peak: float = 0.0  # the most that `recent` has been, faded; as of `at`
    at: float = 0.0  # of the last claim
    make: float = 0.1  # s from the begin of a start to a kernel that takes requests

    def claimed(self, now: float) -> Demand:
        """Count a claim."""
        age = max(0.0, now - self.at)
        recent = self.recent * math.exp(-age / BURST) + 1.0
        return replace(self, recent=recent, peak=max(recent, self.rate(now)), at=now)

    def made(self, seconds: float) -> Demand:
        """Learn from a start that took so long."""
        return replace(self, make=self.make + SMOOTH * (seconds - self.make))

    def rate(self, now: float) -> float:
        """Return the claims a second to be ready for."""
        return self.peak * math.exp(-max(0.0, now - self.at) / FADE)

    def target(self, limits: PoolLimits, now: float) -> int:
        """Return how many warm kernels there are to be."""
        return warm_target(self.rate(now), self.make, limits)

    def falls_at(self, limits: PoolLimits, now: float) -> float | None:
        """Return when the target is one less, if nothing is claimed before; None if it is least."""
        target = self.target(limits, now)
        if target <= limits.warm:
            return None
        level = self.peak * (self.make + MARGIN)
        return max(self.at + FADE * math.log(level / (target - 0.5)), now) + LEAST_STEP


def warm_target(rate: float, make: float, limits: PoolLimits) -> int:
    """Return how many warm kernels serve `rate` claims a second, if one takes `make` s to make."""
    wanted = math.ceil(min(rate * (make + MARGIN), limits.warm_most) - 0.5)
    return max(limits.warm, min(wanted, limits.cap))


@dataclass(frozen=True, slots=True)
class PoolView:
    """What `decide()` needs to know of a pool."""

    starting: int = 0
    warm: int = 0
    bound: int = 0
    stopping: int = 0
    binding: int = 0  # of the bound: those still being bound
    binding_since: float = 0.0  # since when there has always been one of those
    waiting: int = 0  # callers that found nothing warm
    direct: int = 0  # callers that need a start of their own, whatever is warm
    promised: int = 0  # of the starting: such a caller's
    failures: int = 0  # failed starts in a row
    failed_at: float = 0.0  # when the last of them failed
    demand: Demand = Demand()
    room: int | None = None  # kernels the node can still hold; None is no such bound
    owed: int = 0  # callers of other pools that still need a start; set with `room`
    ahead: int = 0  # other pools with such callers, whose turn comes first; set with `room`
    ending: int = 0  # kernels of the node that are on their way out already; set with `room`

    @property
    def total(self) -> int:
        """Count the kernels that have, or may still have, a process."""
        return self.starting + self.warm + self.bound + self.stopping


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and when to ask again if nothing happens before."""

    start: int = 0
    direct: int = 0  # starts of a caller's own, beside the others
    stop: int = 0  # of the warm ones, the youngest: the oldest is claimed next
    wake_at: float | None = None

    @property
    def starts(self) -> bool:
        """Tell whether anything is to be started."""
        return bool(self.start or self.direct)


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
    coming = view.warm + view.starting - view.promised + view.stopping
    return max(0, min(view.waiting + view.direct - coming, limits.cap - view.total))


def can_serve_another(view: PoolView, limits: PoolLimits, reclaimable: int) -> bool:
    """Tell whether one more caller would get a kernel.

    `reclaimable` kernels of other pools would make way.
    """
    room = min(startable(view, limits) + reclaimable, limits.cap - view.total)
    coming = view.warm + view.starting - view.promised + view.stopping
    return view.waiting + view.direct < coming + room


def decide(view: PoolView, limits: PoolLimits, now: float) -> Decision:
    """Return the actions that bring the pool to its target.

    Callers that wait come first; then callers of other pools, for whom spare kernels make way;
    then the warm target. Refill rests while a caller waits or a claimed kernel is being bound, so
    that it never slows a first answer. After a failed start only one is tried at a time, with
    growing pauses.
    """
    target, falls_at = view.demand.target(limits, now), view.demand.falls_at(limits, now)
    stop = _spare(view, limits, target)
    coming = view.warm - stop + view.starting - view.promised
    for_callers = max(0, view.waiting - coming)
    for_target = max(0, view.waiting + target - coming - for_callers)

    retry_at = next_attempt(view.failures, view.failed_at, limits)
    if retry_at is not None and now < retry_at:
        return Decision(stop=stop, wake_at=_first(retry_at, falls_at))
    room = startable(view, limits)
    in_turn = max(0, room - view.ahead)  # the rest is for a caller of each pool that comes first
    direct = min(view.direct, in_turn)
    room -= direct
    start = min(for_callers, in_turn - direct)
    rests_until = view.binding_since + limits.bind_pause if view.binding else now
    if rests_until <= now and not (view.waiting or view.direct):
        start += min(for_target, max(0, room - start - view.owed))
    most = (limits.max_starting if retry_at is None else 1) - view.starting
    direct = max(0, min(direct, most))
    start = max(0, min(start, most - direct))
    pause = rests_until if for_target and rests_until > now else None
    return Decision(start, direct, stop, _first(pause, falls_at))


def _first(*moments: float | None) -> float | None:
    return min((moment for moment in moments if moment is not None), default=None)


def _spare(view: PoolView, limits: PoolLimits, target: int) -> int:
    """Count the warm kernels to stop: those over the target, or that make way on a full node."""
    surplus = view.warm - view.waiting - target
    reclaimed = view.owed - max(0, view.room or 0) - view.ending if view.owed else 0
    # Their own callers outrank spare kernels as well, unless nothing can start in their place.
    leaving_already = max(view.stopping, view.ending)
    pressed = view.direct - startable(view, limits) - leaving_already if not view.failures else 0
    return max(0, min(view.warm, max(surplus, reclaimed, pressed)))


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

    A caller that waits in one pool outranks the spare kernels of another: those make way. Where
    callers of several pools wait, these take turns: no profile is starved by another's sessions.
    """

    def __init__(self, max_kernels: int) -> None:
        self.max_kernels = max_kernels
        # What each last told the others; whose turn it is to start one for a caller, first.
        self._pools: dict[Sharer, tuple[int, int]] = {}

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
        need = {other: unserved(theirs, other.limits) for other, theirs in views.items()}
        first = takewhile(lambda other: other is not pool, self._pools)
        return replace(
            view,
            ahead=sum(bool(need[other]) for other in first),
            room=self.max_kernels - view.total - sum(other.total for other in views.values()),
            owed=sum(need.values()),
            ending=view.stopping + sum(theirs.stopping for theirs in views.values()),
        )

    def reclaimable(self, pool: Sharer) -> int:
        """Return how many kernels of other pools would make way for a caller of this one."""
        views = [other.view() for other in self._pools if other is not pool]
        return sum(view.warm + view.stopping for view in views)

    def publish(self, pool: Sharer, view: PoolView, *, took_turn: bool = False) -> None:
        """Wake the other pools when this one has left room, or its callers' need has changed.

        `took_turn` is whether it has started one for its callers: all others come before it then.
        """
        total, need = self._pools.pop(pool) if took_turn else self._pools[pool]
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
    """What `session_deadline()` needs to know of a session."""

    created: float
    last_used: float  # the end of the last execution, or the creation: traffic does not count
    busy: bool = False  # an execution is running or queued


def session_deadline(view: SessionView, limits: SessionLimits) -> tuple[float, str] | None:
    """Return when the session's time is up and why (`idle`, `lifetime`), or None if it never is.

    A busy session has no deadline: the end of its execution is an event, after which to ask again.
    """
    deadlines = []
    if limits.idle_timeout and not view.busy:
        deadlines.append((view.last_used + limits.idle_timeout, "idle"))
    if limits.max_lifetime and not view.busy:
        deadlines.append((view.created + limits.max_lifetime, "lifetime"))
    return min(deadlines, default=None)


class Deadlines:
    """When to look at which session again: finds those that are due without a look at the others.

    A deadline that has moved back is found out when it is due, and expected anew.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, Key]] = []
        self._at: dict[Key, float] = {}

    def expect(self, key: Key, when: float) -> bool:
        """Have the session looked at by then, and tell whether that is before all others."""
        if self._at.get(key, math.inf) <= when:
            return False
        self._at[key] = when
        heapq.heappush(self._heap, (when, key))
        return self._heap[0] == (when, key)

    def forget(self, key: Key) -> None:
        """Expect nothing of a session that has ended."""
        self._at.pop(key, None)
        if len(self._heap) > 2 * len(self._at) + HEAP_SLACK:
            self._heap = sorted((when, key) for key, when in self._at.items())

    def due(self, now: float) -> Iterator[Key]:
        """Take out those whose time has come, the earliest first."""
        while (next_at := self.next_at) is not None and next_at <= now:
            _, key = heapq.heappop(self._heap)
            del self._at[key]
            yield key

    @property
    def next_at(self) -> float | None:
        """Return the earliest, or None."""
        while self._heap and self._at.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)  # it was brought forward, and that one counts
        return self._heap[0][0] if self._heap else None
