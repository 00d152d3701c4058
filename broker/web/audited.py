"""What of the requests is noted for the audit: which, under which names, and what of them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Protocol

from tornado.web import RequestHandler

from broker.audit import Audit
from broker.requests import (
    Batch,
    Call,
    Cancel,
    Close,
    Complete,
    Configure,
    Execute,
    ExecuteRequest,
    History,
    InputReply,
    Inspect,
    Interrupt,
    Request,
    Restart,
    ToolResult,
    Tools,
    Variables,
)

# Of a WebSocket's requests; what is not here asks, answers, or keeps the connection alive.
ASKED: dict[type[Any], str] = {
    Execute: "executed",
    ExecuteRequest: "executed",
    Batch: "executed",
    Call: "executed",
    Interrupt: "interrupted",
    Cancel: "cancelled",
    Restart: "restarted",
    Close: "closed",
}
# Of another tenant's session these are noted, too: what its visitor learns, and has it believe.
VISITED: dict[type[Any], str] = {
    Complete: "read",
    Inspect: "read",
    Variables: "read",
    History: "read",
    InputReply: "answered",
    ToolResult: "answered",
    Tools: "configured",
    Configure: "configured",
}
READ = "read"
REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class Asker(Protocol):
    """Who a request came by."""

    request: Any
    principal: Any
    visited: str | None  # another tenant, whose session it is


def ended(audit: Audit, handler: RequestHandler) -> None:
    """Note an HTTP request that has ended, if it was refused, or changed anything."""
    if not audit.on:
        return
    request, status = handler.request, handler.get_status()
    who, ip = getattr(handler, "principal", None), request.remote_ip
    session = handler.path_kwargs.get("session") or getattr(handler, "concerns", None)
    visited = getattr(handler, "visited", None)
    where = {"method": request.method, "path": request.path}  # no query: a token may stand there
    if status in REFUSED:
        audit.refused(who, ip, status=status, **where, session=session, subject=visited)
    elif status < HTTPStatus.BAD_REQUEST and getattr(handler, "changed", True):
        names = handler.settings["audited"]
        name, seen = names.get((type(handler), str(request.method).lower()), ("", ""))
        if visited and (name or seen):
            note = audit.record if name else audit.looked
            note(name or seen, who, ip, session=session, subject=visited, **where)
        elif name:
            parts = (handler.path_kwargs.get(part) for part in ("token_id", "path", "node"))
            subject = getattr(handler, "subject", None) or next(filter(None, parts), None)
            about = getattr(handler, "about", {})
            audit.record(name, who, ip, session=session, subject=subject, **about)


def asked(audit: Audit, asker: Asker, session: str, request: Request) -> None:
    """Note a request that was taken."""
    if not audit.on:
        return
    kind, who, ip = type(request), asker.principal, asker.request.remote_ip
    about = {"session": session, "subject": asker.visited}
    if name := ASKED.get(kind):
        codes = [audit.code(text) for text in _sources(request)]
        for told in codes or [{}]:
            audit.record(name, who, ip, **about, id=request.id, **told)
    elif asker.visited and (name := VISITED.get(kind)):
        note = audit.looked if name == READ else audit.record
        note(name, who, ip, **about, method=kind.__name__.lower())


def _sources(request: Request) -> list[str]:
    """Return the code in a request, a piece each."""
    if isinstance(request, Batch):
        return [cell.code for cell in request.cells]
    if isinstance(request, Call):
        return [request.function]
    return [request.code] if isinstance(request, Execute) else []
