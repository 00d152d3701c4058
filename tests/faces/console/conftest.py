"""A page of the console on a real broker, and what its tests have in common."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from broker.client import Broker
from tests.faces.chromium import chromium
from tests.system.conftest import RunningBroker, broker_process, short_dir

__all__ = ["chromium", "short_dir"]


class Elsewhere(http.server.ThreadingHTTPServer):
    """Another site: whatever reaches it has got out."""

    def __init__(self) -> None:
        self.hits: list[str] = []
        self.connections = 0
        super().__init__(("127.0.0.1", 0), _Hit)

    def verify_request(self, *_: object) -> bool:
        """Count a connection, of which a request need not come."""
        self.connections += 1
        return True


class _Hit(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.hits.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    do_POST = do_GET  # noqa: N815 - the server's own naming

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Tab:
    """A page of the console, and all that it has asked for."""

    page: Page
    broker: RunningBroker
    addresses: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def watch(self) -> None:
        """Note what the page does."""
        page = self.page
        page.on("request", lambda one: self.addresses.append(one.url))
        page.on("websocket", lambda one: self.addresses.append(one.url))
        page.on("pageerror", lambda one: self.failures.append(str(one)))
        page.on("dialog", lambda one: (self.dialogs.append(one.message), one.dismiss()))

    def open(self, where: str = "", token: str | None = None) -> Page:
        """Sign in, and go to a part of the console."""
        self.page.goto(f"{self.broker.url}/#token={token or self.broker.token}")
        expect(self.page.locator(".overview")).to_be_visible()
        if where:
            self.page.goto(f"{self.broker.url}/#{where}")
        return self.page

    def session(self, name: str, token: str | None = None) -> Page:
        """Open a session's page, and wait until it follows."""
        page = self.open(f"/s/{name}", token)
        expect(page.locator(".following.live")).to_be_visible()
        return page


@pytest.fixture(scope="session")
def shared_broker(short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    """Start a broker for all modules of this worker."""
    with broker_process(short_dir(), "--warm", "3", BROKER_LOG_LEVEL="debug") as running:
        yield running


@pytest.fixture(scope="module")
def broker(shared_broker: RunningBroker) -> Iterator[RunningBroker]:
    """The broker of all modules of this worker; the sessions that a module leaves end with it."""
    before = shared_broker.sessions()
    yield shared_broker
    shared_broker.end(shared_broker.sessions() - before)


@pytest.fixture(scope="module")
def client(broker: RunningBroker) -> Broker:
    return Broker(broker.url, broker.token)


@pytest.fixture
def context(chromium: Browser) -> Iterator[BrowserContext]:
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def tab(context: BrowserContext, broker: RunningBroker) -> Iterator[Tab]:
    """Give a page; nothing it does may tell the token, leave the broker, or fail."""
    tab = Tab(context.new_page(), broker)
    tab.watch()
    yield tab
    own = broker.url.removeprefix("http")
    for address in tab.addresses:
        assert broker.token not in address
        assert address.startswith((f"http{own}/", f"ws{own}/", "data:", "blob:", "about:")), address
    assert not tab.failures
    assert not tab.dialogs


def made_token(broker: RunningBroker, **about: Any) -> str:
    request = urllib.request.Request(  # noqa: S310
        f"{broker.url}/v1/tokens",
        data=json.dumps(about).encode(),
        headers={"Authorization": f"Bearer {broker.token}"},
    )
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return str(json.loads(answer.read())["token"])


def fetched(broker: RunningBroker, path: str, **headers: str) -> tuple[int, Any, bytes]:
    request = urllib.request.Request(  # noqa: S310
        f"{broker.url}{path}", headers={name.replace("_", "-"): v for name, v in headers.items()}
    )
    try:
        with urllib.request.urlopen(request) as answer:  # noqa: S310
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    with Elsewhere() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
