"""A connection that is made anew when it is lost, read by a thread of its own."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from .backoff import Backoff, next_url
from .errors import BrokerError, ConnectionLost, SessionElsewhere
from .patience import USUAL, Patience
from .place import Following
from .result import Event
from .resume import Asked, Link
from .socket import ANSWER, Outage, closed_error, connect_options, opening_error
from .wire import Deliver

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

HOPS = 4  # from one node to the next, when a session is opened
# Where to connect: the broker's address, and the last number seen.
Address = Callable[[str, int | None], str]


class Dialler:
    """Opens sockets to wherever the session is served."""

    def __init__(
        self,
        home: str,
        address: Address,
        token: str,
        *,
        reconnect: float,
        ping_interval: float,
        patience: Patience = USUAL,
    ) -> None:
        self._home = self._url = home
        self._address = address
        self._patience = patience
        self._options = connect_options(token, ping_interval, patience.answer)
        self.backoff = Backoff(reconnect, clock=time.monotonic, uniform=random.uniform)

    def open(self, after: int | None) -> ClientConnection:
        """Return a connection. Raises what the broker refuses with, or NoServer."""
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        try:
            # Whoever has it closes it, which is all that leaving the context would do.
            with self._patience.awaiting(self._url):
                opening = connect(self._address(self._url, after), **self._options)
                socket: ClientConnection = ExitStack().enter_context(opening)
        except (OSError, WebSocketException) as error:
            raise opening_error(self._url, error) from error
        return socket

    def first(self, after: int | None = None) -> ClientConnection:
        """Return a connection as `open` does, following where the session is said to be."""
        self.backoff.worked()
        for _ in range(HOPS):
            try:
                return self.open(after)
            except SessionElsewhere as error:
                if not error.url:
                    raise
                self._turn(error)
        return self.open(after)

    def again(self, error: BrokerError, after: int, leaving: threading.Event) -> ClientConnection:
        """Return a connection after one was lost; raises the last error to give up."""
        outage = Outage(self.backoff.total)
        while (delay := self.backoff.wait(error)) is not None:
            self._turn(error)
            if leaving.wait(delay):
                break
            try:
                socket = self.open(after)
            except BrokerError as failed:
                error = failed
                outage.goes_on(error)
            else:
                outage.ends()
                return socket
        raise error

    def _turn(self, error: BrokerError) -> None:
        self._url = next_url(self._home, self._url, error)


class Line:
    """One session's connection, made anew for as long as its dialler tries. Thread-safe.

    `patience` is how many seconds the broker may take to set what is around.
    """

    def __init__(self, name: str, dialler: Dialler, *, patience: float = ANSWER) -> None:
        self.link = Link()
        self._patience = patience
        self._name = name
        self._dialler = dialler
        self._lock = threading.Lock()
        self._socket: ClientConnection | None = None
        self._using = threading.Lock()  # one socket after another
        self._reader: threading.Thread | None = None
        self._leaving = threading.Event()

    def open(self) -> None:
        """Connect unless that was done; raises what the broker refuses with."""
        with self._lock:
            if self._reader is None or not self._reader.is_alive():
                self._leaving.clear()
                socket = self._dialler.first()
                self._use(socket, again=False)
                # A thread, so that a session left alone does not fall behind, and is not let go.
                self._reader = threading.Thread(
                    target=self._run, args=(socket,), name=f"broker-{self._name}", daemon=True
                )
                self._reader.start()
            refusal = self._configure() if self.link.lacks_surroundings else None
        if refusal is not None:
            self.close()
            raise refusal

    def _configure(self) -> BrokerError | None:
        """Set what is around all that is asked for; return why that is refused."""
        answers: queue.SimpleQueue[Event | BrokerError] = queue.SimpleQueue()
        around = self.link.around
        try:
            asked = self.link.request("configure", answers.put, again=True, **around)
        except BrokerError as error:
            return error
        try:
            self._send(asked)
            answer = answers.get(timeout=self._patience)
        except queue.Empty:
            return ConnectionLost("the broker does not answer")
        finally:
            self.link.forget(asked.id)
        if not isinstance(answer, BrokerError):
            self.link.surrounded(asked.socket)
        # Where the connection was lost, the next one sets it.
        elif not isinstance(answer, ConnectionLost):
            return answer
        return None

    def ask(self, kind: str, deliver: Deliver, **fields: Any) -> Asked:
        """Send a request, now or as soon as there is a connection."""
        self.open()
        asked = self.link.request(kind, deliver, **fields)
        self._send(asked)
        return asked

    def _send(self, asked: Asked) -> None:
        from websockets.exceptions import ConnectionClosed

        if asked.socket is not None:
            try:
                asked.socket.send(asked.frame)
            except (ConnectionClosed, OSError):
                pass  # whoever reads it finds out, and knows what became of the request
            except BaseException:
                self.link.forget(asked.id)
                raise

    def close(self) -> None:
        """Disconnect; open requests are told ConnectionLost."""
        self._leave()  # whoever opens it waits for no answer any more
        with self._lock:
            self._leave()
            reader, self._reader = self._reader, None
            if reader is not None and reader is not threading.current_thread():
                reader.join()

    def _leave(self) -> None:
        with self._using:
            self._leaving.set()
            socket, self._socket = self._socket, None
        if socket is not None:
            socket.close()

    def _use(self, socket: ClientConnection, *, again: bool) -> None:
        with self._using:
            if not self._leaving.is_set():
                self._socket = socket
                self.link.connected(socket, socket.subprotocol, again=again)
                self._dialler.backoff.joined()
                return
        socket.close()

    def _run(self, socket: ClientConnection) -> None:
        error: BrokerError = ConnectionLost("the connection was given up")
        try:
            while True:
                failed = self._read(socket)
                self.link.dropped(failed)
                socket = self._dialler.again(failed, self.link.place.last, self._leaving)
                self._use(socket, again=True)
        except BrokerError as last:
            error = last
        finally:
            self.link.lost(error)

    def _read(self, socket: ClientConnection) -> BrokerError:
        """Take in what comes until the connection ends; return why it did."""
        from websockets.exceptions import ConnectionClosed

        place, backoff = self.link.place, self._dialler.backoff
        try:
            while True:
                before, frames = place.last, self.link.receive(socket.recv())
                for frame in frames:
                    socket.send(frame)
                if place.last != before:
                    backoff.worked()
        except ConnectionClosed as closed:
            return closed_error(closed)
        except BrokerError as elsewhere:
            socket.close()
            return elsewhere
        except (ValueError, OSError) as broken:
            socket.close(1002)
            return ConnectionLost(f"the broker sent what cannot be followed: {broken}")


class Watch:
    """Every event of a session, followed through all reconnections."""

    def __init__(self, dialler: Dialler, after: int | None) -> None:
        self._dialler = dialler
        self._following = Following(after)
        self._after = after
        self._leaving = threading.Event()
        self._using = threading.Lock()
        self._socket: ClientConnection | None = None

    def events(self) -> Generator[Event, None, None]:
        """Yield the events. Raises what the broker refuses with, or the end of the session."""
        socket = self._dialler.first(self._after)
        try:
            while self._use(socket):
                error = yield from self._read(socket)
                if self._leaving.is_set():
                    return
                last = self._following.place.last
                try:
                    socket = self._dialler.again(error, last, self._leaving)
                except BrokerError:
                    if self._leaving.is_set():
                        return
                    raise
                self._following.joining = True
        finally:
            socket.close()

    def close(self) -> None:
        """End it; from any thread."""
        with self._using:
            self._leaving.set()
            socket = self._socket
        if socket is not None:
            socket.close()

    def _use(self, socket: ClientConnection) -> bool:
        with self._using:
            self._socket = socket
            self._dialler.backoff.joined()
            return not self._leaving.is_set()

    def _read(self, socket: ClientConnection) -> Generator[Event, None, BrokerError]:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                event = self._following.receive(socket.recv())
                if event is not None:
                    self._dialler.backoff.worked()
                    yield event
        except ConnectionClosed as closed:
            return closed_error(closed)
        except ValueError as broken:
            socket.close(1002)
            return ConnectionLost(f"the broker sent what cannot be followed: {broken}")
