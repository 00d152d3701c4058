"""What each tenant may use of this node, and whether it may have more. Pure: counts, and a clock.

Sessions, memory and profiles are looked at when a session is opened, what runs and CPU time when
code is submitted. All of it is of this node alone, and none of it asks the store: several nodes
grant as many times as much.

Memory is the sum of the bounds of the tenant's sessions here, which their kernels are held to: what
they use at a moment is less, and to bound that would mean to end one for another's growth. CPU time
is counted as each execution ends, and bounds the next one: it has what is left of the hour then.
Those that run at once each have it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from math import inf
from types import MappingProxyType
from typing import Protocol
from weakref import WeakSet

from broker.errors import QuotaExceeded, UnknownProfile
from broker.settings import Tenant

HOUR = 3600.0
GRAIN = 60.0  # s of an hour that are counted together
AGAIN = 1.0  # s after which to try again, when nobody knows
TENANTS_KEPT = 1000  # whose hours are kept, though there is nothing in them


UNBOUND = Tenant()


class Limits(Protocol):
    """What a quota needs of a session's bounds."""

    @property
    def memory(self) -> int:
        """Give the bytes that its kernel is held to."""


class Place(Protocol):
    """What a quota needs of a session."""

    @property
    def tenant(self) -> str:
        """Name its tenant."""

    @property
    def limits(self) -> Limits:
        """Give its bounds."""

    @property
    def busy(self) -> bool:
        """Tell whether an execution runs or waits."""

    @property
    def expires(self) -> float:
        """Return when it ends if nothing more is executed; Unix seconds, 0 for never."""


class Hour:
    """CPU seconds of the last hour, by the minute."""

    def __init__(self) -> None:
        self._minutes: deque[tuple[float, float]] = deque()  # begin and seconds, oldest first
        self._total = 0.0

    def add(self, now: float, seconds: float) -> None:
        """Count some more."""
        self.total(now)
        begin = now - now % GRAIN
        if self._minutes and self._minutes[-1][0] == begin:
            seconds += self._minutes.pop()[1]
        self._minutes.append((begin, seconds))
        self._total = sum(used for _, used in self._minutes)  # sixty at most, and no drift

    def total(self, now: float) -> float:
        """Return what has been used."""
        while self._minutes and self._minutes[0][0] + GRAIN + HOUR <= now:
            self._minutes.popleft()
            self._total = sum(used for _, used in self._minutes)
        return self._total

    def below_at(self, bound: float, now: float) -> float:
        """Return when the total is below the bound, if nothing is added."""
        if self.total(now) < bound:
            return now
        minutes = list(self._minutes)
        for gone, (begin, _) in enumerate(minutes, 1):
            # Summed as `total` does: what is taken away from a sum leaves another rest.
            if sum(used for _, used in minutes[gone:]) < bound:
                return begin + GRAIN + HOUR
        return now


class Quotas:
    """The quotas of all tenants. `clock` is monotonic seconds, `calendar` Unix seconds."""

    def __init__(
        self,
        default: Tenant = UNBOUND,
        named: Mapping[str, Tenant] = MappingProxyType({}),
        *,
        clock: Callable[[], float] = lambda: 0.0,
        calendar: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._default = default
        self._named = named
        self._clock = clock
        self._calendar = calendar
        self._hours: dict[str, Hour] = {}
        self._pruned = 0.0  # when empty hours were last thrown away
        self._busy: dict[str, WeakSet[Place]] = {}  # those seen busy; some may have ended since

    def of(self, tenant: str) -> Tenant:
        """Return what a tenant may use."""
        return self._named.get(tenant, self._default)

    def profiles(self, tenant: str, there: Collection[str]) -> list[str]:
        """Return the profiles that a tenant may use, of those there are: its default first.

        They are in the order of names, and none of them is its default, where it may use all.
        """
        allowed = self.of(tenant).profiles
        return [name for name in allowed if name in there] if allowed else sorted(there)

    def profile(self, tenant: str, asked: str | None, default: str, there: Collection[str]) -> str:
        """Return the profile of a new session. Raises UnknownProfile, naming one's own only.

        `default` is the node's: for tenants that may use all profiles.
        """
        known = self.profiles(tenant, there)
        if asked is None:
            asked = known[0] if known and self.of(tenant).profiles else default
        if asked not in known:
            told = ", ".join(known) or "none"
            raise UnknownProfile(f"no profile {asked!r}; known: {told}", field="profile")
        return asked

    def admit(self, tenant: str, memory: int, sessions: Iterable[Place]) -> None:
        """Raise QuotaExceeded if the tenant may not open a session of so much memory, in bytes.

        `sessions` are those of this node.
        """
        quota = self.of(tenant)
        if not (quota.sessions or quota.memory):
            return
        own = [session for session in sessions if session.tenant == tenant]
        if quota.sessions and len(own) >= quota.sessions:
            raise self._full(own, "sessions", f"{len(own)} sessions of {quota.sessions} are open")
        used = sum(session.limits.memory for session in own)
        if quota.memory and used + memory > quota.memory:
            raise self._full(
                own,
                "memory",
                f"{used} of {quota.memory} bytes are given to sessions, {memory} more",
            )

    def _full(self, own: list[Place], field: str, words: str) -> QuotaExceeded:
        ends = [session.expires for session in own if session.expires and not session.busy]
        wait = min(ends, default=0.0) - self._calendar()
        return QuotaExceeded(
            f"{field}: {words}: as much as this tenant may have here; end one of its sessions",
            retry_after=round(max(AGAIN, wait), 3),
            field=field,
        )

    def submit(self, session: Place) -> None:
        """Note that a session is about to be busy. Raises QuotaExceeded."""
        self.check(session.tenant, session)
        if self.of(session.tenant).running:
            self._busy[session.tenant].add(session)

    def check(self, tenant: str, session: Place | None = None) -> None:
        """Raise QuotaExceeded if the tenant may run nothing now, in this session or a new one."""
        quota = self.of(tenant)
        if quota.cpu_hour:
            self._check_hour(tenant, quota.cpu_hour)
        if quota.running:
            self._check_running(tenant, session, quota.running)

    def cpu_left(self, session: Place) -> float:
        """Return the CPU seconds that an execution may take now: what is left of the hour."""
        bound = self.of(session.tenant).cpu_hour
        if not bound:
            return inf
        hour = self._hours.get(session.tenant)
        return max(0.0, bound - hour.total(self._clock())) if hour is not None else bound

    def _check_hour(self, tenant: str, bound: float) -> None:
        hour, now = self._hours.get(tenant), self._clock()
        if hour is not None and hour.total(now) >= bound:
            raise QuotaExceeded(
                f"cpu_hour: {hour.total(now):.1f} s of CPU time in the last hour; this tenant may"
                f" have {bound:g} s here; try again when `retry_after` has passed",
                retry_after=round(max(AGAIN, hour.below_at(bound, now) - now), 3),
                field="cpu_hour",
            )

    def _check_running(self, tenant: str, session: Place | None, bound: int) -> None:
        busy = self._busy.setdefault(tenant, WeakSet())
        if session is not None and session.busy:
            return
        if len(busy) >= bound:
            busy = self._busy[tenant] = WeakSet(one for one in busy if one.busy)
        if len(busy) >= bound:
            raise QuotaExceeded(
                f"running: {len(busy)} sessions run something, as many as this tenant may have here"
                " at once; wait for one of them",
                retry_after=AGAIN,
                field="running",
            )

    def executed(self, session: Place, cpu: float | None) -> None:
        """Count an execution that has ended; `cpu` in seconds, where somebody has counted them."""
        quota = self.of(session.tenant)
        if quota.running and not session.busy and (busy := self._busy.get(session.tenant)):
            busy.discard(session)
            if not busy:
                del self._busy[session.tenant]
        if quota.cpu_hour and cpu is not None and 0 < cpu < 1e9:
            now = self._clock()
            if len(self._hours) > TENANTS_KEPT and now - self._pruned >= GRAIN:
                self._pruned = now
                self._hours = {name: one for name, one in self._hours.items() if one.total(now)}
            self._hours.setdefault(session.tenant, Hour()).add(now, cpu)
