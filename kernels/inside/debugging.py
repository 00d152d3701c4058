"""What ipykernel's debugger is given for its sockets: nothing is there until it is used."""

from __future__ import annotations

import asyncio
import queue
from typing import Any

from .subshells import Requests
from .zmtp import Conversation

ASKER = b"debugger"


class LazyStream:
    """The stream to debugpy: a ZMQ context, its thread and the socket come with the first use."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._stream: Any = None

    @property
    def socket(self) -> Any:
        """Return the socket; on the control thread."""
        return self._made().socket

    def send_multipart(self, frames: Any) -> None:
        """Send to debugpy."""
        self._made().send_multipart(frames)

    def _made(self) -> Any:
        if self._stream is None:
            import zmq
            from zmq.eventloop.zmqstream import ZMQStream

            kernel = self._kernel
            kernel.zmq_context = zmq.Context()
            connection = kernel.zmq_context.socket(zmq.STREAM)
            connection.linger = 1000
            loop = kernel.control_thread.io_loop
            self._stream = ZMQStream(connection, loop)
            self._stream.on_recv(kernel.dispatch_debugpy, copy=False)
            kernel.stopped_events = asyncio.run_coroutine_threadsafe(
                kernel.poll_stopped_queue(), loop.asyncio_loop
            )
        return self._stream


class Asker:
    """The debugger's own client of the shell: it has the kernel import debugpy."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._replies: queue.SimpleQueue[list[bytes]] = queue.SimpleQueue()
        self.conversation = Conversation(b"DEALER")
        self.conversation.identity = ASKER
        self.conversation.opened()

    def getsockopt(self, option: int) -> bytes:
        """Return the identity, which is all that is asked for."""
        return ASKER

    def send_multipart(self, frames: list[bytes], *args: Any, **options: Any) -> None:
        """Send a request to the shell."""
        self._requests.inject([ASKER, *frames])

    def send(self, data: bytes) -> None:
        """Take a reply, as it would go over the wire."""
        for message in self.conversation.feed(data):
            self._replies.put(message)

    def recv_multipart(self, *args: Any, **options: Any) -> list[bytes]:
        """Wait for a reply."""
        return self._replies.get()
