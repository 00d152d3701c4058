"""Who reads requests, and where each one runs: on the main thread, or in a subshell's.

The main thread reads what it will run, so that a request crosses no other thread. Only when there
is a subshell must somebody read on while a cell runs: from then on the control thread does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextvars import Context, copy_context
from typing import Any, ClassVar, NoReturn

from ipykernel.subshell_manager import UnknownSubshellError
from ipykernel.thread import BaseThread
from jupyter_client.session import DELIM

from .peers import Loop, Peer, Router

JOIN_PATIENCE = 1.0  # s that the answer to a deletion waits for the subshell's thread
Frames = list[bytes]


class Lane:
    """Where requests run one after the other: a loop, and a context that lasts between them."""

    leave: ClassVar[Callable[[], NoReturn] | None] = None  # in a child that a cell has forked

    def __init__(self, loop: Loop, context: Context) -> None:
        self._loop = loop
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin some work; to be called on the loop's thread."""
        task = self._loop.create_task(work, context=self._context)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if Lane.leave is not None:
            Lane.leave()

    def post(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin some work, from any thread."""
        self._loop.call_soon_threadsafe(lambda: self.run(work()))


class Subshell(BaseThread):
    """A thread that runs requests beside the main one."""

    def __init__(self, name: str) -> None:
        super().__init__(name=f"subshell-{name}", daemon=True)
        self.aborting = False
        self.asyncio_lock = asyncio.Lock()
        self.ended: Future[None] = Future()
        loop: Any = self.io_loop
        self.lane = Lane(loop.asyncio_loop, copy_context())

    def run(self) -> None:
        """Run requests until told to stop."""
        try:
            super().run()
        finally:
            self.ended.set_result(None)


class Requests:
    """The shell channel, and its subshells. Stands for ipykernel's thread of it and its manager."""

    def __init__(self, kernel: Any, router: Router) -> None:
        self.manager = self
        self.parent_thread = threading.main_thread()
        self.asyncio_lock = asyncio.Lock()
        self._kernel = kernel
        self._router = router
        self._subshells: dict[str, Subshell] = {}
        self._lock = threading.Lock()
        self._peers: set[Peer] = set()  # the control thread's
        self._unheard: dict[Peer, list[Frames]] = {}  # what they said first, until it is delivered
        self._shared = False  # the control thread reads
        self._main: Loop = None
        self._control: Loop = None

    def start(self, main: Loop, control: Loop) -> None:
        """Take the loops of the two threads; to be called on the main one."""
        self._main, self._control = main, control
        self._lane = Lane(main, copy_context())

    def pretend(self, loop: Loop) -> None:
        """Have one loop for both, on which nobody asks anything."""
        self._main = self._control = loop

    # What the control thread calls

    def add(self, peer: Peer, messages: list[Frames]) -> None:
        """Take in a connection, with what it has said already."""
        self._peers.add(peer)
        self._unheard[peer] = messages
        if self._shared:
            self._take_over(peer)
        else:
            self._main.call_soon_threadsafe(self._adopt, peer)

    def share(self) -> None:
        """Read on while a cell runs, for there is more than one who can run something."""
        if self._shared:
            return
        self._shared = True
        for peer in self._peers:
            self._take_over(peer)

    def _take_over(self, peer: Peer) -> None:
        with peer.reading:
            self._hear(peer)
        self._control.add_reader(peer.socket, self._read_beside, peer)

    def _read_beside(self, peer: Peer) -> None:
        with peer.reading:
            messages = peer.receive()
            for message in messages or ():
                self._deliver([peer.conversation.identity, *message])
        if messages is None:
            self._control.remove_reader(peer.socket)
            self._main.call_soon_threadsafe(self._lose, peer)

    def _forget(self, peer: Peer) -> None:
        if peer in self._peers:  # else both threads have read its end
            self._peers.remove(peer)
            self._router.remove(peer)
            peer.close()

    # What the main thread calls

    def _adopt(self, peer: Peer) -> None:
        with peer.reading:
            if not self._hear(peer):
                return  # it was taken care of, and may be gone
        self._main.add_reader(peer.socket, self._read, peer)

    def _read(self, peer: Peer) -> None:
        if Lane.leave is not None:  # a request to the parent has woken both
            Lane.leave()
        with peer.reading:
            if self._shared:
                self._main.remove_reader(peer.socket)
                return
            messages = peer.receive()
            for message in messages or ():
                self._deliver([peer.conversation.identity, *message])
        if messages is None:
            self._lose(peer)

    def _lose(self, peer: Peer) -> None:
        with contextlib.suppress(ValueError):  # closed: its end was read twice
            self._main.remove_reader(peer.socket)
        self._control.call_soon_threadsafe(self._forget, peer)

    def drop_waiting(self, subshell_id: str | None) -> None:
        """Have the requests that have come by now refused, and those that come later not."""
        if subshell_id is not None:
            with self._lock:
                subshell = self._find(subshell_id)
            subshell.aborting = True
            # Behind what the control thread is about to read, and to hand over.
            self._control.call_soon_threadsafe(subshell.lane.post, lambda: self._go_on(subshell))
            return
        self._kernel._aborting = True
        if not self._shared:
            for peer in list(self._peers):
                self._adopt(peer)
                self._read(peer)
            self._lane.run(self._go_on(None))
        else:
            self._control.call_soon_threadsafe(self._lane.post, lambda: self._go_on(None))

    async def _go_on(self, subshell: Subshell | None) -> None:
        owner = self._kernel if subshell is None else subshell
        async with self._kernel._main_asyncio_lock if subshell is None else subshell.asyncio_lock:
            setattr(owner, "_aborting" if subshell is None else "aborting", False)

    # What any thread calls

    def _hear(self, peer: Peer) -> bool:
        """Deliver what a peer said first, unless that was done; `peer.reading` is held."""
        messages = self._unheard.pop(peer, None)
        for message in messages or ():
            self._deliver([peer.conversation.identity, *message])
        return messages is not None

    def call(self, function: Callable[[], Any]) -> Future[Any]:
        """Have the main thread call a function, when no cell runs."""
        done: Future[Any] = Future()

        async def work() -> None:
            async with self._kernel._main_asyncio_lock:
                try:
                    done.set_result(function())
                except Exception as error:
                    done.set_exception(error)
                except BaseException as error:  # an interrupt that was meant for nobody
                    done.set_exception(RuntimeError(repr(error)))

        self._lane.post(work)
        return done

    def _deliver(self, frames: Frames) -> None:
        try:
            subshell_id = self._route(frames)
        except UnknownSubshellError:
            return  # answered
        except Exception:  # not a message at all
            return
        main = self._kernel.shell_main
        if subshell_id is not None:
            with self._lock:
                subshell = self._find(subshell_id)
            subshell.lane.post(lambda: main(subshell_id, frames))
        elif self._shared:
            self._lane.post(lambda: main(None, frames))
        else:
            self._lane.run(main(None, frames))

    def _route(self, frames: Frames) -> str | None:
        """Return the subshell that a request is for. Answers and raises if there is none."""
        at = frames.index(DELIM)
        if not self._shared and b'"subshell_id"' not in frames[at + 2]:
            return None
        kernel = self._kernel
        idents, rest = kernel.session.feed_identities(frames)
        message = kernel.session.deserialize(rest, content=False)
        subshell_id: str | None = message["header"].get("subshell_id")
        if message["msg_type"] in {"comm_msg", "comm_close"}:
            content = kernel.session.unpack(message["content"])
            comm = kernel.comm_manager.get_comm(content.get("comm_id"))
            # A comm's answer goes to whoever runs the cell that asked for it.
            if (reply_to := getattr(comm, "_reply_subshell_for", None)) is not None:
                subshell_id = reply_to(content.get("data"), subshell_id)
        if subshell_id is not None:
            try:
                with self._lock:
                    self._find(subshell_id)
            except UnknownSubshellError as error:
                kernel._send_unknown_subshell_reply(idents, message, error)
                raise
        return subshell_id

    # Subshells: as ipykernel's manager of them

    def create(self) -> str:
        """Start a subshell and return its id; on the control thread."""
        self.share()
        name = str(uuid.uuid4())
        subshell = Subshell(name)
        with self._lock:
            self._subshells[name] = subshell
        subshell.start()
        return name

    async def delete(self, subshell_id: str) -> None:
        """End a subshell when it is done. Raises UnknownSubshellError."""
        with self._lock:
            subshell = self._find(subshell_id)
            del self._subshells[subshell_id]
        subshell.stop()
        ended = asyncio.wrap_future(subshell.ended)
        if (await asyncio.wait([ended], timeout=JOIN_PATIENCE))[0]:
            subshell.join(JOIN_PATIENCE)  # at once: nothing is left for it to do

    def list_subshell(self) -> list[str]:
        """Return the ids of all subshells."""
        with self._lock:
            return list(self._subshells)

    def get_subshell_to_shell_channel_socket(self, subshell_id: str | None) -> Router:
        """Return what replies are sent through."""
        return self._router

    def get_subshell_aborting(self, subshell_id: str) -> bool:
        """Tell whether requests to a subshell are being refused."""
        with self._lock:
            return self._find(subshell_id).aborting

    def set_subshell_aborting(self, subshell_id: str, aborting: bool) -> None:
        """Refuse requests to a subshell, or no longer."""
        with self._lock:
            self._find(subshell_id).aborting = aborting

    def get_subshell_asyncio_lock(self, subshell_id: str) -> asyncio.Lock:
        """Return what is held while a subshell runs a request."""
        with self._lock:
            return self._find(subshell_id).asyncio_lock

    def subshell_id_from_thread_id(self, thread_id: int) -> str | None:
        """Return the subshell of a thread, None for the main one. Raises RuntimeError."""
        if thread_id == self.parent_thread.ident:
            return None
        with self._lock:
            for name, subshell in self._subshells.items():
                if subshell.ident == thread_id:
                    return name
        raise RuntimeError(f"thread {thread_id} is no subshell's")

    def _find(self, subshell_id: str) -> Subshell:
        try:
            return self._subshells[subshell_id]
        except KeyError:
            raise UnknownSubshellError(subshell_id) from None
