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
    Execute,
    ExecuteRequest,
    Interrupt,
    Request,
    Restart,
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
REFUSED = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


class Asker(Protocol):
    """Who a request came by."""

    request: Any
    principal: Any


def ended(audit: Audit, handler: RequestHandler) -> None:
    """Note an HTTP request that has ended, if it was refused, or changed anything."""
    if not audit.on:
        return
    request, status = handler.request, handler.get_status()
    who, ip = getattr(handler, "principal", None), request.remote_ip
    session = handler.path_kwargs.get("session") or getattr(handler, "concerns", None)
    if status in REFUSED:
        path = request.path  # without the query, where a token may stand
        audit.refused(who, ip, status=status, method=request.method, path=path, session=session)
    elif status < HTTPStatus.BAD_REQUEST and getattr(handler, "changed", True):
        names = handler.settings["audited"]
        name = names.get((type(handler), str(request.method).lower()))
        if name:
            parts = (handler.path_kwargs.get(part) for part in ("token_id", "path", "node"))
            subject = getattr(handler, "subject", None) or next(filter(None, parts), None)
            audit.record(name, who, ip, session=session, subject=subject)


def asked(audit: Audit, asker: Asker, session: str, request: Request) -> None:
    """Note a request that was taken."""
    if audit.on and (name := ASKED.get(type(request))):
        about = {"session": session, "id": request.id}
        codes = [audit.code(text) for text in _sources(request)]
        for told in codes or [{}]:
            audit.record(name, asker.principal, asker.request.remote_ip, **about, **told)


def _sources(request: Request) -> list[str]:
    """Return the code in a request, a piece each."""
    if isinstance(request, Batch):
        return [cell.code for cell in request.cells]
    if isinstance(request, Call):
        return [request.function]
    return [request.code] if isinstance(request, Execute) else []
