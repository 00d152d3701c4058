"""What a cell asks of those who run it: a line of input, or a call of a host tool.

Both leave by the stdin channel, and their answers come by it, on the control thread, while the cell
waits. Any thread may ask. Where nobody can answer, whoever asks is told so at once; where whoever
runs the code is to come back by the same name, a broker, what waits is asked again when it says so.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from IPython.core.error import StdinNotImplementedError

from .peers import is_name
from .publish import pack
from .streams import CellStream, flush
from .tagged import packed, unpacked

MOST_ARGUMENTS = 1 << 20  # bytes of one call's, as JSON
PATIENCE = 1.0  # s until whoever has sent the cell must have come to the stdin channel, too
END_OF_INPUT = "\x04"
ASK_AGAIN = "broker_ask_again"

Frames = list[bytes]
Asker = tuple[list[bytes], dict[str, Any]]  # whose cell it is, and the request to run it


class ToolError(Exception):
    """What a host tool failed with: `name` is the error's, `message` what it says."""

    def __init__(self, name: str, message: str = "") -> None:
        super().__init__(name, message)
        self.name = name
        self.message = message

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" if self.message else self.name


ToolError.__module__ = "tools"


class Call:
    """One call of a tool: what is sent to whom, and what becomes of it."""

    def __init__(self, number: str, name: str, body: bytes, asker: Asker) -> None:
        self.number = number
        self.head = {"call": number, "name": name}
        self.body = body
        self.asker = asker
        self.answer: Future[Any] = Future()


class Line:
    """One line of input that is waited for."""

    def __init__(self, number: str, prompt: str, *, password: bool, asker: Asker) -> None:
        self.number = number
        self.content = {"prompt": prompt, "password": password}
        self.asker = asker
        self.answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()

    def take(self, content: dict[str, Any]) -> None:
        """Take an answer; one that names another question is left out."""
        if content.get("asked", self.number) == self.number:
            self.answers.put(content)


class Asking:
    """The asking end of the stdin channel. `take`, `join` and `lose` are the control thread's."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel
        self._turn = threading.RLock()  # one input request at a time, as Jupyter has it
        self._line: Line | None = None
        self._numbers = itertools.count(1)
        self._calls: dict[str, Call] = {}  # that are out
        self._waiting: deque[Call] = deque()
        self._lock = threading.RLock()
        self._joined = threading.Condition()
        self._peers: set[bytes] = set()
        self.most_open = 64  # calls that are out at once; more wait here for one of them
        self.comes_back = False  # whoever runs the cells, if it has a name
        self._expected = b""  # who has gone, and comes back by this name
        self._identity: list[bytes] = []  # of whoever has sent the cell
        self._cell: dict[str, Any] = {}  # its request

    def begin(self, identity: Sequence[bytes], request: dict[str, Any]) -> None:
        """Note who runs a cell: what any thread asks meanwhile goes there."""
        self._identity, self._cell = list(identity), request

    # What cells ask

    def read(self, prompt: str, *, password: bool) -> str:
        """Return a line of input. Raises EOFError, or StdinNotImplementedError where none comes."""
        flush()
        CellStream.pending.hand_over(whole=True)
        self._kernel.iopub_socket.flush()
        if why := self._obstacle():
            raise StdinNotImplementedError(why)
        with self._turn:
            number = str(next(self._numbers))
            before, line = self._line, Line(number, prompt, password=password, asker=self._asker())
            self._line = line
            try:
                self._send_line(line)
                answer = line.answers.get()
            finally:
                self._line = before
        if refused := answer.get("refused"):
            raise StdinNotImplementedError(str(refused))
        value = answer["value"]
        if value == END_OF_INPUT:
            raise EOFError
        return str(value)

    def call(self, name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> Future[Any]:
        """Call a tool; the future has its value, or a ToolError. To be cancelled if unwanted.

        Raises TypeError for arguments that are no plain data, ToolError where it cannot be called.
        """
        named = {name: packed(value) for name, value in kwargs.items()}
        body = pack({"args": packed(args), "kwargs": named})
        if len(body) > MOST_ARGUMENTS:
            size = f"{len(body):,} bytes; at most {MOST_ARGUMENTS:,}"
            raise ToolError("TooLarge", f"the arguments of {name} take {size}")
        if why := self._obstacle():
            raise ToolError("NotServed", f"nobody serves {name}: {why}")
        self._kernel.iopub_socket.flush()
        call = Call(str(next(self._numbers)), name, body, self._asker())
        call.answer.add_done_callback(lambda _: self._over(call))
        try:
            with self._lock:
                self._waiting.append(call)
                self._send_waiting()
        except BaseException:
            call.answer.cancel()  # an interrupt, with the call on its way
            raise
        return call.answer

    def _obstacle(self) -> str:
        """Return why nobody would hear, once those who are coming have come; or ""."""
        if os.getpid() != self._kernel.session.pid:
            return "this process is a child of the kernel's"
        identity = b"".join(self._asker()[0][:1])
        with self._joined:
            if self._joined.wait_for(lambda: self._is_heard(identity), PATIENCE):
                return ""
        return "whoever runs the code takes no requests from it"

    def _is_heard(self, identity: bytes) -> bool:
        return identity in self._peers or (identity == self._expected != b"")

    def _send_line(self, line: Line) -> None:
        self._send(line.asker, "input_request", line.content, {"asked": line.number})

    def _send_call(self, call: Call) -> None:
        self._send(call.asker, "broker_tool_call", call.body.decode(), call.head)

    def _send(self, asker: Asker, kind: str, content: Any, metadata: dict[str, Any]) -> None:
        kernel = self._kernel
        identity, cell = asker
        kernel.session.send(kernel.stdin_socket, kind, content, cell, identity, metadata=metadata)

    def _asker(self) -> Asker:
        kernel = self._kernel
        try:
            return list(kernel._shell_parent_ident.get()), kernel._shell_parent.get()
        except LookupError:  # a thread of a cell's
            return self._identity, self._cell

    def _send_waiting(self) -> None:
        while self._waiting and len(self._calls) < self.most_open:
            call = self._waiting.popleft()
            self._calls[call.number] = call
            self._send_call(call)

    def _over(self, call: Call) -> None:
        """Tell that nobody wants the answer to a call any more, if that is so."""
        if not call.answer.cancelled():
            return
        with self._lock:
            if self._calls.pop(call.number, None) is not None:
                self._send(call.asker, "broker_tool_cancel", {}, call.head)
                self._send_waiting()
            elif call in self._waiting:
                self._waiting.remove(call)

    # What the control thread hears

    def join(self, identity: bytes) -> None:
        """Take in somebody who can answer."""
        with self._joined:
            self._peers.add(identity)
            if identity == self._expected:
                self._expected = b""
            self._joined.notify_all()

    def lose(self, identity: bytes) -> None:
        """Tell those who wait for somebody's answer that none will come, unless it comes back."""
        with self._joined:
            self._peers.discard(identity)
            if self.comes_back and is_name(identity):
                self._expected = identity
                return
        if [identity] != self._identity[:1]:
            return
        why = "whoever ran the code has gone"
        if (line := self._line) is not None:
            line.answers.put({"refused": why})
        with self._lock:
            calls = [*self._calls.values(), *self._waiting]
            self._calls.clear()
            self._waiting.clear()
        for call in calls:
            _settle(call.answer, ToolError("NotServed", why))

    def take(self, frames: Frames) -> None:
        """Take an answer; what is none is left out."""
        session = self._kernel.session
        try:
            message = session.deserialize(session.feed_identities(frames)[1])
            content = message["content"]
            if message["msg_type"] == ASK_AGAIN:
                self._ask_again()
            elif message["msg_type"] == "input_reply":
                if isinstance(content["value"], str) and (line := self._line) is not None:
                    line.take(content)
            elif message["msg_type"] == "broker_tool_result":
                self._answer(content)
        except (ValueError, TypeError, KeyError):  # no answer at all
            return

    def _ask_again(self) -> None:
        """Ask what waits of who has come back; what it was told already has the same number."""
        if (line := self._line) is not None:
            self._send_line(line)
        with self._lock:
            for call in self._calls.values():
                self._send_call(call)

    def _answer(self, content: dict[str, Any]) -> None:
        with self._lock:
            call = self._calls.pop(content["call"], None)
        if call is None:
            return
        error: Exception | None = None
        value = None
        try:
            if (failure := content.get("error")) is None:
                value = unpacked(content["value"])
            else:
                error = ToolError(str(failure["name"]), str(failure["message"]))
        except (ValueError, TypeError, KeyError):  # no other will come
            error = ToolError("BadAnswer", f"what {call.head['name']} answered cannot be read")
        _settle(call.answer, error, value)
        with self._lock:
            self._send_waiting()


def _settle(answer: Future[Any], error: Exception | None, value: Any = None) -> None:
    with suppress(InvalidStateError):  # nobody wants it any more
        if error is None:
            answer.set_result(value)
        else:
            answer.set_exception(error)
