"""The sockets that a kernel listens on, and what becomes of those who connect."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from .asking import Asking
from .peers import Loop, Peer, Router
from .publish import Publisher
from .subshells import Requests

KINDS = {"shell": b"ROUTER", "control": b"ROUTER", "stdin": b"ROUTER", "iopub": b"XPUB"}
RETRY = 0.1  # s until somebody is taken in for whom there was no descriptor


class Doors:
    """All channels but the heartbeat, served by the control thread's loop."""

    def __init__(
        self,
        loop: Loop,
        *,
        routers: dict[str, Router],
        publisher: Publisher,
        requests: Requests,
        control: Callable[[list[bytes]], None],
        asking: Asking,
    ) -> None:
        self._loop = loop
        self._routers = routers
        self._publisher = publisher
        self._requests = requests
        self._control = control
        self._asking = asking
        self._listeners: list[socket.socket] = []
        self._peers: set[Peer] = set()

    def open(self, listeners: dict[str, int]) -> None:
        """Take connections on these descriptors; on the loop's thread."""
        for channel in KINDS:
            if channel in listeners:
                listener = socket.socket(fileno=listeners[channel])
                listener.setblocking(False)
                self._listeners.append(listener)
                self._listen(channel, listener)

    def close(self) -> None:
        """Take nobody in any more, and hang up on who is read here."""
        for listener in self._listeners:
            self._loop.remove_reader(listener)
            listener.close()
        for peer in self._peers:
            peer.close()

    def _listen(self, channel: str, listener: socket.socket) -> None:
        if listener.fileno() >= 0:  # closed since
            self._loop.add_reader(listener, self._accept, channel, listener)

    def _accept(self, channel: str, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # who came has left
            return
        except OSError:
            # No descriptor or no memory is left, by the cell, and nothing tells when one is.
            self._loop.remove_reader(listener)
            self._loop.call_later(RETRY, self._listen, channel, listener)
            return
        peer = Peer(connection, KINDS[channel], self._loop)
        peer.send(bytes(peer.conversation.answers))
        peer.conversation.answers = bytearray()
        self._loop.add_reader(connection, self._greet, channel, peer)

    def _greet(self, channel: str, peer: Peer) -> None:
        """Read until it is known who connects."""
        messages = peer.receive()
        if messages is None:
            peer.close()
            return
        if not peer.conversation.open:
            return
        self._loop.remove_reader(peer.socket)
        if channel in self._routers:
            self._routers[channel].add(peer)
        if channel == "shell":
            self._requests.add(peer, messages)
            return
        if channel == "stdin":
            self._asking.join(peer.conversation.identity)
        self._peers.add(peer)
        self._loop.add_reader(peer.socket, self._read, channel, peer)
        self._take(channel, peer, messages)

    def _read(self, channel: str, peer: Peer) -> None:
        messages = peer.receive()
        if messages is not None:
            self._take(channel, peer, messages)
            return
        if channel == "iopub":
            self._publisher.remove(peer)
        elif self._routers[channel].remove(peer) and channel == "stdin":
            self._asking.lose(peer.conversation.identity)
        self._peers.discard(peer)
        peer.close()

    def _take(self, channel: str, peer: Peer, messages: list[list[bytes]]) -> None:
        for message in messages:
            if channel == "iopub":
                self._publisher.subscribe(peer, message)
                continue
            whole: list[Any] = [peer.conversation.identity, *message]
            if channel == "control":
                self._control(whole)
            else:
                self._asking.take(whole)
