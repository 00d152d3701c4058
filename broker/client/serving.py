"""A connection that serves host tools, beside the one that code is run over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from .errors import BrokerError, ConnectionLost, SessionGone, TryAgain, from_fault
from .find import Place
from .result import Event
from .socket import ANSWER, closed_error, connect_options, opening_error
from .tools import Function, Register, failure, may_concern, named, result
from .wire import decode, encode

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection

WORKERS = 256  # calls that are served at once: as many as a broker can have open
DELAYS = (0.1, 0.2, 0.5, 1.0, 2.0, 2.0, 2.0)  # s before each attempt to connect again


class ToolServer:
    """Serves functions to the code of one session, each call in a thread of a pool.

    A connection that was lost is made anew, and the functions are registered again; each call is
    made once.
    """

    def __init__(self, place: Place, address: Callable[[], str]) -> None:
        self._place = place
        self._address = address
        self._register = Register()
        self._turn = threading.Lock()  # one registration at a time
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._answers: dict[str, Event] = {}  # to registrations
        self._socket: ClientConnection | None = None
        self._reader: threading.Thread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._leaving = threading.Event()
        self.error: BrokerError | None = None  # why nothing is served any more

    def serve(self, *functions: Function, **names: Function) -> list[str]:
        """Let code in the session call these functions, and no others; return their names.

        Each is told of by its signature and its docstring, and called in a thread with what the
        code gives; what it returns must be plain data, and what it raises is a ToolError there,
        with its name and message. Goes on until `detach()`. Raises BrokerError.
        """
        found = named(functions, names)
        with self._turn:
            self._register.functions = found
            if self._socket is None or self.error is not None:
                self._leaving.clear()
                self._start(self._connect())
            return self._registered()

    def _start(self, socket: ClientConnection) -> None:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="broker-tool")
        reader = threading.Thread(
            target=self._run, args=(socket,), name="broker-tools", daemon=True
        )
        with self._lock:
            self._socket, self._reader, self.error = socket, reader, None
        reader.start()

    def _registered(self) -> list[str]:
        """Register the functions, and return what the broker calls them."""
        with self._lock:
            if self._socket is None:
                raise self.error or ConnectionLost("the tools were not registered")
            register = self._register
            self._send(self._socket, register.message())
            # Whichever request it is by then: on another connection they are registered again.
            self._changed.wait_for(lambda: register.request in self._answers or self.error, ANSWER)
            answer = self._answers.pop(register.request, None)
            if answer is None:
                raise self.error or ConnectionLost("the tools were not registered")
        if answer.get("type") == "fault":
            raise from_fault(answer)
        return list(answer["tools"])

    def close(self) -> None:
        """Serve nothing more; calls that run are not waited for."""
        self._leaving.set()
        if (socket := self._socket) is not None:
            socket.close()  # who waits for an answer waits no longer
        with self._turn:  # who connects has done so
            self._leaving.set()
            with self._lock:
                socket, self._socket = self._socket, None
            if socket is not None:
                socket.close()
            reader, self._reader = self._reader, None
            if reader is not None and reader is not threading.current_thread():
                reader.join()
            pool, self._pool = self._pool, None
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)

    def _connect(self) -> ClientConnection:
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        try:
            opening = connect(self._address(), **connect_options(self._place.token))
            socket: ClientConnection = ExitStack().enter_context(opening)
        except (OSError, WebSocketException) as error:
            raise opening_error(self._place.url, error) from error
        return socket

    def _send(self, socket: ClientConnection, message: Event) -> None:
        from websockets.exceptions import ConnectionClosed

        with suppress(ConnectionClosed, OSError):  # whoever reads finds out
            socket.send(encode(socket.subprotocol, message))

    def _run(self, socket: ClientConnection) -> None:
        while True:
            error = self._read(socket)
            again = None if self._leaving.is_set() else self._again(error)
            with self._lock:
                if again is None or self._leaving.is_set():
                    self.error = error
                    self._changed.notify_all()
                    break
                socket = self._socket = again
                message = self._register.message()
            self._send(socket, message)
        if again is not None:
            again.close()

    def _again(self, error: BrokerError) -> ClientConnection | None:
        if isinstance(error, SessionGone):
            return None
        for delay in DELAYS:
            if self._leaving.wait(delay):
                return None
            try:
                return self._connect()
            except (ConnectionLost, TryAgain):
                continue
            except BrokerError:
                return None
        return None

    def _read(self, socket: ClientConnection) -> BrokerError:
        from websockets.exceptions import ConnectionClosed

        try:
            while True:
                self._take(socket, socket.recv())
        except ConnectionClosed as closed:
            return closed_error(closed)
        except ValueError as broken:
            socket.close(1002)
            return ConnectionLost(f"the broker sent what is no event: {broken}")

    def _take(self, socket: ClientConnection, frame: bytes | str) -> None:
        if not may_concern(frame):
            return
        event = decode(frame)
        kind, name = event.get("type"), str(event.get("id"))
        if kind in ("reply", "fault") and name == self._register.request:
            with self._changed:
                self._answers = {name: event}
                self._changed.notify_all()
        elif kind == "fault" and event.get("code") == "too_large":
            error = from_fault(event)
            self._send(socket, failure(name, error))
        elif (answer := self._register.again(event)) is not None:
            self._send(socket, answer)
        elif (function := self._register.take(event)) is not None and (pool := self._pool):
            with suppress(RuntimeError):  # closed meanwhile
                pool.submit(self._call, function, event)

    def _call(self, function: Function, event: Event) -> None:
        call = str(event["call"])
        try:
            answer = result(call, function(*event["args"], **event["kwargs"]))
            encode(None, answer)  # what is no plain data fails here
        except BaseException as error:
            answer = failure(call, error)
        self._register.note(call, answer)
        if (socket := self._socket) is not None:
            self._send(socket, answer)
