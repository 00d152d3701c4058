"""Asks a node again and again what its sessions use, for `broker top`."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from broker.client.door import Door

MEASURED = 100  # kernels in one request, at most
EVERY = "*"  # tenants


class Sample(NamedTuple):
    """What a node has said, and when, in monotonic seconds."""

    rows: list[dict[str, Any]]
    at: float
    node: str
    total: int


class Source:
    """The node that answers. Whoever is no operator sees the own tenant, and no kernel's pages."""

    def __init__(self, door: Door, tenant: str | None) -> None:
        self._door = door
        self._tenant = EVERY if tenant is None else tenant
        self._is_given = tenant is not None
        self._node = ""
        self._measures = True

    def sample(self) -> Sample:
        """Return the sessions of the node."""
        from broker.client import Forbidden
        from broker.client.door import MOST

        try:
            if not self._node:
                self._node = self._ask(limit=1)["node"]
            page = self._ask(node=self._node, limit=MOST)
        except Forbidden:
            if self._is_given or self._tenant != EVERY:
                raise
            self._tenant = ""
            return self.sample()
        return Sample(page["sessions"], time.monotonic(), self._node, page["total"])

    def measure(self, kernels: list[str]) -> list[dict[str, Any]]:
        """Return the kernels with their memory; none for who may not see them."""
        from broker.client import Forbidden

        if not kernels or not self._measures:
            return []
        query = {"memory": "true", "kernels": ",".join(kernels[:MEASURED])}
        try:
            told = self._door.call("GET", "/v1/pools", query=query)
        except Forbidden:
            self._measures = False
            return []
        return [kernel for pool in told["pools"] for kernel in pool["kernels"]]

    def _ask(self, **query: Any) -> Any:
        query["tenant"] = self._tenant or None
        return self._door.call("GET", "/v1/sessions", query=query)


class Sampler:
    """A thread that samples each `interval` s and calls back; `descriptor` is readable then."""

    def __init__(self, work: Callable[[], None], interval: float) -> None:
        self._work = work
        self._interval = interval
        self._due = threading.Event()
        self._ended = False
        self.descriptor, self._told = os.pipe()
        os.set_blocking(self._told, False)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; a request that is under way is left to itself."""
        self._ended = True
        self._due.set()

    def hurry(self) -> None:
        """Sample now."""
        self._due.set()

    def tell(self) -> None:
        """Wake who waits for the descriptor."""
        with suppress(BlockingIOError):  # it is awake
            os.write(self._told, b".")

    def heard(self) -> None:
        """Take note of what was told."""
        os.read(self.descriptor, 4096)

    def _run(self) -> None:
        while not self._ended:
            self._work()
            self.tell()
            self._due.wait(self._interval)
            self._due.clear()
