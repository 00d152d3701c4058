"""JupyterLab in a browser, on the live session of somebody's chat, through `--gateway-url`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from broker.client import Broker
from tests.faces.chromium import chromium
from tests.faces.lab import PATIENCE, Lab, notebook, quiet
from tests.faces.peers import jupyter, python
from tests.faces.places import documented, short_dir
from tests.system.conftest import RunningBroker, broker_process

__all__ = ["chromium", "short_dir"]

pytestmark = [pytest.mark.faces, pytest.mark.timeout(900)]

SESSION = "chat-42"
CHAT = """import numpy as np
import pandas as pd
sales = pd.DataFrame({"month": range(1, 13), "sold": [3, 4, 6, 9, 8, 12, 15, 14, 11, 9, 13, 17]})
def growth(values):
    total = 0
    for before, after in zip(values, values[1:]):
        change = after - before
        total += change
    return total
answer = 42"""
CELLS = [
    "sales.tail(4)",
    "import matplotlib.pyplot as plt\n"
    "fig, ax = plt.subplots(figsize=(6, 2.2))\n"
    "ax.bar(sales.month, sales.sold, color='tab:green')\n"
    "ax.set_xlabel('month'); ax.set_title('Sold, by month');",
    "def area(side):\n    squared = side * side\n    return squared\narea(7)",
    "growth(list(sales.sold))",
    "print('up', flush=True)\nwhile True: pass",
    "import ipywidgets\nslider = ipywidgets.IntSlider(value=3, max=10)\nslider",
    "slider.value",
    "import ipywidgets\nipywidgets.Image(value=bytes(99))",
    "",
]
TABLE, PLOT, FUNCTION, CALL, ENDLESS, WIDGET, VALUE, IMAGE, EMPTY = range(len(CELLS))
PICTURE = Path(__file__).parents[2] / "deploy/docs/img/jupyterlab.png"


@pytest.fixture(scope="module")
def broker(short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    """A broker whose kernels have widgets: their interpreter is the clients' own."""
    theirs = {
        "BROKER_PROFILES_PYTHON_PYTHON": str(python()),
        # With PyArrow beside it, pandas starts a thread: a zygote must have none.
        "BROKER_PROFILES_PYTHON_PRELOAD": "matplotlib.pyplot",
    }
    with broker_process(short_dir(), "--warm", "1", **theirs) as running:
        yield running


@pytest.fixture(scope="module")
def chat(broker: RunningBroker) -> str:
    """Give the name of a session in which a chat has left variables."""
    with Broker(broker.url, broker.token).session(SESSION) as session:
        session.execute(CHAT).raise_for_status()
    return SESSION


@pytest.fixture(scope="module")
def lab(
    short_dir: Callable[[], Path], broker: RunningBroker, chat: str, chromium: Browser
) -> Iterator[Lab]:
    """Give a notebook on the chat's live kernel; the tests use it one after the other."""
    directory = short_dir()
    notebook(directory, "debug.ipynb", CELLS)
    quiet(directory)
    flags = documented("jupyter-lab", BROKER_URL=broker.url, BROKER_TOKEN=broker.token)
    with jupyter("jupyterlab", directory, *flags) as (place, _):
        page = chromium.new_page(viewport={"width": 1360, "height": 900})
        page.set_default_timeout(PATIENCE)
        opened = Lab(page, place)
        opened.open("debug.ipynb", f"{chat} (live session)")
        yield opened
        page.close()


def test_a_notebook_on_a_live_session_sees_what_the_chat_has_made(lab: Lab) -> None:
    lab.run(TABLE)
    expect(lab.output(TABLE).first).to_contain_text("17")
    lab.run(CALL)
    expect(lab.output(CALL).first).to_have_text("14")


def test_a_plot_is_shown(lab: Lab) -> None:
    lab.run(PLOT)
    image = lab.output(PLOT).locator("img").first
    image.wait_for()
    assert image.evaluate("image => image.naturalWidth") > 300


def test_what_runs_is_interrupted(lab: Lab) -> None:
    lab.start(ENDLESS)
    expect(lab.output(ENDLESS).first).to_contain_text("up")
    lab.tool("notebook:interrupt-kernel").click()
    expect(lab.output(ENDLESS).last).to_contain_text("KeyboardInterrupt")
    lab.is_idle()


def test_names_are_completed_by_the_live_kernel(lab: Lab) -> None:
    lab.write(EMPTY, "sales.mon")
    lab.page.keyboard.press("Tab")
    expect(lab.page.locator(".jp-Completer-item").first).to_contain_text("month")
    lab.page.keyboard.press("Enter")
    expect(lab.editor(EMPTY)).to_have_text("sales.month")


def test_a_widget_is_shown_and_tells_the_kernel_what_was_done_to_it(lab: Lab) -> None:
    lab.run(WIDGET)
    slider = lab.output(WIDGET).locator(".noUi-handle").first
    slider.focus()
    lab.page.keyboard.press("ArrowRight")
    expect(lab.output(WIDGET).locator(".widget-readout").first).to_have_text("4")
    lab.run(VALUE)
    expect(lab.output(VALUE).first).to_have_text("4")


def test_binary_data_that_jupyterlabs_server_cannot_pass_on_do_not_end_the_connection(
    lab: Lab,
) -> None:
    lab.run(IMAGE)
    expect(lab.output(IMAGE).first).to_contain_text("binary data left out")
    lab.run(CALL)
    expect(lab.output(CALL).first).to_have_text("14")


def test_the_debugger_stops_at_a_breakpoint_and_shows_variables(lab: Lab) -> None:
    lab.debugger(on=True)
    lab.breakpoint(FUNCTION, 3)  # `return squared`
    lab.start(FUNCTION)
    lab.stands("area", FUNCTION, 3)
    variables = lab.page.locator(".jp-debuggerVariables-local")
    expect(variables).to_contain_text("squared")
    expect(variables).to_contain_text("49")
    if os.environ.get("BROKER_TEST_PICTURES"):
        lab.page.keyboard.press("Control+b")  # the list of files makes way
        lab.cell(TABLE).scroll_into_view_if_needed()
        lab.page.mouse.move(0, 0)
        PICTURE.parent.mkdir(exist_ok=True)
        lab.page.screenshot(path=PICTURE)
    lab.step("continue")
    expect(lab.output(FUNCTION).last).to_have_text("49")
    lab.debugger(on=False)


def test_the_debugger_steps_in_over_and_out(lab: Lab) -> None:
    lab.debugger(on=True)
    lab.breakpoint(FUNCTION, 4)  # `area(7)`
    lab.start(FUNCTION)
    lab.stands("<module>", FUNCTION, 4)
    lab.step("stepIn")
    lab.stands("area", FUNCTION, 2)
    lab.step("next")
    lab.stands("area", FUNCTION, 3)
    expect(lab.page.locator(".jp-debuggerVariables-local")).to_contain_text("49")
    lab.step("stepOut")
    lab.stands("<module>", FUNCTION, 4)
    lab.step("continue")
    expect(lab.output(FUNCTION).last).to_have_text("49")
    lab.debugger(on=False)


def test_a_restart_leaves_a_kernel_without_the_variables(lab: Lab) -> None:
    lab.tool("notebook:restart-kernel").click()
    lab.page.locator(".jp-Dialog .jp-mod-accept").click()
    lab.is_idle()
    lab.write(EMPTY, "answer")
    lab.run(EMPTY)
    expect(lab.output(EMPTY).first).to_contain_text("NameError")


def test_the_chat_goes_on_in_the_kernel_that_was_debugged(
    lab: Lab, broker: RunningBroker, chat: str
) -> None:
    lab.write(EMPTY, "found = 'by hand'")
    lab.run(EMPTY)
    with Broker(broker.url, broker.token).session(chat) as session:
        assert session.execute("found").value == "'by hand'"
