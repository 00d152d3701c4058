"""Whoever looks at the console with a keyboard, a screen reader, weak eyes or a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from broker.client import Broker
from tests.faces.console.conftest import Tab
from tests.system.conftest import RunningBroker, broker_process

pytestmark = pytest.mark.timeout(900)  # the browser may have to be installed first

LONG = "a-long-name-that-somebody-chose:user-8f3a@example.com:2026-11-29T20:40:" + "x" * 57
PROFILES = [
    "python",
    "a-profile-with-a-long-name-of-32",
    *(f"profile-{number}" for number in range(5)),
]
CODE = """
import sys
from IPython.display import HTML, JSON, Markdown, display
import pandas as pd
for number in range(9):
    print(f"\\x1b[{30 + number}mtext\\x1b[0m \\x1b[{40 + number}mtext\\x1b[0m", end=" ")
print("\\x1b[7minverse\\x1b[0m \\x1b[2mdim\\x1b[0m")
print("x" * 400, file=sys.stderr)
for number in range(200): print(number)
display(pd.DataFrame({f"column {n}": [n, None] for n in range(30)}))
display(Markdown("# Title\\n> quoted `code`\\n\\n| a | b |\\n|---|---|\\n| 1 | 2 |"))
display(JSON({"a": [1, 2]}), HTML("<p>in a frame</p>"))
def f(number: int = 0x10) -> str: "text"; return f"{number}"  # a comment
class Held: pass
raise ValueError("y" * 300)
"""
CHECKS = (Path(__file__).parent / "access.js").read_text()
FAINT = f"(() => {{ {CHECKS} return faint(); }})()"
NAMELESS = f"(() => {{ {CHECKS} return nameless(); }})()"


@pytest.fixture(scope="module")
def broker(short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    directory = short_dir()
    tables = [f'[profiles.{name}]\nwarm = 1\npreload = ""\n' for name in PROFILES]
    (directory / "broker.toml").write_text("".join(tables))
    with broker_process(directory, "--config", str(directory / "broker.toml")) as running:
        yield running


@pytest.fixture(scope="module")
def shown(client: Broker) -> str:
    """Have sessions with all kinds of things to show, and give the name of one."""
    with client.session(LONG) as session:
        session.execute("x = 1")
        session.execute(CODE)
    client.kill(LONG, reason="z" * 150)
    with client.session(LONG) as session:
        session.execute(CODE)
    with client.session("ended") as session:
        session.execute("1 / 0")
    client.kill("ended", reason="it was over its budget " * 5)
    return LONG


def overview(tab: Tab) -> Page:
    page = tab.open()
    expect(page.locator(".rows .row").first).to_be_visible()
    page.get_by_label("Which sessions").select_option("all")
    expect(page.locator(".rows .row")).to_have_count(2)
    return page


def notebook(tab: Tab) -> Page:
    page = tab.session(LONG)
    expect(page.locator(".cell")).to_have_count(3)
    expect(page.locator(".divide")).to_be_visible()
    return page


PLACES = {"overview": overview, "session": notebook}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.usefixtures("shown")
def test_all_text_stands_out_from_what_is_behind_it(tab: Tab, place: str, scheme: str) -> None:
    tab.page.emulate_media(color_scheme=scheme)
    page = PLACES[place](tab)
    assert page.evaluate(FAINT) == []
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    assert page.evaluate(FAINT) == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("shown")
def test_whatever_can_be_used_has_a_name(tab: Tab, place: str) -> None:
    page = PLACES[place](tab)
    assert page.evaluate(NAMELESS) == []
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    assert page.evaluate(NAMELESS) == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.usefixtures("shown")
def test_a_phone_needs_no_scrolling_aside_however_long_names_are(tab: Tab, place: str) -> None:
    for width in (390, 320):
        tab.page.set_viewport_size({"width": width, "height": 844})
        page = PLACES[place](tab)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        buttons = page.get_by_role("button").all()
        cut = [one.inner_text() for one in buttons if not within(one.bounding_box(), width)]
        assert cut == []


def within(box: object, width: int) -> bool:
    if box is None:
        return True
    return box["x"] >= 0 and box["x"] + box["width"] <= width


@pytest.mark.usefixtures("shown")
def test_what_has_the_focus_is_seen_and_keeps_it(tab: Tab) -> None:
    page = overview(tab)
    drain = page.get_by_role("button", name="Drain…")
    for _ in range(12):
        page.keyboard.press("Tab")
        if drain.evaluate("(one) => one === document.activeElement"):
            break
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", page.evaluate("document.activeElement.outerHTML")
    expect(drain).to_be_focused()
    with page.expect_response("**/v1/nodes"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    expect(drain).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").get_by_role("button", name="Drain")).to_be_focused()
    page.keyboard.press("Escape")
    expect(drain).to_be_focused()


@pytest.mark.usefixtures("shown")
def test_nothing_moves_for_whom_that_disturbs(tab: Tab) -> None:
    tab.page.emulate_media(reduced_motion="reduce")
    page = tab.session(LONG)
    page.get_by_label("Code to run").fill("while True: pass")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".mark.running")).to_be_visible()
    moving = "document.getAnimations().filter((one) => one.playState === 'running').length"
    assert page.evaluate(moving) == 0
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) > 0
    page.get_by_role("button", name="Interrupt…").click()
    page.get_by_role("dialog").get_by_role("button", name="Interrupt").click()
    expect(page.locator(".cell.by-hand .status")).to_have_text("interrupted")
