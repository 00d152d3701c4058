"""One execution's life: a request, what the kernel says about it as events, and one `done`.

Knows the Jupyter messages of one request and nothing of clients. Everything from the kernel is a
stranger's data: what does not have the form it should is left out, never raised.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any

from broker import values
from broker.batches import CODE, Order
from broker.marks import Running
from broker.outputs import Event, error_event, plain, rich, truncation
from broker.replay import size_of
from broker.requests import Execute, origin_of
from broker.surroundings import NONE, Surroundings
from kernels.messages import Message
from kernels.spec import Usage

__all__ = ["EVENT_COST", "EXPIRED", "UNKNOWN", "Event", "Execution", "OutputLimits", "are_akin"]

# What an event costs beside its text: without it, millions of tiny ones would be free.
EVENT_COST = 256
STATUS = 4096  # bytes of a status: it has one word to say
OUTPUTS = (
    "stream",
    "display_data",
    "update_display_data",
    "execute_result",
    "clear_output",
    "error",
    values.KIND,
)
# Its time is up: on the clock, on its processors, or there with all that its tenant may have.
EXPIRED = ("timeout", "cpu", "quota")
UNKNOWN = Usage()


@dataclass(frozen=True, slots=True)
class OutputLimits:
    """Bounds on what one execution may send. Bytes."""

    text: int = 1 << 20  # the kernel cuts at this; twice as much is a kernel that does not
    display: int = 8 << 20  # one rich output
    displays: int = 64 << 20  # everything together, with EVENT_COST for each event


@dataclass(slots=True, eq=False)
class Execution:
    """One snippet on its way through a session. Times are the caller's monotonic seconds."""

    request: Execute
    owner: object  # who asked: a failure aborts what the same client has queued behind it
    submitted: float
    limits: OutputLimits = field(default_factory=OutputLimits)
    order: Order = CODE
    around: Surroundings = NONE  # what was set for all that runs, when it was asked for
    configured: bool = False  # the kernel has that
    cwd_refused: bool = False  # but its directory, which is not there
    answers: bool = False  # who asked can answer what it asks
    told: bool = False  # an event has told of it: a `done` must follow
    started: float = 0.0
    interrupted: str = ""  # why it was interrupted: `interrupted`, or one of EXPIRED
    interrupted_at: float = inf  # by a client
    failed_at: float = inf  # when its first error was told
    used_before: Usage = UNKNOWN  # by the kernel
    used_after: Usage = UNKNOWN
    state: str = ""  # of the variables when it began: fresh, warm, lost; empty if it never did
    taken: bool = False  # the kernel has begun with it
    interrupt_due: bool = False  # to be interrupted as soon as it has
    count: int | None = None
    bounded: bool = False  # a bound kept back, of the message taken last, some or all
    _status: str = ""
    _idle: bool = False
    _announced: bool = False
    _text: int = 0
    _rich: int = 0
    _dropped: int = 0
    _cost: int = 0  # bytes of all events, as whoever keeps them pays for them
    _vain: int = 0  # bytes of outputs that were decoded and came to nothing
    _failed: bool = False
    _untold: Mapping[str, Any] | None = None  # the error of the reply, to be told if no other is
    _valued: bool = False
    _metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Return the id the client chose."""
        return self.request.id

    @property
    def announced(self) -> bool:
        """Tell whether an event has told of its beginning."""
        return self._announced

    @property
    def replied(self) -> bool:
        """Tell whether the kernel has said how it ended."""
        return bool(self._status)

    def resume(self, running: Running, started: float) -> None:
        """Go on with what an earlier broker had the kernel begin, and what it has told of that."""
        self.started, self._announced, self.state = started, running.started, "warm"
        self._failed, self.answers = running.failed, running.answers
        self.used_before = Usage(running.used)
        self.told = self.taken = True

    def interrupt(self, now: float) -> None:
        """Note that a client interrupts it, unless it is interrupted already."""
        self.interrupted = self.interrupted or "interrupted"
        self.interrupted_at = min(self.interrupted_at, now)

    def takes_along(self, waiting: Execution) -> bool:
        """Tell whether what waits behind it fails with it: the same client's, asked for before.

        What it asks for once it has interrupted this, or was told that it fails, is meant to run.
        """
        until = min(self.interrupted_at, self.failed_at)
        return waiting.owner is self.owner and waiting.submitted <= until

    @property
    def finished(self) -> bool:
        """Tell whether the kernel has said its last word: the reply, and `idle`.

        Jupyter messaging: "idle … indicates that IOPub messages associated with a given request
        have all been received", and the reply comes on another socket.
        """
        return self._idle and bool(self._status)

    @property
    def lacks_reply(self) -> bool:
        """Tell whether the reply is all that is missing: it is on its way, or has come."""
        return self._idle and not self._status

    def content(self, version: int = 0) -> dict[str, Any]:
        """Return the content of the execute_request, for surroundings of that version.

        The kernel is never told to stop on errors: the queue is the session's.
        """
        parcel = self.order.parcel
        if self.around.version > version:
            parcel = {**(parcel or {}), "configure": self.around.since(version)}
        return ({} if parcel is None else {"broker": parcel}) | {
            "code": self.request.code,
            "silent": self.request.silent,
            "store_history": self.request.store_history and not self.request.silent,
            "user_expressions": self.order.expressions,
            "allow_stdin": self.answers and not self.request.silent,
            "stop_on_error": False,
        }

    def take(self, channel: str, message: Message, now: float = inf) -> Iterator[Event]:
        """Yield the events that a message about this execution, taken in now, stands for."""
        kind = message.type
        self.bounded = False
        if channel == "shell":
            if kind == "execute_reply" and not self._status:
                self._reply(message)
                yield from self._pages(message)
        elif channel == "iopub":
            self.taken = True
            yield from self._publication(kind, message)
        if self._untold is not None and self._idle and not self._failed:
            self._failed = True
            yield error_event(self.id, self._untold)
        if self._failed:
            self.failed_at = min(self.failed_at, now)

    def _publication(self, kind: str, message: Message) -> Iterator[Event]:
        # What cannot become an event is not decoded: that may cost us more than it cost to send.
        if kind == "status":
            if len(message.content_bytes) > STATUS:
                return
            if message.content.get("execution_state") == "idle":
                self._idle = True
            elif self.request.silent and not self._announced:
                yield self._start(None)
        elif kind == "execute_input":
            if not self._announced:
                content = message.content
                yield self._start(content.get("execution_count"), content.get("code"))
        elif kind in OUTPUTS:
            if self._vain > (self.limits.displays or inf) and (kind != "error" or self._failed):
                self._dropped += len(message.content_bytes)
                self.bounded = True
                return
            told = False
            for event in self._output(kind, message):
                told = True
                yield event
            if not told:
                self._vain += len(message.content_bytes)

    def done(self, status: str = "", reason: str = "", *, now: float) -> Event:
        """Return the one `done`; without a status, the kernel's own."""
        if not status:
            status = self._status or "lost"
            if self.interrupted and status == "error":
                status = "timeout" if self.interrupted in EXPIRED else self.interrupted
        event: Event = {"type": "done", "id": self.id, "status": status}
        if reason:
            event["reason"] = reason
        started = self.started or now
        event |= {
            "execution_count": self.count,
            "duration": round(now - started, 6) if self.started else 0.0,
            "queued": round(started - self.submitted, 6),
            "cpu": self._cpu(),
            "memory_peak": self._memory_peak(),
            "output_bytes": self._text + self._rich,
        }
        said = self._metadata.get("truncated")
        if truncated := truncation(said, self._text, self._text + self._dropped):
            event["truncated"] = truncated
        return event

    def _cpu(self) -> float | int | None:
        """Return the CPU seconds used: as counted outside the kernel, or as it says itself."""
        before, after = self.used_before.cpu_seconds, self.used_after.cpu_seconds
        if before is None or after is None:
            return _number(self._metadata.get("cpu"))
        return round(max(0.0, after - before), 6)

    def _memory_peak(self) -> float | int | None:
        peak = self.used_after.memory_peak
        return _number(self._metadata.get("memory_peak")) if peak is None else peak

    def late_start(self) -> Event | None:
        """Return the `started` that a kernel died too soon to send, or None if it was sent."""
        return None if self._announced or not self.started else self._start(self.count)

    def _start(self, count: object, code: object = "") -> Event:
        self._announced = True
        self.count = _count(count)
        event: Event = {
            "type": "started",
            "id": self.id,
            "execution_count": self.count,
            # Only the kernel still has the code of what an earlier broker had it run.
            "code": self.request.code or (code if isinstance(code, str) else ""),
        }
        if self.request.metadata and (origin := origin_of(self.request.metadata)):
            event["origin"] = origin
        return event

    def _pages(self, message: Message) -> Iterator[Event]:
        """Show what the reply would have a pager show: the help of `name?`."""
        payload = message.content.get("payload")
        if self.limits.display and len(message.content_bytes) > self.limits.display:
            payload = []
        for part in payload if isinstance(payload, list) else []:
            if isinstance(part, dict) and isinstance(part.get("data"), dict):
                data = rich({mime: _plain_value(value) for mime, value in part["data"].items()})
                if self.affords(size_of(data, self._left)):
                    yield {"type": "display", "id": self.id, "data": data, "metadata": {}}

    def _reply(self, message: Message) -> None:
        status = message.content.get("status")
        self._status = status if status in ("ok", "error", "aborted") else "error"
        self._metadata = message.metadata
        if self._status == "error" and isinstance(message.content.get("ename"), str):
            self._untold = message.content
        told = message.content.get("broker")
        told = told if isinstance(told, dict) else {}
        self.configured = told.get("configured") is True
        self.cwd_refused = told.get("refused") == "cwd"
        count = _count(message.content.get("execution_count"))
        self.count = self.count if count is None else count

    def _stream(self, content: Mapping[str, Any]) -> Iterator[Event]:
        name, text = content.get("name"), content.get("text")
        if name not in ("stdout", "stderr") or not isinstance(text, str):
            return
        # Our kernels cut at the limit themselves; this bound is for those that do not.
        room = 2 * self.limits.text + 256 - self._text if self.limits.text else len(text)
        shown = text[: max(0, room)]
        self._dropped += len(text) - len(shown)
        self.bounded = len(shown) < len(text)
        if shown and self.affords(len(shown)):
            self._text += len(shown)
            yield {"type": "stream", "id": self.id, "name": name, "text": shown}

    def _output(self, kind: str, message: Message) -> Iterator[Event]:
        if kind == "stream":
            yield from self._stream(message.content)
        elif kind == "clear_output":
            if self.affords(0):
                wait = bool(message.content.get("wait"))
                yield {"type": "clear", "id": self.id, "wait": wait}
        elif kind == "error":
            event = error_event(self.id, message.content)
            if self.affords(size_of(event)) or not self._failed:
                self._failed = True  # the first one is told whatever came before it
                yield event
        elif kind == values.KIND:
            yield from self._value(message)
        elif (shown := self._display(kind, message)) is not None:
            yield shown

    def _value(self, message: Message) -> Iterator[Event]:
        if self._valued or not self.order.is_call:
            return
        event = values.value_event(self.id, message, self.limits.display, rich)
        if event is not None:
            self._valued = True
            size = len(message.content_bytes)
            if not self.affords(size_of(event, self._left)):
                yield values.left_out(self.id, size)
                return
            if values.is_over(message, self.limits.display):
                self._dropped += size
            else:
                self._rich += size
            yield event

    def _display(self, kind: str, message: Message) -> Event | None:
        size = len(message.content_bytes)
        if message.is_heavy:  # with all that it would be to decode
            content: dict[str, Any] = {"data": {}}
        else:
            content = message.content
        data, metadata = content.get("data"), content.get("metadata")
        if not isinstance(data, dict):
            return None
        metadata = metadata if isinstance(metadata, dict) else {}
        transient = content.get("transient")
        display_id = transient.get("display_id") if isinstance(transient, dict) else None
        bound = self.limits.display * 4 // 3 + 4096 if self.limits.display else inf
        too_large = message.is_heavy or size > bound
        if too_large:
            data, metadata = {"text/plain": f"[output of {size:,} bytes left out]"}, {}
        data = rich(data)
        if not self.affords(size_of([data, metadata, display_id], self._left)):
            return None
        if too_large:
            self._dropped += size
        else:
            self._rich += size
        event: Event = {
            "type": "result" if kind == "execute_result" else "display",
            "id": self.id,
            "data": data,
            "metadata": metadata,
        }
        if kind == "execute_result":
            event["execution_count"] = _count(content.get("execution_count"))
            return event
        if isinstance(display_id, str):
            event["display_id"] = display_id
        if kind == "update_display_data":
            event["update"] = True
        return event

    @property
    def _left(self) -> float:
        return self.limits.displays - self._cost if self.limits.displays else inf

    def affords(self, size: int) -> bool:
        """Count an event of `size` bytes, and tell whether the execution may still cause it."""
        if size + EVENT_COST > self._left:
            self._dropped += size
            self.bounded = True
            return False
        self._cost += size + EVENT_COST
        return True


def are_akin(request_id: str, other: str) -> bool:
    """Tell whether one connection has made both ids, `<connection>_<number>`."""
    connection, numbered, _ = other.rpartition("_")
    return bool(numbered) and request_id.startswith(f"{connection}_")


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _plain_value(value: object) -> object:
    return plain(value) if isinstance(value, str) else value


def _number(value: object) -> float | int | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
