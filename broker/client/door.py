"""The broker's HTTP requests, answered with plain data or a typed error."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

from .errors import BadRequest, BrokerError, ConnectionLost, NoServer, ServerFault, from_fault
from .find import Place
from .plain import posted
from .wire import Limits, session_path

EXPECTED = 256 << 10  # bytes of a body before which the broker is asked whether it wants it
MOST = 1_000_000  # rows of a list that comes as one
ANSWER = 30.0  # s for an answer, unless somebody says otherwise
PATIENCE = 1.0  # s for it to say so; some proxies never do

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

    from .stay import Stay

Row = dict[str, Any]


class Door:
    """Each request opens a connection of its own, so that threads may share a door."""

    def __init__(self, place: Place, *, timeout: float | None = None) -> None:
        self.place = place
        self.timeout = timeout or place.patience.answer or ANSWER

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        wait: bool = False,
        stay: Stay | None = None,
    ) -> Any:
        """Make one request and return the JSON it answers; `wait` for as long as it takes.

        By its `stay`, another thread may leave it. Raises the typed error of a refusal, NoServer
        when nothing answers at the address, and ConnectionLost when the answer breaks off.
        """
        from http.client import HTTPException

        headers = {"Accept": "application/json"}
        if self.place.token:
            headers["Authorization"] = f"Bearer {self.place.token}"
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = _json({k: v for k, v in body.items() if v is not None})
        target = _target(path, query)
        with ExitStack() as waiting:
            waiting.enter_context(self._awaiting())
            with closing(self._connect(None if wait else self.timeout)) as connection:
                if wait:
                    waiting.close()  # what is asked for takes its time
                try:
                    if stay is not None:
                        stay.begin(connection)
                    where = self._prefix() + target
                    connection.request(method, where, body=content, headers=headers)
                    response = connection.getresponse()
                    status, text = response.status, response.read()
                except (OSError, HTTPException) as error:
                    raise self._lost(error) from error
        return read_answer(self.place.url, status, text)

    @contextmanager
    def exchange(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Iterable[bytes] = (),
        length: int | None = 0,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[HTTPResponse]:
        """Send a body in pieces and yield the answer, whose own is read by `pieces`.

        `length` in bytes is that of the body, None if nobody knows. Raises as `call` does.
        """
        from http.client import HTTPException

        told = {**(headers or {})}
        if self.place.token:
            told["Authorization"] = f"Bearer {self.place.token}"
        told |= {"Transfer-Encoding": "chunked"} if length is None else {}
        told |= {"Content-Length": str(length)} if length else {}
        asks = (length is None or length > EXPECTED) and urlsplit(self.place.url).scheme == "http"
        told |= {"Expect": "100-continue"} if asks else {}
        waiting = ExitStack()
        waiting.enter_context(self._awaiting())
        with waiting, closing(self._connect(self.timeout)) as connection:
            try:
                connection.putrequest(method, self._prefix() + _target(path, query))
                for name, value in told.items():
                    connection.putheader(name, value)
                connection.endheaders()
            except (OSError, HTTPException) as error:
                raise self._lost(error) from error
            if length != 0 and (not asks or _is_wanted(connection.sock)):
                waiting.close()  # a body takes its time
                _send(connection, body, chunked=length is None)
                waiting.enter_context(self._awaiting())
            try:
                response = connection.getresponse()
                refusal = response.read(EXPECTED) if response.status >= 400 else b""
            except (OSError, HTTPException) as error:
                raise self._lost(error) from error
            waiting.close()
            if response.status >= 400:
                read_answer(self.place.url, response.status, refusal)
            yield response

    def pieces(self, response: HTTPResponse, size: int) -> Iterator[bytes]:
        """Yield an answer's body. Raises ConnectionLost when it breaks off."""
        from http.client import HTTPException

        left = response.length
        while True:
            try:
                data = response.read(size)
            except (OSError, HTTPException) as error:
                raise self._lost(error) from error
            if not data:
                break
            left = None if left is None else left - len(data)
            yield data
        if left:
            raise ConnectionLost(
                f"{self.place.url} hung up {left} byte{'s' * (left != 1)} before the end"
            )

    def _awaiting(self) -> AbstractContextManager[None]:
        return self.place.patience.awaiting(self.place.url)

    def _lost(self, error: BaseException) -> ConnectionLost:
        if isinstance(error, TimeoutError):
            words = f"{self.place.url} has not answered within {self.timeout:g} s"
            return ConnectionLost(words)
        return ConnectionLost(f"no answer from {self.place.url}: {_why(error)}")

    def sessions(self, *, sort: str | None = None, **filters: Any) -> Iterator[Row]:
        """Yield every session, page by page; in an order of its own, all come at once."""
        if sort not in (None, "name"):
            filters["limit"] = MOST
        after: str | None = None
        while True:
            query = {**filters, "sort": sort, "after": after}
            page = self.call("GET", "/v1/sessions", query=query)
            yield from page["sessions"]
            after = page.get("next")
            if not after:
                return

    def describe(self, name: str, tenant: str | None = None) -> Row:
        """Return all there is to tell of a session."""
        query = {"errors": "true", "tenant": tenant}
        answer: Row = self.call("GET", session_path(name), query=query)
        return answer

    def interrupt(self, name: str, tenant: str | None = None) -> Row:
        """Interrupt what a session runs."""
        path = session_path(name, "/interrupt")
        answer: Row = self.call("POST", path, query={"tenant": tenant})
        return answer

    def kill(self, name: str, reason: str | None = None, tenant: str | None = None) -> Row:
        """End a session's kernel; its next execution starts the next generation."""
        query = {"reason": reason, "tenant": tenant}
        answer: Row = self.call("DELETE", session_path(name), query=query)
        return answer

    def notebook(self, name: str, tenant: str | None = None) -> Row:
        """Return what a session has run, as a notebook of nbformat 4.5."""
        answer: Row = self.call("GET", session_path(name, "/notebook"), query={"tenant": tenant})
        return answer

    def variables(
        self, name: str, names: Sequence[str] | None = None, tenant: str | None = None
    ) -> Row:
        """Return a live session's variables: `variables`, and `more` or `missing`."""
        query: dict[str, Any] = {"tenant": tenant}
        if names is not None:
            query |= {"names": ",".join(names), "max": max(1, len(names))}
        answer: Row = self.call("GET", session_path(name, "/variables"), query=query)
        return answer

    def drain(self, node: str, *, keep: bool = False, undo: bool = False) -> Row:
        """Empty a node, or have it take sessions again."""
        query = {"sessions": "keep"} if keep else None
        path = f"/v1/nodes/{quote(node, safe='')}/drain"
        answer: Row = self.call("DELETE" if undo else "POST", path, query=query)
        return answer

    def status(self, *, memory: bool = False) -> Row:
        """Return `nodes`, `pools`, `broker`, `zygotes` and `store`; measuring memory takes time."""
        nodes = self.call("GET", "/v1/nodes")
        return {
            **nodes,
            **self.call("GET", "/v1/pools", query={"memory": "true"} if memory else {}),
        }

    def execute(
        self,
        code: str,
        profile: str | None,
        timeout: float | None,
        limits: Limits | None = None,
        fields: Mapping[str, Any] | None = None,
        *,
        stay: Stay | None = None,
    ) -> Row:
        """Run code in a fresh kernel that is gone afterwards; `fields` are more of the body's."""
        body = {"code": code, "profile": profile, "timeout": timeout, **(fields or {})}
        return self._run_once("/v1/execute", body, limits, stay)

    def call_function(
        self, body: Mapping[str, Any], limits: Limits | None = None, *, stay: Stay | None = None
    ) -> Row:
        """Call a function in a fresh kernel that is gone afterwards."""
        return self._run_once("/v1/call", body, limits, stay)

    def _run_once(
        self, path: str, body: Mapping[str, Any], limits: Limits | None, stay: Stay | None
    ) -> Row:
        answer: Row = self.call("POST", path, query=limits, body=body, wait=True, stay=stay)
        return answer

    def _prefix(self) -> str:
        return urlsplit(self.place.url).path.rstrip("/")

    def _connect(self, timeout: float | None) -> HTTPConnection:
        from http.client import HTTPConnection, HTTPSConnection

        url = self.place.url
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise BadRequest(f"not an address: {url!r} ({error})", field="url") from error
        if parts.scheme not in ("http", "https") or not host:
            raise BadRequest(f"not an http(s) address: {url!r}", field="url")
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(host, port, timeout=self.timeout)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise no_server(url, error) from error
        if timeout is None:
            connection.sock.settimeout(None)
        return connection


def _target(path: str, query: Mapping[str, Any] | None) -> str:
    asked = {key: value for key, value in (query or {}).items() if value is not None}
    return path + (f"?{urlencode(asked, errors='surrogateescape')}" if asked else "")


def _is_wanted(connection: socket.socket) -> bool:
    """Wait for the broker's word on a body: whether to send it, or to read a refusal."""
    if not select.select([connection], [], [], PATIENCE)[0]:
        return True
    try:
        if not connection.recv(12, socket.MSG_PEEK).startswith(b"HTTP/1.1 100"):
            return False
        said = b""
        while not said.endswith(b"\r\n\r\n") and (byte := connection.recv(1)):
            said += byte
    except OSError:
        return False  # the answer's reader says what there is to say
    return True


def _send(connection: HTTPConnection, body: Iterable[bytes], *, chunked: bool) -> None:
    for piece in body:
        try:
            connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        except OSError:
            return  # refused in the middle: the answer says why
    if chunked:
        with suppress(OSError):
            connection.send(b"0\r\n\r\n")


def no_server(url: str, error: BaseException) -> NoServer:
    """Return the error for an address at which nothing answers."""
    return NoServer(f"no broker answers at {url}: {_why(error)}", code="no_server")


def _json(body: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(posted(body), allow_nan=False).encode()
    except (ValueError, TypeError) as error:
        raise BadRequest(f"cannot be sent over HTTP: {error}", code="bad_message") from error


def read_answer(url: str, status: int, text: bytes) -> Any:
    """Return the JSON of an HTTP answer, or raise the error that it tells of."""
    try:
        answer: Any = json.loads(text) if text.strip() else None
    except ValueError:
        answer = text  # a proxy's page, say
    if status < 400 and not isinstance(answer, bytes):
        return answer
    raise answer_error(url, status, answer)


def answer_error(url: str, status: int, answer: Any) -> BrokerError:
    """Return the error of an HTTP answer that is not the broker's `200`."""
    fault = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(fault, dict):
        return from_fault(fault, status)
    return ServerFault(f"what answers at {url} is no broker (HTTP {status})", code="not_a_broker")


def _why(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
