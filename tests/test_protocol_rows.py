"""Every row of the protocol's tables has a test that names it, and no test names a row that is not.

A test says `@pytest.mark.row("execute")`: a message, an event, a bound as the table words it, a
route as `METHOD /path`.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PROTOCOL = TESTS.parent / "deploy" / "docs" / "protocol.md"
TABLES = ("Client to broker", "Broker to client", "Bounds", "HTTP")


def section(title: str) -> str:
    """Return what stands below a heading, up to the next of its level."""
    text = PROTOCOL.read_text()
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title!r}"
    return found[1]


def rows(title: str) -> list[str]:
    """Return what the rows of a section's first table are called."""
    table = re.search(r"^\|[^\n]*\n\|[-|: ]+\n((?:\|[^\n]*\n)+)", section(title), re.MULTILINE)
    assert table, f"no table in {title!r}"
    names: list[str] = []
    for line in table[1].splitlines():
        cell = line.split("|")[1].strip()
        if title == "Bounds":
            names.append(cell)
        elif title == "HTTP":
            names += routes(cell)
        else:
            names += re.findall(r"`([a-z_]+)`", cell)
    return names


def routes(cell: str) -> list[str]:
    """Return `GET /a`, `PUT /a` … of a cell such as `GET`, `PUT /a`, `/b`."""
    found: list[str] = []
    methods: list[str] = []
    for quoted in re.findall(r"`([^`]+)`", cell):
        words = quoted.split()
        methods += [word for word in words if word.isupper()]
        path = next((word for word in words if word.startswith("/")), None)
        if path is not None:
            found += [f"{method} {path}" for method in methods or ["GET"]]
            methods = []
    return found


@cache
def named() -> dict[str, list[str]]:
    """Return the tests of each row: what is marked, found without importing anything."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.row":
                    for name in mark.args:
                        assert isinstance(name, ast.Constant)
                        found.setdefault(str(name.value), []).append(f"{path.name}::{node.name}")
    return found


ALL = [(title, name) for title in TABLES for name in rows(title)]


@pytest.mark.parametrize(("title", "name"), ALL)
def test_each_row_of_the_protocol_has_a_test_that_names_it(title: str, name: str) -> None:
    assert named().get(name), f"no test is marked with row({name!r}), of {title!r}"


def test_no_test_names_a_row_that_is_not_there() -> None:
    unknown = set(named()) - {name for _, name in ALL}
    assert not unknown, f"no such rows: {sorted(unknown)}"
