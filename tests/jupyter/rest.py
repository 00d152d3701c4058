"""Jupyter's REST API, as plain as it comes: of any server, and of the broker's face."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

TIMEOUT = 60.0  # s

Json = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """Where a Jupyter server is: its base URL, and the token."""

    url: str
    token: str

    @property
    def socket_url(self) -> str:
        return self.url.replace("http", "ws", 1)


class Host(Protocol):
    """A broker, which serves Jupyter's API below its own URL."""

    @property
    def url(self) -> str: ...
    @property
    def token(self) -> str: ...


def face(broker: Host, token: str = "", *, mount: str = "/jupyter") -> Place:
    """Return where a broker's face is, for its own token unless told another."""
    return Place(broker.url + mount, token or broker.token)


@dataclass
class Answer:
    """An HTTP answer; the body is None where there is none."""

    status: int
    headers: http.client.HTTPMessage
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text) if self.text else None

    def raise_for_status(self) -> None:
        assert self.status < 400, f"{self.status} {self.text}"


def call(
    place: Place,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Make one request. Without headers, the token is in `Authorization`, as `token`.

    A body is sent as JSON, unless it is text or bytes.
    """
    parts = urlsplit(place.url)
    sent = {"Authorization": f"token {place.token}"} if headers is None else headers
    data = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
    to = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=TIMEOUT)
    with closing(to) as connection:
        connection.request(method, parts.path + path, data, sent)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read().decode())


async def asked(
    place: Place,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Make one request beside the sockets."""
    return await asyncio.to_thread(call, place, method, path, body, headers)


# Of a broker


def ask(
    broker: Host,
    method: str,
    path: str,
    body: Mapping[str, Any] | str | bytes | None = None,
    *,
    authorization: str | None = "",
    mount: str = "/jupyter",
) -> Answer:
    """Make one request, with the broker's token unless told otherwise; with none for None."""
    headers = {} if authorization is None else {"Authorization": authorization}
    at = face(broker, mount=mount)
    return call(at, method, path, body, None if authorization == "" else headers)


def made(broker: Host, **body: Any) -> Json:
    """Make a kernel and return its model."""
    told = ask(broker, "POST", "/api/kernels", body)
    assert told.status == 201, told.text
    model: Json = told.body
    return model


def kernel_ids(broker: Host) -> list[str]:
    """Return the ids of the kernels that are listed."""
    return [one["id"] for one in ask(broker, "GET", "/api/kernels").body]


@contextmanager
def asking_for_a_kernel(broker: Host) -> Iterator[None]:
    """Ask for a kernel, and leave without an answer at the end of the block."""
    parts = urlsplit(broker.url)
    with socket.create_connection((str(parts.hostname), parts.port or 80), TIMEOUT) as asker:
        head = f"POST /jupyter/api/kernels HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        asker.sendall(
            f"{head}Authorization: token {broker.token}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        yield


def refusal(told: Answer, status: int) -> str:
    """Return why something was refused, in Jupyter's form."""
    assert told.status == status, told.text
    assert sorted(set(told.body) - {"short_message"}) == ["message", "reason"]
    return str(told.body["message"])
