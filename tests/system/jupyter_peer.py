"""A client of the Jupyter face, as plain as they come."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.system.peer import TIMEOUT, Place

Json = dict[str, Any]


@dataclass
class Told:
    """An answer; the body is None where there is none."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text) if self.text else None


def ask(
    place: Place,
    method: str,
    path: str,
    body: Mapping[str, Any] | str | bytes | None = None,
    *,
    authorization: str | None = "",
    mount: str = "/jupyter",
) -> Told:
    """Make one request, with the place's token unless told otherwise."""
    parts = urlsplit(place.url)
    if authorization == "":
        authorization = f"token {place.token}"
    headers = {} if authorization is None else {"Authorization": authorization}
    if isinstance(body, Mapping):
        body = json.dumps(body)
    with closing(http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT)) as c:
        c.request(method, mount + path, body, headers)
        response = c.getresponse()
        return Told(response.status, response.headers, response.read().decode())


def made(place: Place, **body: Any) -> Json:
    """Make a kernel and return its model."""
    told = ask(place, "POST", "/api/kernels", body)
    assert told.status == 201, told.text
    model: Json = told.body
    return model


def kernel_ids(place: Place) -> list[str]:
    """Return the ids of the kernels that are listed."""
    return [one["id"] for one in ask(place, "GET", "/api/kernels").body]


@contextmanager
def asking_for_a_kernel(place: Place) -> Iterator[None]:
    """Ask for a kernel, and leave without an answer at the end of the block."""
    parts = urlsplit(place.url)
    with socket.create_connection((str(parts.hostname), parts.port or 80), TIMEOUT) as asker:
        head = f"POST /jupyter/api/kernels HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        asker.sendall(
            f"{head}Authorization: token {place.token}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        yield


def refusal(told: Told, status: int) -> str:
    """Return why something was refused, in Jupyter's form."""
    assert told.status == status, told.text
    assert sorted(set(told.body) - {"short_message"}) == ["message", "reason"]
    return str(told.body["message"])
