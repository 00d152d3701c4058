"""What a browser does: who may open a WebSocket to the broker, and which subprotocols it speaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.faces.chromium import chromium, site
from tests.system.conftest import RunningBroker, broker_process, short_dir

__all__ = ["chromium", "short_dir"]

pytestmark = pytest.mark.timeout(900)  # the browser may have to be installed first

# Opens a WebSocket and, where it opens, runs one cell. `binary` frames are told by their sizes.
CONNECT = """([url, protocols]) => new Promise((resolve) => {
    const socket = new WebSocket(url, protocols);
    socket.binaryType = "arraybuffer";
    const told = {opened: false, protocol: null, events: [], binary: 0};
    socket.onopen = () => {
        told.opened = true;
        told.protocol = socket.protocol;
        if (socket.protocol === "broker.v1.json")
            socket.send(JSON.stringify({type: "execute", id: "1", code: "6 * 7"}));
    };
    socket.onmessage = (frame) => {
        if (typeof frame.data !== "string") { told.binary += 1; socket.close(); return; }
        const event = JSON.parse(frame.data);
        told.events.push(event);
        if (event.type === "done") socket.close();
    };
    socket.onclose = (event) => resolve({...told, code: event.code, reason: event.reason});
})"""


@pytest.fixture(scope="module")
def origins() -> Iterator[tuple[str, str]]:
    """Give an allowed site, and another."""
    with site() as allowed, site() as other:
        yield allowed, other


@pytest.fixture(scope="module")
def broker(short_dir: Callable[[], Path], origins: tuple[str, str]) -> Iterator[RunningBroker]:
    allowed = {"BROKER_WIRE_ALLOW_ORIGINS": origins[0]}
    with broker_process(short_dir(), "--warm", "1", **allowed) as running:
        yield running


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    page = chromium.new_page()
    yield page
    page.close()


def connected(
    page: Page, broker: RunningBroker, *protocols: str, token: str | None = None
) -> dict[str, Any]:
    """Return what became of a connection of the page's to the session `a`."""
    url = broker.url.replace("http", "ws", 1)
    address = f"{url}/v1/sessions/a/ws?token={token or broker.token}"
    told: dict[str, Any] = page.evaluate(CONNECT, [address, list(protocols)])
    return told


def test_a_page_of_an_allowed_site_runs_code(
    page: Page, broker: RunningBroker, origins: tuple[str, str]
) -> None:
    page.goto(origins[0])
    told = connected(page, broker, "broker.v1.json")
    assert told["protocol"] == "broker.v1.json"
    assert [one["data"] for one in told["events"] if one["type"] == "result"] == [
        {"text/plain": "42"}
    ]


def test_a_page_may_speak_msgpack(
    page: Page, broker: RunningBroker, origins: tuple[str, str]
) -> None:
    page.goto(origins[0])
    told = connected(page, broker, "broker.v1.json", "broker.v1.msgpack")
    assert told["protocol"] == "broker.v1.msgpack"
    assert told["binary"] == 1


def test_a_page_of_the_brokers_own_origin_needs_no_setting(
    page: Page, broker: RunningBroker
) -> None:
    page.goto(f"{broker.url}/healthz")
    assert connected(page, broker, "broker.v1.json")["events"][-1]["status"] == "ok"


@pytest.mark.parametrize("where", ["another site", "no site"])
def test_a_page_of_any_other_site_is_not_let_in_with_a_token_either(
    page: Page, broker: RunningBroker, origins: tuple[str, str], where: str
) -> None:
    page.goto(origins[1] if where == "another site" else "about:blank")
    told = connected(page, broker, "broker.v1.json")
    assert not told["opened"]
    assert told["code"] == 1006


def test_a_page_without_the_token_is_not_let_in(
    page: Page, broker: RunningBroker, origins: tuple[str, str]
) -> None:
    page.goto(origins[0])
    assert not connected(page, broker, "broker.v1.json", token="wrong")["opened"]


def test_a_page_that_speaks_no_protocol_of_ours_is_told(
    page: Page, broker: RunningBroker, origins: tuple[str, str]
) -> None:
    page.goto(origins[0])
    # RFC 6455, 4.1: a browser fails the connection when none of those it offered is chosen.
    assert connected(page, broker, "chat.v9")["code"] == 1006
    told = connected(page, broker)
    assert told["opened"]
    assert told["code"] == 4406
    assert "broker.v1.json" in told["reason"]
