"""Output on its way out of the kernel: in order, in few messages, under a bound.

ipykernel's OutStream, with four things changed. Text that C code and subprocesses write to the
descriptors is taken in the order it was written, and decoded as one stream. A flush hands over
what is there without waiting for another thread. A forked child writes to the descriptors, which
its parent reads. And an execution's text has a budget: head and tail are kept.
"""

from __future__ import annotations

import codecs
import contextlib
import fcntl
import os
import select
import struct
import sys
import termios
import threading
from collections import deque
from typing import Any, ClassVar

import zmq
from ipykernel.iostream import IOPubThread, OutStream
from jupyter_client.session import json_unpacker

READ_SIZE = 64 << 10
FLUSH_AFTER = 0.02  # s from a write to its sending while a cell runs
MAX_QUEUED = 1000  # messages waiting for the IO thread before a writer waits too


class OutputBudget:
    """Count the text of one execution and keep its tail once the head has used up its half.

    `limit` is in characters, as good as bytes for what a bound is for. Writes between two
    executions (from threads) count against the one before.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.streams: dict[str, Any] = {}
        self._lock = threading.RLock()
        self.begin()

    def begin(self) -> None:
        """Start a new execution's count."""
        with self._lock:
            self.total = self.shown = 0
            self._tail: deque[tuple[str, str]] = deque()
            self._tail_size = 0
            self._finished = False

    @property
    def truncated(self) -> bool:
        """Tell whether anything was left out."""
        return self.shown < self.total

    def admit(self, name: str, text: str) -> str:
        """Return what of `text` may go out now; the rest is kept or, in the end, dropped."""
        with self._lock:
            self.total += len(text)
            if not self.limit:
                self.shown += len(text)
                return text
            room = max(0, self.limit // 2 - self.shown) if not self._tail_size else 0
            head, rest = text[:room], text[room:]
            self.shown += len(head)
            if rest and not self._finished:
                self._keep(name, rest)
            return head

    def _keep(self, name: str, text: str) -> None:
        bound = self.limit // 2
        text = text[-bound:]
        self._tail.append((name, text))
        self._tail_size += len(text)
        while self._tail_size > bound:
            oldest, kept = self._tail.popleft()
            over = self._tail_size - bound
            self._tail_size -= min(over, len(kept))
            if over < len(kept):
                self._tail.appendleft((oldest, kept[over:]))

    def finish(self) -> None:
        """Send the tail, with a note of what is missing before it."""
        with self._lock:
            tail, self._tail = self._tail, deque()
            self.shown += self._tail_size
            self._finished = True
            missing = self.total - self.shown
        for index, (name, text) in enumerate(tail):
            note = f"\n… {missing} characters left out …\n" if missing and not index else ""
            stream = self.streams.get(name)
            if isinstance(stream, CellStream):
                stream.append(note + text)


class Unbounded:
    """Queue without waiting, for a sender that holds a lock the IO thread may want."""

    def __init__(self, thread: PublishThread) -> None:
        self._thread = thread

    def send_multipart(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Queue one message."""
        IOPubThread.send_multipart(self._thread, msg, *args, **kwargs)


class PublishThread(IOPubThread):
    """The thread that owns the iopub socket, with a bounded queue and bounded messages."""

    def __init__(self, publisher: Any, *, session: Any, message_bytes: int) -> None:
        super().__init__(publisher, pipe=False, session=session)
        self._message_bytes = message_bytes
        self.unbounded = Unbounded(self)

    def wait_for_room(self) -> None:
        """Return when few messages wait, so that a flood cannot fill the memory."""
        if len(self._events) > MAX_QUEUED and threading.current_thread() is not self.thread:
            drained = threading.Event()
            self.schedule(drained.set)
            drained.wait()

    def send_multipart(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Queue one message for sending; wait while too many are queued."""
        if not self._is_master_process():
            return  # a forked child has no socket; its text goes through the descriptors
        if self._message_bytes and sum(map(len, msg)) > self._message_bytes * 4 // 3:
            msg = self._note_instead(msg)
        self.wait_for_room()
        super().send_multipart(msg, *args, **kwargs)

    def _note_instead(self, frames: Any) -> Any:
        size = sum(map(len, frames))
        at = next(i for i, frame in enumerate(frames) if bytes(frame) == b"<IDS|MSG>")
        header, parent = (json_unpacker(bytes(frames[at + i])) for i in (2, 3))
        content = json_unpacker(bytes(frames[at + 5]))
        note = f"[output of {size:,} bytes left out: the bound is {self._message_bytes:,}]"
        kind = header["msg_type"]
        if kind in ("display_data", "execute_result", "update_display_data"):
            content = {**content, "data": {"text/plain": note}, "metadata": {}}
        elif kind == "error":
            content = {**content, "evalue": note, "traceback": [note]}
        else:
            kind, content = "stream", {"name": "stderr", "text": note + "\n"}
        message = self.session.msg(kind, content, parent=parent)
        return [*frames[:at], *self.session.serialize(message)]


class CellStream(OutStream):
    """stdout or stderr of a kernel."""

    budget: ClassVar[OutputBudget]
    flush_interval = FLUSH_AFTER
    _reader: ClassVar[DescriptorReader | None] = None
    _fid: Any

    def __init__(self, session: Any, pub_thread: Any, name: str, **options: Any) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._pending = bytearray(4)
        self._texts: list[tuple[str, dict[str, Any], list[str]]] = []
        super().__init__(session, pub_thread, name, **options)

    def _setup_stream_redirects(self, name: str) -> None:
        read_end, write_end = os.pipe()
        os.set_blocking(read_end, False)
        self._original_stdstream_fd = 1 if name == "stdout" else 2
        self._original_stdstream_copy = os.dup(self._original_stdstream_fd)
        os.dup2(write_end, self._original_stdstream_fd)
        os.close(write_end)
        self._fid = read_end
        if CellStream._reader is None:
            CellStream._reader = DescriptorReader()
        CellStream._reader.watch(self)
        self.watch_fd_thread = CellStream._reader

    def fileno(self) -> int:
        """Return the captured descriptor, so that a subprocess given this stream is captured."""
        return int(super().fileno() if self._fid is None else self._original_stdstream_fd)

    def write(self, string: str) -> int:
        """Take text; it is sent within FLUSH_AFTER seconds, or by the next flush."""
        if not isinstance(string, str):
            raise TypeError(f"write() argument must be str, not {type(string)}")
        if self.pub_thread is None:
            raise ValueError("I/O operation on closed file")
        if not self._is_master_process():
            os.write(self._original_stdstream_fd if self._fid is not None else 2, string.encode())
            return len(string)
        if self._fid is not None and self._has_pending():
            self.collect()
        text = self.budget.admit(self.name, string)
        if text:
            self.append(text)
        return len(string)

    def append(self, text: str) -> None:
        """Queue text that the budget has admitted."""
        parent = self.parent_header
        msg_id = parent.get("msg_id", "")
        with self._buffer_lock:
            if self._texts and self._texts[-1][0] == msg_id:
                self._texts[-1][2].append(text)
            else:
                self._texts.append((msg_id, parent, [text]))
        self._schedule_flush()

    def _has_pending(self) -> bool:
        fcntl.ioctl(self._fid, termios.FIONREAD, self._pending)
        return bool(struct.unpack("i", self._pending)[0])

    def collect(self) -> None:
        """Take what subprocesses and C code have written to the descriptor so far."""
        if self._fid is None:
            return
        with self._buffer_lock:
            while True:
                try:
                    data = os.read(self._fid, READ_SIZE)
                except BlockingIOError:
                    return
                except OSError:
                    return
                if not data:
                    return
                text = self.budget.admit(self.name, self._decoder.decode(data))
                if text:
                    self.append(text)

    def flush(self) -> None:
        """Hand everything written so far to the IO thread; never waits for it."""
        if self.pub_thread is None or not self._is_master_process():
            return
        if self._fid is not None and self._has_pending():
            self.collect()
        if self._texts:
            self.pub_thread.wait_for_room()
            self._flush()

    def _flush(self) -> None:
        self._flush_pending = False
        if not self._texts:
            return
        # The lock is held until the messages are queued: whoever flushes next, and finds nothing
        # to send, may then publish `idle` and be sure that it comes after them.
        with self._buffer_lock:
            texts, self._texts = self._texts, []
            for _, parent, parts in texts:
                content = {"name": self.name, "text": "".join(parts)}
                message = self.session.msg("stream", content, parent=parent)
                for hook in self._hooks:
                    message = hook(message)
                    if message is None:
                        break
                else:
                    self.session.send(self.pub_thread.unbounded, message, ident=self.topic)

    def close(self) -> None:
        """Close the stream."""
        self.flush()
        self.pub_thread = None


class DescriptorReader(threading.Thread):
    """Read the captured descriptors while a cell runs, so that nobody blocks on a full pipe."""

    def __init__(self) -> None:
        super().__init__(name="Descriptors", daemon=True)
        self.pydev_do_not_trace = True
        self.is_pydev_daemon_thread = True
        self._poll = select.poll()
        self._streams: dict[int, CellStream] = {}

    def watch(self, stream: CellStream) -> None:
        """Read this stream's descriptor from now on."""
        self._streams[stream._fid] = stream
        self._poll.register(stream._fid, select.POLLIN)
        if not self.is_alive() and len(self._streams) == 2:
            self.start()

    def run(self) -> None:
        """Read for ever."""
        while True:
            for descriptor, _ in self._poll.poll():
                with contextlib.suppress(Exception):
                    self._streams[descriptor].collect()


def _check_names() -> None:
    """Fail at import, not at the first print, if ipykernel renamed what is overridden here."""
    missing = [
        name for name in ("_schedule_flush", "_flush", "_hooks") if not hasattr(OutStream, name)
    ]
    if missing or not hasattr(zmq, "XPUB_NODROP"):
        raise ImportError(f"this ipykernel has no {missing} in its OutStream: {sys.version}")


_check_names()
