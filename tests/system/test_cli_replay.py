"""`broker replay`: a notebook's cells in a new session, with what differs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.system.conftest import RunningBroker
from tests.system.peer import ask_until, call, execute, new_name
from tests.terminal import CTRL_C, broker_on_terminal

OTHERS = [  # as another program wrote them
    ("x = 20", []),
    ("x * 2", [("execute_result", {"text/plain": "40"})]),
    ("x * 3", [("execute_result", {"text/plain": "61"})]),
    ("y", [("execute_result", {"text/plain": "1"})]),
    ("print('seen')", [("stream", "seen\n")]),
]


def notebook(path: Path, cells: Sequence[tuple[str, Any]]) -> Path:
    made: Any = nbformat.v4.new_notebook()
    made.cells.append(nbformat.v4.new_markdown_cell("# A notebook of somebody's"))
    for count, (code, outputs) in enumerate(cells, 1):
        shown = [
            nbformat.v4.new_output("stream", text=what)
            if kind == "stream"
            else nbformat.v4.new_output(kind, data=what, execution_count=count)
            for kind, what in outputs
        ]
        made.cells.append(nbformat.v4.new_code_cell(code, execution_count=count, outputs=shown))
    nbformat.write(made, path)
    return path


def test_what_a_session_ran_is_the_same_again(broker: RunningBroker, tmp_path: Path) -> None:
    name, again, path = new_name(), new_name(), tmp_path / "chat.ipynb"
    for code in (
        "import time\nclass Thing: pass\nprint('it took', 0.25, 's')",
        "Thing(), 6 * 7",
        "1 / 0",
        "import matplotlib.pyplot as plt; plt.plot([1, 3, 2]);",
        "import pandas as pd; pd.DataFrame({'a': [1, 2]})",
        "%time sum(range(1000))",
        "import sys; print('e', file=sys.stderr); print('o')",
    ):
        execute(broker, name, code)
    assert broker.cli("export", name, "-o", str(path)).returncode == 0
    answer = broker.cli("replay", str(path), "-s", again)
    assert answer.returncode == 0, answer
    assert answer.stdout.count(" same ") == 7
    assert "7 cells: 7 same" in answer.stdout
    assert again in answer.stderr
    cells = call(broker, "GET", f"/v1/sessions/{again}/notebook").body["cells"]
    assert {cell["metadata"]["broker"]["origin"] for cell in cells} == {"replay"}


def test_where_outputs_differ_it_says_how(broker: RunningBroker, tmp_path: Path) -> None:
    path = notebook(tmp_path / "a.ipynb", OTHERS)
    answer = broker.cli("replay", str(path), "-s", new_name())
    assert answer.returncode == 1
    assert "[3/5] different" in answer.stdout
    assert "    -61\n    +60\n" in answer.stdout
    assert "[4/5] error" in answer.stdout
    assert "NameError: name 'y' is not defined" in answer.stdout
    assert "5 cells: 3 same, 1 different, 1 error" in answer.stdout


def test_a_notebook_comes_on_standard_input(broker: RunningBroker) -> None:
    name, again = new_name(), new_name()
    execute(broker, name, "6 * 7")
    exported = broker.cli("export", name).stdout
    answer = broker.cli("replay", "-", "-s", again, stdin=exported)
    assert answer.returncode == 0, answer
    assert "\n1 cell: 1 same\n" in answer.stdout
    nothing = broker.cli("replay", "-", "-s", new_name(), stdin="")
    assert nothing.returncode == 1
    assert nothing.stderr == "Error: standard input is no notebook: it is empty\n"


def test_what_never_ran_is_new_and_fails_where_it_fails(
    broker: RunningBroker, tmp_path: Path
) -> None:
    path = tmp_path / "a.ipynb"
    made: Any = nbformat.v4.new_notebook()
    for code in ("x = 1", "x / 0", "x"):
        made.cells.append(nbformat.v4.new_code_cell(code))
    nbformat.write(made, path)
    answer = broker.cli("replay", str(path), "-s", new_name())
    assert answer.returncode == 1
    assert "[2/3] new" in answer.stdout
    assert "\n    ZeroDivisionError: division by zero" in answer.stdout
    assert "\n3 cells: 3 new (1 of them failed)\n" in answer.stdout
    stopped = broker.cli("replay", str(path), "-s", new_name(), "--stop-on-error", "--json")
    told = json.loads(stopped.stdout)
    assert (told["new"], told["new_failed"], told["not_run"], told["error"]) == (2, 1, 1, 0)
    made.cells.pop(1)
    nbformat.write(made, path)
    assert broker.cli("replay", str(path), "-s", new_name()).returncode == 0


def test_for_programs_it_is_one_object(broker: RunningBroker, tmp_path: Path) -> None:
    path, name = notebook(tmp_path / "a.ipynb", OTHERS), new_name()
    answer = broker.cli("replay", str(path), "-s", name, "--json", "--stop-on-error")
    assert answer.returncode == 1
    told = json.loads(answer.stdout)
    assert (told["session"], told["same"], told["different"], told["error"]) == (name, 2, 1, 1)
    assert told["not_run"] == 1
    assert [cell["verdict"] for cell in told["cells"]] == [
        *("same", "same", "different", "error", "not run")
    ]
    assert told["cells"][2]["diff"][-2:] == ["-61", "+60"]
    assert told["cells"][2]["code"] == "x * 3"


def test_a_session_that_has_run_something_is_kept_from_it(
    broker: RunningBroker, tmp_path: Path
) -> None:
    name, path = new_name(), notebook(tmp_path / "a.ipynb", [("x + 1", [])])
    execute(broker, name, "x = 1")
    refused = broker.cli("replay", str(path), "-s", name)
    assert refused.returncode == 2
    assert "--into" in refused.stderr
    broker.cli("kill", name)  # it has run something all the same
    assert broker.cli("replay", str(path), "-s", name).returncode == 2
    execute(broker, name, "x = 1")
    into = broker.cli("replay", str(path), "-s", name, "--into")
    assert "different" in into.stdout
    assert "+2" in into.stdout


def test_a_cell_may_take_only_so_long_and_die(broker: RunningBroker, tmp_path: Path) -> None:
    cells: list[tuple[str, list[Any]]] = [
        ("import time; time.sleep(60)", []),
        ("import os; os._exit(3)", []),
        ("'alive'", [("execute_result", {"text/plain": "'alive'"})]),
    ]
    path = notebook(tmp_path / "a.ipynb", cells)
    answer = broker.cli("replay", str(path), "-s", new_name(), "--timeout", "300ms")
    assert answer.returncode == 1
    first, second, third = (f"[{n}/3] " for n in (1, 2, 3))
    assert f"{first}error" in answer.stdout
    assert "timeout" in answer.stdout
    assert f"{second}error" in answer.stdout
    assert "exit 3" in answer.stdout
    assert f"{third}same" in answer.stdout


def test_what_was_redacted_is_named_and_can_be_given_again(
    broker: RunningBroker, tmp_path: Path
) -> None:
    name, path = new_name(), tmp_path / "a.ipynb"
    call(broker, "POST", f"/v1/sessions/{name}", {"env": {"MY_TOKEN": "hunter2-hunter2"}})
    execute(broker, name, "assert 'hunter2-hunter2' == 'hunter2-' + 'hunter2'")
    execute(broker, name, "import os; os.environ['MY_TOKEN']")
    broker.cli("export", name, "-o", str(path))
    env = ("--env", "MY_TOKEN=another-secret1")
    answer = broker.cli("replay", str(path), "-s", new_name(), *env)
    assert "[1/2] error" in answer.stdout
    assert "had a secret in it" in answer.stdout
    assert "[2/2] same" in answer.stdout


@pytest.mark.parametrize("content", ["", "[]", '{"nbformat": 4, "cells": [3]}', "\x00\x1b]0;x\x07"])
def test_a_hostile_file_is_one_clear_line(
    broker: RunningBroker, tmp_path: Path, content: str
) -> None:
    path, name = tmp_path / "a.ipynb", new_name()
    path.write_text(content)
    answer = broker.cli("replay", str(path), "-s", name)
    assert answer.returncode == 1
    assert "is no notebook" in answer.stderr
    assert "Traceback" not in answer.stderr
    assert "\x1b" not in answer.stderr
    assert name not in broker.sessions()


def test_on_a_terminal_it_shows_what_runs_and_ctrl_c_ends_it(
    broker: RunningBroker, tmp_path: Path
) -> None:
    cells: list[tuple[str, list[Any]]] = [("x = 1", []), ("import time; time.sleep(60)", [])]
    path = notebook(tmp_path / "a.ipynb", [*cells, ("x", [])])
    with broker_on_terminal(broker, "replay", str(path), "-s", new_name()) as person:
        person.until("[2/3] runs       import time")
        until_busy(broker)
        person.press(CTRL_C)
        person.until("[3/3] not run")
        assert person.end() == 130


def until_busy(broker: RunningBroker) -> None:
    ask_until(
        lambda: any(
            row["state"] == "busy" for row in call(broker, "GET", "/v1/sessions").body["sessions"]
        ),
        "it runs",
    )
