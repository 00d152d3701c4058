"""Output on its way out of the kernel: in order, in few messages, under a bound.

ipykernel's OutStream, with five things changed. What is written to stdout and stderr, from Python
or to the descriptors by C code and subprocesses, is sent in the order it was written, and decoded
as one stream. Whoever flushes sends, without another thread. A forked child writes to the
descriptors, which its parent reads. An execution's text has a budget: head and tail are kept. And
of a line that is rewritten, some states are left out: the last before anything else comes is not.
"""

from __future__ import annotations

import codecs
import contextvars
import fcntl
import io
import os
import struct
import sys
import termios
import threading
import time
from collections import deque
from typing import Any, ClassVar

from ipykernel.iostream import OutStream

from .budget import MAX_PIECES, OutputBudget
from .rewrites import Line

READ_SIZE = 64 << 10  # at least a pipe's capacity: one read takes all that was written before it
RETRY = 0.01  # s until a descriptor is read again that nobody has room for
MAX_PENDING = 256 << 10  # characters not yet handed over, before a writer does it itself
REWRITE_AFTER = 0.1  # s from one state of a line that is rewritten to the next that is sent
MANY_TURNS = 16  # from stream to stream: from here on, the text of each is joined
STILL_MANY = 0.1  # s for which that goes on after it was handed over
_ALL = (READ_SIZE,)


class Pending:
    """The text of both streams that is not handed over yet, in the order it was written.

    Unless a cell writes to both by turns, many times: the order is then each stream's own, because
    a message for each turn costs everybody a thousand times what the text is worth.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.size = 0
        self._handed_over = 0  # pieces
        self._turns = 0  # from one piece to the next of what waits, joined or not
        self._many_until = 0.0  # of the monotonic clock
        self._pieces: deque[tuple[CellStream, dict[str, Any], list[str]]] = deque()

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def disown(self) -> None:
        """Forget what the parent will send: in a child that a cell has forked."""
        self.lock, self.size, self._pieces = threading.RLock(), 0, deque()
        CellStream.holder = None

    @property
    def is_large(self) -> bool:
        """Tell whether a writer should hand it over before it writes more."""
        return self.size > MAX_PENDING or len(self._pieces) > MAX_PIECES

    def add(self, stream: CellStream, parent: dict[str, Any], text: str) -> None:
        """Keep text; it joins the last piece if that is of the same stream and request.

        After many turns it joins one of the last pieces that is.
        """
        with self.lock:
            handed_over = self._handed_over
            parts = self._joined(stream, parent.get("msg_id"))
            if parts is not None:
                parts.append(text)
                if handed_over != self._handed_over and parts and not self._has(parts):
                    parts = None  # handed over between the two, without the text
            if parts is None:
                self._pieces.append((stream, parent, [text]))
            self.size += len(text)

    def _joined(self, stream: CellStream, request: Any) -> list[str] | None:
        """Return the piece that text joins. By numbers: a signal handler may print meanwhile."""
        within = 1
        for at in range(-1, -1 - MANY_TURNS, -1):
            try:
                one, parent, parts = self._pieces[at]
            except IndexError:
                break
            if one is stream and parent.get("msg_id") == request:
                return parts
            if at == -1 and one is not stream:
                self._turns += 1
                if self._turns > MANY_TURNS or time.monotonic() < self._many_until:
                    within = MANY_TURNS
            if -at >= within:
                break
        return None

    def _has(self, parts: list[str]) -> bool:
        return any(piece[2] is parts for piece in self._pieces)

    def hand_over(self, *, whole: bool = False) -> None:
        """Queue everything for sending; if `whole`, a line that is being rewritten as well.

        The lock is held until all is queued: whoever has had nothing to hand over may then publish
        `idle` and be sure that it comes after the text.
        """
        with self.lock:
            if whole and CellStream.holder is not None:
                CellStream.holder.release()
            while self._pieces:  # one by one: an interrupt here loses one piece, not all
                stream, parent, parts = self._pieces.popleft()
                text = "".join(parts)
                parts.clear()
                self._handed_over += 1
                self.size -= len(text)
                stream.publish(parent, text)
            self.size = 0  # where a signal handler broke in, it may have come to be another
            if self._turns > MANY_TURNS:
                self._many_until = time.monotonic() + STILL_MANY
            self._turns = 0


class CellStream(OutStream):
    """stdout or stderr of a kernel."""

    budget: ClassVar[OutputBudget]
    pending: ClassVar[Pending] = Pending()
    patient: ClassVar[bool] = False  # a cell runs: flushing waits
    captured: ClassVar[tuple[CellStream, ...]] = ()
    holder: ClassVar[CellStream | None] = None  # whose line is being rewritten, and not sent yet
    _fid: Any
    _io_loop: Any = None

    def __init__(
        self,
        session: Any,
        pub_thread: Any,
        name: str,
        echo: Any = None,
        *,
        watchfd: bool = True,
        isatty: bool = False,
    ) -> None:
        # Not OutStream's own, which makes pipes and a thread: `capture` comes after the fork.
        io.TextIOBase.__init__(self)
        self.session = session
        self.pub_thread = pub_thread
        self.name = name
        self.topic = b"stream." + name.encode()
        self.wants_capture = watchfd
        self.echo = echo
        self._isatty = isatty
        self._fid = None
        self._parent_header = contextvars.ContextVar("parent_header")
        self._parent_header.set({})
        self._parent_header_global: dict[str, Any] = {}
        self._local = threading.local()
        self._master_pid = os.getpid()
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._waiting = bytearray(4)
        self._line = Line()
        self._line_of: dict[str, Any] = {}  # the request
        self._line_budget = self.budget
        self._line_sent = 0.0  # of the monotonic clock: when it last was
        self._awaited = False  # a call of `_release_late`
        self._taken: list[bytes] = []  # from the descriptor, while a signal handler may break in
        self._taker = 0  # the thread that has read, or is about to, and has not handed it on

    def capture(self, loop: Any) -> None:
        """Become this process's, and have the loop read what is written to the descriptor."""
        self._master_pid = os.getpid()
        self._io_loop = loop
        if not self.wants_capture:
            return
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        self._original_stdstream_fd = 1 if self.name == "stdout" else 2
        self._original_stdstream_copy = os.dup(self._original_stdstream_fd)
        os.dup2(write_end, self._original_stdstream_fd)
        os.close(write_end)
        self._fid = read_end
        CellStream.captured = (*CellStream.captured, self)
        loop.call_soon_threadsafe(self._read_on)

    def _read_on(self) -> None:
        self._io_loop.add_reader(self._fid, self._readable)

    def _readable(self) -> None:
        """Take what is there, so that nobody blocks on a full pipe: unless we are full as well."""
        if self.pub_thread is not None and self.pub_thread.is_full:
            self._io_loop.remove_reader(self._fid)
            self._io_loop.call_later(RETRY, self._read_on)
            return
        if not self.collect():
            self._io_loop.remove_reader(self._fid)
        if self.pending and (self.pending.is_large or self.pub_thread.is_due()):
            self.pub_thread.flush()

    def fileno(self) -> int:
        """Return the captured descriptor, so that a subprocess given this stream is captured."""
        return int(super().fileno() if self._fid is None else self._original_stdstream_fd)

    def write(self, string: str) -> int:
        """Take text; it is sent soon, or by the next flush."""
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string)}")
        if self.pub_thread is None:
            raise ValueError("I/O operation on closed file")
        if not self._is_master_process():
            os.write(self._original_stdstream_fd if self._fid is not None else 2, string.encode())
            return len(string)
        if self.pub_thread.silent and threading.get_ident() in self.pub_thread.silent:
            return len(string)
        self._collect_all()
        text, budget = string, self.budget.here
        if "\r" in string or CellStream.holder is not None:
            text = self._rewrite(string, self.parent_header, budget)
        text = budget.admit(self.name, text)
        if text:
            self.append(text)
            if self.pending.is_large:
                self.flush()
        return len(string)

    def _rewrite(self, text: str, parent: dict[str, Any], budget: OutputBudget) -> str:
        """Return what of the text goes on now: not a line that is rewritten, if one just went."""
        with self.pending.lock:
            holder = CellStream.holder
            same = holder is self and self._line_of.get("msg_id") == parent.get("msg_id")
            if holder is not None and not same:
                holder.release()
            text = self._line.feed(text)
            if not self._line.held:
                CellStream.holder = None
                return text
            now = time.monotonic()
            if self._line.is_long or now - self._line_sent >= REWRITE_AFTER or not self._io_loop:
                CellStream.holder, self._line_sent = None, now
                return text + self._line.take()
            CellStream.holder, self._line_of, self._line_budget = self, parent, budget
            if not self._awaited:
                self._io_loop.call_soon_threadsafe(self._release_later)
                self._awaited = True
            return text

    def release(self) -> None:
        """Let go of the line that is being rewritten, as it stands now."""
        with self.pending.lock:
            CellStream.holder, self._line_sent = None, time.monotonic()
            text = self._line_budget.admit(self.name, self._line.take())
            if text:
                self.pending.add(self, self._line_of, text)
                self.pub_thread.arm()

    def _release_later(self) -> None:
        self._io_loop.call_later(REWRITE_AFTER, self._release_late)

    def _release_late(self) -> None:
        with self.pending.lock:
            left = self._line_sent + REWRITE_AFTER - time.monotonic()
            if CellStream.holder is self and left > 0:
                self._io_loop.call_later(left, self._release_late)
                return
            self._awaited = False
            if CellStream.holder is not self:
                return
            self.release()
        self.pub_thread.flush()

    def settle(self) -> None:
        """Let go of all that is kept back of a line; what `collect` took is part of it."""
        if CellStream.holder is self:
            self.release()

    def append(self, text: str) -> None:
        """Send text that the budget has admitted, now or soon."""
        self.pending.add(self, self.parent_header, text)
        publisher = self.pub_thread
        if publisher.is_due(text):
            publisher.wait_for_room()
            publisher.flush()
        else:
            publisher.arm()

    def collect(self) -> bool:
        """Take what subprocesses and C code have written to the descriptor so far.

        One read and no more: a subprocess that never stops writing must not keep us here.
        Returns whether more may come: everybody may have closed the descriptor.
        """
        if self._fid is None:
            return False
        with self.pending.lock:
            outer = self._taker  # this thread, if a signal handler has broken in
            try:
                self._taker = threading.get_ident()
                return self._collect()
            finally:
                self._taker = outer

    def _collect(self) -> bool:
        data, before = map(os.read, (self._fid,), _ALL), len(self._taken)
        try:
            self._taken.extend(data)
        except OSError:
            if len(self._taken) > before:  # something was: a signal handler raises this
                raise
            if not before:
                return True  # nothing there: another thread has taken it
        everything = b"".join(self._taken)
        self._taken.clear()
        text = self._decoder.decode(everything)
        if text and ("\r" in text or CellStream.holder is not None):
            text = self._rewrite(text, self._parent_header_global, self.budget)
        text = self.budget.admit(self.name, text)
        if text:
            # Whichever thread came by, a control request's among them: it is the cell's.
            self.pending.add(self, self._parent_header_global, text)
            self.pub_thread.arm()
        return bool(everything)

    def flush(self) -> None:
        """Send everything written so far.

        While a cell runs, whatever else it has put out goes as well, and this waits until it is
        sent: what a cell flushes before it dies are its last words. Our own flushes, around cells,
        wait for nothing.
        """
        publisher = self.pub_thread
        if publisher is None or not self._is_master_process():
            return
        self._collect_all()
        # Whatever we find: another thread may hold text that it has not given to the system yet.
        publisher.wait_for_room()
        publisher.flush_output(only_text=not CellStream.patient)
        if CellStream.patient:
            publisher.wait_until_sent()

    def publish(self, parent: dict[str, Any], text: str) -> None:
        """Publish one message, without waiting for room."""
        content = {"name": self.name, "text": text}
        message = self.session.msg("stream", content, parent=parent)
        for hook in self._hooks:
            message = hook(message)
            if message is None:
                return
        if self.pub_thread is not None:
            self.pub_thread.enqueue_text(self.session.serialize(message, self.topic))

    def _collect_all(self) -> None:
        for stream in CellStream.captured:
            # In this order: whoever has emptied the descriptor was the taker before it read.
            if stream.is_readable() or stream._taker not in (0, threading.get_ident()):
                stream.collect()

    def is_readable(self) -> bool:
        """Tell whether something waits at the descriptor."""
        fcntl.ioctl(self._fid, termios.FIONREAD, self._waiting)
        return bool(struct.unpack("i", self._waiting)[0])

    def close(self) -> None:
        """Close the stream."""
        self.flush()
        self.pub_thread = None


def flush() -> None:
    """Send what was printed, if what a cell has put in the place of our streams can do so."""
    streams: tuple[Any, ...] = sys.stdout, sys.stderr
    if [*map(type, streams)] == [CellStream] * 2 and streams[0].pub_thread is not None:
        streams = streams[:1]  # of ours, each sends what both have
    for stream in streams:
        try:
            stream.flush()
        except Exception:  # noqa: S112 - there may be none, or a closed one: none of ours is
            continue


def _check_names() -> None:
    """Fail at import, not at the first print, if ipykernel renamed what is relied on here."""
    missing = [name for name in ("_hooks", "set_parent") if not hasattr(OutStream, name)]
    if missing:
        raise ImportError(f"this ipykernel has no {missing} in its OutStream: {sys.version}")


_check_names()
