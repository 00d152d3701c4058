"""Count what the broker does, for Prometheus. The one file that imports prometheus_client.

Counts that some other part already keeps are asked for at each scrape rather than kept twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

# A bind from the warm pool takes milliseconds, one that waits for a cold start takes seconds.
BIND_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
EXECUTION_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600)

# Why kernels end: by themselves; at a bound; by somebody's word; not needed.
EXIT_CLASSES = frozenset(
    {
        *("exit", "signal", "unknown"),
        *("oom", "timeout", "cpu", "quota", "idle", "lifetime", "bad_frame"),
        *("killed", "closed", "restart", "shutdown", "moved", "drained", "done"),
        *("spare", "closing", "discarded"),
    }
)


def exit_class(reason: str) -> str:
    """Return the first word of an exit reason, one of a fixed set: labels must stay few."""
    word = reason.split(maxsplit=1)[0] if reason.strip() else ""
    return word if word in EXIT_CLASSES else "other"


class Metrics:
    """The metrics of one broker, in a registry of its own so that two brokers never share one."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._executions = Counter(
            "broker_executions", "Executions ended.", ["status"], registry=registry
        )
        self._by_status: dict[str, Counter] = {}
        self._execution_seconds = Histogram(
            "broker_execution_seconds",
            "From the start of an execution to its end.",
            buckets=EXECUTION_BUCKETS,
            registry=registry,
        )
        self._first_result_seconds = Histogram(
            "broker_first_result_seconds",
            "From the first request to a new kernel, its binding included, to its first answer.",
            buckets=BIND_BUCKETS,
            registry=registry,
        )
        self._bind_seconds = Histogram(
            "broker_bind_seconds",
            "From the request for a kernel to a kernel bound.",
            ["profile"],
            buckets=BIND_BUCKETS,
            registry=registry,
        )
        self._sessions = Gauge("broker_sessions", "Sessions on this node.", registry=registry)
        self._clients = Gauge("broker_clients", "Clients attached.", registry=registry)
        self._kernels = Gauge(
            "broker_kernels", "Kernels by state.", ["profile", "state"], registry=registry
        )
        self._target = Gauge(
            "broker_pool_target",
            "Warm kernels wanted; follows how fast they are claimed.",
            ["profile"],
            registry=registry,
        )
        self._kernel_exits = Counter(
            "broker_kernel_exits", "Kernels ended.", ["profile", "reason"], registry=registry
        )
        self._start_failures = Counter(
            "broker_pool_start_failures",
            "Kernels that did not come up, or died before they were used.",
            ["profile"],
            registry=registry,
        )
        self._isolation = Gauge(
            "broker_isolation_level",
            "How a profile's kernels are shut in: 0 none, 1 standard, 2 full.",
            ["profile"],
            registry=registry,
        )

    def execution_done(self, status: str, seconds: float) -> None:
        """Count an execution by the status of its `done`, and the seconds it ran."""
        counter = self._by_status.get(status)
        if counter is None:  # a look-up by label takes as long as everything else here
            counter = self._by_status[status] = self._executions.labels(status)
        counter.inc()
        self._execution_seconds.observe(seconds)

    def first_result(self, seconds: float) -> None:
        """Record how long an execution waited for the first answer of a new kernel."""
        self._first_result_seconds.observe(seconds)

    def kernel_bound(self, profile: str, seconds: float) -> None:
        """Record how long it took to give a session its kernel."""
        self._bind_seconds.labels(profile).observe(seconds)

    def kernel_exited(self, profile: str, reason: str) -> None:
        """Count the end of a kernel by the class of its reason."""
        self._kernel_exits.labels(profile, exit_class(reason)).inc()

    def pool_start_failed(self, profile: str) -> None:
        """Count a failed start of a profile's kernel."""
        self._start_failures.labels(profile).inc()

    def watch_sessions(self, count: Callable[[], float]) -> None:
        """Ask `count` for the number of sessions at each scrape."""
        self._sessions.set_function(count)

    def watch_clients(self, count: Callable[[], float]) -> None:
        """Ask `count` for the number of attached clients at each scrape."""
        self._clients.set_function(count)

    def watch_pool(
        self,
        profile: str,
        states: Iterable[str],
        count: Callable[[str], float],
        target: Callable[[], float],
    ) -> None:
        """Ask `count` for the number of a profile's kernels in each of the states at each scrape.

        And `target` for how many of them are to be warm.

        The failures of a profile show as 0 from here on: a series that is missing until the
        first failure cannot be alerted on.
        """
        self._start_failures.labels(profile)
        self._target.labels(profile).set_function(target)
        for state in states:
            self._kernels.labels(profile, state).set_function(partial(count, state))

    def watch_isolation(self, profile: str, level: Callable[[], float]) -> None:
        """Ask `level` how a profile's kernels are shut in at each scrape."""
        self._isolation.labels(profile).set_function(level)

    def render(self) -> tuple[bytes, str]:
        """Return the metrics as text, and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_LATEST
