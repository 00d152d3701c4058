"""What is published: in order, in few writes, with a bound on each message and on what waits.

Messages gather until a reply leaves, the request is done, somebody flushes, or FLUSH_AFTER has
passed: a timer of the system's wakes the control thread, so that a short cell wakes no thread.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from jupyter_client.jsonutil import json_clean, json_default
from jupyter_client.session import json_unpacker

from .kept import Kept, asked_after
from .peers import MAX_UNREAD, SEND_PATIENCE, Peer
from .zmtp import packed

FLUSH_AFTER = 0.01  # s from a message to its sending, at the most, while a cell runs
MAX_BATCH = 64 << 10  # bytes gathered before they are written
SHOWN = b"display_data"  # ends the topics of what is shown, and of what replaces it
INPUT = b"execute_input"
ROUTINE = b"status", INPUT  # likewise: what each request has

_CLOCK_MONOTONIC, _TFD_NONBLOCK, _TFD_CLOEXEC = 1, 0o4000, 0o2000000
_libc = ctypes.CDLL(None, use_errno=True)
# It never blocks. Let go of the interpreter for it, and a busy cell gives it back late.
_settime = ctypes.PyDLL(None).timerfd_settime


class Timer:
    """A timer of the system's, timerfd_create(2): set by any thread, and seen by a loop."""

    _TIMES = ctypes.c_long * 4  # interval and value, each in s and ns
    _OFF = _TIMES()

    def __init__(self, seconds: float) -> None:
        self.descriptor = _libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_NONBLOCK | _TFD_CLOEXEC)
        if self.descriptor < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        self._on = self._TIMES(0, 0, 0, int(1e9 * seconds))

    def set(self, on: bool) -> None:
        """Let it go off after its time, or not."""
        _settime(self.descriptor, 0, self._on if on else self._OFF, None)


class Publisher:
    """The iopub channel: what an XPUB socket is, to send to; and ipykernel's thread for one."""

    thread = None

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.message_bytes = 0
        self.outputs: Any = None  # where what is larger is kept
        self.session: Any = None
        self.background_socket = self
        self.io_loop: Any = None
        self._pid = 0
        self._waiter: threading.Thread | None = None  # who must not wait
        self._lock = threading.RLock()
        self._kept = Kept()
        self._batch: list[bytes] = []
        self._gathered = 0  # bytes, about
        self._has_text = self._has_output = False  # in what is gathered; text is output
        self._timer: Timer | None = None
        self._set = False
        self._writing = False
        self._due_at = 0.0  # of the monotonic clock: a line that comes later waits for nobody
        self._late_at = 0.0  # likewise: when what waits should have gone
        self.muted: threading.Thread | None = None  # whose messages go nowhere; nor does text
        self.silent: set[int | None] = set()  # threads that have nothing to say, ever
        self.interrupted = False  # SIGINT came while we sent
        self.texts: Any = None  # what is not yet a message; set by the streams

    def __repr__(self) -> str:
        return f"<Publisher to {len(self.peers)}, {len(self._batch)} messages gathered>"

    def disown(self) -> None:
        """Have nothing to say: in a child that a cell has forked."""
        self._lock = threading.RLock()
        self._timer, self._set, self._writing = None, False, False
        self.pretend(None)

    def start(self, loop: Any, thread: threading.Thread) -> None:
        """Take the loop, and its thread, that sends what nobody else does."""
        self._pid = os.getpid()
        self._waiter = thread
        self._timer = Timer(FLUSH_AFTER)
        loop.add_reader(self._timer.descriptor, self._due)

    def pretend(self, peer: Any) -> None:
        """Publish to something that is no peer; None ends it."""
        self.peers = [] if peer is None else [peer]
        self._pid = 0 if peer is None else os.getpid()
        self._batch, self._gathered = [], 0
        self._kept = Kept()
        self._has_text = self._has_output = False

    @property
    def is_full(self) -> bool:
        """Tell whether somebody has left too much unread."""
        return any(peer.unread > MAX_UNREAD for peer in self.peers)

    def subscribe(self, peer: Peer, message: list[bytes]) -> None:
        """Act on a subscription or its end; welcome the subscriber."""
        on, topic = message[0][:1], message[0][1:]
        if on == b"\x00":
            peer.topics.discard(topic)
            return
        if on != b"\x01":
            return
        after = asked_after(topic)
        self.flush()  # what was said before is not for the new one, unless it asks
        with self._lock:
            self.write()
            lost, again = self._kept.since(self._kept.count if after is None else after)
            if after is None:
                peer.topics.add(topic)
            if peer not in self.peers:
                self.peers = [*self.peers, peer]
            if lost:
                again = [self._loss(lost, again), *again]
            # With where it stands in all that is published, so that it can ask later.
            position = self._kept.count - len(again)
            content = {"subscription": topic.decode(errors="replace"), "position": position}
            welcome = self.session.serialize(self.session.msg("iopub_welcome", content))
            peer.send(packed([topic, *welcome] if topic else welcome))
            for each in again:
                peer.send(packed(each))

    def _loss(self, count: int, before: list[Any]) -> list[bytes]:
        """Return a message that says how many are gone, of the request that the next one is of."""
        parent = {}
        if before:
            parent = json_unpacker(before[0][list(before[0]).index(b"<IDS|MSG>") + 3])
        text = f"[{count:,} messages left out: nobody was connected to take them]\n"
        message = self.session.msg("stream", {"name": "stderr", "text": text}, parent=parent)
        return [b"stream", *self.session.serialize(message)]

    def remove(self, peer: Peer) -> None:
        """Forget a connection."""
        self.peers = [each for each in self.peers if each is not peer]

    def send_multipart(self, msg: Any, *args: Any, **options: Any) -> None:
        """Publish one message; wait first while too much is unread."""
        if os.getpid() != self._pid:
            return  # a forked child is no kernel; its text goes through the descriptors
        if self.silent and threading.get_ident() in self.silent:
            return
        if self.texts is not None:  # under its lock: another thread may be handing over
            self.texts.hand_over(whole=True)
        self.wait_for_room()
        if not self._batch:
            self._due_at = time.monotonic() + FLUSH_AFTER
        self._gather(self.fit(msg), is_output=not msg[0].endswith(ROUTINE))
        if msg[0].endswith(SHOWN):  # it may be the last thing that is seen of this kernel
            self.write()
        self._settle()

    def enqueue_text(self, msg: Any) -> None:
        """Publish one message of text, for a sender that holds a lock: without waiting.

        It was cut into pieces and counted already.
        """
        if self.muted is None:  # whichever thread sends it: it was written by the muted one
            with self._lock:
                self._has_text = True
                self._gather(msg, is_output=True)

    def _gather(self, msg: Any, *, is_output: bool) -> None:
        if not self._pid or (self.muted is not None and self.muted is threading.current_thread()):
            return
        data = packed(msg)
        with self._lock:
            if msg[0].endswith(INPUT) and self.peers:
                self._kept.forget(1)  # who asks anew has had all that was before: but for `busy`
            self._kept.add(msg, len(data))
            if not self.peers:
                return
            self._batch.append(data)
            self._gathered += len(data)
            self._has_output |= is_output
            if self._gathered > MAX_BATCH:
                self.write()
            else:
                self.arm()

    def is_due(self, text: str = "\n") -> bool:
        """Tell whether whoever has new text should send it: the timer's thread may be kept from it.

        A line should, when nothing went out for FLUSH_AFTER and a request has run for as long;
        and any text when some has waited for twice as long: the end of its line follows at once.
        """
        now = time.monotonic()
        late = self._set and now >= self._late_at + FLUSH_AFTER
        return now >= self._due_at and (late or text.endswith("\n"))

    def arm(self) -> None:
        """See to it that what is gathered goes out in time."""
        with self._lock:
            if not self._set and self._timer is not None:
                self._late_at = time.monotonic() + FLUSH_AFTER
                self._timer.set(True)
                self._set = True  # last: a signal handler that raises before leaves it to the next

    def flush(self, timeout: float | None = None) -> None:
        """Write all that was published, and the text that is no message yet."""
        if self.texts is not None:
            self.texts.hand_over()
        with self._lock:
            self.write()
            if self._set and self._timer is not None:
                self._set = bool(self.texts)
                self._timer.set(self._set)
        self._settle()

    def flush_output(self, *, only_text: bool) -> None:
        """Write all that was published if output is among it; the rest leaves soon anyway."""
        if self.texts is not None:
            self.texts.hand_over()
        with self._lock:  # who holds it may be about to write some
            if self._has_text or (self._has_output and not only_text):
                self.write()
        self._settle()

    def is_sending(self, frame: FrameType | None) -> bool:
        """Tell whether an exception in this frame would break off what is on its way.

        Who waits for room may be broken off.
        """
        while frame is not None and frame.f_code not in WAITING:
            if frame.f_code in SENDING:
                return True
            frame = frame.f_back
        return False

    def _settle(self) -> None:
        if self.interrupted and threading.current_thread() is threading.main_thread():
            self.interrupted = False
            raise KeyboardInterrupt

    def write(self) -> None:
        """Write what is gathered."""
        with self._lock:
            if self._writing:  # further out on this very stack, which goes on with what is new
                return
            self._writing = True
            try:
                while self._batch:
                    self._write()
            finally:
                self._writing = False

    def _write(self) -> None:
        batch, self._batch, self._gathered = self._batch, [], 0
        self._has_text = self._has_output = False
        self._due_at = time.monotonic() + FLUSH_AFTER
        everything = batch[0] if len(batch) == 1 else b"".join(batch)
        for peer in self.peers:
            if b"" in peer.topics:
                peer.send(everything)
            else:
                wanted = [each for each in batch if _has_topic(each, peer.topics)]
                peer.send(b"".join(wanted))

    def _due(self) -> None:
        with self._lock:
            self._set = True  # whatever a signal handler has kept from being noted
        self.flush()  # which sets the timer anew: it is not readable any more

    def wait_for_room(self) -> None:
        """Return when little waits to be read, so that a flood cannot fill the memory."""
        if self.is_full and threading.current_thread() is not self._waiter:
            for peer in self.peers:
                peer.wait(MAX_UNREAD // 2)

    def wait_until_sent(self) -> None:
        """Return when what was flushed has been given to the system, or after SEND_PATIENCE."""
        if threading.current_thread() is not self._waiter:
            until = time.monotonic() + SEND_PATIENCE
            for peer in self.peers:
                peer.wait(0, until)

    def schedule(self, f: Callable[[], None]) -> None:
        """Have the control thread call `f`."""
        self.io_loop.add_callback(f)

    def fit(self, msg: Any) -> Any:
        """Return the message, or a note of its size in its place if it is too large."""
        size = sum(map(len, msg))
        if not self.message_bytes or size <= self.message_bytes:
            return msg
        # The bound is on the data; base64 makes a picture's four thirds of that.
        if size <= self.message_bytes * 4 // 3 and is_binary(msg):
            return msg
        return self._note_instead(msg, size)

    def _note_instead(self, frames: Any, size: int) -> Any:
        at = frames.index(b"<IDS|MSG>")
        header, parent = (json_unpacker(frames[at + i]) for i in (2, 3))
        content = json_unpacker(frames[at + 5])
        note = f"[output of {size:,} bytes left out: the bound is {self.message_bytes:,}]"
        kind = header["msg_type"]
        if kind in ("display_data", "execute_result", "update_display_data"):
            file = self.outputs.keep(content.get("data")) if self.outputs else ""
            if file:
                note = f"{note[:-1]}; it is in {file}]"
            told = {"file": file} if file else {}
            content = {**content, "data": {"text/plain": note}, "metadata": told}
        elif kind == "error":
            content = {"ename": content["ename"][:100], "evalue": note, "traceback": [note]}
        elif kind == "execute_input":
            content = {**content, "code": note}
        else:
            kind, content = "stream", {"name": "stderr", "text": note + "\n"}
        message = self.session.msg(kind, content, parent=parent)
        return [*frames[:at], *self.session.serialize(message)]


_SENDERS = Publisher.send_multipart, Publisher.flush, Publisher.flush_output
SENDING = {each.__code__ for each in _SENDERS}
WAITING = {each.__code__ for each in (Publisher.wait_for_room, Publisher.wait_until_sent)}


def _has_topic(message: bytes, topics: set[bytes]) -> bool:
    size, start = message[1], 2
    if message[0] & 2:
        size, start = int.from_bytes(message[1:9], "big"), 9
    return message[start : start + size].startswith(tuple(topics))


def pack(value: Any) -> bytes:
    """Return a value as JSON in UTF-8; what UTF-8 cannot hold becomes a question mark.

    jupyter_client's own raises for one half of the surrogates, which would cost a request its
    reply, and for the other half sends bytes that are no UTF-8: those of undecodable file names.
    """
    try:
        text = _encode(value)
    except TypeError:
        text = _encode(json_clean(value))
    except ValueError:  # not a number, or infinite; perhaps in an array
        text = _encode(json_clean(json.loads(json.dumps(value, default=json_default))))
    return text.encode(errors="replace")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=json_default).encode


def is_binary(frames: Any) -> bool:
    """Tell whether a message carries a MIME type that Jupyter carries as base64."""
    return any(_BINARY_KEY.search(frame) for frame in frames[-2:])


def is_binary_type(mime: str) -> bool:
    """Tell whether the values of a MIME type are bytes: in Jupyter's messages as base64."""
    return _BINARY.fullmatch(mime) is not None


# As in the broker, which makes bytes of them. An SVG is text.
BINARY = r"image/(?!svg)[^\s\"]+|(?:audio|video)/[^\s\"]+|application/(?:pdf|octet-stream)"
_BINARY = re.compile(BINARY)
_BINARY_KEY = re.compile(f'"(?:{BINARY})"'.encode())
