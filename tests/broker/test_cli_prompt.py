"""The interactive prompt: what Enter does, and a whole conversation on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from broker.cli.prompt import indent_after, is_complete, make_prompt
from broker.cli.text import age, plural, size
from tests.broker.scripted_peer import Peer, running_peer
from tests.terminal import CTRL_C, CTRL_D, ENTER, UP, broker_on_terminal, terminal


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as scripted:
        yield scripted


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("x = 1", True),
        ("", True),
        ("x = (", False),
        ("x = [\n  1,\n  2]", True),
        ("if x:", False),
        ("if x:\n    y", False),
        ("if x:\n    y\n", True),
        ("if x:\n    y\n    ", True),
        ("def f():\n    return 3\n    ", True),
        ("def f():\n    ", False),
        ("'''abc", False),
        ("x = \\", False),
        ("1 +", True),
        ("def f(:", True),
        ("a = 1\nb = 2", True),
        ("a = 1\nif a:\n    b", False),
        ("a = 1\nif a:\n    b\n", True),
        ("%timeit x", True),
        ("!ls", True),
        ("print?", True),
        ("%%bash\nls", False),
        ("%%bash\nls\n", True),
        ("'\\d'", True),
        ("x = '\0'", True),
    ],
)
def test_enter_runs_what_is_complete(text: str, complete: bool) -> None:
    assert is_complete(text) is complete


def test_a_block_is_indented() -> None:
    assert indent_after("if x:  # why") == "    "
    assert indent_after("    y = 1") == "    "
    assert indent_after("x") == ""


def test_several_lines_are_edited_as_one_and_remembered(tmp_path: Path) -> None:
    history = tmp_path / "deep" / "history"
    with create_pipe_input() as typed:
        prompt = make_prompt(history, input=typed, output=DummyOutput())
        typed.send_text("for i in x:\rprint(i)\r\x15\r")
        assert prompt.prompt(">>> ") == "for i in x:\n    print(i)\n"
    assert "+for i in x:" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


def test_figures_for_people() -> None:
    assert [size(n) for n in (None, 0, 999, 12 * 1024, 1_500_000, 10**13)] == [
        *("-", "0 B", "999 B", "12 KB", "1.4 MB", "9.1 TB")
    ]
    assert [age(n) for n in (None, 0, 59, 61)] == ["-", "0s", "59s", "1m"]
    assert [age(n) for n in (3700, 90061)] == ["1h 1m", "1d 1h"]


def test_a_conversation_on_a_terminal(peer: Peer, tmp_path: Path) -> None:
    peer.answers["x"] = [{"type": "result", "data": {"text/plain": "forty-two"}}]
    peer.answers["full"] = [{"do": "fault", "code": "capacity", "message": "the node is full"}]
    with broker_on_terminal(peer, "run", "-s", "a", HOME=str(tmp_path)) as person:
        person.until(">>>")
        person.press("x\r")
        person.until("forty-two")
        person.until(">>>")
        person.press("full\r")
        person.until("the node is full")
        person.until(">>>")
        person.press(CTRL_D)
        assert person.end() == 0
    history = tmp_path / ".local" / "state" / "kernel-broker" / "history"
    assert "+x\n" in history.read_text()


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D, UP])
def test_a_key_pressed_while_something_is_printed_above_stays_a_key(
    tmp_path: Path, key: str
) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    program = (
        "import pathlib, sys\n"
        "from prompt_toolkit.application import run_in_terminal\n"
        "from prompt_toolkit.history import InMemoryHistory\n"
        "from broker.cli.prompt import make_prompt\n"
        "def above(): print('above', flush=True); pathlib.Path(sys.argv[1]).read_bytes()\n"
        "prompt = make_prompt(InMemoryHistory(['earlier']))\n"
        "try: print(prompt.prompt('> ', pre_run=lambda: run_in_terminal(above)) + '!')\n"
        "except BaseException as error: print(type(error).__name__)\n"
    )
    with terminal([sys.executable, "-c", program, str(gate)], env=os.environ) as person:
        person.until("above")
        person.press(key)
        gate.write_bytes(b"")
        if key == UP:
            person.until("earlier")
            person.press(ENTER)
        person.until({CTRL_C: "KeyboardInterrupt", CTRL_D: "EOFError", UP: "earlier!"}[key])
        assert "^" not in person.all  # nor is it shown as it was pressed


def test_one_thing_is_no_plural() -> None:
    told = [plural(count, "cell") for count in (0, 1, 2, 1000)]
    assert told == ["0 cells", "1 cell", "2 cells", "1,000 cells"]
