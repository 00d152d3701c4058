"""A node that is drained from the console, for real."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from broker.client import Broker
from tests.faces.console.conftest import Tab
from tests.system.conftest import broker_process

pytestmark = pytest.mark.timeout(900)  # the browser may have to be installed first


@pytest.fixture
def node(client: Broker) -> Iterator[str]:
    [one] = client.status()["nodes"]
    yield str(one["node"])
    client.drain(str(one["node"]), undo=True)


def waiting(tab: Tab, name: str) -> Page:
    """Have a session run code that waits for an answer."""
    page = tab.session(name)
    page.get_by_label("Code to run").fill("print('got', input('go on? '))")
    page.keyboard.press("Shift+Enter")
    expect(page.get_by_label("go on?")).to_be_visible()
    return page


def test_a_drain_is_asked_for_followed_to_its_end_and_undone(
    tab: Tab, context: BrowserContext, client: Broker, node: str
) -> None:
    for name in ("idle", "busy"):
        with client.session(name) as session:
            session.execute("x = 20")
    busy = waiting(Tab(context.new_page(), tab.broker), "busy")
    idle = Tab(context.new_page(), tab.broker).session("idle")
    page = tab.open()
    row = page.locator(".nodes tr", has_text=node)
    expect(row).to_contain_text(re.compile(r"2 / \d+"))
    row.get_by_role("button", name="Drain…").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text(f"Drain node {node}?")
    expect(dialog).to_contain_text("It serves 2 sessions.")
    dialog.get_by_role("button", name="Cancel").click()
    assert client.status()["nodes"][0]["draining"] is False
    row.get_by_role("button", name="Drain…").click()
    dialog.get_by_role("button", name="Drain", exact=True).click()
    expect(page.locator(".note")).to_contain_text(
        re.compile(r"(2 sessions|1 session) left, 1 of them busy")
    )
    # What runs nothing ends at once, and says why to whoever looks at it.
    expect(row.locator(".pill.warn")).to_have_text("draining, 1 left")
    expect(page.locator(".rows .row")).to_have_count(1)
    expect(idle.locator(".following.ended")).to_have_text(
        "the session has ended (drained: its node was drained)"
    )
    # What runs goes on to its end.
    expect(busy.locator(".pill.state-busy")).to_be_visible()
    busy.get_by_label("go on?").fill("yes")
    busy.keyboard.press("Enter")
    expect(busy.locator(".cell.by-hand .stdout")).to_contain_text("got yes")
    expect(busy.locator(".cell.by-hand .status.ok")).to_be_visible()
    expect(busy.locator(".following.ended")).to_contain_text("its node was drained")
    expect(row.locator(".pill.warn")).to_have_text("drained")
    expect(row.locator(".pill.warn")).to_have_attribute(
        "title", "It serves nobody, and takes no new sessions: it may be stopped."
    )
    expect(page.locator(".remark.empty")).to_be_visible()
    page.get_by_label("Which sessions").select_option("all")
    expect(page.locator(".rows .row", has_text="idle").locator(".error")).to_contain_text(
        "its node was drained"
    )
    row.get_by_role("button", name="Undo").click()
    expect(row.get_by_role("button", name="Drain…")).to_be_visible()
    expect(page.locator(".note").last).to_contain_text("takes new sessions again")
    with client.session("after") as session:
        assert session.execute("1 + 1").value == "2"


def test_who_would_begin_a_session_on_a_draining_node_is_told(
    tab: Tab, client: Broker, node: str
) -> None:
    with client.session("late") as session:
        session.execute("x = 1")
    page = tab.session("late")
    client.drain(node)
    expect(page.locator(".following.ended")).to_contain_text("its node was drained")
    page.get_by_label("Code to run").fill("1 + 1")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".cell.by-hand .failure")).to_contain_text("takes no new sessions")
    client.drain(node, undo=True)
    page.get_by_label("Code to run").fill("1 + 1")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".cell.by-hand .result")).to_contain_text("2")


def test_a_node_is_drained_by_itself_alone(tab: Tab, client: Broker) -> None:
    page = tab.page
    [own] = client.status()["nodes"]
    three = [
        own,
        own | {"node": "other", "url": "http://127.0.0.1:1"},
        own | {"node": "unknown", "url": "javascript:alert(1)", "draining": True},
    ]
    page.route("**/v1/nodes", lambda route: route.fulfill(json={"nodes": three}))
    tab.open()
    other = page.locator(".nodes tr", has_text="other")
    there = other.get_by_role("link", name="Drain there")
    expect(there).to_have_attribute("href", "http://127.0.0.1:1/")
    expect(there).to_have_attribute("rel", "noopener noreferrer")
    expect(there).to_have_attribute(
        "title", "other is drained in its own console, http://127.0.0.1:1/"
    )
    expect(other.get_by_role("button")).to_have_count(0)
    unknown = page.locator(".nodes tr", has_text="unknown")
    expect(unknown.get_by_role("link")).to_have_count(0)
    expect(unknown.get_by_role("button", name="Undo")).to_be_disabled()
    mine = page.locator(".nodes tr", has_text=str(own["node"]))
    expect(mine.get_by_role("button", name="Drain…")).to_be_enabled()
    expect(mine.get_by_role("link")).to_have_count(0)


def test_the_end_of_a_drained_node_is_told(
    context: BrowserContext, short_dir: Callable[[], Path]
) -> None:
    with broker_process(short_dir(), "--warm", "1") as running:
        page = Tab(context.new_page(), running).open()
        page.get_by_role("button", name="Drain…").click()
        expect(page.get_by_role("dialog")).to_contain_text("It serves no session.")
        page.get_by_role("dialog").get_by_role("button", name="Drain", exact=True).click()
        expect(page.locator(".nodes .pill.warn")).to_have_text("drained")
        running.process.terminate()
        running.process.wait(30)
        page.keyboard.press("r")
        expect(page.get_by_role("alert")).to_contain_text("The broker does not answer")
