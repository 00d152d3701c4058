"""What outlives a connection: the place in the sequence, and the open requests.

Performs no I/O: frames go in, and what is to be sent and delivered comes out.

After a connection was made anew, the broker's first event tells which executions are `open`, and
which events are `missed`; then come the events that were kept. What became of a request that had
been sent on the old connection follows:

    it is in `open`                          it goes on
    its `done` was among the kept events     it has ended
    neither, and the generation is another   StateLost
    neither, and something is missed         OutputLost
    neither, and it was told to have begun   StateLost
    neither, and nothing is missed           its frame never arrived: it is sent again

Nothing is sent again, or anew, before what is to be around it is set on that connection.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import (
    BadRequest,
    BrokerError,
    ConnectionLost,
    OutputLost,
    SessionElsewhere,
    SessionMoved,
    StateLost,
    from_fault,
)
from .place import Place, Range
from .replies import Replies
from .result import Event, Result
from .wire import LAST, RUNS, Deliver, decode, encode

RECONNECT = 60.0  # s that a lost connection is tried again for


@dataclass(slots=True, eq=False)
class Asked:
    """An open request; whoever opens it sends `frame` by `socket`, a Link where that is None."""

    id: str
    kind: str
    message: dict[str, Any]
    deliver: Deliver
    socket: Any = None
    frame: bytes | str = b""
    sent: bool = False
    begun: bool = False  # it was told that it runs: it has arrived
    generation: int = 0  # of the session when it was sent; 0 if that was not known yet
    lacks: bool = False  # events of it may be gone,
    missed: Range | None = None  # in this range

    def ends_with(self, event: Event) -> bool:
        """Tell whether an event is its last; each cell of a batch has a `done`, too."""
        return event.get("type") == LAST.get(self.kind, "reply") and event.get("cell") is None

    def check(self) -> None:
        """Raise OutputLost if events of it may be gone."""
        if self.lacks:
            raise OutputLost(self.missed)


class Link:
    """One session as its client sees it, through all its connections.

    Thread-safe. What arrives for an open request goes to its `deliver`; what other clients of the
    session caused goes to `others`, or is dropped. Each request's events are bounded by the
    broker's own bounds on an execution's output, so that nothing here needs one.
    """

    def __init__(self) -> None:
        self.generation = 0
        self.place = Place()
        # The broker refuses an id that another client of the session has open.
        self._prefix = os.urandom(8).hex()
        self._made = 0
        self._subprotocol: str | None = None
        self._socket: Any = None  # that requests may be sent through
        self._joining: Any = None  # a socket on which it is not known yet what became of them
        self._until: int | None = None  # the number that the events sent again end with
        self._running: frozenset[str] | None = None  # what the broker has open, if it says so
        self._over: BrokerError | None = None  # why there will be no connection
        self._open: dict[str, Asked] = {}
        self._replies = Replies()
        self._silent: list[str] = []  # requests of which nothing has been heard, oldest first
        self._news: deque[Event] = deque(maxlen=8)  # told before an execution could hear of it
        self._loss: Event = {}  # the last one that was told
        self.known_loss = 0  # the generation that began with the last loss the caller knows of
        self.others: Deliver | None = None  # also hears why there will be no connection
        self.around: dict[str, Any] = {}  # what each connection sets first: `env`, `cwd`
        self._surrounded: Any = None  # the socket on which that was done
        self._configuring = ""  # the request that does it after a reconnection
        self._lock = threading.Lock()

    @property
    def lacks_surroundings(self) -> bool:
        """Tell whether something is to be set on the connection; a later one does that itself."""
        return bool(self.around) and self._socket not in (None, self._surrounded)

    def surround(self, env: Mapping[str, str | None] | None, cwd: str | None) -> None:
        """Have each later connection set this, unless the broker still has it so."""
        with self._lock:
            if not self.around:  # else what there is may be still on its way
                self._surrounded = self._socket
            if env:
                self.around["env"] = {**self.around.get("env", {}), **env}
            if cwd is not None:
                self.around["cwd"] = cwd

    def surrounded(self, socket: Any) -> None:
        """Note that what is around was set on a socket."""
        with self._lock:
            self._surrounded = socket

    def connected(self, socket: Any, subprotocol: str | None, *, again: bool) -> None:
        """Use a connection; `again` when the one before was lost, and `after` was asked for."""
        with self._lock:
            self._subprotocol, self._configuring = subprotocol, ""
            self._over = self._until = self._running = None
            if again:
                self._joining = socket
            else:
                self.place = Place()
                self._socket = socket

    def request(self, kind: str, deliver: Deliver, *, about: str = "", **fields: Any) -> Asked:
        """Open a request; raises the error that ended the last connection if there is none.

        What answers the question of an execution, and has no reply, is `about` that execution.
        """
        given = {key: value for key, value in fields.items() if value is not None}
        with self._lock:
            if self._over is not None:
                raise self._over
            self._made += 1
            request_id = f"{self._prefix}-{self._made}"
            message = {"type": kind, "id": request_id, **given}
            asked = Asked(request_id, kind, message, deliver)
            try:
                asked.frame = encode(self._subprotocol, message)
            except (TypeError, ValueError, OverflowError) as error:
                raise BadRequest(f"cannot be sent: {error}", code="bad_message") from error
            if kind in RUNS:
                while self._news:
                    deliver(self._news.popleft())
            asked.socket = self._socket
            if about:
                self._replies.give(about, asked)
                asked.sent = asked.socket is not None
                return asked
            self._open[request_id] = asked
            if asked.socket is not None:
                self._send(asked)
        return asked

    def _send(self, asked: Asked) -> bytes | str:
        asked.sent, asked.generation = True, self.generation
        if asked.id in self._silent:
            self._silent.remove(asked.id)
        self._silent.append(asked.id)
        return asked.frame

    def forget(self, request_id: str) -> None:
        """Stop delivering to a request; a second time does nothing."""
        with self._lock:
            self._forget(request_id)

    def _forget(self, request_id: str) -> None:
        self._open.pop(request_id, None)
        self._replies.forget(request_id)
        if request_id in self._silent:
            self._silent.remove(request_id)

    def receive(self, frame: bytes | str) -> list[bytes | str]:
        """Take in a frame of the broker; return the frames to be sent now.

        Raises ValueError when it is none, or not the next one, SessionMoved when the session is to
        be had elsewhere, and what the surroundings are refused with: the connection is of no use
        then.
        """
        event = decode(frame)
        told: list[tuple[Deliver, Event | BrokerError]] = []
        with self._lock:
            if self._joining is not None and self._until is None:
                self._rejoin(event, told)
            elif self._configuring and _is_answer(event, self._configuring):
                self._configured(event)
            elif self.place.take(event):
                self._route(event, told)
            frames: list[bytes | str] = []
            if self._joining is None:
                frames = self._answers()
            elif self._until is not None and self.place.last >= self._until:
                frames = self._settle(told)
        for deliver, what in told:
            deliver(what)
        return frames

    def _route(self, event: Event, told: list[tuple[Deliver, Event | BrokerError]]) -> None:
        kind = event.get("type")
        if kind == "session":
            self._session(event, told)
            return
        request_id = event.get("id")
        if kind in ("input_request", "done") and not self._replies.hear(event):
            return
        if request_id is None and kind == "fault" and self._silent:
            # A frame over the bound is dropped unread: its fault cannot name the request.
            request_id = self._silent[-1]
        asked = self._open.get(str(request_id))
        if asked is None:
            if self.others is not None and "seq" in event:
                told.append((self.others, event))
            return
        if asked.id in self._silent:
            self._silent.remove(asked.id)
        if kind == "fault":
            error = from_fault(event)
            if isinstance(error, SessionElsewhere) and error.url and asked.kind in RUNS:
                asked.sent = False  # it was not taken: the other node gets it
                raise moved(error.message, error.url)
            self._forget(asked.id)
            told.append((asked.deliver, error))
            return
        asked.begun = asked.begun or kind == "started"
        if asked.ends_with(event):
            self._forget(asked.id)
        told.append((asked.deliver, event))

    def _session(self, event: Event, told: list[tuple[Deliver, Event | BrokerError]]) -> None:
        self.generation = _generation(event) or self.generation
        if event.get("state") in ("lost", "restored"):
            self._loss = event
        executing = [one.deliver for one in self._open.values() if one.kind in RUNS]
        told.extend((deliver, event) for deliver in executing)
        if not executing and self.others is not None:
            told.append((self.others, event))
        elif not executing:
            self._news.append(event)

    def _rejoin(self, event: Event, told: list[tuple[Deliver, Event | BrokerError]]) -> None:
        missed, lacks = self.place.rejoin(event)
        self._until = event["seq"]
        running = event.get("open")
        self._running = frozenset(map(str, running)) if isinstance(running, list) else None
        told_of = event.get("waiting")
        waiting = [one for one in told_of if isinstance(one, dict)] if type(told_of) is list else []
        self._replies.rejoin(waiting, lacks=lacks)
        if lacks and self.others is not None:
            told.append((self.others, event))
        for asked in self._open.values():
            if lacks and asked.sent:
                both = missed and asked.missed
                asked.missed = (asked.missed or missed) if not both else _span(asked.missed, missed)
                asked.lacks = True
        if self.generation and lacks and _generation(event) not in (0, self.generation):
            # The event that told of the loss is gone as well.
            state = event.get("state")
            self._session({**event, "state": "lost" if state == "warm" else state}, told)

    def _settle(self, told: list[tuple[Deliver, Event | BrokerError]]) -> list[bytes | str]:
        """Say what became of each request, now that all that was kept has come."""
        if self.around and self._surrounded is not self._joining:
            return [] if self._configuring else [self._configure()]
        self._socket, self._joining, self._until = self._joining, None, None
        frames = self._answers()
        for asked in list(self._open.values()):
            error: BrokerError | None = None
            if asked.sent and asked.id in (self._running or ()):
                continue
            if asked.sent and asked.generation not in (0, self.generation):
                error = state_lost(self.generation, self._loss)
                self.known_loss = max(self.generation, self.known_loss)
            elif asked.sent and asked.lacks:
                error = OutputLost(asked.missed)
            elif asked.sent and self._running is None:
                error = ConnectionLost("the broker does not tell what became of the request")
            elif asked.begun:
                error = state_lost(self.generation, self._loss)
            if error is None:
                asked.frame = encode(self._subprotocol, asked.message)
                frames.append(self._send(asked))
            else:
                self._forget(asked.id)
                told.append((asked.deliver, error))
        return frames

    def _configure(self) -> bytes | str:
        self._made += 1
        self._configuring = f"{self._prefix}-{self._made}"
        # A broker that was started anew knows nothing of it.
        message = {"type": "configure", "id": self._configuring, "again": True}
        return encode(self._subprotocol, message | self.around)

    def _configured(self, event: Event) -> None:
        if event["type"] == "fault":
            raise from_fault(event)
        self._surrounded, self._configuring = self._joining, ""

    def _answers(self) -> list[bytes | str]:
        """Return the answers that have not arrived: those whose questions still wait."""
        answers = self._replies.due()
        for asked in answers:
            asked.frame, asked.sent = encode(self._subprotocol, asked.message), True
        return [asked.frame for asked in answers]

    def dropped(self, error: BrokerError) -> None:
        """Note that the connection is gone; only executions can be followed on another one."""
        with self._lock:
            self._socket = self._joining = None
            self._until = None
            gone = [one for one in self._open.values() if one.sent and one.kind not in RUNS]
            for asked in gone:
                self._forget(asked.id)
        for asked in gone:
            asked.deliver(error)

    def lost(self, error: BrokerError) -> None:
        """Tell each open request that no answer will come, and each later one."""
        with self._lock:
            self._socket = self._joining = self._until = None
            self._over = error
            waiting = [asked.deliver for asked in self._open.values()]
            waiting += [] if self.others is None else [self.others]
            self._open.clear()
            self._replies.clear()
            self._silent.clear()
        for deliver in waiting:
            deliver(error)


def moved(message: str, url: str) -> SessionMoved:
    """Return the error that says where a session is served."""
    error = SessionMoved(message, code="busy")
    error.url = url
    return error


def state_lost(generation: int, loss: Event, result: Result | None = None) -> StateLost:
    """Return the error that says what an event of a loss does."""
    names = loss.get("lost")
    lost = tuple(map(str, names)) if isinstance(names, list) else ()
    return StateLost(generation, str(loss.get("reason") or ""), lost, result)


def _generation(event: Event) -> int:
    value = event.get("generation")
    return value if isinstance(value, int) else 0


def _span(one: Range | None, other: Range | None) -> Range | None:
    return (min(one[0], other[0]), max(one[1], other[1])) if one and other else one or other


def _is_answer(event: Event, request_id: str) -> bool:
    kind, about = event.get("type"), event.get("id")
    return kind in ("reply", "fault") and about in (None, request_id)
