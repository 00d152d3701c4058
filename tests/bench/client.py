"""The one client that both sides are measured with: HTTP requests and plain WebSockets."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol


class Refused(RuntimeError):
    """The server answered a request with an error."""


def socket(url: str, headers: Mapping[str, str], subprotocols: Sequence[str] = ()) -> connect:
    """Return the connection (an async context manager): no compression, no pings, no bound.

    asyncio sets TCP_NODELAY on the client's end, for either server.
    """
    return connect(
        url.replace("http", "ws", 1),
        additional_headers=dict(headers),
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        compression=None,
        ping_interval=None,
        max_size=None,
        proxy=None,
        close_timeout=2,
    )


async def request(
    method: str, url: str, headers: Mapping[str, str], body: object | None = None
) -> object:
    """Send one HTTP request on a connection of its own and return the decoded JSON, or None."""
    return await asyncio.to_thread(_request, method, url, headers, body)


def _request(method: str, url: str, headers: Mapping[str, str], body: object | None) -> object:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=120)
    try:
        path = parts.path + (f"?{parts.query}" if parts.query else "")
        data = None if body is None else json.dumps(body).encode()
        sent = {**headers, **({"Content-Type": "application/json"} if data else {})}
        connection.request(method, path, data, sent)
        answer = connection.getresponse()
        content = answer.read()
        if answer.status >= 400:
            raise Refused(f"{method} {parts.path}: {answer.status} {content[:300]!r}")
        return json.loads(content) if content else None
    finally:
        connection.close()


__all__ = ["ClientConnection", "Refused", "request", "socket"]
