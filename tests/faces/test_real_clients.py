"""Other projects' clients, unmodified, each in a process of its own, on a broker."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pexpect
import pytest

from tests.faces.peers import python, surroundings
from tests.faces.places import broker, chat, documented, in_path, live, place, short_dir
from tests.jupyter.rest import Place, call
from tests.system.conftest import RunningBroker

__all__ = ["broker", "live", "place", "short_dir"]

pytestmark = [pytest.mark.faces, pytest.mark.timeout(900)]  # they may be installed first

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="module")
def home(short_dir: Callable[[], Path]) -> Path:
    """Give a home without anybody's settings."""
    return short_dir()


def told(home: Path, name: str, *arguments: str) -> dict[str, Any]:
    """Run a program with the clients' interpreter, and return what it tells."""
    ran = subprocess.run(
        [str(python()), str(PROGRAMS / f"{name}.py"), *arguments],
        env=surroundings(home),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


PROTOCOLS = ("DEFAULT", "V1")


@pytest.fixture(scope="module")
def kernel_client(
    broker: RunningBroker, place: Place, home: Path
) -> Iterator[dict[str, Future[dict[str, Any]]]]:
    """Run the program in each protocol, all at once: it waits 10 s for threads of its own."""

    def run(protocol: str) -> dict[str, Any]:
        found = chat(broker, place, f"chat-{protocol}")
        return told(home, "kernel_client", place.url, place.token, protocol, found)

    with ThreadPoolExecutor() as threads:
        yield {protocol: threads.submit(run, protocol) for protocol in PROTOCOLS}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_jupyter_kernel_client_runs_asks_interrupts_and_restarts(
    kernel_client: dict[str, Future[dict[str, Any]]], protocol: str
) -> None:
    assert kernel_client[protocol].result() == {
        "listed": True,
        "language": "python",
        "result": "hello\n42",
        "failed": ["error", "ZeroDivisionError"],
        "asked": "'Ann'",
        "updated": ["'b'"],
        "variables": ["h", "x"],
        "interrupted": "KeyboardInterrupt",
        "restarted": "NameError",
        "alive": True,
        "state": "idle",
        "ended": True,
        "found": "42",
        "politely": False,
    }


def test_autogens_executor_runs_blocks_and_restarts(place: Place, home: Path) -> None:
    said = told(home, "autogen", place.url.partition("://")[2], place.token, str(home))
    assert said["ran"] == [0, "\nhello\n\n42", 0]
    assert said["failed"][0] == said["restarted"][0] == 1
    assert "ZeroDivisionError" in said["failed"][1]
    assert "NameError" in said["restarted"][1]
    assert said["plotted"] == 1


def test_smolagents_executor_keeps_its_state_over_connections(place: Place, home: Path) -> None:
    parts = urlsplit(place.url)
    port = f"{parts.port}{parts.path}"
    assert told(home, "smolagents_docker", str(parts.hostname), port, place.token) == {
        "first": ["7", "hello\n", False],
        "kept": "8",
        "failed": True,
        "after": "7",
    }


def test_nbclient_runs_notebooks_through_a_gateway(place: Place, home: Path) -> None:
    said = told(home, "nbclient_gateway", in_path(place).url)
    assert said["ran"] == [["hello\n"], ["42"], ["'shown'"]]
    assert said["until"] == [["'first'"], [None], []]
    assert said["failed"] == "ZeroDivisionError"


@pytest.fixture
def konsole(broker: RunningBroker, home: Path, live: str) -> Iterator[pexpect.spawn]:
    """Give a terminal with `jupyter konsole` on the live kernel."""
    at = {"BROKER_URL": broker.url, "BROKER_TOKEN": broker.token, "KERNEL_ID": live}
    arguments = ["--simple-prompt", *documented("jupyter-konsole", **at)]
    program = str(python().parent / "jupyter-konsole")
    env = surroundings(home) | {"TERM": "dumb"}
    terminal = pexpect.spawn(program, arguments, env=env, encoding="utf-8", timeout=30)
    try:
        terminal.expect(r"In \[\d+\]: ")
        yield terminal
    finally:
        terminal.close(force=True)


def typed(terminal: pexpect.spawn, line: str, prompt: str = r"In \[\d+\]: ") -> str:
    """Type a line, wait for the next prompt, and return what was shown before it."""
    terminal.sendline(line)
    terminal.expect(prompt)
    return str(terminal.before)


def test_konsole_works_in_a_live_kernel(konsole: pexpect.spawn, place: Place, live: str) -> None:
    assert "42" in typed(konsole, "answer")
    assert "ZeroDivisionError" in typed(konsole, "1 / 0")
    assert typed(konsole, "input('who? ')", r"who\? ")
    assert "'Ann'" in typed(konsole, "Ann")
    konsole.sendline("exit")
    konsole.expect(pexpect.EOF)
    # It was not konsole's to end.
    assert call(place, "GET", f"/api/kernels/{live}").status == 200


def test_konsole_debugs_where_a_cell_stops(konsole: pexpect.spawn) -> None:
    typed(konsole, "def half(n): breakpoint(); return n / 2")
    typed(konsole, "")
    assert "half" in typed(konsole, "half(84)", "ipdb> ")
    typed(konsole, "p n", r"84\s+ipdb> ")  # what it showed before may have had two prompts
    assert "42.0" in typed(konsole, "c")
    typed(konsole, "half('x')", "ipdb> ")
    assert "TypeError" in typed(konsole, "c")
    assert "half" in typed(konsole, "%debug", "ipdb> ")
    typed(konsole, "p n", r"'x'\s+ipdb> ")
    typed(konsole, "q")
