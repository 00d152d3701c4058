"""The client for threads: `Broker` and `Session`."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .door import Door, Row
from .errors import BrokerError, ConnectionLost, SessionGone
from .files import Files
from .find import Place, find
from .result import Event, Result, collect, collect_answer
from .socket import closed_error, connect_options, opening_error
from .wire import LAST, Limits, Link, socket_url

if TYPE_CHECKING:
    from websockets.sync.client import ClientConnection


class Broker:
    """A broker, found as `find` says: by arguments, the environment, or the local server's file.

    Nothing is connected until something is asked. Safe to share between threads.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        state_dir: str | Path | None = None,
    ) -> None:
        self.place: Place = find(url, token, state_dir)
        self._door = Door(self.place)

    def session(
        self, name: str, profile: str | None = None, *, limits: Limits | None = None
    ) -> Session:
        """Return a session by name; it starts, or is joined, at its first use.

        `limits` lowers the profile's bounds: `memory`, `processes`, `cpu`, `cpu_time`,
        `execution_timeout`, such as {"memory": "256M", "cpu_time": 5}.
        """
        return Session(self.place, name, profile, limits)

    def execute(
        self,
        code: str,
        *,
        profile: str | None = None,
        timeout: float | None = None,
        limits: Limits | None = None,
    ) -> Result:
        """Run code in a fresh kernel that is gone afterwards."""
        return collect_answer(self._door.execute(code, profile, timeout, limits))

    def sessions(self, *, state: str | None = None, idle: float | None = None) -> Iterator[Row]:
        """Yield a row per session: those in one state, or idle for so many seconds."""
        return self._door.sessions(state=state, idle=idle)

    def files(self, name: str) -> Files:
        """Return the files of a session that is there already."""
        return Files(self._door, name)

    def kill(self, name: str, *, reason: str | None = None) -> Row:
        """End a session's kernel; raises UnknownSession."""
        return self._door.kill(name, reason)

    def notebook(self, name: str) -> Row:
        """Return what a session has run, also one that has ended, as a notebook (nbformat 4.5)."""
        return self._door.notebook(name)

    def variables(self, name: str, names: Sequence[str] | None = None) -> Row:
        """Return a live session's variables, without attaching to it."""
        return self._door.variables(name, names)

    def drain(self, node: str, *, keep: bool = False, undo: bool = False) -> Row:
        """Empty the node that answers: it takes no new sessions, and ends each that is idle.

        `keep` lets idle sessions live until they end by themselves; `undo` ends the draining.
        """
        return self._door.drain(node, keep=keep, undo=undo)

    def status(self, *, memory: bool = False) -> Row:
        """Return the nodes, the pools and their kernels, with their memory when asked."""
        return self._door.status(memory=memory)


class Session:
    """One session's connection. Leaving the `with` block lets go of the session and keeps it.

    Its methods may be called from several threads; executions run in the order of their calls.
    A connection that was lost is made anew by the next call.
    """

    def __init__(
        self,
        place: Place,
        name: str,
        profile: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.name = name
        self.profile = profile
        self.limits = limits
        self._place = place
        self._link = Link()
        self._attaching = threading.Lock()
        self._socket: ClientConnection | None = None
        self._stack = ExitStack()
        self._reader: threading.Thread | None = None

    @property
    def generation(self) -> int:
        """Return the generation last heard of; 0 before the first."""
        return self._link.generation

    @property
    def files(self) -> Files:
        """Return the session's files; the session starts, or is joined, at their first use."""
        return Files(Door(self._place), self.name, self.attach)

    def execute(
        self,
        code: str,
        *,
        timeout: float | None = None,
        on_event: Callable[[Event], object] | None = None,
        **options: Any,
    ) -> Result:
        """Run code and return what came of it; `on_event` sees each event as it comes.

        `timeout` in seconds is the broker's to keep. `options` are further fields of the
        protocol's `execute`: `silent`, `store_history`, `stop_on_error`, `metadata`.
        A failure of the code is a result; a refusal of the request raises BrokerError.
        """
        events: list[Event] = []
        for event in self.stream(code, timeout=timeout, **options):
            events.append(event)
            if on_event is not None:
                on_event(event)
        return collect(events)

    def stream(
        self, code: str, *, timeout: float | None = None, **options: Any
    ) -> Generator[Event, None, None]:
        """Run code and yield its events as they come, `done` last.

        To stop listening early does not stop the code: `interrupt()` does.
        """
        yield from self._ask("execute", code=code, timeout=timeout, **options)

    def interrupt(self, target: str | None = None) -> Any:
        """Interrupt what runs, or only `target`; raises NotRunning when it does not run."""
        return self._answer("interrupt", target=target)

    def cancel(self, target: str) -> Any:
        """Take the execution `target` (an event's `id`) out of the queue; raises NotRunning."""
        return self._answer("cancel", target=target)

    def complete(self, code: str, cursor: int | None = None) -> Any:
        """Return how the code may go on at the cursor, its end by default.

        `matches` go from `cursor_start` to `cursor_end`. Raises KernelBusy.
        """
        return self._answer("complete", code=code, cursor=len(code) if cursor is None else cursor)

    def inspect(self, code: str, cursor: int | None = None) -> Any:
        """Return what is known of the name at the cursor: `found`, `data` by MIME type."""
        return self._answer("inspect", code=code, cursor=len(code) if cursor is None else cursor)

    def variables(self, names: Sequence[str] | None = None, *, most: int | None = None) -> Any:
        """Return the session's variables, also while it runs; raises KernelBusy."""
        return self._answer("variables", names=None if names is None else [*names], max=most)

    def history(self, most: int | None = None) -> Any:
        """Return the last cells that have run: `cells`, the newest last."""
        return self._answer("history", max=most)

    def notebook(self) -> Row:
        """Return what the session has run as a notebook (nbformat 4.5)."""
        return Door(self._place).notebook(self.name)

    def restart(self, *, keep_files: bool = True) -> Any:
        """Give the session a new kernel: generation + 1, no variables, its files or none."""
        return self._answer("restart", keep_files=keep_files)

    def close(self) -> Any:
        """End the session: its kernel is gone. `detach()` keeps it."""
        try:
            return self._answer("close")
        except SessionGone:
            return None  # someone else was faster
        finally:
            self.detach()

    def ping(self) -> None:
        """Return once the broker has answered."""
        self._answer("ping")

    def attach(self) -> None:
        """Connect now rather than at the first use; raises what the broker refuses with."""
        with self._attaching:
            if self._socket is None:
                self._connect()

    def detach(self) -> None:
        """Disconnect, and keep the session; an execution goes on without us."""
        with self._attaching:
            self._drop()

    def __enter__(self) -> Self:
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

    def _answer(self, kind: str, **fields: Any) -> Any:
        event: Event = {}
        for event in self._ask(kind, **fields):  # noqa: B007 - the last one is the answer
            pass
        return {k: v for k, v in event.items() if k not in ("type", "id", "seq")}

    def _ask(self, kind: str, **fields: Any) -> Generator[Event, None, None]:
        inbox: queue.SimpleQueue[Event | BrokerError] = queue.SimpleQueue()
        socket = self._attached()
        request_id, frame = self._link.request(kind, inbox.put, **fields)
        try:
            self._send(socket, frame)
            while True:
                event = inbox.get()
                if isinstance(event, BrokerError):
                    raise event
                yield event
                if event.get("type") == LAST.get(kind, "reply"):
                    return
        finally:
            self._link.forget(request_id)

    def _send(self, socket: ClientConnection, frame: bytes | str) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            socket.send(frame)
        except ConnectionClosed as error:
            raise closed_error(error) from error
        except OSError as error:
            raise ConnectionLost(f"the connection was lost: {error}") from error

    def _attached(self) -> ClientConnection:
        with self._attaching:
            if self._reader is not None and not self._reader.is_alive():
                self._drop()
            return self._socket or self._connect()

    def _connect(self) -> ClientConnection:
        from websockets.exceptions import WebSocketException
        from websockets.sync.client import connect

        url = socket_url(self._place.url, self.name, profile=self.profile, limits=self.limits)
        stack = ExitStack()
        try:
            options = connect_options(self._place.token)
            socket: ClientConnection = stack.enter_context(connect(url, **options))
        except (OSError, WebSocketException) as error:
            raise opening_error(self._place.url, error) from error
        self._link.subprotocol = socket.subprotocol
        # A thread, so that a session left alone does not fall behind and is not let go for it.
        self._reader = threading.Thread(
            target=self._read, args=(socket,), name=f"broker-{self.name}", daemon=True
        )
        self._socket, self._stack = socket, stack
        self._reader.start()
        return socket

    def _read(self, socket: ClientConnection) -> None:
        from websockets.exceptions import ConnectionClosed

        error: BrokerError = ConnectionLost("the connection was lost")
        try:
            while True:
                self._link.receive(socket.recv())
        except ConnectionClosed as closed:
            error = closed_error(closed)
        except ValueError as broken:
            error = ConnectionLost(f"the broker sent what is no event: {broken}")
            socket.close(1002)
        finally:
            self._link.lost(error)

    def _drop(self) -> None:
        socket, reader, stack = self._socket, self._reader, self._stack
        self._socket, self._reader, self._stack = None, None, ExitStack()
        if socket is not None:
            stack.close()
        if reader is not None and reader is not threading.current_thread():
            reader.join()
