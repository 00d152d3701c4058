"""The door of every face: who is asking, and what an error looks like from outside.

One table says it all; a test checks that each error has a row.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import responses
from types import MappingProxyType
from typing import Any, NamedTuple

from tornado import web

from broker import errors
from broker.audit import Audit
from broker.auth import presented_token
from broker.drain import Drain
from broker.faults import Bounds, bad_field, unknown_field
from broker.metrics import Metrics
from broker.principal import Deed, Principal
from broker.protocol import check_session_name
from broker.scribe import Scribe
from broker.service import Service
from broker.store import NodeRecord
from broker.tokens import Tokens
from broker.web import audited, tenants
from broker.web.places import Places, Turns

logger = logging.getLogger(__name__)


class Code(NamedTuple):
    """One error, as HTTP says it, as a WebSocket is closed for it, and its name on the wire."""

    http: int
    close: int
    wire: str


UNFOUND = {404: "unknown_route", 405: "unknown_method"}  # of what is asked for at no route
INTERNAL = Code(500, 1011, "internal")
CODES: dict[type[errors.BrokerError], Code] = {
    errors.BadMessage: Code(400, 4400, "bad_message"),
    errors.BadFrame: Code(400, 4400, "bad_frame"),
    errors.TooLarge: Code(413, 4400, "too_large"),
    errors.BadSessionName: Code(400, 4400, "bad_message"),
    errors.Unauthorized: Code(401, 4401, "unauthorized"),
    errors.Forbidden: Code(403, 4400, "forbidden"),
    errors.UnknownSession: Code(404, 4404, "unknown_session"),
    errors.UnknownNode: Code(404, 4400, "unknown_node"),
    errors.UnknownProfile: Code(400, 4400, "bad_message"),
    errors.UnknownToken: Code(404, 4400, "unknown_token"),
    errors.NotRunning: Code(409, 4400, "not_running"),
    errors.BadPath: Code(400, 4400, "bad_path"),
    errors.NoSuchFile: Code(404, 4400, "no_such_file"),
    errors.FileExists: Code(412, 4400, "file_exists"),
    errors.FileConflict: Code(409, 4400, "file_conflict"),
    errors.WorkspaceFull: Code(507, 4400, "quota"),
    errors.NoWorkspace: Code(409, 4400, "no_workspace"),
    errors.QueueFull: Code(429, 1013, "queue_full"),
    errors.QuotaExceeded: Code(429, 1013, "quota"),
    errors.AtCapacity: Code(503, 1013, "capacity"),
    errors.Draining: Code(503, 1001, "draining"),
    errors.KernelBusy: Code(503, 1013, "busy"),
    errors.SessionElsewhere: Code(421, 4409, "busy"),
    errors.StoreUnavailable: Code(503, 1013, "store_unavailable"),
    errors.ProfileBroken: Code(503, 1013, "capacity"),
    errors.SessionLost: Code(410, 4404, "unknown_session"),
    errors.StateDirError: INTERNAL,
}


def code_of(error: BaseException) -> Code:
    """Return the error's row; what has none is our own fault."""
    return CODES.get(type(error), INTERNAL)  # type: ignore[arg-type]


def described(error: BaseException) -> dict[str, Any]:
    """Return `code`, `message`, and `field`, `retry_after`, `node` and `url` where there are any.

    What is not one of our errors is told without its text: that goes to the log only.
    """
    code = code_of(error)
    if not isinstance(error, errors.BrokerError):
        return {"code": code.wire, "message": "internal error; the server's log has the details"}
    body: dict[str, Any] = {"code": code.wire, "message": error.message}
    if error.field:
        body["field"] = error.field
    if isinstance(error, errors.CapacityError | errors.ProfileBroken):
        body["retry_after"] = error.retry_after
    if isinstance(error, errors.SessionElsewhere):
        body |= {"node": error.node, "url": error.url}
    return body


@dataclass(frozen=True, slots=True)
class House:
    """What the handlers share."""

    service: Service
    tokens: Tokens
    metrics: Metrics
    bounds: Bounds
    describe: Callable[[], NodeRecord]  # this node, as it is now
    processes: Callable[[], dict[str, Any]]  # this node's own, and its store
    scribe: Scribe
    drain: Drain
    languages: Mapping[str, tuple[str, str]]  # of profiles: the kernelspec's name, its language
    unready: Callable[[], list[str]]  # why it should get no new sessions
    most_cells: int = 200
    bad_frames: int = 10
    client_backlog: int = 8 << 20
    audit: Audit = field(default_factory=Audit)
    # Transfers of files, either way, and threads that walk through them.
    transfers: Places = field(default_factory=lambda: Places(64, share=32))
    walks: Turns = field(default_factory=lambda: Turns(4, share=2))


class Face(web.RequestHandler):
    """A handler that answers errors in the one form, and lets nobody in without a token."""

    public = False
    every_tenant = False  # whether it may be about the sessions of all
    principal: Principal
    tenant: str  # whose sessions it is about
    # For audits: which other tenant it is about; what and which session, where its path does not
    # say; and whether it has changed anything.
    visited: str | None = None
    subject: str | None = None
    concerns: str | None = None
    changed = True
    about: Mapping[str, str] = MappingProxyType({})  # and what else it says

    def initialize(self, house: House) -> None:
        """Take what the handlers share."""
        self.house = house

    @property
    def service(self) -> Service:
        """Return the service."""
        return self.house.service

    async def prepare(self) -> None:
        """Let in whom the token lets in."""
        if not self.public:
            self.principal = await admit(self)
        check_query(self)
        if not self.public:
            every = self.every_tenant
            self.tenant, self.visited = tenants.meant(self, self.principal, every=every)
            tenants.check_visit(self.principal, self.visited)

    def set_default_headers(self) -> None:
        """Keep answers out of caches, and the server's make to itself."""
        self.set_header("Cache-Control", "no-store")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.clear_header("Server")

    def decode_argument(self, value: bytes, name: str | None = None) -> str:
        """Decode a part of the URL. Raises BadMessage for what is no UTF-8."""
        try:
            return value.decode()
        except UnicodeDecodeError:
            if name == "session":
                check_session_name(value.decode(errors="replace"))
            where = name or "url"
            raise errors.BadMessage(f"{where}: not UTF-8", field=where) from None

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an exception as JSON."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        self.set_header("Content-Type", "application/json")
        body: dict[str, Any]
        if isinstance(error, web.HTTPError) or error is None:
            phrase = responses.get(status_code, "error")
            wire = UNFOUND.get(status_code, "bad_message")
            body = {"code": wire, "message": f"{phrase}: {self.request.path}"}
            if status_code == HTTPStatus.UPGRADE_REQUIRED:  # RFC 9110, 15.5.22; RFC 6455, 4.4
                self.set_header("Upgrade", "websocket")
                self.set_header("Sec-WebSocket-Version", "13")
            if status_code == HTTPStatus.METHOD_NOT_ALLOWED:  # RFC 9110, 15.5.6
                self.set_header("Allow", ", ".join(methods_of(type(self))))
        else:
            code = code_of(error)
            self.set_status(code.http)
            body = described(error)
            if "retry_after" in body:
                self.set_header("Retry-After", str(math.ceil(body["retry_after"])))
            if code.http == HTTPStatus.UNAUTHORIZED:
                self.set_header("WWW-Authenticate", "Bearer")
        self.finish(json.dumps({"error": body}))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log only what is our own fault."""
        if not isinstance(value, errors.BrokerError | web.HTTPError):
            logger.error("%s %s", self.request.method, self.request.path, exc_info=(typ, value, tb))

    def answer(self, body: object, status: int = 200) -> None:
        """Finish with a JSON body."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(body))


class Missing(Face):
    """Everything that is no route."""

    async def prepare(self) -> None:
        """Say so."""
        raise web.HTTPError(404)


def methods_of(handler: type[web.RequestHandler]) -> list[str]:
    """Return the methods that a handler has an answer to."""
    unanswered = web.RequestHandler.get  # Tornado's own, the same for each method
    named = ((name, getattr(handler, name.lower())) for name in handler.SUPPORTED_METHODS)
    return [name for name, method in named if method is not unanswered]


def check_query(handler: web.RequestHandler) -> None:
    """Raise BadMessage for a query parameter that nothing would read, or of which only one is."""
    given = handler.request.query_arguments
    if given:
        which = type(handler), str(handler.request.method).lower()
        known: Collection[str] | None = handler.settings["known_queries"].get(which)
        if known is None:
            return  # such a method is refused anyway
        for name, values in given.items():
            if name not in known:
                raise unknown_field(name, sorted(known), "query parameter")
            if len(values) > 1:
                raise bad_field(name, f"given {len(values)} times; expected one")


def log_request(handler: web.RequestHandler) -> None:
    """Log a request that has ended; without its query, where an access token may stand."""
    if (house := getattr(handler, "house", None)) is not None:
        audited.ended(house.audit, handler)
    request, status = handler.request, handler.get_status()
    level = logging.DEBUG if status < 400 else logging.INFO if status < 500 else logging.WARNING
    took = 1000 * request.request_time()
    where = f"{request.method} {request.path}"
    logger.log(level, "%d %s %s %.1f ms", status, request.remote_ip, where, took)


async def admit(
    handler: web.RequestHandler, deed: Deed | None = None, offered: Iterable[str] = ()
) -> Principal:
    """Return who is asking, if they may. Raises Unauthorized, Forbidden, UnknownSession.

    What they are about to do stands in the table of routes, if the handler does not say. `offered`
    are the subprotocols of a WebSocket, one of which may hold the token.
    """
    principal = await recognise(handler, offered)
    principal.require(deed_of(handler, deed), handler.path_kwargs.get("session"))
    return principal


async def recognise(handler: web.RequestHandler, offered: Iterable[str] = ()) -> Principal:
    """Return who is asking, whatever they may do. Raises Unauthorized."""
    house: House = handler.house  # type: ignore[attr-defined]
    header = handler.request.headers.get("Authorization")
    query = handler.get_query_argument("token", None)
    principal = await house.tokens.check(presented_token(header, query, offered))
    handler.principal = principal  # type: ignore[attr-defined]  # known, also if it may not
    return principal


def deed_of(handler: web.RequestHandler, deed: Deed | None = None) -> Deed:
    """Return what a request is about to do: as the handler says, or else the table of routes."""
    if deed is None:
        method = str(handler.request.method).lower()
        deed = handler.settings["deeds"].get((type(handler), method), Deed.READ)
    return Deed(deed)
