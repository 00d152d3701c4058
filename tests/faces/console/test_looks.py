"""How it looks: phones, light and dark, and the pictures in the documents."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from broker.client import Broker
from tests.faces.console.conftest import Tab
from tests.system.conftest import broker_process

pytestmark = pytest.mark.timeout(900)  # the browser may have to be installed first


@pytest.mark.parametrize("where", ["", "/s/phone"])
def test_it_fits_a_phone(tab: Tab, client: Broker, where: str) -> None:
    with client.session("phone") as session:
        session.execute(
            "import pandas as pd\nprint('x' * 400)\npd.DataFrame({f'c{n}': [n] for n in range(30)})"
        )
    tab.page.set_viewport_size({"width": 390, "height": 844})
    page = tab.open(where)
    expect(page.locator(".cell .table" if where else ".rows .row").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    if where:
        page.get_by_role("button", name="Variables, files").click()
        expect(page.get_by_role("tab", name="Files")).to_be_visible()


def test_it_is_light_or_dark_as_the_system_or_the_person_has_it(tab: Tab) -> None:
    page = tab.open()
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(paper)
    assert light != dark
    page.keyboard.press("t")
    assert page.evaluate(paper) == light
    page.reload()
    expect(page.locator(".overview")).to_be_visible()
    assert page.evaluate(paper) == light


PICTURES = Path(__file__).parents[3] / "deploy" / "docs" / "img"
SHOWN = [
    "import pandas as pd\n\n# a week of readings\ndf = pd.read_csv('readings.csv')\n"
    "print('loaded', len(df), 'rows')\n"
    "df.groupby('city').agg(coldest=('t', 'min'), warmest=('t', 'max'), count=('n', 'sum'))",
    "ax = df.pivot(index='day', columns='city', values='t').plot(figsize=(7.4, 2.1))\n"
    "ax.set_ylabel('°C');",
    "df.loc[df['t'] > 40, 'city'].iloc[0]",
]
TRIED = (
    "values = list(range(100_000))",
    "import pandas as pd\npd.read_csv('sales.csv')",
    "total = sum(range(3_000_000))",
    "import os\nos._exit(3)",
    "prices = {'tea': 2}\nprices['coffee']",
)
READINGS = "day,city,t,n\n" + "".join(
    f"{day},{city},{base + 3 * ((day * step) % 5 - 2) / 2:.1f},{day + step}\n"
    for city, base, step in (("Oslo", 4, 3), ("Rome", 19, 2), ("Lima", 22, 4))
    for day in range(1, 8)
)


@pytest.mark.skipif(not os.environ.get("CONSOLE_PICTURES"), reason="CONSOLE_PICTURES is not set")
def test_the_pictures_in_the_documents_are_taken(
    chromium: Browser, short_dir: Callable[[], Path]
) -> None:
    PICTURES.mkdir(exist_ok=True)
    with broker_process(short_dir(), "--warm", "4", BROKER_NODE="node-1") as running:
        client = Broker(running.url, running.token)
        for number in range(1, 15):
            with client.session(f"chat-{number}") as session:
                session.execute(TRIED[number % len(TRIED)])
        with client.session("chat-42") as session, client.session("chat-7") as busy:
            session.files.upload(READINGS.encode(), "readings.csv")
            for code in SHOWN:
                session.execute(code)
            next(busy.stream("import time\nwhile True: time.sleep(0.1)"))
            for scheme in ("light", "dark"):
                context = chromium.new_context(
                    viewport={"width": 1280, "height": 800}, color_scheme=scheme
                )
                page = context.new_page()
                page.goto(f"{running.url}/#token={running.token}")
                expect(page.locator(".rows .row").first).to_be_visible()
                page.keyboard.press("j")
                for _ in range(30):  # looks, for the lines
                    page.keyboard.press("r")
                    page.wait_for_timeout(400)
                page.screenshot(path=PICTURES / f"console-overview-{scheme}.png")
                page.set_viewport_size({"width": 1280, "height": 1000})
                page.goto(f"{running.url}/#/s/chat-42")
                expect(page.locator(".cell .failure")).to_be_visible()
                page.get_by_label("Code to run").fill("df[df.city == 'Oslo'].t.mean()")
                page.keyboard.press("Shift+Enter")
                expect(page.locator(".cell.by-hand .status.ok").last).to_be_visible()
                page.wait_for_timeout(800)
                page.evaluate("scrollTo(0, 0)")
                page.wait_for_timeout(300)
                page.screenshot(path=PICTURES / f"console-session-{scheme}.png")
                context.close()
            context = chromium.new_context(viewport={"width": 390, "height": 844})
            page = context.new_page()
            page.goto(f"{running.url}/#token={running.token}")
            expect(page.locator(".rows .row").first).to_be_visible()
            page.goto(f"{running.url}/#/s/chat-42")
            expect(page.locator(".cell .failure")).to_be_visible()
            page.evaluate("scrollTo(0, 0)")
            page.wait_for_timeout(500)
            page.screenshot(path=PICTURES / "console-phone.png")
            context.close()
            client.kill("chat-7")  # else the broker would wait for it
    for path in PICTURES.glob("console-*.png"):
        assert path.stat().st_size < 200 << 10, path.name
