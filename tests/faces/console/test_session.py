"""A session's page: a notebook that goes on."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from broker.client import Broker
from tests.faces.console.conftest import Tab

pytestmark = pytest.mark.timeout(900)  # the browser may have to be installed first


def test_a_session_is_a_notebook_that_goes_on(tab: Tab, client: Broker) -> None:
    with client.session("live") as session:
        session.execute("import pandas as pd\npd.DataFrame({'city': ['Oslo'], 't': [4.5]})")
        session.execute("print('\\x1b[31mred\\x1b[0m')\n1 / 0")
        page = tab.session("live")
        cells = page.locator(".cell")
        expect(cells).to_have_count(2)
        expect(cells.nth(0).get_by_role("row", name="0 Oslo 4.5")).to_be_visible()
        expect(cells.nth(0).locator(".p-keyword").first).to_have_text("import")
        expect(cells.nth(1).locator(".t-f-1")).to_have_text("red")
        expect(cells.nth(1).locator(".failure strong")).to_have_text(
            "ZeroDivisionError: division by zero"
        )
        session.execute("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
        expect(cells.nth(2).locator("img")).to_have_js_property("complete", True)
        assert cells.nth(2).locator("img").evaluate("(one) => one.naturalWidth") > 100
        expect(cells.nth(2).locator(".status.ok")).to_be_visible()
        expect(page.locator(".variable .name", has_text=re.compile("^plt$"))).to_be_hidden()
        page.reload()
        expect(page.locator(".cell img")).to_be_visible()
        expect(cells).to_have_count(3)


def test_a_cell_of_ones_own_runs_on_the_same_variables_and_is_marked(
    tab: Tab, client: Broker
) -> None:
    with client.session("own") as session:
        session.execute("x = 20")
        page = tab.session("own")
        page.keyboard.press("e")
        page.keyboard.type("y = x * 2 + 2\ny")
        page.keyboard.press("Shift+Enter")
        mine = page.locator(".cell.by-hand")
        expect(mine.locator(".result")).to_contain_text("42")
        expect(mine.locator(".origin")).to_have_text("run from a console")
        assert session.execute("y").value == "42"
        expect(page.locator(".cell")).to_have_count(3)
        expect(page.locator(".variable", has_text="y")).to_contain_text("42")


def test_what_a_cell_asks_is_answered_in_place_and_a_password_is_masked(
    tab: Tab, client: Broker
) -> None:
    with client.session("asks") as session:
        session.execute("import getpass")
    page = tab.session("asks")
    page.get_by_label("Code to run").fill(
        "print('got', input('name? '), getpass.getpass('secret? '))"
    )
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_label("name?").fill("Ann")
    page.keyboard.press("Enter")
    secret = page.get_by_label("secret?")
    expect(secret).to_have_attribute("type", "password")
    secret.fill("hidden")
    page.keyboard.press("Enter")
    expect(page.locator(".cell.by-hand .stdout")).to_contain_text("got Ann hidden")
    expect(page.locator(".asked")).to_have_count(0)


def test_a_question_stays_while_threads_print_and_clear(tab: Tab, client: Broker) -> None:
    with client.session("prints") as session:
        session.execute("1")
    page = tab.session("prints")
    page.get_by_label("Code to run").fill(
        "import threading\nfrom IPython.display import HTML, clear_output, display\n"
        "def meanwhile():\n"
        "    print('first'); clear_output(); print('second'); display(HTML('<b>third</b>'))\n"
        "threading.Timer(1, meanwhile).start()\nprint('got', input('name? '))"
    )
    page.get_by_role("button", name="Run", exact=True).click()
    cell = page.locator(".cell.by-hand")
    expect(cell.locator(".stdout")).to_have_text("second")
    expect(cell.locator("iframe")).to_have_count(1)
    page.get_by_label("name?").fill("Ann")
    page.keyboard.press("Enter")
    expect(cell.locator(".stdout").last).to_contain_text("got Ann")
    expect(page.locator(".asked")).to_have_count(0)


def test_what_runs_is_interrupted_and_a_session_restarted_and_killed(
    tab: Tab, client: Broker
) -> None:
    with client.session("stops") as session:
        session.execute("x = 1")
    page = tab.session("stops")
    page.get_by_label("Code to run").fill("while True: pass")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".pill")).to_have_text("busy")
    page.get_by_role("button", name="Interrupt…").click()
    page.get_by_role("dialog").get_by_role("button", name="Interrupt").click()
    expect(page.locator(".cell.by-hand .status")).to_have_text("interrupted")
    page.get_by_role("button", name="Restart…").click()
    page.get_by_role("dialog").get_by_role("button", name="Restart").click()
    expect(page.locator(".divide")).to_contain_text("generation 2")
    page.get_by_role("button", name="Kill…").click()
    page.get_by_role("dialog").get_by_role("button", name="Kill").click()
    expect(page.locator(".following.ended")).to_be_visible()
    expect(page.locator(".note").last).to_contain_text("generation 2 ended")
    assert "stops" not in tab.broker.sessions()
    page.reload()
    expect(page.locator(".following.ended")).to_have_text(
        "the session has ended (killed by operator)"
    )
    expect(page.locator(".cell")).to_have_count(2)


def test_a_cell_begun_after_attaching_is_not_told_to_be_lost(tab: Tab, client: Broker) -> None:
    with client.session("settles") as session:
        session.execute("for number in range(1200): display(number)")  # more than is replayed
    page = tab.session("settles")
    page.get_by_label("Code to run").fill("import time\ntime.sleep(2.5)\nprint(input('who? '))")
    page.keyboard.press("Shift+Enter")
    page.get_by_label("who?").fill("Ann")
    page.keyboard.press("Enter")
    mine = page.locator(".cell.by-hand")
    expect(mine.locator(".status")).to_have_text("done")
    expect(mine).to_have_count(1)
    expect(mine.locator(".stdout")).to_contain_text("Ann")


def test_what_was_begun_before_a_gap_and_ended_in_it_is_settled(tab: Tab) -> None:
    states = tab.open().evaluate(
        """async () => {
            const { Notebook } = await import("/console/notebook.js");
            const book = new Notebook(null);
            const begun = (id) => book.take({ type: "started", id, execution_count: 1, code: id });
            for (const id of ["ended", "open"]) begun(id);
            book.take({ type: "session", generation: 1, open: ["open"], missed: [3, 9] });
            begun("later");
            await new Promise((resolve) => {
                const heard = new MutationObserver(resolve);
                heard.observe(book.element, { subtree: true, attributeFilter: ["data-state"] });
            });
            return book.cells.map((one) => one.state);
        }"""
    )
    assert states == ["lost", "running", "running"]


def test_the_line_of_a_new_kernel_stands_before_its_first_cell(tab: Tab, client: Broker) -> None:
    with client.session("revived") as session:
        session.execute("x = 1")
    page = tab.session("revived")
    client.kill("revived")
    expect(page.locator(".following.ended")).to_be_visible()
    for text in ("2 + 2", "3 + 3"):
        page.get_by_label("Code to run").fill(text)
        page.keyboard.press("Shift+Enter")
    expect(page.locator(".cell.by-hand .status.ok")).to_have_count(2)
    expect(page.locator(".divide")).to_contain_text("generation 2")
    order = page.locator(".notebook > .cell, .notebook > .divide")
    expect(order).to_have_class([re.compile(one) for one in ("cell", "divide", "cell", "cell")])


def test_what_is_closed_is_neither_restarted_nor_killed(tab: Tab, client: Broker) -> None:
    with client.session("shut") as session:
        session.execute("1")
    page = tab.session("shut")
    buttons = [page.get_by_role("button", name=name) for name in ("Restart…", "Kill…")]
    for one in buttons:
        expect(one).to_be_enabled()
    client.kill("shut")
    for one in buttons:
        expect(one).to_be_disabled()
    page.get_by_label("Code to run").fill("2")
    page.keyboard.press("Shift+Enter")
    for one in buttons:
        expect(one).to_be_enabled()
    page.goto(f"{tab.broker.url}/#/s/never-was")
    expect(page.locator(".following.ended")).to_be_visible()
    for one in buttons:
        expect(one).to_be_disabled()


@pytest.mark.parametrize(
    "name", ["..", ".", "%2e%2e", "a%2Fb", "a/b", "%zz", "x" * 129, "%E2%80%AEa"]
)
def test_what_is_no_name_of_a_session_is_asked_of_nobody(tab: Tab, name: str) -> None:
    page = tab.open()
    with page.expect_response("**/v1/sessions?**"):
        page.keyboard.press("r")
    before = len(tab.addresses)
    page.evaluate("(name) => { location.hash = `#/s/${name}`; }", name)
    expect(page.get_by_role("alert")).to_contain_text("There is no such session")
    asked = [one for one in tab.addresses[before:] if "/v1/" in one]
    assert [one for one in asked if not re.search(r"/v1/(nodes|pools|sessions\?)", one)] == []
    page.get_by_role("link", name="All sessions").click()
    expect(page.locator(".overview")).to_be_visible()


def test_new_output_is_told_only_where_there_is_some(tab: Tab, client: Broker) -> None:
    with client.session("below") as session:
        session.execute("\n".join(f"x{number} = {number}" for number in range(90)))
        session.execute("print('line\\n' * 100)")
        page = tab.session("below")
        pill = page.get_by_role("button", name="New output")
        expect(page.locator(".variable").first).to_be_visible()
        page.evaluate("scrollTo(0, 0)")
        page.get_by_role("button", name="more lines").click()
        expect(page.get_by_role("button", name="more lines")).to_have_count(0)
        frames = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
        page.evaluate(frames)
        expect(pill).to_be_hidden()
        session.execute("print('news')")
        expect(pill).to_be_visible()
        pill.click()
        expect(pill).to_be_hidden()
        page.evaluate("scrollTo(0, 0)")
        page.evaluate(frames)
        expect(pill).to_be_hidden()


def test_files_are_listed_sent_and_taken_home_and_so_is_the_notebook(
    tab: Tab, client: Broker
) -> None:
    with client.session("files") as session:
        session.execute("open('a b#?.txt', 'w').write('held')")
    page = tab.session("files")
    page.get_by_role("tab", name="Files").click()
    with page.expect_download() as saved:
        page.get_by_title("Download a b#?.txt").click()
    assert Path(saved.value.path()).read_text() == "held"
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Upload…").click()
    chooser.value.set_files([{"name": "up.csv", "mimeType": "text/csv", "buffer": b"1,2"}])
    expect(page.get_by_title("Download up.csv")).to_be_visible()
    with client.session("files") as session:
        assert session.files.read("up.csv") == b"1,2"
    with page.expect_download() as saved:
        page.keyboard.press("d")
    assert saved.value.suggested_filename == "files.ipynb"
    assert json.loads(Path(saved.value.path()).read_text())["nbformat"] == 4


def test_it_comes_back_after_a_lost_connection_and_nothing_comes_twice(
    tab: Tab, client: Broker
) -> None:
    with client.session("again") as session:
        session.execute("print('one')")
        tab.page.add_init_script(
            "const Own = WebSocket; window.sockets = [];"
            "window.WebSocket = class extends Own {"
            "constructor(...given) { super(...given); window.sockets.push(this); } };"
        )
        page = tab.session("again")
        page.evaluate("window.sockets.at(-1).close()")
        session.execute("print('two')")
        expect(page.locator(".cell").nth(1)).to_contain_text("two")
        session.execute("print('three')")
        expect(page.locator(".cell").nth(2)).to_contain_text("three")
        expect(page.locator(".cell")).to_have_count(3)
        assert page.evaluate("window.sockets.length") == 2


MARKDOWN = """
# Title
Some **bold** text
on two lines, `code`.
- one
  - within
- two

3. three
> quoted
---
```python
x = 1

y = 2
```
| name | count |
|------|------:|
| tea  | **2** |
| left |
after | all
"""


def test_markdown_is_shown_as_what_it_means(tab: Tab, client: Broker) -> None:
    with client.session("marked") as session:
        session.execute(
            "from IPython.display import Markdown\nMarkdown(text)", inputs={"text": MARKDOWN}
        )
    page = tab.session("marked")
    shown = page.locator(".markdown")
    expect(shown.locator("h3")).to_have_text("Title")
    expect(shown.locator("p")).to_have_text("Some bold text on two lines, code.")
    expect(shown.locator("p strong")).to_have_text("bold")
    expect(shown.locator("ul li")).to_have_text(["one", "within", "two"])
    expect(shown.locator("li.deep-1")).to_have_text("within")
    expect(shown.locator("ol[start='3'] li")).to_have_text("three")
    expect(shown.locator("blockquote")).to_have_text("quoted")
    expect(shown.locator("hr")).to_have_count(1)
    assert shown.locator("pre").text_content() == "x = 1\n\ny = 2"
    expect(shown.locator("th.number")).to_have_text("count")
    expect(shown.locator("td")).to_have_text(["tea", "2", "left", "after", "all"])
    expect(shown.locator("td strong")).to_have_text("2")
