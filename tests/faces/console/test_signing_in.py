"""Signing in, and what a narrower token opens."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from broker.client import Broker
from tests.faces.console.conftest import Tab, made_token

pytestmark = pytest.mark.timeout(900)  # the browser may have to be installed first


def test_a_token_behind_the_address_leaves_it_at_once(tab: Tab) -> None:
    page = tab.open()
    assert page.url == f"{tab.broker.url}/"
    assert page.evaluate("sessionStorage.getItem('broker.token')") == tab.broker.token
    assert page.evaluate("localStorage.length + document.cookie.length") == 0
    page.reload()
    expect(page.locator(".overview")).to_be_visible()


def test_a_pasted_token_signs_in_and_a_wrong_one_is_told_what_to_do(tab: Tab) -> None:
    page = tab.page
    page.goto(tab.broker.url)
    page.get_by_label("Access token").fill("x" * 32)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("`broker token create` makes one")
    page.get_by_label("Access token").fill(tab.broker.token)
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator(".overview")).to_be_visible()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Access token")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0


def test_what_is_typed_stays_while_the_broker_is_away(tab: Tab) -> None:
    page = tab.open()
    page.clock.install()
    page.route("**/v1/me", lambda route: route.abort())
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("The broker does not answer")
    page.get_by_label("Access token").fill("typed")
    for _ in range(2):
        with page.expect_event("requestfailed"):
            page.clock.fast_forward(3100)
        expect(page.get_by_label("Access token")).to_have_value("typed")
        expect(page.get_by_label("Access token")).to_be_focused()
    page.unroute("**/v1/me")
    page.clock.fast_forward(3100)
    expect(page.get_by_role("alert")).to_be_hidden()
    expect(page.get_by_label("Access token")).to_have_value("typed")
    page.get_by_label("Access token").fill(tab.broker.token)
    page.keyboard.press("Enter")
    expect(page.locator(".overview")).to_be_visible()


def test_a_page_signs_in_by_itself_once_the_broker_is_back(tab: Tab) -> None:
    page = tab.open()
    page.clock.install()
    page.route("**/v1/me", lambda route: route.abort())
    page.reload()
    expect(page.get_by_role("alert")).to_contain_text("The broker does not answer")
    page.unroute("**/v1/me")
    page.clock.fast_forward(3100)
    expect(page.locator(".overview")).to_be_visible()


def test_a_token_is_in_no_log(tab: Tab, client: Broker) -> None:
    with client.session("logged") as session:
        session.execute("1")
    page = tab.session("logged")
    page.get_by_label("Code to run").fill("2")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".cell.by-hand .status.ok")).to_be_visible()
    assert any(address.startswith("ws") and "mode=run" in address for address in tab.addresses)
    packed = page.evaluate("btoa(sessionStorage.getItem('broker.token')).replace(/=/g, '')")
    log = tab.broker.log
    assert "/v1/sessions/logged/ws" in log
    assert tab.broker.token not in log
    assert packed[:20] not in log


# Narrower tokens


def test_who_may_only_watch_sees_the_session_and_no_way_to_change_it(
    tab: Tab, client: Broker
) -> None:
    with client.session("watched") as session:
        session.execute("print('seen')")
        token = made_token(tab.broker, scopes=["watch"], session="watched")
        page = tab.session("watched", token)
        expect(page.locator(".cell")).to_contain_text("seen")
        session.execute("print('more')")
        expect(page.locator(".cell").nth(1)).to_contain_text("more")
    expect(page.locator(".runner")).to_have_text("This token may watch, and not run.")
    for name in ("Interrupt…", "Restart…", "Kill…"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    expect(page.get_by_role("tab")).to_have_text(["Files", "About"])
    page.keyboard.press("u")
    expect(page.locator(".rows .row")).to_have_count(1)
    expect(page.locator(".nodes")).to_have_count(0)
    expect(page.get_by_role("alert")).to_be_hidden()
    page.keyboard.press("j")
    page.keyboard.press("x")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_another_tenant_sees_nothing_of_these_sessions(tab: Tab, client: Broker) -> None:
    with client.session("private") as session:
        session.execute("1")
    token = made_token(tab.broker, tenant="acme", scopes=["run"])
    page = tab.open("", token)
    expect(page.locator(".remark.empty")).to_contain_text("No sessions yet")
    page.goto(f"{tab.broker.url}/#/s/private")
    expect(page.locator(".following.ended")).to_be_visible()
    expect(page.locator(".cell")).to_have_count(0)
