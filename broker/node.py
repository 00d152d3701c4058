"""What this node tells of itself: to the store, to operators, to whoever asks if it is ready."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

from broker.service import Service
from broker.store import NodeRecord
from broker.valkey import Valkey


class Confined(Protocol):
    """What is shown of how kernels are shut in."""

    @property
    def level(self) -> str:
        """Give the isolation."""

    @property
    def mode(self) -> str:
        """Give the way in which the sandbox is set up."""


@dataclass(frozen=True, slots=True)
class Node:
    """This broker among others."""

    name: str
    url: str
    capacity: int  # kernels
    service: Service
    default: Confined  # the default profile's kernels
    valkey: Valkey | None
    started: float = field(default_factory=time.time)

    def describe(self) -> NodeRecord:
        """Return the node's record, as it is now."""
        views = [pool.view() for pool in self.service.pools.values()]
        used, memory = self._used()
        return NodeRecord(
            node=self.name,
            url=self.url,
            version=version("kernel-broker"),
            capacity=self.capacity,
            warm=sum(one.warm for one in views),
            bound=sum(one.bound for one in views),
            draining=self.service.draining,
            started=self.started,
            isolation=self.default.level,
            mode=self.default.mode,
            memory=-1 if memory is None else memory,
            cpu_seconds=-1.0 if used is None else round(used, 3),
            counted=time.time(),
        )

    def _used(self) -> tuple[float | None, int | None]:
        """Return CPU seconds and bytes; None for what is not counted of every kernel."""
        cpu, memory = 0.0, 0
        for pool in self.service.pools.values():
            view, used = pool.view(), pool.source.used()
            if used.cpu_seconds is not None and used.memory is not None:
                cpu, memory = cpu + used.cpu_seconds, memory + used.memory
            elif view.warm or view.bound:
                return None, None
        return cpu, memory

    def processes(self) -> dict[str, Any]:
        """Return the node's own processes, and its store."""
        return {
            "broker": {"pid": os.getpid()},
            "zygotes": [
                {"profile": name, "pid": pool.source.zygote_pid}
                for name, pool in self.service.pools.items()
                if pool.source.zygote_pid
            ],
            "store": {
                "url": self.service.store.url,
                "embedded": self.valkey is not None,
                "restarts": self.valkey.restarts if self.valkey else 0,
            },
        }

    def unready(self, *, store_reachable: bool) -> list[str]:
        """Return why the node should get no new sessions; empty if it should."""
        reasons = []
        for name, pool in self.service.pools.items():
            snapshot = pool.snapshot()
            if snapshot.state != "ok":
                reasons.append(f"profile {name}: {snapshot.error}")
            elif not snapshot.warm and snapshot.target and snapshot.bound < snapshot.cap:
                reasons.append(f"profile {name}: no kernel is warm")
        if self.valkey is not None and self.valkey.trouble:
            reasons.append(f"the embedded store: {self.valkey.trouble}")
        elif not store_reachable:
            reasons.append("the store does not answer")
        if self.service.draining:
            reasons.append("draining")
        return reasons
