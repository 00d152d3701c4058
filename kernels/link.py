"""One connection to a kernel's unix socket, on the asyncio loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Final

from kernels.errors import BadFrame
from kernels.zmtp import Conversation, packed

RETRY: Final = 0.05  # s before another attempt to connect, for kernels that listen late,
RETRY_MOST: Final = 1.0  # s, doubled until it is this
READ: Final = 256 << 10  # bytes; more than a unix socket holds, so that once is enough
FRAMES_AT_ONCE: Final = 512  # about 70 Jupyter messages, before others get their turn
TURN: Final = 0.01  # s, likewise; the message that is being taken in is finished
SEND_QUEUE: Final = 8 << 20  # bytes that a kernel may leave unread, beyond what its socket holds


class Space(threading.local):
    """Room to read into, of one thread.

    Room made for each read and cut down to what came would leave holes in the heap that nothing
    fits into: tens of megabytes a minute under load.
    """

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ))


SPACE: Final = Space()


class Link:
    """A connection that is made as soon as somebody listens.

    `take(parts)` is called for each message, without parts for a message of the protocol's own.
    `ended(fault)` is called once if the peer speaks no ZMTP, or with None when it hangs up; then
    nothing more is read. `worked(seconds)` is called with how long each turn took.
    """

    def __init__(
        self,
        path: str,
        make_conversation: Callable[[], Conversation],
        *,
        take: Callable[[list[bytes]], None],
        ended: Callable[[BadFrame | None], None],
        worked: Callable[[float], None],
    ) -> None:
        self._path = path
        self._make_conversation = make_conversation
        self._take = take
        self._ended = ended
        self._worked = worked
        self._loop = asyncio.get_running_loop()
        self._socket: socket.socket | None = None
        self._conversation = make_conversation()
        self._queue: list[bytes] = []  # messages until the handshake is done
        self._unsent = bytearray()
        self._queued = 0  # bytes of both
        self._flowing = True  # not held back by whoever reads
        self._due: asyncio.Handle | None = None  # of the turn that is scheduled
        self._retry: asyncio.TimerHandle | None = None
        self._patience = RETRY
        self._connect()

    def __repr__(self) -> str:
        return f"<Link {self._path}: {self._conversation!r}, {self._queued} B to send>"

    def send(self, parts: Sequence[bytes]) -> None:
        """Send one message. Raises BlockingIOError if the peer leaves too much unread."""
        data = packed(parts)
        if self._queued and self._queued + len(data) > SEND_QUEUE:
            raise BlockingIOError("the kernel reads no more requests")
        if self._conversation.open:
            self._write(data)
        else:
            self._queue.append(data)
            self._queued += len(data)

    def flow(self, on: bool) -> None:
        """Read on, or leave in the socket what comes: it fills up, and then the peer waits."""
        if on == self._flowing:
            return
        self._flowing = on
        if self._socket is None:
            return
        if on:
            self._loop.add_reader(self._socket, self._turn)
            self._schedule()
        else:
            self._loop.remove_reader(self._socket)

    def look(self) -> None:
        """Take a turn now, be it in place of the one that is scheduled."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        self._turn()

    def close(self) -> None:
        """Hang up; what was not sent is dropped."""
        self._flowing = False
        if self._retry is not None:
            self._retry.cancel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None
        self._queue.clear()
        self._unsent.clear()
        self._queued = 0

    def _connect(self) -> None:
        self._retry = None
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            connection.connect(self._path)
        except OSError:  # nobody listens yet, or the backlog is full
            connection.close()
            self._try_again()
            return
        self._socket = connection
        self._conversation = self._make_conversation()
        self._write(self._conversation.answers())
        if self._flowing:
            self._loop.add_reader(connection, self._turn)

    def _try_again(self) -> None:
        self._retry = self._loop.call_later(self._patience, self._connect)
        self._patience = min(2 * self._patience, RETRY_MOST)

    def _schedule(self) -> None:
        if self._due is None:
            self._due = self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._due = None
        self._turn()

    def _turn(self) -> None:
        """Hand over what is there, up to a bound; the rest comes when others had their turn."""
        if self._due is not None or not self._flowing or self._socket is None:
            return
        began = self._loop.time()
        try:
            done = self._read(began + TURN)
        except BadFrame as fault:
            self._stop(fault)
            return
        except BaseException:
            self._schedule()  # the receiver's own fault is the loop's to report
            raise
        finally:
            self._worked(self._loop.time() - began)
        if not done:
            self._schedule()

    def _read(self, until: float) -> bool:
        """Take messages; return whether the loop is to say when there is more."""
        conversation, frames, has_read = self._conversation, 0, False
        while frames < FRAMES_AT_ONCE and self._flowing and self._socket is not None:
            message = conversation.next()
            if message is not None:
                frames += max(1, len(message))
                self._take(message)
                if self._loop.time() > until:
                    return False
                continue
            self._answer(conversation)
            if has_read:
                return True
            has_read = True
            try:
                read = self._socket.recv_into(SPACE.view)
                data = bytes(SPACE.view[:read])
            except BlockingIOError:
                return True
            except OSError:
                data = b""
            if not data:
                self._hung_up()
                return True
            conversation.feed(data)
        return False

    def _answer(self, conversation: Conversation) -> None:
        # A peer that pings and does not read gets no more than one answer.
        if not self._unsent and (answers := conversation.answers()):
            self._write(answers)
        if conversation.open and self._queue:
            waiting, self._queue = self._queue, []
            self._queued -= sum(map(len, waiting))
            self._write(b"".join(waiting))

    def _hung_up(self) -> None:
        if self._conversation.open:
            self._stop(None)
        else:  # a listener that had not been taken over yet, or is to be again
            self._drop()
            self._try_again()

    def _stop(self, fault: BadFrame | None) -> None:
        self._drop()
        self._flowing = False
        self._ended(fault)

    def _drop(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
            self._socket = None
        self._queued -= len(self._unsent)
        self._unsent.clear()

    def _write(self, data: bytes) -> None:
        if self._socket is None:
            return
        sent = 0
        if not self._unsent:
            # Whoever hangs up is found when reading, with the words that came before.
            with contextlib.suppress(OSError):
                sent = self._socket.send(data)
            if sent == len(data):
                return
            self._loop.add_writer(self._socket, self._write_on)
        self._unsent += memoryview(data)[sent:]
        self._queued += len(data) - sent

    def _write_on(self) -> None:
        if self._socket is None:
            return
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            return
        except OSError:
            sent = len(self._unsent)
        del self._unsent[:sent]
        self._queued -= sent
        if not self._unsent:
            self._loop.remove_writer(self._socket)
