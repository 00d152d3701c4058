"""Modules of the console by themselves, in a browser, with what they talk to made up."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from broker.web.console import DIRECTORY
from tests.faces.chromium import chromium

__all__ = ["chromium"]

pytestmark = pytest.mark.timeout(900)  # the browser may have to be installed first

# A broker that a test plays: what the page opens, asks and waits for.
PLAYED = """
const sockets = [], asked = [], timers = [], taken = [], told = [];
window.WebSocket = class {
  static OPEN = 1;
  static CLOSED = 3;
  constructor() {
    this.readyState = 0;
    this.sent = [];
    sockets.push(this);
  }
  send(text) { this.sent.push(JSON.parse(text).id); }
  close() { this.readyState = 3; }
  lose(code) { this.readyState = 3; this.onclose({ code, reason: "" }); }
};
const answer = (row) => ({ ok: true, json: async () => row });
window.fetch = () => new Promise((resolve) => asked.push((row) => resolve(answer(row))));
window.setTimeout = (work) => timers.push(work);
const settled = () => new Promise((resolve) => requestAnimationFrame(resolve));
const { Link } = await import("./link.js");
const link = new Link("a", (event) => taken.push(event), (news) => told.push(news.state));
"""


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    files = partial(_Files, directory=str(DIRECTORY))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/frame.css")
        yield page
        page.close()
        server.shutdown()
        thread.join()


def run(page: Page, script: str) -> Any:
    return page.evaluate(f"async () => {{ {script} }}")


def test_a_text_shown_whole_stands_there_once_while_more_of_it_comes(page: Page) -> None:
    lines = run(
        page,
        """
        const { Text } = await import("./text.js");
        const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
        const one = new Text("stdout");
        document.body.append(one.element);
        let next = 0;
        const more = (number) => {
          for (const end = next + number; next < end; next += 1)
            one.write(`\\x1b[31mline\\x1b[0m ${next}\\n`);
        };
        more(20000);
        await frame();
        one.showAll();
        for (let step = 0; step < 20; step += 1) {
          await frame();
          more(40);
        }
        for (let step = 0; step < 60; step += 1) await frame();
        const shown = [...one.element.querySelectorAll("pre")].map((pre) => pre.textContent);
        return shown.join("\\n").split("\\n").filter(Boolean);
        """,
    )
    assert lines == [f"line {number}" for number in range(20800)]


def test_a_connection_that_was_opened_meanwhile_is_not_opened_again(page: Page) -> None:
    opened, waits = run(
        page,
        f"""{PLAYED}
        link.open();
        sockets[0].lose(1006);
        link.run();  // while the broker is asked why
        asked[0]({{ state: "ready", clients: 0 }});
        await settled();
        return [sockets.length, timers.length];
        """,
    )
    assert (opened, waits) == (2, 0)


def test_what_waits_for_a_session_that_has_ended_is_refused_and_not_sent_later(page: Page) -> None:
    taken, told, sent = run(
        page,
        f"""{PLAYED}
        link.send({{ type: "execute", id: "one" }});
        sockets[0].lose(1006);
        asked[0]({{ state: "closed", clients: null }});
        await settled();
        asked[1]({{ reasons: [] }});
        await settled();
        link.again();
        sockets[1].onopen();
        return [taken.map((event) => [event.type, event.id]), told, sockets[1].sent];
        """,
    )
    assert taken == [["fault", "one"]]
    assert told[:2] == ["away", "ended"]
    assert sent == []


LIVE = {"state": "busy", "clients": 1}
CLOSED = {"state": "closed", "clients": None, "reason": "drained"}
THERE = {"state": "ready", "clients": None, "node": "other"}


@pytest.mark.parametrize(
    ("row", "status", "refused", "tries"),
    [
        (LIVE, 200, [], 1),
        (CLOSED, 200, ["one"], 0),
        (THERE, 200, ["one"], 0),
        ({}, 404, ["one"], 0),
    ],
)
def test_on_a_draining_node_only_what_would_begin_a_session_is_refused(
    page: Page, row: dict[str, Any], status: int, refused: list[str], tries: int
) -> None:
    taken, waits = run(
        page,
        f"""{PLAYED}
        const draining = answer({{ reasons: ["draining"] }});
        const row = {{ ...answer({json.dumps(row)}), ok: {status} === 200, status: {status} }};
        window.fetch = async (path) => (path === "/readyz" ? draining : row);
        link.send({{ type: "execute", id: "one" }});
        sockets[0].lose(1006);
        await settled();
        return [taken, timers.length];
        """,
    )
    assert [event["id"] for event in taken] == refused
    assert all("the node takes no new sessions" in event["message"] for event in taken)
    assert waits == tries


def test_what_waits_for_a_connection_is_bounded_and_sent_in_order(page: Page) -> None:
    refused, sent = run(
        page,
        f"""{PLAYED}
        for (let number = 0; number < 34; number += 1) link.send({{ id: number }});
        sockets[0].onopen();
        return [taken.map((event) => event.id), sockets[0].sent];
        """,
    )
    assert refused == [32, 33]
    assert sent == [*range(32)]
