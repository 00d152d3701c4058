"""A TCP proxy that loses connections: cut after so many bytes, or swallowed without a word."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit


class Proxy:
    """Between a client and a broker.

    `lives()` gives how many bytes of the broker's each new connection lets through before it is
    cut, None for all. Every other cut is a reset.
    """

    def __init__(self, target: str, lives: Callable[[], int | None]) -> None:
        parts = urlsplit(target)
        self._target = (str(parts.hostname), int(parts.port or 80))
        self._lives = lives
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts = 0
        self.changed = threading.Condition()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._swallowed: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def wait_for_cuts(self, count: int, seconds: float = 60.0) -> None:
        """Return once so many connections have been cut."""
        with self.changed:
            assert self.changed.wait_for(lambda: self.cuts >= count, seconds), self.cuts

    def swallow(self) -> None:
        """From now on nothing goes through the connections there are, and nobody is told."""
        for pair in self._pairs:
            self._swallowed.update(pair)

    def close(self) -> None:
        """Close everything."""
        self._listener.close()
        for pair in self._pairs:
            self._end(pair)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            pair = (client, broker)
            self._pairs.append(pair)
            life = self._lives()
            for args in ((client, broker, pair, None), (broker, client, pair, life)):
                threading.Thread(target=self._carry, args=args, daemon=True).start()

    def _carry(
        self,
        source: socket.socket,
        sink: socket.socket,
        pair: tuple[socket.socket, socket.socket],
        life: int | None,
    ) -> None:
        left = life
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if source in self._swallowed:
                    continue
                sink.sendall(data if left is None else data[:left])
                if left is not None:
                    left -= len(data)
                    if left <= 0:
                        break
        if source in self._swallowed:
            return
        if left is not None and left <= 0:
            with self.changed:
                self.cuts += 1
                if self.cuts % 2:
                    linger = struct.pack("ii", 1, 0)  # close with a reset
                    sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.changed.notify_all()
        self._end(pair)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        for one in pair:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextmanager
def proxy(target: str, lives: Callable[[], int | None] = lambda: None) -> Iterator[Proxy]:
    """Run a proxy while the block lasts."""
    between = Proxy(target, lives)
    try:
        yield between
    finally:
        between.close()
