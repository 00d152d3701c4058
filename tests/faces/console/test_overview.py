"""The overview: sessions, nodes and pools."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from broker.client import Broker
from tests.faces.console.conftest import Tab

pytestmark = pytest.mark.timeout(900)  # the browser may have to be installed first


def test_sessions_are_found_opened_and_killed_from_the_keyboard(tab: Tab, client: Broker) -> None:
    for name in ("key-1", "key-2", "other"):
        with client.session(name) as session:
            session.execute("x = 1")
    page = tab.open()
    expect(page.locator(".tile").first).to_contain_text("Warm")
    expect(page.locator(".nodes tbody tr")).to_have_count(2)
    expect(page.locator(".row", has_text="key-2")).to_be_visible()
    page.keyboard.press("/")
    page.keyboard.type("key-")
    page.keyboard.press("Enter")
    expect(page.locator(".rows .row")).to_have_count(2)
    expect(page.locator(".rows .row:focus")).to_contain_text("key-1")
    page.keyboard.press("j")
    expect(page.locator("[aria-selected=true]")).to_contain_text("key-2")
    page.keyboard.press("x")
    page.get_by_role("button", name="Cancel").click()
    assert "key-2" in tab.broker.sessions()
    page.keyboard.press("x")
    page.keyboard.type("it was stuck")
    page.keyboard.press("Enter")
    expect(page.locator(".rows .row")).to_have_count(1)
    assert "key-2" not in tab.broker.sessions()
    page.get_by_label("Which sessions").select_option("all")
    expect(page.locator(".row", has_text="key-2")).to_contain_text("it was stuck")
    page.keyboard.press("k")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_contain_text("interrupt what runs in it")
    page.keyboard.press("Escape")
    page.locator(".row", has_text="key-1").click()
    expect(page.locator("h1")).to_have_text("key-1")


def test_a_broker_that_does_not_answer_is_told_in_words(tab: Tab) -> None:
    page = tab.open()
    page.route("**/v1/sessions?**", lambda route: route.abort())
    page.keyboard.press("r")  # by itself it waits as long as looking has taken, ten times
    expect(page.get_by_role("alert")).to_contain_text("The broker does not answer")
    page.unroute("**/v1/sessions?**")
    expect(page.get_by_role("alert")).to_be_hidden()
