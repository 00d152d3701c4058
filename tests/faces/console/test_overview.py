"""The overview: sessions, nodes and pools."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

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


def test_what_kernels_use_is_told_of_each_node_and_of_all(tab: Tab, client: Broker) -> None:
    name = client.status()["nodes"][0]["node"]
    with client.session("uses") as session:
        session.execute("x = bytearray(40 << 20)")
    page = tab.session("uses")
    page.get_by_label("Code to run").fill("while True: pass")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".pill.state-busy")).to_be_visible()
    page.get_by_label("All sessions").click()
    row = page.locator(".nodes tr", has_text=name)
    for place in (tile(page, "CPU"), row.locator(".cpu")):
        expect(place).to_contain_text(re.compile(r"0\.[1-9]\d|[1-9]\.\d"))
    for place in (tile(page, "Memory"), row.locator(".memory")):
        expect(place).to_contain_text(re.compile(r"\d+ MB|\d\.\d GB"))
    expect(tile(page, "Memory")).to_contain_text(re.compile(r"\d kernels?"))
    expect(tile(page, "CPU")).to_have_attribute("title", re.compile(f"^Of the kernels of {name}"))
    client.kill("uses")


def test_figures_are_of_all_nodes_that_count_and_have_gaps_where_none_does(
    tab: Tab, client: Broker
) -> None:
    page = tab.page
    [own] = client.status()["nodes"]
    nodes: list[dict[str, Any]] = []
    pools = client.status()["pools"]
    page.route("**/v1/nodes", lambda route: route.fulfill(json={"nodes": nodes}))
    page.route("**/v1/pools*", lambda route: route.fulfill(json={"pools": pools} | REST))

    def look(*of: dict[str, Any]) -> None:
        nodes[:] = of
        with page.expect_response("**/v1/nodes"):
            page.keyboard.press("r")

    def counted(at: float, cpu: float, **fields: Any) -> dict[str, Any]:
        return own | {"memory": 512 << 20, "counted": at, "cpu_seconds": cpu} | fields

    nodes[:] = [counted(10, 100), counted(20, 50, node="other", memory=256 << 20)]
    tab.open()
    expect(tile(page, "Memory")).to_contain_text("768 MB")
    expect(tile(page, "Memory")).to_contain_text("2 nodes")
    expect(tile(page, "CPU")).to_contain_text(NONE)
    # Each by its own clock; a record that is seen again tells no more than before.
    look(counted(20, 115), counted(25, 60, node="other", memory=256 << 20))
    expect(tile(page, "CPU")).to_contain_text("3.5 cores")
    look(counted(30, 120), counted(25, 60, node="other", memory=256 << 20))
    expect(tile(page, "CPU")).to_contain_text("2.5 cores")
    other = page.locator(".nodes tr", has_text="other")
    expect(other.locator(".cpu")).to_have_text("2.0")
    expect(other.locator(".memory")).to_have_text("256 MB")
    # Of an earlier version, which tells nothing of it.
    old = {name: own[name] for name in own if name not in ("memory", "cpu_seconds", "counted")}
    look(counted(40, 125), old | {"node": "other"})
    expect(tile(page, "CPU")).to_contain_text("0.50 cores")
    expect(tile(page, "CPU")).to_contain_text("1 of 2 nodes")
    expect(tile(page, "CPU")).to_have_attribute("title", re.compile("Not counted: other"))
    expect(other.locator(".cpu")).to_have_text(NONE)
    expect(other.locator(".memory")).to_have_text(NONE)
    # More kernels than are measured: no figure, and a gap.
    pools[0]["kernels"] = [{"kernel": str(n), "pid": n} for n in range(1, 200)]
    look(own | {"memory": None, "cpu_seconds": None})
    for name in ("Memory", "CPU"):
        expect(tile(page, name).locator(".value")).to_have_text(NONE)
        expect(tile(page, name)).to_contain_text("not counted")
        expect(tile(page, name).locator(".line")).to_have_attribute("d", re.compile("^M[^M]*$"))
    look(counted(50, 130))
    expect(tile(page, "Memory").locator(".value")).to_have_text("512 MB")
    expect(tile(page, "Memory").locator(".line")).to_have_attribute("d", re.compile("M.*M"))


def test_a_few_kernels_are_measured_where_nothing_counts_them(tab: Tab, client: Broker) -> None:
    page = tab.page
    [own] = client.status()["nodes"]
    bare = own | {"memory": None, "cpu_seconds": None}
    page.route("**/v1/nodes", lambda route: route.fulfill(json={"nodes": [bare]}))
    measured = client.status(memory=True)["pools"]
    for row in measured[0]["kernels"]:
        row |= {"pss": 100 << 20, "cpu_seconds": 1.0}
    page.route(
        "**/v1/pools?memory=true", lambda route: route.fulfill(json={"pools": measured} | REST)
    )
    tab.open()
    total = len(measured[0]["kernels"]) * 100
    expect(tile(page, "Memory").locator(".value")).to_have_text(f"{total} MB")
    expect(page.locator(".nodes td.memory").first).to_have_text(f"{total} MB")


NONE = "\N{EN DASH}"
REST = {"broker": {"pid": 1}, "zygotes": [], "store": {"url": "", "embedded": True, "restarts": 0}}


def tile(page: Page, title: str) -> Locator:
    return page.locator(".tile", has=page.get_by_role("heading", name=title, exact=True))
