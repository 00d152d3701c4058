"""`/api/kernels/{kernel_id}/channels`: a Jupyter client's WebSocket, which is usable at once."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from enum import StrEnum
from typing import Any

from tornado import web, websocket

from broker.errors import BrokerError
from broker.jupyter.exchange import CHANNELS, Exchange
from broker.jupyter.follower import Follower
from broker.jupyter.frames import REFUSALS, V1, Asked, Packet, decode_legacy, decode_v1
from broker.jupyter.history import history
from broker.jupyter.names import is_unnamed
from broker.jupyter.translation import evaluated, stderr
from broker.jupyter.voice import utterance
from broker.principal import Deed, Principal
from broker.protocol import OpenQuery
from broker.requests import Close, Execute, Interrupt, Request, Restart
from broker.session import Session
from broker.web import audited
from broker.web.backlog import Backlog
from broker.web.door import House
from broker.web.handshake import check_handshake, clipped
from broker.web.jupyter.door import JupyterFace, admit, located
from broker.web.native import BAD_FRAMES, TOKEN_ENDED, TOO_SLOW
from broker.web.outbox import BINARY, TEXT

logger = logging.getLogger(__name__)

MOST_ID = 128  # characters of a session_id
SHUTDOWN, INTERRUPT, DEBUG = "shutdown_request", "interrupt_request", "debug_request"
HISTORY = "history_request"
MOST_CELLS = 1000  # of a session's last that a history is made of
REPLACED = 4410  # by another connection of the same client's
WEBVIEW = "vscode-webview:"  # pages of VS Code, which no site can be
# Jupyter's own server, where it is a client (`--gateway-url`), takes every frame for text: a binary
# one ends its reading for good. It is what connects by Tornado and offers no subprotocol.
TEXT_ALONE = "Tornado/"
LEFT_OUT = (
    "[binary data left out: a Jupyter server between this broker and its page carries text alone;"
    " widgets that need it work where the page's program connects to the broker itself]\n"
)


class Framing(StrEnum):
    """How messages stand in frames."""

    V1 = "v1"
    LEGACY = "legacy"
    TEXT_ALONE = "text alone"  # legacy, without binary data: which is said when some are left out
    TEXT_TOLD = "text alone, as was said"


class Channels(websocket.WebSocketHandler):
    """One connection of a Jupyter client: the way out of its place in the session's exchange."""

    principal: Principal
    visited: str | None = None  # Jupyter's routes know one's own tenant only
    session: Session
    exchange: Exchange
    follower: Follower
    backlog: Backlog

    write_error = JupyterFace.write_error
    log_exception = JupyterFace.log_exception
    set_default_headers = JupyterFace.set_default_headers
    decode_argument = JupyterFace.decode_argument

    def initialize(self, house: House, mount: str = "") -> None:
        """Take what the handlers share."""
        self.house = house
        self.mount = mount
        self.concerns: str | None = None  # the session, for audits
        self._bad = 0
        self._attached = False
        self._runs = False
        self._comes_back = False
        self._framing = Framing.LEGACY
        self._release: Callable[[], None] = lambda: None  # of the token that let it in

    async def prepare(self) -> None:
        """Find the session before the upgrade, so that a refusal is an HTTP status."""
        self.principal = await admit(self, Deed.READ)
        self._runs = self.principal.may(Deed.RUN)
        if self.request.method != "GET":
            raise web.HTTPError(405)
        self.session = await located(self, self.path_kwargs["kernel_id"])
        self.concerns = self.session.name
        check_handshake(self)
        if self.session.kernel is None and self._runs:  # it has ended, or is on its way
            query = OpenQuery(create=False)
            await self.house.service.open(self.session.tenant, self.session.name, query)

    def check_origin(self, origin: str) -> bool:
        """Let the pages of our own come, those of `wire.allow_origins`, and those of VS Code."""
        return origin.startswith(WEBVIEW) or super().check_origin(origin)

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Choose the newer framing where it is offered."""
        return V1 if V1 in subprotocols else None

    def open(self, *args: str, **kwargs: str) -> None:
        """Attach to the session, in the place of the client's that was there before."""
        if (connection := self.ws_connection) is None or (stream := connection.stream) is None:
            return
        self.set_nodelay(True)
        if self.selected_subprotocol == V1:
            self._framing = Framing.V1
        elif self.request.headers.get("User-Agent", "").startswith(TEXT_ALONE):
            self._framing = Framing.TEXT_ALONE
        named = self.get_query_argument("session_id", "")[:MOST_ID]
        self._comes_back = bool(named)
        if not isinstance(self.session.tap, Exchange):
            self.session.tap = Exchange(self.session)
        self.exchange = self.session.tap
        # A place is the token's as well: replies and questions in it are for nobody else.
        place = repr((self.principal.token_id, self._runs, named or uuid.uuid4().hex))
        self.follower = self.exchange.join(place, runs=self._runs, comes_back=self._comes_back)
        if (before := self.follower.wire) is not None:
            before.end(REPLACED, "another connection has the same session_id")
        audience, most = self.session.audience, self.house.client_backlog
        opcode = BINARY if self._framing is Framing.V1 else TEXT
        self.backlog = Backlog(stream, opcode, most, audience, self.follower)
        self.follower.wire = self
        self._attached = True
        self.exchange.attach(self.follower)
        self.backlog.bound()
        self._release = self.house.tokens.hold(self.principal, self._expel)

    async def on_message(self, message: str | bytes) -> None:
        """Take one frame; a bad one is left out, too many in a row cost the connection."""
        if not self._attached:
            return
        try:
            decode = decode_v1 if self._framing is Framing.V1 else decode_legacy
            asked = decode(message, self.house.bounds)
        except REFUSALS as error:
            self._bad += 1
            logger.info("session=%s/%s a Jupyter client sent %s", *self.session.key, error)
            if self._bad >= self.house.bad_frames:
                self._let_go(BAD_FRAMES, f"{self._bad} bad frames in a row: {error.message}")
            return
        self._bad = 0
        if asked.type == SHUTDOWN and self._runs:
            await self._shut_down(asked)
            return
        if asked.type == HISTORY and asked.channel in CHANNELS:
            await self._tell_history(asked)
            return
        execute = self.exchange.serve(self.follower, asked)
        if execute is not None:
            self._note(execute)
        elif asked.type == INTERRUPT and self._runs:
            self._note(Interrupt(id=asked.msg_id))
        elif asked.type == DEBUG and self._runs and (code := evaluated(asked.content)):
            self._note(Execute(id=asked.msg_id, code=code))

    def _note(self, request: Request) -> None:
        audited.asked(self.house.audit, self, self.session.name, request)

    async def _tell_history(self, asked: Asked) -> None:
        """Tell what has run, as the transcript has it; who only watches may know it, too."""
        session = self.session
        generation = session.generation or session.mark.generation
        try:
            kept = await self.house.scribe.cells(session.key, MOST_CELLS)
            content = await asyncio.to_thread(history, kept, asked.content, generation)
            self.exchange.answer(self.follower, asked, content)
        except BrokerError as error:
            self.exchange.refuse(self.follower, asked, error)

    async def _shut_down(self, asked: Asked) -> None:
        """End the kernel, or give the session a new one; a session that has a name stays."""
        restart = asked.content.get("restart") is True
        content: dict[str, Any] = {"status": "ok", "restart": restart}
        service = self.house.service
        try:
            if restart:
                await service.restart(self.session)
                self._note(Restart(id=asked.msg_id))
            self.exchange.answer(self.follower, asked, content)
            ends = self.settings["jupyter"].delete_ends == "all" or is_unnamed(self.session.name)
            if ends and not restart:
                await service.end(self.session.key, "closed")
                self._note(Close(id=asked.msg_id))
        except BrokerError as error:
            self.exchange.refuse(self.follower, asked, error)

    def on_close(self) -> None:
        """Give up the place, or have it kept; what was asked for goes on."""
        self._release()
        self._detach()

    # The wire of a follower

    def say(self, packet: Packet) -> None:
        """Take a message; a client that reads too slowly is let go."""
        if self.ws_connection is None or self.ws_connection.is_closing():
            return
        if self._framing is Framing.V1:
            taken = self.backlog.put(packet.v1)
        elif self._framing is Framing.LEGACY:
            taken = self.backlog.put(packet.legacy, BINARY if packet.buffers else TEXT)
        else:
            if packet.buffers and self._framing is Framing.TEXT_ALONE:
                self._framing = Framing.TEXT_TOLD
                self.say(utterance("iopub", "stream", stderr(LEFT_OUT), packet.parent))
            taken = self.backlog.put(packet.text)
        if not taken:
            logger.info("session=%s/%s Jupyter client too slow", *self.session.key)
            self._let_go(TOO_SLOW, "too slow: reconnect")

    def dispatch(self) -> None:
        """Send what was taken."""
        if self.ws_connection is not None and not self.ws_connection.is_closing():
            self.backlog.outbox.flush()

    def end(self, code: int, reason: str) -> None:
        """Close for the session's own reasons."""
        self.backlog.outbox.finish()
        self._attached = False
        self.backlog.part()
        self.close(code, clipped(reason))

    def _expel(self, why: str) -> None:
        self._comes_back = False  # and nobody else has the place
        self._let_go(TOKEN_ENDED, why)

    def _let_go(self, code: int, reason: str) -> None:
        self._detach()
        self.backlog.outbox.finish()
        self.close(code, clipped(reason))

    def _detach(self) -> None:
        if self._attached:
            self._attached = False
            self.backlog.part()
            if self.follower.wire is self:
                self.exchange.leave(self.follower, comes_back=self._comes_back)
