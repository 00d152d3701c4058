"""Every example of the documents does what the document says, against a real broker."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.examples import Example, agrees, commands, examples
from tests.faces.chromium import chromium, site
from tests.faces.peers import python, surroundings
from tests.system.conftest import BROKER, RunningBroker, broker_process, short_dir
from tests.system.peer import attached

__all__ = ["chromium", "short_dir"]

EXAMPLES = examples("README.md", "deploy/docs/clients.md", "deploy/docs/protocol.md")
OUTAGE = "outage"  # the one that a broker is killed under
JUPYTER = "jupyter-"  # begins the names of those that other projects' clients are needed for
# What stays in a terminal, and is tried there: tests/faces/test_jupyterlab, test_real_clients.
STAYING = ("jupyter-lab", "jupyter-konsole")
FRAMES = "chat-50"  # the session of what is typed
TELLING = ("BROKER_URL", "BROKER_TOKEN")
PROGRAMS = {"python": [sys.executable], "sh": ["bash", "-euo", "pipefail"]}


def of(*languages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "example",
        [
            one
            for one in EXAMPLES
            if one.language in languages and one.name not in (OUTAGE, *STAYING)
        ],
        ids=str,
    )


def environment(broker: RunningBroker) -> dict[str, str]:
    """Return that of a terminal in which the broker's commands are found, and this broker."""
    path = f"{BROKER.parent}{os.pathsep}{os.environ['PATH']}"
    return os.environ | {"BROKER_URL": broker.url, "BROKER_TOKEN": broker.token, "PATH": path}


@pytest.fixture(scope="module")
def page_origin() -> Iterator[str]:
    with site() as origin:
        yield origin


@pytest.fixture(scope="module")
def running(short_dir: Callable[[], Path], page_origin: str) -> Iterator[RunningBroker]:
    allowed = {"BROKER_WIRE_ALLOW_ORIGINS": page_origin}
    with broker_process(short_dir(), "--warm", "2", **allowed) as running:
        yield running


@pytest.fixture
def broker(running: RunningBroker) -> Iterator[RunningBroker]:
    """Give a broker without live sessions; an example has names of its own, for ends are kept."""
    yield running
    running.end(running.sessions())


def test_there_is_no_example_that_nothing_runs() -> None:
    assert {one.language for one in EXAMPLES} <= {*PROGRAMS, "console", "websocket", "js"}
    assert len({one.name for one in EXAMPLES}) == len(EXAMPLES)


@pytest.mark.timeout(900)  # other projects' clients may be installed first
@of(*PROGRAMS)
def test_a_program_prints_what_the_document_says(
    broker: RunningBroker, example: Example, tmp_path: Path
) -> None:
    if "curl" in example.code and not shutil.which("curl"):
        pytest.skip("no curl here")
    program = tmp_path / "example"  # as people keep it, and so that its functions have a source
    program.write_text(example.code)
    interpreter, around = PROGRAMS[example.language], environment(broker)
    if example.name.startswith(JUPYTER):
        around = surroundings(tmp_path) | {name: around[name] for name in TELLING}
        interpreter = [str(python())] if example.language == "python" else interpreter
    ran = subprocess.run(
        [*interpreter, str(program)],
        env=around,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert example.output is not None
    assert agrees(example.output, ran.stdout), f"{ran.stdout}\n{ran.stderr}"


@of("console")
def test_a_terminal_shows_what_the_document_says(
    broker: RunningBroker, example: Example, tmp_path: Path
) -> None:
    for command, shown in commands(example):
        ran = subprocess.run(
            ["/bin/bash", "-c", command],
            env=environment(broker),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
        )
        assert agrees(shown, ran.stdout), f"{command}\n{ran.stdout}"


def test_a_program_goes_on_through_a_killed_broker_as_the_document_says(
    short_dir: Callable[[], Path], tmp_path: Path
) -> None:
    (example,) = (one for one in EXAMPLES if one.name == OUTAGE)
    assert example.output is not None
    directory, program = short_dir(), tmp_path / "example"
    program.write_text(example.code)
    with broker_process(directory, "--warm", "1") as first:
        running = subprocess.Popen(
            [sys.executable, str(program)],
            env=environment(first),
            stdout=subprocess.PIPE,
            text=True,
        )
        with running:
            assert running.stdout is not None
            printed = []
            for line in running.stdout:
                printed.append(line)
                if line == "1\n":
                    break
            first.process.kill()
            first.process.wait(20)
            port = first.url.rpartition(":")[2]
            with broker_process(directory, "--warm", "1", "--port", port):
                printed.append(running.stdout.read())
    came = "".join(printed)
    assert agrees(example.output, came), came


@of("websocket")
async def test_frames_are_answered_as_the_document_says(
    broker: RunningBroker, example: Example
) -> None:
    async with attached(broker, FRAMES) as peer:
        for line in example.code.splitlines():
            way, _, frame = line.partition(" ")
            if way == ">":
                await peer.send(frame)
            elif frame.startswith("close "):
                assert (await peer.closed())[0] == int(frame.removeprefix("close "))
            else:
                async with asyncio.timeout(20):
                    came = await peer.socket.recv()
                assert agrees(frame, str(came)), f"{line}\n{came!r}"


@pytest.mark.timeout(900)
@of("js")
def test_a_page_logs_what_the_document_says(
    broker: RunningBroker, chromium: Browser, page_origin: str, example: Example
) -> None:
    page = chromium.new_page()
    lines: list[str] = []

    def log(text: str) -> None:
        """Keep a line; what was printed at once may come in two frames, and counts as one."""
        if lines and lines[-1].startswith("stream ") and text.startswith("stream "):
            lines[-1] += text.removeprefix("stream ")
        else:
            lines.append(text)

    page.on("console", lambda message: log(message.text))
    try:
        page.goto(page_origin)
        url = broker.url.replace("http", "ws", 1)
        page.evaluate(
            f"""([url, token]) => new Promise((resolve) => {{
                {example.code}
                socket.addEventListener("close", resolve);
            }})""",
            [url, broker.token],
        )
    finally:
        page.close()
    assert example.output is not None
    assert agrees(example.output, "\n".join(lines)), lines
