"""When and where to connect again. Pure: the clock and the chance are given."""

from __future__ import annotations

from collections.abc import Callable

from .errors import BrokerError, ConnectionLost, SessionElsewhere, SessionMoved, TryAgain

FIRST_WAIT = 0.1  # s before the first attempt, at the most; doubled each time
MOST_WAIT = 5.0
SOUND = 5.0  # s that a connection lasts before its end counts as a new outage
ENDED = ("1000", "1009")  # close codes of what is not to be tried again


class Backoff:
    """When to connect again: exponential, with full jitter, `total` seconds for one outage."""

    def __init__(
        self,
        total: float,
        *,
        clock: Callable[[], float],
        uniform: Callable[[float, float], float],
    ) -> None:
        self.total = total
        self._clock = clock
        self._uniform = uniform
        self._since: float | None = None  # the outage began
        self._joined: float | None = None  # a connection was made, and nothing came of it yet
        self._tries = 0

    def joined(self) -> None:
        """Note that a connection was made; that alone does not end an outage."""
        self._joined = self._clock()

    def worked(self) -> None:
        """Note that something came of the connection: the next outage is another one."""
        self._since = self._joined = None
        self._tries = 0

    def wait(self, error: BrokerError) -> float | None:
        """Return how long to wait before the next attempt; None to give up."""
        now = self._clock()
        if self._joined is not None and now - self._joined > SOUND:
            self.worked()
        if not is_passing(error) or not self.total:
            return None
        if self._since is None:
            self._since = now
        most = min(FIRST_WAIT * 2.0 ** min(self._tries, 20), MOST_WAIT)
        self._tries += 1
        delay = max(self._uniform(0.0, most), error.retry_after or 0.0)
        return None if now + delay - self._since > self.total else delay


def is_passing(error: BrokerError) -> bool:
    """Tell whether what ended a connection, or kept it from opening, may be over soon."""
    return isinstance(error, ConnectionLost | TryAgain) and error.code not in ENDED


def next_url(home: str, now: str, error: BrokerError) -> str:
    """Return where to connect next: where the error points, or home when nobody is there.

    A token that went over TLS is not sent without.
    """
    url = error.url if isinstance(error, SessionMoved | SessionElsewhere) else ""
    if url and not (home.startswith("https:") and not url.startswith("https:")):
        return url.rstrip("/")
    return now if url or not isinstance(error, ConnectionLost) else home
