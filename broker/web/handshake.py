"""What a WebSocket handshake must look like, told before anything is made for who will not come in,
and how a connection is closed.

Tornado checks the same later, and answers in a form of its own.
"""

from __future__ import annotations

from tornado import web, websocket

from broker.errors import BadMessage, Forbidden


def check_handshake(handler: websocket.WebSocketHandler) -> None:
    """Raise HTTPError 426, BadMessage or Forbidden for a handshake that will fail."""
    headers = handler.request.headers
    version = headers.get("Sec-WebSocket-Version")
    if headers.get("Upgrade", "").lower() != "websocket" or version not in (None, "13"):
        raise web.HTTPError(426)
    connection = headers.get("Connection", "").lower().split(",")
    if "upgrade" not in map(str.strip, connection):
        raise BadMessage("the header `Connection` must be `Upgrade`", field="Connection")
    # Browsers let any page open a WebSocket to any host: who asks is checked here or nowhere.
    if handler._check_cross_origin(handler.check_origin) is not None:
        origin = headers.get("Origin", "")[:128]
        raise Forbidden(
            f"a page of {origin or 'an unknown origin'} may not connect; wire.allow_origins says"
            " which may",
            field="Origin",
        )
    for name in ("Sec-WebSocket-Key", "Sec-WebSocket-Version", "Host"):
        if not headers.get(name):
            raise BadMessage(f"the header `{name}` is missing", field=name)


def clipped(reason: str) -> str:
    """Return as much of a reason as a close frame has room for: 123 bytes (RFC 6455, 5.5)."""
    return reason.encode(errors="replace")[:120].decode(errors="ignore")
