"""What runs is interrupted once somebody has agreed to it, having seen what it is."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from broker.client import Broker
from tests.faces.console.conftest import Tab

pytestmark = pytest.mark.timeout(900)  # the browser may have to be installed first

CODE = "\n# the first line\nwhile True: pass"
SINCE = re.compile(r"^Its cell has run for \d+ (s|min), since \d+:\d\d:\d\d\b")


def busy(tab: Tab, name: str) -> Page:
    """Have a session's page run code that has no end."""
    page = tab.session(name)
    page.get_by_label("Code to run").fill(CODE)
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".pill.state-busy")).to_be_visible()
    return page


def test_the_overview_asks_before_it_interrupts_and_says_what_runs(
    tab: Tab, context: BrowserContext, client: Broker
) -> None:
    for name in ("asks-busy", "asks-idle"):
        with client.session(name) as session:
            session.execute("x = 1")
    other = busy(Tab(context.new_page(), tab.broker), "asks-busy")
    page = tab.open()
    page.get_by_label("Filter the sessions").fill("asks-")
    idle = page.locator(".rows .row", has_text="asks-idle")
    idle.hover()
    expect(idle.get_by_role("button", name="Interrupt")).to_be_disabled()
    expect(idle.get_by_role("button", name="Interrupt")).to_have_attribute(
        "title", "Nothing runs in it"
    )
    idle.focus()
    page.keyboard.press("i")
    expect(page.locator(".note").last).to_have_text(re.compile("^asks-idle: nothing runs in it"))
    row = page.locator(".rows .row", has_text="asks-busy")
    expect(row).to_contain_text("busy")
    row.focus()
    page.keyboard.press("i")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("Interrupt session asks-busy?")
    expect(dialog.locator("p").first).to_have_text(SINCE)
    expect(dialog.locator(".code")).to_have_text("# the first line")
    expect(dialog.get_by_role("button", name="Interrupt")).to_be_focused()
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert client.describe("asks-busy")["state"] == "busy"
    row.hover()
    row.get_by_role("button", name="Interrupt").click()
    expect(dialog.locator(".code")).to_have_text("# the first line")
    page.keyboard.press("Enter")
    expect(page.locator(".note").last).to_contain_text("asks-busy: interrupted")
    expect(other.locator(".cell.by-hand .status")).to_have_text("interrupted")


def test_a_sessions_page_asks_before_it_interrupts_and_says_what_runs(
    tab: Tab, client: Broker
) -> None:
    with client.session("waits") as session:
        session.execute("x = 1")
    page = busy(tab, "waits")
    page.keyboard.press("Escape")
    page.keyboard.press("i")
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_role("heading")).to_have_text("Interrupt session waits?")
    expect(dialog.locator("p").first).to_have_text(SINCE)
    expect(dialog.locator(".code")).to_have_text("# the first line")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    assert client.describe("waits")["state"] == "busy"
    page.keyboard.press("i")
    page.keyboard.press("Enter")
    expect(page.locator(".cell.by-hand .status")).to_have_text("interrupted")
    expect(page.get_by_role("button", name="Interrupt…")).to_be_disabled()
    page.keyboard.press("i")
    expect(page.locator(".note").last).to_contain_text("waits: nothing runs in it")


def test_who_agrees_too_late_interrupts_nothing_else(
    tab: Tab, context: BrowserContext, client: Broker
) -> None:
    with client.session("both-ask") as session:
        session.execute("x = 1")
    page = busy(tab, "both-ask")
    other = Tab(context.new_page(), tab.broker).session("both-ask")
    other.get_by_label("Code to run").fill("input('go on? ')")
    other.keyboard.press("Shift+Enter")
    expect(other.locator(".cell .mark.queued")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("i")
    expect(page.get_by_role("dialog").locator(".code")).to_have_text("# the first line")
    client.interrupt("both-ask")
    expect(other.get_by_label("go on?")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.locator(".note.error")).to_contain_text("It had ended before")
    assert client.describe("both-ask")["code"] == "input('go on? ')"
