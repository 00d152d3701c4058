"""Executions for those who need no socket: run and wait, or stream as NDJSON."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from tornado.iostream import StreamClosedError

from broker.errors import BrokerError, NotRunning, SessionLost, Unauthorized
from broker.execution import EVENT_COST
from broker.faults import Bounds
from broker.parcels import parcel_of
from broker.protocol import (
    MAX_SENT_DEPTH,
    JsonCodec,
    OpenQuery,
    check_session_name,
    execute_body,
    execute_query,
)
from broker.requests import VISITOR, CallBody, ExecuteBody
from broker.roles import Envelope
from broker.session import Session
from broker.web import audited
from broker.web.door import Face, described
from broker.web.tenants import joining

Event = dict[str, Any]
Body = ExecuteBody | CallBody
VALUES = JsonCodec(Bounds())
LARGE = 256 << 10  # bytes of events whose answer takes longer than others should wait
LAST_WORDS = 2.0  # s that a caller whose token has ended has to read so


class Follower:
    """A client that follows one execution. Bounded by what the execution itself may send."""

    watches = False

    def __init__(self, request_id: str) -> None:
        self.id = request_id
        self.size = 0  # bytes of the events so far, and what each takes beside these
        self._events: asyncio.Queue[Event | BrokerError] = asyncio.Queue()
        self._cut: BrokerError | None = None

    def deliver(self, envelope: Envelope) -> None:
        """Keep what belongs to the execution."""
        event = envelope.event
        if event.get("id") == self.id:
            self.size += len(envelope.packed) + EVENT_COST
            self._events.put_nowait(event)

    def dispatch(self) -> None:
        """Do nothing more: whoever waits is called when the turn is over."""

    def fault(self, request_id: str, error: BrokerError) -> None:
        """Pass a refusal on to whoever waits."""
        if request_id == self.id:
            self._events.put_nowait(error)

    def end(self, code: int, reason: str) -> None:
        """Pass the end of the session on, for an execution that has not had its `done`."""
        self._events.put_nowait(SessionLost(f"the session ended: {reason}"))

    def cut(self, error: BrokerError) -> None:
        """Give whoever waits this error, and nothing of what came before it."""
        self._cut = error
        self._events.put_nowait(error)

    async def events(self) -> AsyncIterator[Event]:
        """Yield the events up to and with `done`. Raises what the execution was refused for."""
        while True:
            event = await self._events.get()
            if self._cut is not None:
                raise self._cut
            if isinstance(event, BrokerError):
                raise event
            yield event
            if event["type"] == "done":
                return


class ExecuteOnce(Face):
    """`POST /v1/execute`: run in a fresh kernel that is gone afterwards."""

    _read: Callable[[bytes, Bounds], Body] = staticmethod(execute_body)
    _follower: Follower | None = None
    _is_left = False  # its caller has gone
    _expelled: Unauthorized | None = None  # the token has ended
    _last_words: asyncio.TimerHandle | None = None

    async def post(self) -> None:
        """Run the body's code."""
        body = self._body()
        self.service.quotas.check(self.principal.tenant)
        async with self.service.once(self.principal.tenant, self._query(body)) as session:
            await self._run(session, body)

    def on_connection_close(self) -> None:
        """End what its caller waits for no longer."""
        self._is_left = True
        if self._follower is not None:
            self._follower.end(0, "its caller has gone")

    def _expel(self, why: str) -> None:
        """End what is waited for with a token that has ended, whether or not anybody reads that."""
        self._expelled = Unauthorized(why)
        if self._follower is not None:
            self._follower.cut(self._expelled)
            if (connection := self.request.connection) is not None:
                hang_up = connection.stream.close  # type: ignore[attr-defined]  # HTTP/1's has one
                self._last_words = asyncio.get_running_loop().call_later(LAST_WORDS, hang_up)

    def on_finish(self) -> None:
        """Leave the connection to its next request."""
        if self._last_words is not None:
            self._last_words.cancel()

    def _body(self) -> Body:
        """Return what is to run, checked before anything is opened for it."""
        body = self._read(self.request.body, self.house.bounds)
        parcel_of(body.request("-"))
        return body

    def _query(self, body: Body) -> OpenQuery:
        args = {name: self.get_query_argument(name) for name in self.request.query_arguments}
        return execute_query(args, body.profile)

    async def _run(self, session: Session, body: Body) -> None:
        release = self.house.tokens.hold(self.principal, self._expel)
        try:
            if self._expelled is not None:
                raise self._expelled
            await self._follow(session, body)
        finally:
            release()

    async def _follow(self, session: Session, body: Body) -> None:
        origin = VISITOR if self.visited else ""
        async with follow(session, body, origin) as follower:
            self._follower = follower
            if self._is_left:  # while the session was opened
                self.on_connection_close()
            audited.asked(self.house.audit, self, session.name, body.request(follower.id))
            if "application/x-ndjson" in self.request.headers.get("Accept", ""):
                await self._stream(follower)
            else:
                await self._answer(session, follower)

    async def _answer(self, session: Session, follower: Follower) -> None:
        events = [event async for event in follower.events()]

        def made() -> bytes:
            return json.dumps(self._summary(session, events)).encode()

        if follower.size <= LARGE:
            body = made()
        else:
            async with self.house.walks.of(self.principal.tenant):
                body = await asyncio.to_thread(made)
        if self._expelled is not None:  # meanwhile
            raise self._expelled
        self.set_header("Content-Type", "application/json")
        self.finish(body)

    def _summary(self, session: Session, events: list[Event]) -> dict[str, Any]:
        return summary(session, events)

    async def _stream(self, follower: Follower) -> None:
        self.set_header("Content-Type", "application/x-ndjson")
        with suppress(StreamClosedError):
            try:
                async for event in follower.events():
                    self.write(json.dumps(told(event)) + "\n")
                    await self.flush()
            except BrokerError as error:
                if not self._headers_written:
                    raise
                fault = {"type": "fault", "id": follower.id, **described(error)}
                self.write(json.dumps(fault) + "\n")
            await self.finish()


class ExecuteInSession(ExecuteOnce):
    """`POST /v1/sessions/{session}/execute`."""

    async def post(self, session: str) -> None:  # type: ignore[override]
        """Run the body's code in the session."""
        name = check_session_name(session)
        body = self._body()
        key, query = (self.tenant, name), self._query(body)
        if self.visited:
            query = joining(query)
        elif key not in self.service.sessions:  # else a session would be made for a refusal
            self.service.quotas.check(self.tenant)
        found = await self.service.open(*key, query)
        await self._run(found, body)


@asynccontextmanager
async def follow(session: Session, body: Body, origin: str = "") -> AsyncIterator[Follower]:
    """Submit an execution and follow it while the block lasts, at most to its end.

    If it has not ended by then, nobody waits for it: it is interrupted, or does not begin.
    """
    follower = Follower(uuid.uuid4().hex)
    session.attach(follower)
    try:
        session.work.submit(body.request(follower.id), follower, origin=origin)
        yield follower
    finally:
        abandon(session, follower.id)
        session.detach(follower)


def abandon(session: Session, request_id: str) -> None:
    """Interrupt an execution, or take it out of the queue; one that has ended is left alone."""
    for end in (session.work.interrupt, session.work.cancel):
        with suppress(NotRunning):
            end(request_id)
            return


def summary(session: Session, events: list[Event]) -> dict[str, Any]:
    """Return the answer of a waited-for execution."""
    outputs = [told(event) for event in events if event["type"] not in ("started", "queued")]
    done = outputs.pop()
    streams: dict[str, list[str]] = {"stdout": [], "stderr": []}
    result: dict[str, Any] | None = None
    displays: list[dict[str, Any]] = []
    error: dict[str, Any] | None = None
    for event in outputs:
        kind = event["type"]
        if kind == "stream":
            streams[event["name"]].append(event["text"])
        elif kind == "result":
            result = event["data"]
        elif kind == "display":
            displays.append(event["data"])
        elif kind == "error":
            error = {name: event[name] for name in ("name", "message", "short", "traceback")}
    return {
        "session": session.name,
        "generation": done["generation"],
        "state": done["state"],
        "status": done["status"],
        "execution_count": done["execution_count"],
        **{name: "".join(pieces) for name, pieces in streams.items()},
        "result": result,
        "displays": displays,
        "error": error,
        "outputs": outputs,
        "done": done,
    }


def told(event: Event) -> Event:
    """Return an event as it stands in an answer; a call's value as the JSON subprotocol has it."""
    if event["type"] != "value":
        return {key: as_json(value, 1) for key, value in event.items()}
    plain: Event = json.loads(VALUES.encode(event))
    return plain


def as_json(value: Any, level: int = 0) -> Any:
    """Return plain data with bytes as base64 text, as in an .ipynb; with a note of what is deep."""
    if isinstance(value, dict | list) and level == MAX_SENT_DEPTH:
        return f"[nested deeper than {MAX_SENT_DEPTH} levels]"
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(key): as_json(item, level + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item, level + 1) for item in value]
    return value
