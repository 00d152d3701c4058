"""The operator in the console: the sessions of other tenants, each with a page of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from broker.client import Broker
from tests.faces.chromium import chromium
from tests.system.conftest import RunningBroker, broker_process, short_dir
from tests.system.peer import call, new_name
from tests.system.test_tokens import Holder, made

__all__ = ["chromium", "short_dir"]

pytestmark = pytest.mark.timeout(900)  # the browser may have to be installed first

LEAN = """
[profiles.python]
preload = []
warm = 3
"""


@pytest.fixture(scope="module")
def broker(short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    directory = short_dir()
    (directory / "broker.toml").write_text(LEAN)
    log = {"BROKER_AUDIT_FILE": str(directory / "audit.log")}
    with broker_process(directory, "--config", str(directory / "broker.toml"), **log) as running:
        yield running


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """Give a page; nothing it does may fail."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    context.set_default_timeout(15_000)
    page, failures = context.new_page(), []
    page.on("pageerror", lambda one: failures.append(str(one)))
    yield page
    context.close()
    assert not failures


@pytest.fixture
def name() -> str:
    return new_name("namesake")


@pytest.fixture
def beta(broker: RunningBroker, name: str) -> Iterator[Holder]:
    """A tenant with a session of the same name as one of the operator's."""
    holder = made(broker, tenant="beta")
    for one, code in ((holder, "x = 20; print('of beta')"), (broker, "x = 1; print('of mine')")):
        with Broker(one.url, one.token).session(name) as session:
            session.execute(code)
            session.files.upload(b"beta" if one is holder else b"mine", "whose.txt")
    yield holder
    for who in (holder, broker):
        call(who, "DELETE", f"/v1/sessions/{name}")


def opened(page: Page, place: RunningBroker | Holder, where: str = "") -> Page:
    """Sign in, and go to a part of the console."""
    page.goto(f"{place.url}/#token={place.token}")
    expect(page.locator(".overview")).to_be_visible()
    if where:
        page.goto(f"{place.url}/#{where}")
    return page


def followed(page: Page, broker: RunningBroker, name: str) -> Page:
    """Open the page of beta's session, and wait until it follows."""
    opened(page, broker, f"/s/{name}?tenant=beta")
    expect(page.locator(".following.live")).to_be_visible()
    return page


def rows_of(page: Page) -> list[str]:
    return [one.get_attribute("data-key") or "" for one in page.locator(".rows .row").all()]


def test_the_operator_chooses_whose_sessions_are_shown(
    page: Page, broker: RunningBroker, beta: Holder, name: str
) -> None:
    opened(page, broker)
    chooser, rows = page.get_by_label("Tenant", exact=True), page.locator(".rows .row")
    expect(rows).to_have_count(1)
    assert rows_of(page) == [f"default/{name}"]
    expect(chooser.locator("option")).to_have_text(["Tenant default", "All tenants", "Tenant beta"])
    chooser.select_option("beta")
    expect(rows.locator(".session")).to_have_text(f"{name} · beta")
    assert page.url == f"{broker.url}/#/?tenant=beta"
    chooser.select_option("*")
    expect(rows).to_have_count(2)
    assert page.url.endswith("/#/?tenant=*") or page.url.endswith("/#/?tenant=%2A")
    page.reload()
    expect(rows).to_have_count(2)
    expect(chooser).to_have_value("*")
    chooser.select_option("default")
    expect(rows).to_have_count(1)
    assert page.url == f"{broker.url}/#/"


def test_a_tenant_of_whom_no_token_tells_is_shown_by_its_address(
    page: Page, broker: RunningBroker
) -> None:
    opened(page, broker, "/?tenant=signed")
    expect(page.get_by_label("Tenant", exact=True)).to_have_value("signed")
    expect(page.locator(".empty")).to_be_visible()


def test_nobody_else_has_a_choice(
    page: Page, broker: RunningBroker, beta: Holder, name: str
) -> None:
    opened(page, made(broker, "run", "admin", tenant="acme"))
    expect(page.locator(".empty")).to_be_visible()
    expect(page.get_by_label("Tenant", exact=True)).to_have_count(0)
    for where in ("/?tenant=beta", "/?tenant=*"):
        page.goto(f"{broker.url}/#{where}")
        expect(page.get_by_role("alert")).to_contain_text("for the operator")
        expect(page.locator(".rows .row")).to_have_count(0)
    for session in (name, "absent"):
        page.goto(f"{broker.url}/#/s/{session}?tenant=beta")
        expect(page.locator(".following.ended")).to_contain_text("for the operator")
        expect(page.locator(".notebook .empty")).to_contain_text("for the operator")
        expect(page.locator(".cell")).to_have_count(0)


def test_a_row_leads_to_that_tenants_page_and_back(
    page: Page, broker: RunningBroker, beta: Holder, name: str
) -> None:
    opened(page, broker, "/?tenant=*")
    theirs = page.locator(".rows .row", has_text="beta")
    for choose in (
        lambda: theirs.get_by_role("link").click(),
        lambda: theirs.locator(".state").click(),
        lambda: (theirs.focus(), page.keyboard.press("Enter")),
    ):
        choose()
        expect(page.locator("h1")).to_have_text(name)
        expect(page.locator(".facts")).to_contain_text("tenant beta")
        assert page.url == f"{broker.url}/#/s/{name}?tenant=beta"
        expect(page.locator(".cell .stdout")).to_contain_text("of beta")
        expect(page).to_have_title(re.compile(f"^{name} of tenant beta "))
        page.go_back()
        expect(page.get_by_label("Tenant", exact=True)).to_have_value("*")
    theirs.get_by_role("link").click()
    expect(page.locator("h1")).to_have_text(name)
    page.keyboard.press("u")
    expect(page.get_by_label("Tenant", exact=True)).to_have_value("beta")
    assert page.url == f"{broker.url}/#/?tenant=beta"


def test_its_page_follows_what_the_chat_runs_and_shows_its_variables(
    page: Page, broker: RunningBroker, beta: Holder, name: str
) -> None:
    followed(page, broker, name)
    expect(page.locator(".cell .stdout")).to_contain_text("of beta")
    expect(page.locator(".variable", has_text="x")).to_contain_text("20")
    with Broker(beta.url, beta.token).session(name) as session:
        session.execute("z = 21; print('some', 'more')")
    expect(page.locator(".cell").nth(1).locator(".stdout")).to_have_text("some more\n")
    expect(page.locator(".variable", has_text="z")).to_contain_text("21")
    page.reload()
    expect(page.locator(".cell")).to_have_count(2)
    page.get_by_role("tab", name="About").click()
    expect(page.locator(".about")).to_contain_text("beta")


def test_a_cell_of_ones_own_runs_there_and_is_marked_for_everybody(
    page: Page, broker: RunningBroker, beta: Holder, name: str
) -> None:
    followed(page, broker, name)
    page.keyboard.press("e")
    page.keyboard.type("y = x * 2 + 2; print(y, input('who? '))")
    page.keyboard.press("Shift+Enter")
    page.get_by_label("who?").fill("Ann")
    page.keyboard.press("Enter")
    mine = page.locator(".cell.by-hand")
    expect(mine.locator(".stdout")).to_contain_text("42 Ann")
    expect(mine.locator(".origin")).to_have_text("run by the operator")
    expect(page.locator(".cell")).to_have_count(2)
    page.reload()
    expect(page.locator(".cell.by-hand .origin")).to_have_text("run by the operator")
    told = Broker(beta.url, beta.token).notebook(name)
    assert told["cells"][1]["metadata"]["broker"]["origin"] == "operator"
    assert len(Broker(broker.url, broker.token).notebook(name)["cells"]) == 1


def test_its_files_are_sent_fetched_and_removed_there(
    page: Page, broker: RunningBroker, beta: Holder, name: str
) -> None:
    followed(page, broker, name)
    page.get_by_role("tab", name="Files").click()
    with page.expect_download() as got:
        page.get_by_role("button", name="whose.txt", exact=True).click()
    assert got.value.path().read_bytes() == b"beta"
    sent = {"name": "sent.txt", "mimeType": "text/plain", "buffer": b"sent"}
    page.locator("input[type=file]").set_input_files([sent])
    expect(page.get_by_role("button", name="sent.txt", exact=True)).to_be_visible()
    theirs, mine = (Broker(one.url, one.token).files(name) for one in (beta, broker))
    assert theirs.read("sent.txt") == b"sent"
    page.get_by_role("button", name="Remove whose.txt").click()
    expect(page.get_by_role("dialog")).to_contain_text(f"{name} of tenant beta")
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.get_by_role("button", name="whose.txt", exact=True)).to_have_count(0)
    assert [one.path for one in theirs.list()] == ["sent.txt"]
    assert [one.path for one in mine.list()] == ["whose.txt"]


def test_its_notebook_is_taken_home(
    page: Page, broker: RunningBroker, beta: Holder, name: str
) -> None:
    followed(page, broker, name)
    with page.expect_download() as got:
        page.keyboard.press("d")
    assert got.value.suggested_filename == f"{name}.ipynb"
    assert "of beta" in json.dumps(json.loads(got.value.path().read_text()))


def test_it_is_interrupted_restarted_and_killed_by_its_tenants_name(
    page: Page, broker: RunningBroker, beta: Holder, name: str
) -> None:
    followed(page, broker, name)
    page.get_by_label("Code to run").fill("while True: pass")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".pill")).to_have_text("busy")
    dialog = page.get_by_role("dialog")
    page.keyboard.press("Escape")
    page.keyboard.press("i")
    expect(dialog.get_by_role("heading")).to_have_text(f"Interrupt session {name} of tenant beta?")
    page.keyboard.press("Enter")
    expect(page.locator(".cell.by-hand .status")).to_have_text("interrupted")
    page.get_by_role("button", name="Restart…").click()
    expect(dialog.get_by_role("heading")).to_have_text(f"Restart {name} of tenant beta?")
    dialog.get_by_role("button", name="Restart").click()
    expect(page.locator(".divide")).to_contain_text("generation 2")
    page.get_by_role("button", name="Kill…").click()
    expect(dialog.get_by_role("heading")).to_have_text(f"Kill session {name} of tenant beta?")
    dialog.get_by_role("button", name="Kill").click()
    expect(page.locator(".following.ended")).to_be_visible()
    assert name in broker.sessions()
    page.reload()
    expect(page.locator(".cell")).to_have_count(2)  # what it ran is there still
    expect(page.locator(".following.ended")).to_contain_text("the session has ended")


def test_what_is_not_there_is_not_made_by_looking(page: Page, broker: RunningBroker) -> None:
    opened(page, broker, "/s/absent?tenant=beta")
    expect(page.locator(".following.ended")).to_have_text("no such session")
    page.get_by_label("Code to run").fill("1")
    page.keyboard.press("Shift+Enter")
    expect(page.locator(".cell .failure")).to_be_visible()
    assert call(broker, "GET", "/v1/sessions/absent?tenant=beta").status == 404


def test_what_is_no_tenant_stays_within_its_parameter(
    page: Page, broker: RunningBroker, name: str
) -> None:
    asked: list[str] = []
    page.on("request", lambda one: asked.append(one.url))
    opened(page, broker, f"/s/{name}?tenant=a%26mode%3Drun%23x")
    expect(page.locator(".notebook .empty")).to_contain_text("Tenant: expected")
    found = [url for url in asked if f"/v1/sessions/{name}" in url]
    assert found
    assert all(url.endswith("tenant=a%26mode%3Drun%23x") for url in found)


def test_its_acts_in_the_overview_go_to_that_tenant(
    page: Page, broker: RunningBroker, beta: Holder, name: str
) -> None:
    opened(page, broker, "/?tenant=*")
    theirs = page.locator(".rows .row", has_text="beta")
    with page.expect_request(f"**/v1/sessions/{name}?tenant=beta"):
        theirs.hover()
        expect(theirs.get_by_role("button", name="Interrupt")).to_be_disabled()
        theirs.focus()
        page.keyboard.press("i")
    expect(page.locator(".note").last).to_contain_text(f"{name} of tenant beta: nothing runs in it")
    page.keyboard.press("x")
    expect(page.get_by_role("dialog").get_by_role("heading")).to_have_text(
        f"Kill session {name} of tenant beta?"
    )
    page.keyboard.press("Enter")
    expect(page.locator(".rows .row")).to_have_count(1)
    assert name in broker.sessions()


def test_the_audit_has_what_was_looked_at(
    page: Page, broker: RunningBroker, beta: Holder, name: str
) -> None:
    followed(page, broker, name)
    expect(page.locator(".variable", has_text="x")).to_be_visible()
    with page.expect_response("**/variables?*"):
        page.reload()
    told = {
        (one["event"], one.get("path")) for one in broker.audited if one.get("subject") == "beta"
    }
    at = f"/v1/sessions/{name}"
    assert {
        ("read", f"{at}/notebook"),
        ("read", f"{at}/variables"),
        ("attached", f"{at}/ws"),
    } <= told
