"""Other projects' clients, unmodified, each in a process of its own, on a broker."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import pexpect
import pytest

from tests.faces.peers import mcp_python, provisioners, python, surroundings
from tests.faces.places import broker, chat, documented, in_path, live, place, short_dir, stock
from tests.jupyter.rest import Place, call
from tests.system.conftest import RunningBroker

__all__ = ["broker", "live", "place", "short_dir", "stock"]

pytestmark = [pytest.mark.faces, pytest.mark.timeout(900)]  # they may be installed first

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture(scope="module")
def home(short_dir: Callable[[], Path]) -> Path:
    """Give a home without anybody's settings."""
    return short_dir()


def told(
    home: Path,
    name: str,
    *arguments: str,
    interpreter: Path | None = None,
    env: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Run a program with the clients' interpreter, and return what it tells."""
    ran = subprocess.run(
        [str(interpreter or python()), str(PROGRAMS / f"{name}.py"), *arguments],
        env={**surroundings(home), **env},
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


@pytest.mark.parametrize("whose", ["a Jupyter server", "the broker"])
def test_jupyter_kernel_clients_v1_mode_as_it_is_takes_in_nothing_from_any_server(
    whose: str, stock: Place, place: Place, home: Path
) -> None:
    server = {"a Jupyter server": stock, "the broker": place}[whose]
    # What it cannot take in is a `KeyError: 'channel'` of its own, to which it listens no further.
    said = told(home, "kernel_client_v1", server.url, server.token)
    assert said == {"ran": "TimeoutError", "said": ["'channel'"]}


EXECUTORS = {"AutoGen's": "autogen_docker", "ag2's": "ag2_server"}


@pytest.mark.parametrize("whose", EXECUTORS)
def test_an_executor_for_jupyter_servers_runs_blocks_and_restarts(
    whose: str, place: Place, home: Path
) -> None:
    host = place.url.partition("://")[2]
    said = told(home, EXECUTORS[whose], host, place.token, str(home))
    assert said["ran"][0::2] == [0, 0]
    assert said["ran"][1].split() == ["hello", "42"]
    assert said["failed"][0] == said["restarted"][0] == 1
    assert "ZeroDivisionError" in said["failed"][1]
    assert "NameError" in said["restarted"][1]
    assert said["plotted"] == 1


@pytest.fixture(scope="module")
def sandbox(short_dir: Callable[[], Path]) -> dict[str, str]:
    """Give the environment of programs whose local kernels are to be shut in."""
    return {
        "PYTHONPATH": provisioners(short_dir()),
        "JUPYTER_DEFAULT_PROVISIONER_NAME": "kernel-broker-sandbox",
    }


def test_autogens_executor_without_a_server_runs_blocks_in_the_sandbox(
    home: Path, sandbox: dict[str, str]
) -> None:
    said = told(home, "autogen_local", str(home), env=sandbox)
    assert said["ran"] == [0, "\nhello\n\n42", 0]
    assert said["plotted"] == 1
    assert said["seen"] == "False"  # a directory of the host's
    assert said["failed"][0] == said["restarted"][0] == 1
    assert "ZeroDivisionError" in said["failed"][1]
    assert "NameError" in said["restarted"][1]


@pytest.mark.parametrize("where", ["a gateway", "the sandbox"])
def test_papermill_runs_notebooks_with_parameters(
    where: str, place: Place, short_dir: Callable[[], Path], home: Path, sandbox: dict[str, str]
) -> None:
    gateway = [in_path(place).url] if where == "a gateway" else []
    env = {} if gateway else sandbox
    said = told(home, "papermill_notebook", str(short_dir()), *gateway, env=env)
    # The defaults, the parameters in their place, and the cells.
    assert said["ran"] == [[], [], ["hello\n", "42"], ["False"]]
    assert said["until"] == [[], [None], []]
    assert said["failed"] == "ZeroDivisionError"


def test_jupyter_mcp_server_lists_kernels_and_runs_code_in_a_live_one(
    broker: RunningBroker, place: Place, home: Path
) -> None:
    kernel = chat(broker, place, "chat-mcp")
    said = told(home, "mcp_tools", place.url, place.token, kernel, interpreter=mcp_python())
    assert said["listed"]
    assert [said[which] for which in ("found", "kept", "after")] == ["42", "43\n", "43"]
    assert "ZeroDivisionError" in said["failed"]
    assert "404" in said["files"]  # there is no /api/contents


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


@contextmanager
def console(
    broker: RunningBroker, home: Path, live: str, *options: str, term: str
) -> Iterator[pexpect.spawn]:
    """Give a terminal with `jupyter konsole` on the live kernel."""
    at = {"BROKER_URL": broker.url, "BROKER_TOKEN": broker.token, "KERNEL_ID": live}
    arguments = [*options, *documented("jupyter-konsole", **at)]
    program = str(python().parent / "jupyter-konsole")
    env = surroundings(home) | {"TERM": term}
    terminal = pexpect.spawn(
        program, arguments, env=env, encoding="utf-8", timeout=30, dimensions=(24, 80)
    )
    try:
        terminal.expect(r"In \[.*\]: ")  # between them colours, too
        yield terminal
    finally:
        terminal.close(force=True)


@pytest.fixture
def konsole(broker: RunningBroker, home: Path, live: str) -> Iterator[pexpect.spawn]:
    """Give one that prompts as plainly as can be."""
    with console(broker, home, live, "--simple-prompt", term="dumb") as terminal:
        yield terminal


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


def test_konsole_goes_back_to_what_the_chat_has_run(
    broker: RunningBroker, home: Path, place: Place
) -> None:
    with console(broker, home, chat(broker, place, "chat-43"), term="xterm") as terminal:
        terminal.send("\x1b[A")  # the arrow up
        terminal.expect(r"answer.* = .*42")


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
