"""The broker's ZMQ sockets to one kernel, on the asyncio loop. The only door to zmq.

One DEALER each for shell, control and stdin, one SUB for iopub, however many clients watch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import zmq

from kernels.errors import BadFrame
from kernels.messages import Message, Signer

# The number of each channel, as in jupyter_client's ipc transport: the socket is `<prefix>-<n>`.
PORTS: Final = {"shell": 1, "iopub": 2, "stdin": 3, "hb": 4, "control": 5}
READ_AT_ONCE: Final = 64  # messages of one socket before the loop gets its turn
READ_BYTES_AT_ONCE: Final = 1 << 20  # likewise: signatures are checked at about 1 GB/s
MAX_SOCKETS: Final = 65_536
RECEIVE_QUEUE: Final = 64  # messages; past it libzmq leaves bytes in the kernel's socket

Receiver = Callable[[str, Message], None]


class Channels:
    """Talk to one kernel.

    `receiver(channel, message)` is called for each message in the order it arrived per channel.
    `broken` resolves with the fault when the kernel sends bytes that no honest kernel sends; from
    then on nothing more is read.
    """

    _context: zmq.Context[zmq.Socket[bytes]] | None = None

    def __init__(self, prefix: Path, key: bytes, name: str, *, max_message: int = 64 << 20) -> None:
        self._loop = asyncio.get_running_loop()
        self._signer = Signer(key)
        self._name = name
        self._count = 0
        self._closed = False
        self._paused = False
        self.receiver: Receiver | None = None
        self.subscribed: asyncio.Future[None] = self._loop.create_future()
        self.broken: asyncio.Future[BadFrame] = self._loop.create_future()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        for channel, kind in (
            ("shell", zmq.DEALER),
            ("control", zmq.DEALER),
            ("stdin", zmq.DEALER),
            ("iopub", zmq.SUB),
        ):
            self._sockets[channel] = self._connect(channel, kind, prefix, max_message)

    @classmethod
    def context(cls) -> zmq.Context[zmq.Socket[bytes]]:
        """Return the process's one ZMQ context."""
        if cls._context is None or cls._context.closed:
            cls._context = zmq.Context(io_threads=1)
            cls._context.set(zmq.MAX_SOCKETS, MAX_SOCKETS)
        return cls._context

    def _connect(self, channel: str, kind: int, prefix: Path, limit: int) -> zmq.Socket[bytes]:
        socket = self.context().socket(kind)
        socket.linger = 0
        socket.maxmsgsize = limit
        socket.rcvhwm = RECEIVE_QUEUE
        if kind == zmq.DEALER:
            # One identity for all: the kernel sends an input_request to the stdin socket with
            # the identity of the shell request it serves.
            socket.identity = self._name.encode()
        else:
            socket.subscribe(b"")
        socket.connect(f"ipc://{prefix}-{PORTS[channel]}")
        self._loop.add_reader(socket.FD, self._pump, channel, socket)
        # The descriptor is edge-triggered: look once for what came before it was watched.
        self._loop.call_soon(self._pump, channel, socket)
        return socket

    def next_id(self) -> str:
        """Return a message id that no other message of this connection has."""
        self._count += 1
        return f"{self._name}_{self._count}"

    def send(
        self,
        channel: str,
        msg_type: str,
        content: Mapping[str, Any],
        *,
        msg_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        parent: Mapping[str, Any] | None = None,
    ) -> str:
        """Send one message and return its id. Raises BlockingIOError if the queue is full."""
        msg_id = msg_id or self.next_id()
        frames = self._signer.pack(
            msg_type,
            content,
            msg_id=msg_id,
            date=datetime.now(UTC).isoformat(),
            session=self._name,
            metadata=metadata,
            parent=parent,
        )
        socket = self._sockets[channel]
        try:
            socket.send_multipart(frames, zmq.DONTWAIT)
        except zmq.Again:
            raise BlockingIOError("the kernel reads no more requests") from None
        # Sending may have consumed the descriptor's edge for something that arrived meanwhile.
        self._loop.call_soon(self._pump, channel, socket)
        return msg_id

    def pause(self) -> None:
        """Leave unread what the kernel publishes: ZMQ fills up, and then the kernel waits."""
        self._paused = True

    def resume(self) -> None:
        """Read on after `pause`."""
        if self._paused:
            self._paused = False
            self._loop.call_soon(self._pump, "iopub", self._sockets["iopub"])

    def close(self) -> None:
        """Close every socket; what was not sent is dropped."""
        if self._closed:
            return
        self._closed = True
        for socket in self._sockets.values():
            self._loop.remove_reader(socket.FD)
            socket.close()
        for future in (self.subscribed, self.broken):
            if not future.done():
                future.cancel()

    def _pump(self, channel: str, socket: zmq.Socket[bytes]) -> None:
        count = size = 0
        try:
            while count < READ_AT_ONCE and size < READ_BYTES_AT_ONCE:
                if self._closed or self.broken.done() or (self._paused and channel == "iopub"):
                    return
                try:
                    frames = socket.recv_multipart(zmq.DONTWAIT)
                except zmq.Again:
                    return
                count += 1
                size += sum(map(len, frames))
                self._take(channel, frames)
        except BaseException:
            # A receiver's fault is the loop's to report; what is still there must be read.
            self._loop.call_soon(self._pump, channel, socket)
            raise
        self._loop.call_soon(self._pump, channel, socket)

    def _take(self, channel: str, frames: list[bytes]) -> None:
        try:
            message = self._signer.parse(frames)
            if channel == "iopub" and message.type == "iopub_welcome":
                if not self.subscribed.done():
                    self.subscribed.set_result(None)
            elif self.receiver is not None:
                self.receiver(channel, message)
        except BadFrame as fault:
            if not self.broken.done():
                self.broken.set_result(fault)
