"""The thread that owns the iopub socket, with a bound on what waits for it and on each message."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
from typing import Any

import zmq
from ipykernel.iostream import IOPubThread
from jupyter_client.jsonutil import json_clean, json_default
from jupyter_client.session import json_unpacker

MAX_QUEUED = 1000  # messages waiting for the IO thread before a writer waits too
MAX_QUEUED_BYTES = 16 << 20  # likewise
BINARY = (b'"image/png"', b'"image/jpeg"', b'"image/gif"', b'"image/webp"', b'"application/pdf"')
SEND_PATIENCE = 1.0  # s that a flush waits for the IO thread: a reader may be held back


class Unbounded:
    """Queue without waiting, for a sender that holds a lock the IO thread may want."""

    def __init__(self, thread: PublishThread) -> None:
        self._thread = thread

    def send_multipart(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Queue one message of text, which was cut into pieces and counted already."""
        self._thread.enqueue(msg, *args, **kwargs)


class PublishThread(IOPubThread):
    """The thread that owns the iopub socket, with a bounded queue and bounded messages."""

    def __init__(self, publisher: Any, *, session: Any, message_bytes: int) -> None:
        super().__init__(publisher, pipe=False, session=session)
        self._message_bytes = message_bytes
        self._count_lock = threading.Lock()
        self._queued_bytes = 0
        self.unbounded = Unbounded(self)

    def schedule(self, f: Callable[..., Any]) -> None:
        """Have the IO thread call `f`; never waits.

        The wake-ups travel through a pipe that holds some two thousand. Waiting for room in it
        would be for ever if the IO thread wants a lock that the sender holds, or is the sender.
        """
        if not self.thread.is_alive():
            f()
            return
        self._events.append(f)
        # A full pipe holds wake-ups that come after this event, and each one handles all events.
        with contextlib.suppress(zmq.Again):
            self._event_pipe.send(b"", zmq.DONTWAIT)

    def wait_for_room(self) -> None:
        """Return when little waits to be sent, so that a flood cannot fill the memory."""
        full = len(self._events) > MAX_QUEUED or self._queued_bytes > MAX_QUEUED_BYTES
        if full and threading.current_thread() is not self.thread:
            drained = threading.Event()
            self.schedule(drained.set)
            drained.wait()

    def wait_until_sent(self) -> None:
        """Return when what is queued now has been given to ZMQ, or after SEND_PATIENCE."""
        if threading.current_thread() is not self.thread:
            sent = threading.Event()
            self.schedule(sent.set)
            sent.wait(SEND_PATIENCE)

    def send_multipart(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Queue one message for sending; wait while too much is queued."""
        if not self._is_master_process():
            return  # a forked child has no socket; its text goes through the descriptors
        msg = self.fit(msg)
        self.wait_for_room()
        self.enqueue(msg, *args, **kwargs)

    def enqueue(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        """Queue one message for sending, however much is queued."""
        with self._count_lock:
            self._queued_bytes += size_of(msg)
        super().send_multipart(msg, *args, **kwargs)

    def fit(self, msg: Any) -> Any:
        """Return the message, or a note of its size in its place if it is too large."""
        size = size_of(msg)
        if not self._message_bytes or size <= self._message_bytes:
            return msg
        # The bound is on the data; base64 makes a picture's four thirds of that.
        if size <= self._message_bytes * 4 // 3 and is_binary(msg):
            return msg
        return self._note_instead(msg)

    def _really_send(self, msg: Any, *args: Any, **kwargs: Any) -> None:
        try:
            super()._really_send(msg, *args, **kwargs)
        finally:
            with self._count_lock:
                self._queued_bytes -= size_of(msg)

    def _note_instead(self, frames: Any) -> Any:
        size = size_of(frames)
        at = next(i for i, frame in enumerate(frames) if bytes(frame) == b"<IDS|MSG>")
        header, parent = (json_unpacker(bytes(frames[at + i])) for i in (2, 3))
        content = json_unpacker(bytes(frames[at + 5]))
        note = f"[output of {size:,} bytes left out: the bound is {self._message_bytes:,}]"
        kind = header["msg_type"]
        if kind in ("display_data", "execute_result", "update_display_data"):
            content = {**content, "data": {"text/plain": note}, "metadata": {}}
        elif kind == "error":
            content = {"ename": content["ename"][:100], "evalue": note, "traceback": [note]}
        elif kind == "execute_input":
            content = {**content, "code": note}
        else:
            kind, content = "stream", {"name": "stderr", "text": note + "\n"}
        message = self.session.msg(kind, content, parent=parent)
        return [*frames[:at], *self.session.serialize(message)]


def pack(value: Any) -> bytes:
    """Return a value as JSON in UTF-8; what UTF-8 cannot hold becomes a question mark.

    jupyter_client's own raises for one half of the surrogates, which would cost a request its
    reply, and for the other half sends bytes that are no UTF-8: those of undecodable file names.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=json_default)
    except (TypeError, ValueError):
        return json.dumps(json_clean(value), default=json_default).encode()
    return text.encode(errors="replace")


def is_binary(frames: Any) -> bool:
    """Tell whether a message carries a MIME type that Jupyter carries as base64."""
    return any(kind in bytes(frame) for frame in frames[-2:] for kind in BINARY)


def size_of(frames: Any) -> int:
    """Return the bytes of a message; a buffer's `len` would count its items."""
    return sum(len(frame) if isinstance(frame, bytes) else _nbytes(frame) for frame in frames)


def _nbytes(frame: Any) -> int:
    return memoryview(getattr(frame, "buffer", frame)).nbytes
