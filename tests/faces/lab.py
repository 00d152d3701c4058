"""JupyterLab in a browser, as a person uses it: cells, buttons, panels."""

from __future__ import annotations

import json
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

from tests.faces.peers import FILES
from tests.jupyter.rest import Place

PATIENCE = 60_000  # ms; the first page of a fresh Lab takes its time on a busy machine


def notebook(directory: Path, name: str, cells: list[str]) -> None:
    """Write a notebook that names no kernel, as one that was just made."""
    told = {
        "cells": [
            {
                "cell_type": "code",
                "id": f"cell-{number}",
                "execution_count": None,
                "metadata": {},
                "outputs": [],
                "source": source,
            }
            for number, source in enumerate(cells)
        ],
        "metadata": {},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    (directory / FILES).mkdir()
    (directory / FILES / name).write_text(json.dumps(told))


def quiet(directory: Path) -> None:
    """Have JupyterLab ask nobody whether they want its news."""
    settings = directory / "config" / "labconfig"
    settings.mkdir(parents=True)
    told = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (settings / "page_config.json").write_text(json.dumps(told))


class Lab:
    """A page of JupyterLab with a notebook in it."""

    def __init__(self, page: Page, place: Place) -> None:
        self.page = page
        self.place = place

    def open(self, name: str, kernel: str) -> None:
        """Open a notebook and pick its kernel by the name that the dialog shows."""
        # `reset` forgets what an earlier page has laid out.
        self.page.goto(f"{self.place.url}/lab/tree/{name}?reset&token={self.place.token}")
        dialog = self.page.locator(".jp-Dialog")
        dialog.locator("select").wait_for(timeout=PATIENCE)
        dialog.locator("select").select_option(label=kernel)
        dialog.locator(".jp-mod-accept").click()
        dialog.wait_for(state="detached")
        self.is_idle()

    def is_idle(self) -> None:
        """Wait until the notebook's kernel is idle, as its indicator shows it."""
        indicator = self.page.locator(".jp-NotebookPanel .jp-Notebook-ExecutionIndicator")
        expect(indicator.first).to_have_attribute("data-status", "idle", timeout=PATIENCE)

    def cell(self, number: int) -> Locator:
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def editor(self, number: int) -> Locator:
        return self.cell(number).locator(".cm-content").first

    def output(self, number: int) -> Locator:
        return self.cell(number).locator(".jp-OutputArea-output")

    def start(self, number: int) -> None:
        """Run a cell and do not wait."""
        self.editor(number).click()
        self.page.keyboard.press("Control+Enter")

    def run(self, number: int) -> None:
        """Run a cell, and wait until it has run."""
        before = self.prompt(number)
        self.start(number)
        prompt = self.cell(number).locator(".jp-InputPrompt").first
        expect(prompt).not_to_have_text(before, timeout=PATIENCE)
        expect(prompt).not_to_have_text("[*]:", timeout=PATIENCE)

    def prompt(self, number: int) -> str:
        return self.cell(number).locator(".jp-InputPrompt").first.inner_text()

    def write(self, number: int, code: str) -> None:
        """Put other code into a cell."""
        self.editor(number).click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.press("Delete")
        self.page.keyboard.insert_text(code)

    def tool(self, command: str) -> Locator:
        """Return a button of the notebook's toolbar, by the command it is for."""
        return self.page.locator(f".jp-NotebookPanel-toolbar [data-command='{command}']").first

    def debugger(self, *, on: bool) -> None:
        """Start or leave the debugger."""
        button = self.page.locator(".jp-DebuggerBugButton").first
        expect(button).to_be_enabled()
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true" if on else "false")
        # What the page does last: a stop, or another start, before that would be forgotten.
        shown = self.page.get_by_role("treeitem", name="special variables")
        expect(shown).to_have_count(1 if on else 0)

    def breakpoint(self, number: int, line: int) -> None:
        """Set a breakpoint at a line of a cell, the first being 1."""
        gutter = self.cell(number).locator(".cm-breakpoint-gutter .cm-gutterElement")
        gutter.nth(line).click()  # the first is a spacer

    def step(self, how: str) -> None:
        """Press a button of the debugger's panel, by the command it is for."""
        self.page.locator(f"[data-command='debugger:{how}']").first.click()

    def stands(self, frame: str, number: int, line: int) -> None:
        """Wait until the debugger stands at a line of a cell, in the panel and in the cell."""
        top = self.page.locator(".jp-DebuggerCallstack-body li").first
        expect(top.locator(".jp-DebuggerCallstackFrame-name")).to_have_text(frame)
        expect(top.locator(".jp-DebuggerCallstackFrame-location")).to_contain_text(f":{line}")
        lit = self.cell(number).locator(".jp-DebuggerEditor-highlight")
        expect(lit).to_have_text(self.cell(number).locator(".cm-line").nth(line - 1).inner_text())
