"""A loop on a thread, sockets, and handlers that raise: what tests of a kernel's end need."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any

from kernels.inside.peers import Peer
from kernels.inside.publish import Publisher

PATIENCE = 20.0  # s


class Alarm(Exception):
    """Raised by a signal handler, wherever it strikes."""


class Threaded:
    """A loop on a thread of its own, as the control thread's is."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def call(self, function: Any, *args: Any) -> Any:
        async def call() -> Any:
            return function(*args)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(PATIENCE)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(PATIENCE)
        self.loop.close()


def read(theirs: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += theirs.recv(min(1 << 16, count - len(data)))
    return data


def publishing(control: Threaded, peer: Peer) -> Publisher:
    """Return a publisher whose only subscriber wants everything."""
    publisher = Publisher()
    publisher.start(control.loop, control.thread)
    publisher.peers = [peer]
    peer.topics.add(b"")
    return publisher


class Raising:
    """Stands for an object during whose next call a signal handler raises: before it, or after."""

    def __init__(self, what: Any, name: str, *, after: bool = False) -> None:
        self._what = what
        self._name = name
        self._after = after
        self._done = False

    def __getattr__(self, name: str) -> Any:
        if name == self._name and not self._done:
            self._done = True
            return self._strike
        return getattr(self._what, name)

    def _strike(self, *args: Any) -> None:
        if self._after:
            getattr(self._what, self._name)(*args)
        raise Alarm
