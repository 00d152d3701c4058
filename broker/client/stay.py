"""Waiting in a thread for an answer over HTTP that may be left: the broker ends what it was for."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from .errors import ConnectionLost

if TYPE_CHECKING:
    from http.client import HTTPConnection

T = TypeVar("T")


class Stay:
    """One request's wait. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: HTTPConnection | None = None
        self._is_left = False

    def begin(self, connection: HTTPConnection) -> None:
        """Note what to hang up; raises ConnectionLost if nobody waits any more."""
        with self._lock:
            self._connection = connection
            if self._is_left:
                raise ConnectionLost("nobody waits for the answer any more")

    def leave(self) -> None:
        """Hang up, or send no request, if that is not done yet; does not wait.

        Whoever reads the answer is told that the connection is lost.
        """
        with self._lock:
            self._is_left = True
            if self._connection is not None and self._connection.sock is not None:
                with suppress(OSError):  # closed meanwhile
                    # Not TLS's own, which would wait for the other end.
                    socket.socket.shutdown(self._connection.sock, socket.SHUT_RDWR)


async def waited_for(work: Callable[[Stay], T]) -> T:
    """Return what `work` returns in a thread; where the waiting is cancelled, hang up."""
    stay = Stay()
    try:
        return await asyncio.to_thread(work, stay)
    except asyncio.CancelledError:
        stay.leave()
        raise
