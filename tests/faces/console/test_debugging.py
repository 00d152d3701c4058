"""`breakpoint()` and `%debug` in the console: pdb asks where the cell is."""

from __future__ import annotations

import pytest
from playwright.sync_api import Locator, Page, expect

from broker.client import Broker
from tests.faces.console.conftest import Tab

pytestmark = pytest.mark.timeout(900)  # the browser may have to be installed first

HALF = "def half(n):\n    twice = n * 2\n    {0}\n    return n / 2\n"


def run(page: Page, code: str) -> Locator:
    """Run code as somebody's own; return its cell."""
    page.get_by_label("Code to run").fill(code)
    page.keyboard.press("Shift+Enter")
    return page.locator(".cell.by-hand").last


def answer(cell: Locator, text: str) -> None:
    """Answer what pdb asks in a cell, by the keyboard alone: the question has it."""
    question = cell.get_by_label("ipdb>")
    expect(question).to_be_focused()
    cell.page.keyboard.type(text)
    cell.page.keyboard.press("Enter")


def test_a_cell_stops_at_breakpoint_and_goes_on(tab: Tab, client: Broker) -> None:
    with client.session("breaks") as session:
        session.execute(HALF.format("breakpoint()"))
        page = tab.session("breaks")
        cell = run(page, "half(84)")
        shown = cell.locator(".stdout")
        expect(shown).to_contain_text("return n / 2")
        answer(cell, "p twice")
        expect(shown).to_contain_text("168")
        answer(cell, "c")
        expect(cell.locator(".result")).to_have_text("42.0")
        expect(cell.locator(".status")).to_have_text("done")
        expect(page.locator(".asked")).to_have_count(0)
        assert session.execute("1 + 1").value == "2"


def test_debug_looks_into_the_cell_that_failed(tab: Tab, client: Broker) -> None:
    with client.session("fails") as session:
        session.execute(HALF.format("pass"))
        page = tab.session("fails")
        failed = run(page, "half('ab')")
        expect(failed.locator(".failure strong")).to_contain_text("TypeError")
        cell = run(page, "%debug")
        shown = cell.locator(".stdout")
        expect(shown).to_contain_text("return n / 2")
        answer(cell, "p twice")
        expect(shown).to_contain_text("'abab'")
        answer(cell, "q")
        expect(cell.locator(".status")).to_have_text("done")
        expect(page.locator(".asked")).to_have_count(0)
        assert session.execute("1 + 1").value == "2"
