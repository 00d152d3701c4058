"""What this node tells of itself: to the store, to operators, to whoever asks if it is ready."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Protocol

from broker.service import Service
from broker.store import NodeRecord
from broker.valkey import Valkey


class Launching(Protocol):
    """What is shown of a profile's launcher."""

    @property
    def zygote_pid(self) -> int:
        """Give the zygote's process id, 0 while there is none."""

    @property
    def level(self) -> str:
        """Give the isolation of its kernels."""

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
    launchers: Mapping[str, Launching]
    valkey: Valkey | None
    started: float = field(default_factory=time.time)

    def describe(self) -> NodeRecord:
        """Return the node's record, as it is now."""
        snapshots = [pool.snapshot() for pool in self.service.pools.values()]
        default = self.launchers[self.service.default_profile]
        return NodeRecord(
            node=self.name,
            url=self.url,
            version=version("kernel-broker"),
            capacity=self.capacity,
            warm=sum(one.warm for one in snapshots),
            bound=sum(one.bound for one in snapshots),
            draining=self.service.draining,
            started=self.started,
            isolation=default.level,
            mode=default.mode,
        )

    def isolation(self, profile: str) -> dict[str, str]:
        """Return how the profile's kernels are shut in."""
        launcher = self.launchers[profile]
        return {"isolation": launcher.level, "mode": launcher.mode}

    def processes(self) -> dict[str, Any]:
        """Return the node's own processes, and its store."""
        return {
            "broker": {"pid": os.getpid()},
            "zygotes": [
                {"profile": name, "pid": launcher.zygote_pid}
                for name, launcher in self.launchers.items()
                if launcher.zygote_pid
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
