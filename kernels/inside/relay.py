"""Carry bytes between the sockets that the broker made and those of a program's own.

A program that is none of ours binds its sockets itself, and where it does so the broker must never
look: a socket exchanged for a link would have it connect to anything. So the program binds where
only its own sandbox reaches, this process connects to it there, being shut in with it, and serves
the broker's listeners in its stead. It looks at nothing of what it carries.

    broker ── unix listener ── relay ── 127.0.0.1 of the sandbox ── program

It is the program's parent: it hands signals on, and ends as the program has ended.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final, NoReturn

CHUNK: Final = 64 << 10  # bytes that a direction holds at most, before its source has to wait
MAX_CONNECTIONS: Final = 64  # at once; those beyond wait in the backlog
FIRST_DELAY: Final = 0.01  # s before the second attempt to reach the program; each takes longer
LAST_DELAY: Final = 0.2  # s, the longest
LAST_BYTES_TIME: Final = 0.2  # s in which the broker may still take what an ended program has said
LAST_WORDS: Final = 2000  # bytes of its stderr that are told if it ends before it serves
FORWARDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1)

Address = str | tuple[str, int]


class Stream:
    """One direction of a connection. It reads only what it has room for."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.held = memoryview(b"")
        self.ended = False  # the source says no more
        self.done = False  # and the sink knows

    def move(self) -> None:
        """Carry one piece, as far as both sides let it."""
        if not self.held and not self.ended:
            try:
                self.held = memoryview(self.source.recv(CHUNK))
                self.ended = not self.held
            except BlockingIOError:
                return
            except OSError:
                self.ended = True
        if self.held:
            try:
                self.held = self.held[self.sink.send(self.held) :]
            except BlockingIOError:
                return
            except OSError:  # it takes no more
                self.held, self.ended, self.done = memoryview(b""), True, True
        if self.ended and not self.held and not self.done:
            self.done = True
            with contextlib.suppress(OSError):
                self.sink.shutdown(socket.SHUT_WR)


class Connection:
    """One client of the broker's side, and its counterpart at the program's once there is one."""

    def __init__(self, client: socket.socket, address: Address) -> None:
        self.client = client
        self.address = address
        self.program: socket.socket | None = None
        self.streams: tuple[Stream, ...] = ()
        self.delay = FIRST_DELAY
        self.due = 0.0  # when to try again; 0 while no attempt is due

    def dial(self) -> bool:
        """Try to reach the program; return whether that is settled by now."""
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        self.due = 0.0
        self.program = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        if family == socket.AF_INET:
            self.program.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        code = self.program.connect_ex(self.address)
        if code == errno.EINPROGRESS:
            return False
        self.settle(code)
        return True

    def settle(self, code: int | None = None) -> None:
        """Take the outcome of an attempt: begin, or try again later."""
        if self.program is None:
            return
        if code is None:
            code = self.program.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self.program.close()
            self.program = None
            self.due = time.monotonic() + self.delay
            self.delay = min(1.5 * self.delay, LAST_DELAY)
            return
        self.streams = (Stream(self.client, self.program), Stream(self.program, self.client))

    def wanted(self, end: socket.socket) -> int:
        """Return the events to wait for at one of its ends."""
        if not self.streams:
            return selectors.EVENT_WRITE if end is self.program else 0
        events = 0
        for stream in self.streams:
            if stream.source is end and not stream.held and not stream.ended:
                events |= selectors.EVENT_READ
            if stream.sink is end and stream.held:
                events |= selectors.EVENT_WRITE
        return events


class Relay:
    """Serve listeners on behalf of a program, from its start to its end.

    `listeners` and `addresses` are by channel. Down `config` goes {"ready": true} when the shell
    channel is reached, or {"last_words": …} if the program ends before; `words` is what it writes
    to its standard streams, which is else thrown away.
    """

    def __init__(
        self,
        listeners: Mapping[str, int],
        addresses: Mapping[str, Address],
        config: socket.socket,
        words: int,
    ) -> None:
        self._listeners = {
            name: socket.socket(fileno=descriptor) for name, descriptor in listeners.items()
        }
        self._addresses = addresses
        self._config: socket.socket | None = config
        self._words = words
        self._said = b""
        self._selector = selectors.DefaultSelector()
        self._watched: dict[int, int] = {}  # events by descriptor
        self._connections: set[Connection] = set()
        self._ended = False  # the program has

    def serve(self, program: int) -> NoReturn:
        """Carry on until the program, this process's child, has ended; then end likewise."""
        wakeup = take_signals()
        self._watch(wakeup, selectors.EVENT_READ, lambda: self._hand_on(wakeup, program))
        self._watch(self._words, selectors.EVENT_READ, self._hear)
        for listener in self._listeners.values():
            listener.setblocking(False)
        self._listen()
        while not self._ended:
            self._turn(self._patience())
        self._watch(wakeup, 0, lambda: None)
        # What it has left behind would keep its sockets open; all that is here ends with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(program, signal.SIGKILL)
        self._finish()
        end_like(os.waitpid(program, 0)[1])

    def _hand_on(self, wakeup: int, program: int) -> None:
        """Pass signals to the program and all of its group, and see whether it has ended."""
        for number in os.read(wakeup, 4096):
            if number != signal.SIGCHLD:
                os.killpg(program, number)
        # Left unreaped, so that its number stays its own.
        options = os.WEXITED | os.WNOHANG | os.WNOWAIT
        self._ended = os.waitid(os.P_PID, program, options) is not None

    def _turn(self, timeout: float | None) -> None:
        for key, _ in self._selector.select(timeout):
            if key.fd in self._watched:  # else closed in this turn
                key.data()
        now = time.monotonic()
        for connection in [each for each in self._connections if 0 < each.due <= now]:
            self._dial(connection)

    def _patience(self) -> float | None:
        times = [each.due for each in self._connections if each.due]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _watch(self, descriptor: int, events: int, act: Callable[[], None]) -> None:
        before = self._watched.get(descriptor, 0)
        if events == before:
            return
        if not before:
            self._selector.register(descriptor, events, act)
        elif not events:
            self._selector.unregister(descriptor)
        else:
            self._selector.modify(descriptor, events, act)
        if events:
            self._watched[descriptor] = events
        else:
            del self._watched[descriptor]

    def _listen(self) -> None:
        """Wait for clients while there is room for one more."""
        full = len(self._connections) >= MAX_CONNECTIONS
        for name, listener in self._listeners.items():
            events = 0 if full else selectors.EVENT_READ
            self._watch(listener.fileno(), events, lambda name=name: self._accept(name))  # type: ignore[misc]

    def _accept(self, name: str) -> None:
        try:
            client, _ = self._listeners[name].accept()
        except OSError:  # it has hung up again
            return
        client.setblocking(False)
        connection = Connection(client, self._addresses[name])
        self._connections.add(connection)
        self._listen()
        self._dial(connection)

    def _dial(self, connection: Connection) -> None:
        if connection.dial():
            self._begin(connection)
        elif connection.program is not None:
            end = connection.program.fileno()
            self._watch(end, selectors.EVENT_WRITE, lambda: self._dialled(connection))

    def _dialled(self, connection: Connection) -> None:
        if connection.program is not None:
            self._watch(connection.program.fileno(), 0, lambda: None)
            connection.settle()
        self._begin(connection)

    def _begin(self, connection: Connection) -> None:
        if not connection.streams:
            return
        if connection.address == self._addresses["shell"]:
            self._tell({"ready": True})
        self._work(connection)

    def _work(self, connection: Connection) -> None:
        for stream in connection.streams:
            stream.move()
        self._rewatch(connection)
        if all(stream.done for stream in connection.streams):
            self._close(connection)

    def _rewatch(self, connection: Connection) -> None:
        for end in (connection.client, connection.program):
            if end is not None:
                self._watch(end.fileno(), connection.wanted(end), lambda: self._work(connection))

    def _close(self, connection: Connection) -> None:
        for end in (connection.client, connection.program):
            if end is not None:
                self._watch(end.fileno(), 0, lambda: None)
                end.close()
        self._connections.discard(connection)
        self._listen()

    def _hear(self) -> None:
        """Read what the program writes to its standard streams, so that it never has to wait."""
        data = os.read(self._words, CHUNK)
        if not data:
            self._watch(self._words, 0, lambda: None)
        elif self._config is not None:
            self._said = (self._said + data)[-LAST_WORDS:]

    def _tell(self, word: dict[str, object]) -> None:
        if self._config is None:
            return
        with contextlib.suppress(OSError):  # whoever waited has gone
            self._config.send(json.dumps(word).encode())
        self._config.close()
        self._config = None

    def _finish(self) -> None:
        """Carry what the ended program has still said, if the broker takes it soon."""
        for listener in self._listeners.values():
            self._watch(listener.fileno(), 0, lambda: None)
            listener.close()
        self._listeners.clear()
        for connection in [each for each in self._connections if not each.streams]:
            self._close(connection)
        until = time.monotonic() + LAST_BYTES_TIME
        while self._is_speaking() and (left := until - time.monotonic()) > 0:
            self._turn(left)
        self._tell({"last_words": self._said.decode(errors="replace")})

    def _is_speaking(self) -> bool:
        """Tell whether something of what the program has said is still on its way."""
        ways = [connection.streams[1] for connection in self._connections]
        return self._words in self._watched or not all(way.done for way in ways)


def take_signals() -> int:
    """Have signals show up as bytes in a pipe, which is returned."""
    wakeup, wake = os.pipe()
    os.set_blocking(wakeup, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    waited = {signal.SIGCHLD, *FORWARDED}
    for number in waited:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, waited)
    return wakeup


def end_like(status: int) -> NoReturn:
    """End as a child has ended, by its wait status."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no handler
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
        signal.pause()
    os._exit(code)
