"""Connections of those who listen and ask: each is written to by any thread, and never waited for.

libzmq would do this in threads of its own, which a message crosses on its way out and in: two
hand-overs of the interpreter each, and a megabyte for every kernel.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .zmtp import BadPeer, Conversation, packed

READ = 256 << 10  # bytes; more than a unix socket holds, so that one read takes all
MAX_UNREAD = 4 << 20  # bytes that a peer has not taken, before whoever writes more waits
MAX_REPLY = 1 << 20  # bytes of a reply that is kept
SEND_PATIENCE = 1.0  # s that a flush waits for a peer: it may be held back

_AT_ONCE = (socket.MSG_DONTWAIT,)  # whatever a cell has made of the descriptors

Loop = Any  # an asyncio loop


class Peer:
    """One connection. `send` never waits; what the socket does not take goes when it can."""

    def __init__(self, connection: socket.socket, kind: bytes, loop: Loop) -> None:
        connection.setblocking(False)
        self.socket = connection
        self.conversation = Conversation(kind)
        self.topics: set[bytes] = set()
        self.reading = threading.Lock()
        self._loop = loop  # where it waits for room
        self._lock = threading.RLock()  # a signal handler may print while we write
        self._queue: deque[tuple[int, bytes]] = deque()  # each with its end in the stream
        self._sent: list[int] = [0]  # bytes, their sum is how far the stream is
        self._sending = False
        self._waiting = False
        self.closed = False

    def __repr__(self) -> str:
        return f"<Peer {self.conversation.identity!r}: {self.unread} B not taken>"

    @property
    def unread(self) -> int:
        """Return how many bytes wait here."""
        if not self._queue:  # asked before each message: quicker than the exception
            return 0
        try:
            return self._queue[-1][0] - sum(self._sent)
        except IndexError:
            return 0

    def send(self, data: bytes) -> None:
        """Send bytes, now or after those that wait already."""
        with self._lock:
            if self.closed:
                return
            end = self._queue[-1][0] if self._queue else sum(self._sent)
            self._queue.append((end + len(data), data))
            self.push()

    def push(self) -> None:
        """Write what the socket takes.

        A signal handler may raise after any call here, and the socket has taken bytes all the same:
        `extend` keeps their number before any such handler runs.
        """
        with self._lock:
            if self._sending:  # further out on this very stack, which goes on with what is new
                return
            self._sending = True
            try:
                self._push()
            finally:
                self._sending = False

    def _push(self) -> None:
        queue, sent = self._queue, self._sent
        while queue:
            at = sum(sent)
            sent[:] = [at]
            end, data = queue[0]
            if end <= at:
                queue.popleft()
                continue
            rest = data if end - len(data) == at else memoryview(data)[at - end :]
            taken = map(self.socket.send, (rest,), _AT_ONCE)
            try:
                sent.extend(taken)
            except OSError as error:
                if len(sent) > 1:  # the socket has taken it: a signal handler raises this
                    raise
                if isinstance(error, BlockingIOError):
                    self._wait()
                    return
                # ENOBUFS, too: half a message has gone, and the rest never will.
                self.closed = True
                queue.clear()
                with contextlib.suppress(OSError):  # whoever reads, at either end, finds the end
                    self.socket.shutdown(socket.SHUT_RDWR)
                return

    def _wait(self) -> None:
        if not self._waiting:
            if not self._loop.is_closed():  # else we end as well
                self._loop.call_soon_threadsafe(self._watch)
            # After it: a signal handler may raise in between, and to be watched twice is no harm.
            self._waiting = True

    def _watch(self) -> None:
        if not self.closed:
            self._loop.add_writer(self.socket, self._go_on)

    def _go_on(self) -> None:
        self.push()
        with self._lock:
            if not self._queue:
                self._waiting = False
                self._loop.remove_writer(self.socket)

    def wait(self, most: int, until: float | None = None) -> None:
        """Return when at most so many bytes wait, or the time has come. Not for the loop's thread.

        `until` is of the monotonic clock, in seconds.
        """
        poll = select.poll()
        while not self.closed and self.unread > most:
            try:
                poll.register(self.socket, select.POLLOUT)
            except ValueError:  # closed since we looked
                return
            left = 1.0 if until is None else until - time.monotonic()
            if left <= 0:
                return
            poll.poll(min(left, 1.0) * 1000)
            self.push()

    def receive(self) -> list[list[bytes]] | None:
        """Return the messages that have come, without waiting; None when there will be no more."""
        try:
            data = self.socket.recv(READ, socket.MSG_DONTWAIT)
        except (BlockingIOError, InterruptedError):
            return []
        except OSError:
            data = b""
        if not data:
            return None
        conversation = self.conversation
        try:
            messages = list(conversation.feed(data))
        except (BadPeer, IndexError):
            return None
        if conversation.answers:
            answers, conversation.answers = bytes(conversation.answers), bytearray()
            self.send(answers)
        return messages

    def close(self) -> None:
        """Hang up."""
        with self._lock:
            self.closed = True
            self._queue.clear()
            self._loop.remove_reader(self.socket)
            self._loop.remove_writer(self.socket)
            self.socket.close()


def is_name(identity: bytes) -> bool:
    """Tell whether a peer has named itself, and can come again by that name."""
    return not identity.startswith(b"\x00")


class Router:
    """Whoever asks on one channel, each by its identity: what a ROUTER socket is, to send to.

    With `keep`, the last reply goes once more to whoever comes again by the same name: it may have
    found nobody, or somebody who was killed before taking it in.
    """

    def __init__(self, before: Callable[[], None] | None = None, *, keep: bool = False) -> None:
        self._peers: dict[bytes, Peer] = {}
        self._keep = keep
        self._kept: tuple[bytes, bytes] = b"", b""  # the last reply, and whose it is
        self._count = 0
        self._before = before or (lambda: None)
        self._holder: threading.Thread | None = None
        self._held: list[Sequence[bytes]] = []
        self.io_loop: Any = None  # of the thread that reads

    def __repr__(self) -> str:
        return f"<Router of {len(self._peers)}>"

    def add(self, peer: Peer) -> None:
        """Take a connection in; it may take over another's identity."""
        if not peer.conversation.identity:
            self._count += 1
            peer.conversation.identity = b"\x00" + self._count.to_bytes(4, "big")
        self._peers[peer.conversation.identity] = peer
        whose, reply = self._kept
        if reply and whose == peer.conversation.identity:
            peer.send(reply)

    def remove(self, peer: Peer) -> bool:
        """Forget a connection; tell whether it was the last of its identity."""
        last = self._peers.get(peer.conversation.identity) is peer
        if last:
            del self._peers[peer.conversation.identity]
        return last

    def disown(self) -> None:
        """Have nobody to send to: in a child that a cell has forked."""
        self._peers, self._held, self._holder = {}, [], None
        self._kept = b"", b""

    def send_multipart(self, frames: Sequence[bytes], *args: Any, **options: Any) -> None:
        """Send to the peer that the first frame names; dropped if it has gone."""
        if self._holder is not None and self._holder is threading.current_thread():
            self._held.append(frames)
            return
        self._before()
        whose, reply = bytes(frames[0]), packed(frames[1:])
        if self._keep and is_name(whose):
            # Before we look who is there: who comes in between has it twice rather than never.
            self._kept = (whose, reply) if len(reply) <= MAX_REPLY else (b"", b"")
        peer = self._peers.get(whose)
        if peer is not None:
            peer.send(reply)

    def hold(self) -> None:
        """Keep what this thread sends from now on until `release`."""
        self._holder = threading.current_thread()

    def release(self) -> bool:
        """Send what was held, after what was published: all of that in one write.

        Returns whether there was something.
        """
        self._holder, some = None, bool(self._held)
        while self._held:
            self.send_multipart(self._held.pop(0))
        return some

    def flush(self, *args: Any) -> None:
        """Do nothing: what is sent has been written."""
