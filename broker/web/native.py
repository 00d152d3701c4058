"""The native WebSocket: frames to requests, events to frames."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from tornado import web, websocket

from broker.errors import BadFrame, BadMessage, BrokerError, QueueFull, TooLarge
from broker.principal import Deed, Principal
from broker.protocol import (
    Codec,
    OpenQuery,
    check_session_name,
    choose_subprotocol,
    codec,
    open_query,
)
from broker.requests import VISITOR, Request
from broker.roles import Envelope
from broker.scribe import Scribe
from broker.service import Service
from broker.session import Session
from broker.web import audited, desk
from broker.web.backlog import Backlog
from broker.web.door import Face, House, admit, check_query, described
from broker.web.handshake import check_handshake, clipped
from broker.web.outbox import BINARY, TEXT
from broker.web.tenants import check_visit, joining, meant

logger = logging.getLogger(__name__)

NO_SUBPROTOCOL = 4406
BAD_FRAMES = 4400
TOKEN_ENDED = 4401
TOO_SLOW = 4408


class NativeSocket(websocket.WebSocketHandler):
    """One client of one session. Its own `Client`, as sessions see it."""

    principal: Principal
    visited: str | None = None  # another tenant, whose session it is
    session: Session
    codec: Codec
    backlog: Backlog

    def initialize(self, house: House) -> None:
        """Take what the handlers share."""
        self.house = house
        self._query = OpenQuery()
        self.watches = False
        self.origin = ""
        self._bad = 0
        self._attached = False
        self._release: Callable[[], None] = lambda: None  # of the token that let it in
        self._tasks: set[asyncio.Task[None]] = set()
        self._alone: set[type[Request]] = set()  # kinds of which one is under way

    @property
    def service(self) -> Service:
        """Return the service."""
        return self.house.service

    @property
    def scribe(self) -> Scribe:
        """Return the scribe."""
        return self.house.scribe

    write_error = Face.write_error
    log_exception = Face.log_exception
    set_default_headers = Face.set_default_headers
    decode_argument = Face.decode_argument

    async def prepare(self) -> None:
        """Find the session before the upgrade, so that a refusal is an HTTP status."""
        watches = self.get_query_argument("mode", "") == "watch"
        names = self.request.headers.get("Sec-WebSocket-Protocol", "").split(",")
        offered = [name.strip() for name in names]
        self.principal = await admit(self, Deed.READ if watches else Deed.RUN, offered)
        if self.request.method != "GET":  # else the handshake would be what is wrong
            raise web.HTTPError(405)
        check_query(self)
        tenant, self.visited = meant(self, self.principal)
        check_visit(self.principal, self.visited)
        name = check_session_name(self.path_kwargs["session"])
        query = {key: self.get_query_argument(key) for key in self.request.query_arguments}
        self._query = open_query(query)
        if self.visited:
            self._query, self.origin = joining(self._query), VISITOR
        self.watches = self._query.mode == "watch"
        check_handshake(self)
        if choose_subprotocol(offered) is not None:  # else `open` closes it
            self.session = await self.service.open(tenant, name, self._query)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Choose the best one that the client offers; never one that holds its token."""
        return choose_subprotocol(subprotocols)

    def open(self, *args: str, **kwargs: str) -> None:
        """Attach to the session."""
        if self.selected_subprotocol is None:
            self.close(NO_SUBPROTOCOL, "offer broker.v1.msgpack or broker.v1.json")
            return
        if (connection := self.ws_connection) is None or (stream := connection.stream) is None:
            return
        self.set_nodelay(True)
        self.codec = codec(self.selected_subprotocol, self.house.bounds)
        opcode, audience = BINARY if self.codec.binary else TEXT, self.session.audience
        self.backlog = Backlog(stream, opcode, self.house.client_backlog, audience, self)
        self._attached = True
        self.session.attach(self, self._query.after, at_once=self.watches)
        self.backlog.bound()  # what it has asked for again is bounded where it was kept
        self._release = self.house.tokens.hold(
            self.principal, lambda why: self._let_go(TOKEN_ENDED, why)
        )

    def on_message(self, message: str | bytes) -> None:
        """Take one frame; a bad one costs a fault, too many in a row the connection."""
        if not self._attached:
            return
        try:
            request = self.codec.decode(message)
        except (BadFrame, BadMessage, TooLarge) as error:
            self._bad += 1
            self.fault(error.request or "", error)
            if self._bad >= self.house.bad_frames:
                self._let_go(BAD_FRAMES, f"{self._bad} bad frames in a row")
            return
        self._bad = 0
        try:
            self._serve(request)
        except BrokerError as error:
            self.fault(request.id or "", error)
        except Exception as error:
            logger.exception("session=%s/%s request failed", *self.session.key)
            self.fault(request.id or "", error)

    def on_close(self) -> None:
        """Detach; what was asked for goes on."""
        self._release()
        self._detach()

    # What a session wants of its client

    def deliver(self, envelope: Envelope) -> None:
        """Take an event; a client that reads too slowly is let go."""
        if self._attached:
            self._put(envelope.frame(self.codec))

    def dispatch(self) -> None:
        """Send the events that were taken, in one write."""
        if self.ws_connection is not None and not self.ws_connection.is_closing():
            self.backlog.outbox.flush()

    def fault(self, request_id: str, error: BaseException) -> None:
        """Say that a request was not taken."""
        event = {"type": "fault", **described(error)}
        if request_id:
            event["id"] = request_id
        self._send(self.codec.encode(event))

    def end(self, code: int, reason: str) -> None:
        """Close the connection for the session's own reasons."""
        self.backlog.outbox.finish()
        self._attached = False
        self.backlog.part()
        self.close(code, clipped(reason))

    # Requests

    def _serve(self, request: Request) -> None:
        if type(request) in self._alone:
            raise QueueFull("one of these is under way already: wait for its reply")
        answer = desk.serve(self, request)
        if answer is not None and not isinstance(answer, dict):
            self._background(request, answer)
            return
        self._note(request)
        if answer is not None:
            self._reply(request, answer)

    def _note(self, request: Request) -> None:
        audited.asked(self.house.audit, self, self.session.name, request)

    def pong(self, request_id: str) -> None:
        """Answer a ping."""
        self._send(self.codec.encode({"type": "pong", "id": request_id}))

    def _reply(self, request: Request, fields: dict[str, Any]) -> None:
        self._send(self.codec.encode({"type": "reply", "id": request.id, **fields}))
        if type(request) in desk.LAST:
            self.end(1000, "closed")

    def _background(self, request: Request, work: Awaitable[desk.Fields]) -> None:
        async def run() -> None:
            try:
                fields = await work
                self._note(request)  # it is done only now
                if fields is not None:
                    self._reply(request, fields)
            except BrokerError as error:
                self.fault(request.id or "", error)
            except Exception as error:
                logger.exception("session=%s/%s request failed", *self.session.key)
                self.fault(request.id or "", error)
            finally:
                self._alone.discard(type(request))

        if type(request) in desk.ALONE:
            self._alone.add(type(request))
        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _send(self, frame: bytes) -> None:
        self._put(frame)
        self.dispatch()

    def _put(self, frame: bytes) -> None:
        if self.ws_connection is None or self.ws_connection.is_closing():
            return
        if not self.backlog.put(frame):
            logger.info("session=%s/%s client too slow", *self.session.key)
            self._let_go(TOO_SLOW, "too slow: reconnect with the last sequence number seen")

    def _let_go(self, code: int, reason: str) -> None:
        """Close the connection for the client's fault; nothing more of it is served."""
        self._detach()
        self.backlog.outbox.finish()
        self.close(code, reason)

    def _detach(self) -> None:
        if self._attached:
            self._attached = False
            self.backlog.part()
            self.session.detach(self)
