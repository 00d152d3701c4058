"""What is a stranger's, in a browser: outputs that would do harm."""

from __future__ import annotations

import pytest
from playwright.sync_api import BrowserContext, Page, Route, expect

from broker.client import Broker
from broker.web.console import DIRECTORY, POLICY
from tests.faces.console.conftest import Elsewhere, Tab
from tests.system.conftest import RunningBroker

pytestmark = pytest.mark.timeout(900)  # the browser may have to be installed first

# Each would set this in the page's origin, or reach the other site.
CALL = "top.pwned=1;parent.pwned=1;window.pwned=1;fetch(`EVIL/fetched`)"
MARKUP = [
    "<script>CALL</script>",
    "<img src=x onerror=CALL><img src=EVIL/image srcset='EVIL/set 2x'>",
    "<svg onload=CALL><script>CALL</script><image href=EVIL/svg></svg>",
    "<a href='javascript:CALL' class=trap>here</a> <a href=EVIL/link class=trap>there</a>",
    "<a href=EVIL/top target=_top class=trap ping=EVIL/ping>top</a>",
    "<base href=EVIL/base/><img src=relative.png>",
    "<meta http-equiv=refresh content='0;url=EVIL/refresh'>",
    "<style>@import 'EVIL/import'; body{background:url(EVIL/css)}</style>",
    "<p style='background:url(EVIL/style)'>styled</p>",
    "<link rel=stylesheet href=EVIL/sheet><link rel=prefetch href=EVIL/prefetch>",
    "<iframe srcdoc='<script>CALL</script>'></iframe><iframe src=EVIL/frame></iframe>",
    "<form action=EVIL/form><button autofocus onfocus=CALL>go</button></form>",
    "<object data=EVIL/object></object><embed src=EVIL/embed><video src=EVIL/video autoplay>",
    "<details open ontoggle=CALL>x</details><input autofocus onfocus=CALL>",
    "<math><mtext><table><mglyph><style><!--</style>"
    "<img title='--&gt;&lt;img src=1 onerror=CALL&gt;'>",
    "<noscript><p title='</noscript><img src=x onerror=CALL>'></noscript>",
    "</body></html>\"'><script>CALL</script><template><img src=x onerror=CALL></template>",
    "<table background=EVIL/table><tr><td background=EVIL/cell>held</td></tr></table>",
]
SVG = (
    "<svg xmlns='http://www.w3.org/2000/svg' width='40' height='40' onload='CALL'>"
    "<script>CALL</script><image href='EVIL/inside' width='9' height='9'/>"
    "<foreignObject width='9' height='9'>"
    "<img xmlns='http://www.w3.org/1999/xhtml' src='EVIL/foreign'/></foreignObject>"
    "<style>@import 'EVIL/svg-import';</style><rect width='40' height='40'/></svg>"
)
TAG = "<img src=x onerror=CALL>"
HOSTILE = """
from IPython.display import HTML, SVG, Javascript, Markdown, display
for one in MARKUP:
    display(HTML(one))
display(SVG(DRAWING))
display(Javascript(CALL))
display(Markdown(TAG + " [link](javascript:CALL) ![i](EVIL/markdown)"))
table = "application/vnd.broker.dataframe+json"
columns = [{"name": TAG, "dtype": TAG}]
display({table: {"columns": columns, "rows": [[TAG]], "shape": [TAG, 1]}}, raw=True)
display({table: {"columns": 7, "rows": "x"}, "text/plain": "not a table"}, raw=True)
display({"image/png": 'x" onerror="CALL'}, raw=True)
display({"text/plain": TAG, "text/html": 5, TAG: TAG}, raw=True)
print("\\x1b]0;title\\x07\\x1b]52;c;aGk=\\x07\\x1b[2J\\x1b[31mred" + TAG + "\\x1b[0m", end="")
print("\\x1b]8;;EVIL/osc\\x07link\\x1b]8;;\\x07")
print("100%\\r" * 5 + "over\\b\\b\\bwritten", "\\x1bP+q\\x1b\\\\", "\\x9b31m")
open(TAG.replace("/", "_"), "w").close()
bad = type(TAG, (Exception,), {})
held = TAG
raise bad(TAG)
"""


def filled(text: str, server: Elsewhere) -> str:
    """Put the call, and the other site's address, into a payload."""
    return text.replace("CALL", CALL).replace("EVIL", f"http://127.0.0.1:{server.server_port}")


def run_hostile(client: Broker, name: str, server: Elsewhere) -> None:
    """Have a session show everything hostile."""
    values = {
        "MARKUP": [filled(one, server) for one in MARKUP],
        "DRAWING": filled(SVG, server),
        "TAG": filled(TAG, server),
    }
    with client.session(name) as session:
        session.execute("1", inputs=values | {"CALL": filled("CALL", server)})
        told = session.execute(
            filled(HOSTILE, server).replace(
                "Javascript(" + filled("CALL", server), "Javascript(CALL"
            )
        )
        assert told.status == "error"


def provoke(page: Page) -> None:
    """Do what a person might: open what can be opened, click where a link was, wait for frames."""
    expect(page.locator(".failure").last).to_be_visible()
    page.get_by_role("tab", name="Files").click()
    expect(page.locator(".file").first).to_be_visible()
    for one in page.locator("iframe").all():  # those out of view are not loaded
        one.scroll_into_view_if_needed()
        expect(one.content_frame.locator("link[rel=stylesheet]").first).to_be_attached()
    for frame in page.frames[1:]:
        frame.wait_for_load_state()
    for frame in page.frames[1:]:
        for trap in frame.locator(".trap").all():
            trap.dispatch_event("click")
    # Anything that was on its way has arrived when these have.
    page.evaluate("fetch('/healthz').then((answer) => answer.text())")
    page.evaluate("new Promise((resolve) => requestAnimationFrame(() => setTimeout(resolve, 100)))")


def nothing_happened(page: Page, broker: RunningBroker, server: Elsewhere) -> None:
    assert server.hits == []
    assert page.evaluate("typeof window.pwned") == "undefined"
    assert page.title() == "hostile \N{EN DASH} kernel-broker"
    assert page.url == f"{broker.url}/#/s/hostile"
    assert page.evaluate("document.baseURI").startswith(broker.url)
    assert len(page.context.pages) == 1
    for frame in page.locator("iframe").all():
        assert frame.get_attribute("sandbox") == ""
        assert frame.get_attribute("src") is None
    # In the page itself, nothing but what we have made.
    assert (
        page.locator("main script, main base, main object, main embed, main form[action]").count()
        == 0
    )
    assert (
        page.evaluate(
            "[...document.querySelectorAll('main *')].flatMap((one) => [...one.attributes])"
            ".filter((one) => one.name.startsWith('on') || /javascript:/i.test(one.value)"
            " && one.ownerElement.localName !== 'iframe' && one.name !== 'title').length"
        )
        == 0
    )


def test_what_a_kernel_shows_runs_nothing_and_reaches_nobody(
    tab: Tab, client: Broker, elsewhere: Elsewhere
) -> None:
    run_hostile(client, "hostile", elsewhere)
    page = tab.session("hostile")
    provoke(page)
    nothing_happened(page, tab.broker, elsewhere)
    shown = page.locator(".cell").nth(1)
    frames = shown.locator(".markup iframe")
    held = [frame.frame_locator(":scope").locator("td", has_text="held") for frame in frames.all()]
    assert sum(one.count() for one in held) == 1
    expect(shown.locator(".markdown")).to_contain_text("<img src=x")
    expect(shown.locator(".stdout")).to_contain_text("red<img src=x")
    expect(shown.locator(".stdout")).to_contain_text("link")
    assert "\x1b" not in shown.inner_text()
    expect(shown.locator(".picture img[src^='data:image/svg']")).to_be_visible()
    expect(shown.locator(".failure strong").last).to_contain_text("<img src=x onerror=")
    page.get_by_role("tab", name="Variables").click()
    expect(page.locator(".variable").last).to_contain_text("<img src=x")
    nothing_happened(page, tab.broker, elsewhere)


def test_the_frame_and_the_policy_hold_without_the_cleaning(
    context: BrowserContext, broker: RunningBroker, client: Broker, elsewhere: Elsewhere
) -> None:
    run_hostile(client, "hostile", elsewhere)
    tab = Tab(context.new_page(), broker)

    def uncleaned(route: Route) -> None:
        text = (DIRECTORY / "frame.js").read_text()
        assert text.count("  clean(parsed.body);") == 1
        text = text.replace("  clean(parsed.body);", "").replace("empty: ", "empty: false && ")
        headers = {"Content-Type": "text/javascript", "Content-Security-Policy": POLICY}
        route.fulfill(body=text, headers=headers)

    tab.page.route("**/console/frame.js", uncleaned)
    page = tab.session("hostile")
    provoke(page)
    assert page.locator("iframe").count() >= len(MARKUP)
    nothing_happened(page, broker, elsewhere)


TURNED = """
from IPython.display import Markdown, display
turn = chr(0x202E) + "gnp.exe" + chr(0x2069)
print(turn, chr(27) + "[31m" + turn)
display(Markdown(turn))
display({"text/plain": turn}, raw=True)
display({"application/json": {turn: turn}}, raw=True)
columns = [{"name": turn, "dtype": turn}]
table = {"columns": columns, "rows": [[turn]], "shape": [1, 1]}
display({"application/vnd.broker.dataframe+json": table}, raw=True)
open(turn, "w").close()
# \N{RIGHT-TO-LEFT OVERRIDE}turned
raise ValueError(turn)
"""


def test_what_turns_the_direction_of_text_is_shown_as_a_sign(tab: Tab, client: Broker) -> None:
    with client.session("turned") as session:
        session.execute(TURNED)
    page = tab.session("turned")
    expect(page.locator(".failure strong")).to_contain_text("[U+202E]gnp.exe[U+2069]")
    for part in (".code", ".stdout", ".markdown", ".plain", "td", "th", ".failure pre"):
        expect(page.locator(f".cell {part}").first).to_contain_text("[U+202E]")
    expect(page.locator(".variable", has_text="turn").first).to_contain_text("gnp.exe")
    page.get_by_role("tab", name="Files").click()
    expect(page.locator(".file .name").first).to_contain_text("[U+202E]")
    page.get_by_role("tab", name="About").click()
    expect(page.locator(".about li").last).to_be_visible()
    found = page.evaluate(
        "[document.body.innerText, ...[...document.querySelectorAll('*')].flatMap("
        "(one) => [...one.attributes].map((own) => own.value))]"
        ".filter((one) => /[\u202a-\u202e\u2066-\u2069]/.test(one))"
    )
    assert found == []


def test_a_policy_keeps_the_page_from_making_markup_of_text(tab: Tab) -> None:
    page = tab.open()
    refused = page.evaluate(
        "() => { try { document.body.innerHTML = '<b>x</b>'; return ''; }"
        " catch (error) { return error.name; } }"
    )
    assert refused == "TypeError"
