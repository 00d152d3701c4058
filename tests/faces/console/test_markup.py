"""HTML out of kernels: it looks as it is meant to, and its styles reach nobody."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import BrowserContext, FrameLocator, Page, Route, expect

from broker.client import Broker
from broker.web.console import DIRECTORY, POLICY
from tests.faces.chromium import site
from tests.faces.console.conftest import Elsewhere, Tab
from tests.system.conftest import RunningBroker

pytestmark = pytest.mark.timeout(900)  # the browser may have to be installed first

STYLED = """
import pandas as pd
from IPython.display import HTML, display
frame = pd.DataFrame({"t": [4.5, 19.0]}, index=["Oslo", "Rome"])
display(frame.style.map(lambda value: "background-color: #0a141e; color: rgb(250, 240, 230)"))
display(HTML(
    "<style>.of-class { color: rgb(1, 2, 3) } @media print { .of-class { color: red } }</style>"
    "<p class=of-class id=here style='border-left: 7px solid rgb(4, 5, 6)'>styled</p>"
))
display(HTML(
    "<style>p { color: rgb(9, 9, 9) } #strong.strong { color: rgb(8, 8, 8) }"
    "#loud { color: rgb(7, 7, 7) !important }</style>"
    "<p id=strong class=strong style='color: rgb(1, 1, 1)'>an attribute is stronger</p>"
    "<p id=loud style='color: rgb(1, 1, 1)'>but for what is important</p>"
    "<input type=checkbox id=box><label for=box>open</label><div>more</div>"
    "<style>div { display: none } input:checked ~ div { display: block }</style>"
))
"""


def frame_of(page: Page, text: str, of: int) -> FrameLocator:
    """Return the frame whose output holds a text, scrolled into view; once there are so many."""
    frames = page.locator(".markup iframe")
    expect(frames).to_have_count(of)
    for at in range(of):
        frames.nth(at).scroll_into_view_if_needed()
        found = frames.nth(at).content_frame
        expect(found.locator("link")).to_be_attached()
        if found.get_by_text(text).count():
            return found
    raise AssertionError(text)


def test_html_keeps_its_own_styles(tab: Tab, client: Broker) -> None:
    with client.session("styled") as session:
        assert session.execute(STYLED).status == "ok"
    page = tab.session("styled")
    cell = frame_of(page, "19.000000", of=3).locator("td").first
    expect(cell).to_have_css("background-color", "rgb(10, 20, 30)")
    expect(cell).to_have_css("color", "rgb(250, 240, 230)")
    shown = frame_of(page, "styled", of=3).locator("#here")
    expect(shown).to_have_css("color", "rgb(1, 2, 3)")
    expect(shown).to_have_css("border-left", "7px solid rgb(4, 5, 6)")
    other = frame_of(page, "an attribute is stronger", of=3)
    expect(other.locator("#strong")).to_have_css("color", "rgb(1, 1, 1)")
    expect(other.locator("#loud")).to_have_css("color", "rgb(7, 7, 7)")
    expect(other.get_by_text("more")).to_be_hidden()
    other.get_by_text("open").click()
    expect(other.get_by_text("more")).to_be_visible()
    for _ in range(60):  # and so from the keyboard, wherever that begins
        page.keyboard.press("Tab")
        if other.locator("#box:focus").count():
            break
    page.keyboard.press("Space")
    expect(other.get_by_text("more")).to_be_hidden()


def test_what_frames_hold_becomes_light_or_dark_with_the_page(tab: Tab, client: Broker) -> None:
    with client.session("shaded") as session:
        session.execute("from IPython.display import HTML\nHTML('<p>in a frame</p>')")
    page = tab.session("shaded")
    inside = page.locator(".markup iframe").content_frame.locator("html")
    for scheme, paper in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(22, 27, 36)")):
        page.emulate_media(color_scheme=scheme)
        expect(inside).to_have_css("background-color", paper)
    page.keyboard.press("t")
    expect(inside).to_have_css("background-color", "rgb(255, 255, 255)")


def test_a_frame_that_was_far_away_has_the_theme_of_when_it_is_seen(
    tab: Tab, client: Broker
) -> None:
    code = (
        "from IPython.display import HTML, display\n"
        "for at in range(8): display(HTML('<p>in a frame</p>' * 20))"
    )
    with client.session("far") as session:
        session.execute(code)
        page = tab.session("far")
        expect(page.locator(".markup iframe")).to_have_count(8)
        page.evaluate("scrollTo({ top: 0 })")
        session.execute("HTML('<p>far below</p>')")
    below = page.locator(".markup iframe").nth(8)
    expect(below).to_be_attached()
    expect(below).not_to_have_attribute("srcdoc", re.compile(""))
    page.emulate_media(color_scheme="dark")
    below.scroll_into_view_if_needed()
    inside = below.content_frame.locator("html")
    expect(inside.locator("p")).to_have_text("far below")
    expect(inside).to_have_css("background-color", "rgb(22, 27, 36)")


def test_another_theme_leaves_the_markup_of_outputs_as_it_is(tab: Tab, client: Broker) -> None:
    code = (
        "from IPython.display import HTML, display\n"
        "display(HTML('<style>p { color: #111 }</style><p class=\"told\">on white</p>'))\n"
        "display(HTML('<p class=\"told\">on any</p>'))\n"
    )
    with client.session("classes") as session:
        session.execute(code)
    page = tab.session("classes")
    for scheme, paper in (("light", "255, 255, 255"), ("dark", "22, 27, 36")):
        page.emulate_media(color_scheme=scheme)
        inside = frame_of(page, "on any", of=2)
        expect(inside.locator("html")).to_have_css("background-color", f"rgb({paper})")
        expect(inside.locator("p.told")).to_be_visible()
        white = frame_of(page, "on white", of=2)
        expect(white.locator("p.told")).to_be_visible()
        expect(white.locator("html")).to_have_css("background-color", "rgb(255, 255, 255)")


def test_what_colours_some_of_it_stays_on_the_paper_it_was_made_for(
    tab: Tab, client: Broker
) -> None:
    code = (
        "from IPython.display import HTML, display\n"
        "display(HTML('<p style=\"background: #fdd\">no ink named</p>'))\n"
        "display(HTML('<style>p { color: #111 }</style><p>no paper named</p>'))\n"
        "display(HTML('<style>@media (prefers-color-scheme: dark) { p { color: #eee } }</style>"
        "<p>both</p>'))\n"
        "display(HTML('<style>p { text-align: right }</style><p>neither</p>'))\n"
    )
    with client.session("papers") as session:
        session.execute(code)
    tab.page.emulate_media(color_scheme="dark")
    page = tab.session("papers")
    papers = {"ink": "255, 255, 255", "paper": "255, 255, 255", "both": "22, 27, 36"}
    for text, paper in (papers | {"neither": "22, 27, 36"}).items():
        found = frame_of(page, text, of=4).locator("html")
        expect(found).to_have_css("background-color", f"rgb({paper})")


def test_a_frame_is_as_tall_as_what_it_holds(tab: Tab, client: Broker) -> None:
    code = (
        "from IPython.display import HTML, display\n"
        "for tall in (61, 301, 3001):\n"
        "    display(HTML(f'<div style=\"height: {tall}px; background: #ccc\">{tall}</div>'))\n"
    )
    with client.session("tall") as session:
        session.execute(code)
    page = tab.session("tall")
    if not page.evaluate("CSS.supports('frame-sizing', 'content-height')"):
        pytest.skip("this browser does not measure what frames hold")
    for at, tall in enumerate((61 + 16, 301 + 16, 480)):
        frame = page.locator(".markup iframe").nth(at)
        frame.scroll_into_view_if_needed()
        expect(frame).to_have_js_property("offsetHeight", tall)


# Each names the other site in a way of its own.
LEADING = [
    "@import 'EVIL/import';",
    "@import url(EVIL/import-layer) layer(one);",
    "@namespace url(EVIL/namespace);",
    "@font-face { font-family: held; src: url(EVIL/font) } p { font-family: held }",
    "@property --of { syntax: '<url>'; inherits: false; initial-value: url(EVIL/property) }",
    "@keyframes go { to { background: url(EVIL/keyframe) } } p { animation: go 1ms forwards }",
    "p { background: url(EVIL/background) }",
    "p { background-image: u\\72l(EVIL/escaped) }",
    "p { --a: url(EVIL/variable); background: var(--a) }",
    "p { --b: u\\72l(EVIL/escaped-variable); background: var(--b) }",
    "p { background: image-set('EVIL/image-set' 1x) }",
    "p { background: -webkit-image-set(url(EVIL/webkit-set) 1x) }",
    "p { background: -webkit-cross-fade(url(EVIL/fade), url(EVIL/fade-too), 50%) }",
    "p { cursor: url(EVIL/cursor), auto }",
    "p { display: list-item; list-style: url(EVIL/list) }",
    "p::before { content: url(EVIL/content) }",
    "p { border: 9px solid; border-image: url(EVIL/border) 1 }",
    "p { mask: url(EVIL/mask) }",
    "p { clip-path: url(EVIL/clip#a) }",
    "p { filter: url(EVIL/filter#a) }",
    "p { shape-outside: url(EVIL/shape); float: left }",
    "p { offset-path: url(EVIL/path#a) }",
    "@media all { @supports (color: red) { p { background: url(EVIL/within) } } }",
    "p { &, & b { background: url(EVIL/nested) } }",
    "@layer low { p { background: url(EVIL/layer) } }",
    "@container (width > 0px) { p { background: url(EVIL/container) } }",
    "p::after { content: '<\\/style><img src=EVIL/out><style>' }",
    "p:hover { background: url(EVIL/hover) } p:first-letter { background: url(EVIL/letter) }",
]
BODIES = [
    "<p style='background: url(EVIL/attribute)'>a</p>",
    "<p style='color: red} p { background: url(EVIL/after) '>b</p>",
    "<p style='color: red; } </style><img src=EVIL/attribute-out><style>'>c</p>",
    "<link rel=preconnect href=EVIL><link rel=dns-prefetch href=EVIL>",
    "<link rel=preload as=image href=EVIL/preload><link rel=modulepreload href=EVIL/module>",
    "<link rel=prefetch href=EVIL/prefetch><link rel=prerender href=EVIL/prerender>",
    "<link rel=icon href=EVIL/icon><link rel=manifest href=EVIL/manifest>",
    "<meta http-equiv=refresh content='0; url=EVIL/refresh'>",
    "<meta http-equiv=Content-Security-Policy content='report-uri EVIL/report; img-src none'>",
    "<base href=EVIL/base/ target=_top><a href=relative class=trap>d</a>",
    "<a href=EVIL/top target=_top class=trap>e</a><a href=EVIL/new target=_blank class=trap>f</a>",
    "<a href=EVIL/parent target=_parent class=trap download>g</a>",
    "<form action=EVIL/form target=_top><input type=checkbox name=a checked>"
    "<button class=trap>h</button><input type=image src=EVIL/input class=trap></form>",
    "<label for=x class=trap>i</label><input id=x type=checkbox form=y formaction=EVIL/label>",
    "<svg><style>@import 'EVIL/svg'</style><image href=EVIL/image /><use href=EVIL/use#a /></svg>",
    "<p lang=x-held title=held class=held style='content: attr(title)'>j</p>",
]


def markup(server: Elsewhere) -> list[str]:
    """Return what would reach the other site, an output each."""
    styles = [f"<style>{one}</style><p>a <b>b</b></p>" for one in LEADING]
    address = f"http://127.0.0.1:{server.server_port}"
    return [one.replace("EVIL", address) for one in (*styles, *BODIES)]


def shown(client: Broker, server: Elsewhere) -> None:
    """Have a session show all of it."""
    code = "from IPython.display import HTML, display\nfor one in MARKUP: display(HTML(one))"
    with client.session("reaching") as session:
        assert session.execute(code, inputs={"MARKUP": markup(server)}).status == "ok"


def provoke(page: Page) -> None:
    """Look at each output, point at it, and click where anything might be."""
    expect(page.locator(".markup").first).to_be_visible()
    for one in page.locator(".markup iframe").all():
        one.scroll_into_view_if_needed()
        expect(one.content_frame.locator("link[rel=stylesheet]").first).to_be_attached()
        one.hover(position={"x": 20, "y": 20})
        for trap in one.content_frame.locator(".trap").all():
            trap.dispatch_event("click")
    page.evaluate("fetch('/healthz').then((answer) => answer.text())")
    page.evaluate("new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 100)))")


def reached_nobody(page: Page, broker: RunningBroker, server: Elsewhere) -> None:
    assert (server.hits, server.connections) == ([], 0)
    assert page.url == f"{broker.url}/#/s/reaching"
    assert len(page.context.pages) == 1


def test_what_html_asks_for_would_be_asked_for_elsewhere(
    context: BrowserContext, elsewhere: Elsewhere
) -> None:
    """Else the tests beside this one would show nothing."""
    page = context.new_page()
    with site() as address:
        page.goto(address)
        for one in markup(elsewhere)[: len(LEADING)]:
            page.set_content(one)
            page.hover("p", force=True)
    told = {path.strip("/") for path in elsewhere.hits}
    named = {found for one in LEADING for found in re.findall(r"EVIL/([\w-]+)", one)}
    assert len(told & named) > 20, named - told


def test_styles_and_links_reach_nobody(tab: Tab, client: Broker, elsewhere: Elsewhere) -> None:
    shown(client, elsewhere)
    page = tab.session("reaching")
    provoke(page)
    reached_nobody(page, tab.broker, elsewhere)


# What each file leaves out is left in, in turn.
LAX = {
    "styles.js": ("if (LOADS.test(", "if (false && ("),
    "frame.js": ("  clean(parsed.body);", ""),
}


@pytest.mark.parametrize("file", LAX)
def test_the_policy_of_frames_holds_without_what_is_left_out_before(
    context: BrowserContext, client: Broker, elsewhere: Elsewhere, broker: RunningBroker, file: str
) -> None:
    shown(client, elsewhere)
    tab = Tab(context.new_page(), broker)

    def lax(route: Route) -> None:
        text = (DIRECTORY / file).read_text()
        assert text.count(LAX[file][0]) == 1
        headers = {"Content-Type": "text/javascript", "Content-Security-Policy": POLICY}
        route.fulfill(body=text.replace(*LAX[file]), headers=headers)

    tab.page.route(f"**/console/{file}", lax)
    page = tab.session("reaching")
    provoke(page)
    reached_nobody(page, broker, elsewhere)
