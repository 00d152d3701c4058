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

from tests.examples import Example, agrees, examples
from tests.faces.chromium import chromium, site
from tests.system.conftest import RunningBroker, broker_process, short_dir
from tests.system.peer import attached

__all__ = ["chromium", "short_dir"]

EXAMPLES = examples("clients.md", "protocol.md")
FRAMES = "chat-50"  # the session of what is typed
PROGRAMS = {"python": [sys.executable], "sh": ["bash", "-euo", "pipefail"]}


def of(*languages: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        "example", [one for one in EXAMPLES if one.language in languages], ids=str
    )


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
    assert {one.language for one in EXAMPLES} <= {*PROGRAMS, "websocket", "js"}
    assert len({one.name for one in EXAMPLES}) == len(EXAMPLES)


@of(*PROGRAMS)
def test_a_program_prints_what_the_document_says(
    broker: RunningBroker, example: Example, tmp_path: Path
) -> None:
    if "curl" in example.code and not shutil.which("curl"):
        pytest.skip("no curl here")
    environment = os.environ | {"BROKER_URL": broker.url, "BROKER_TOKEN": broker.token}
    program = tmp_path / "example"  # as people keep it, and so that its functions have a source
    program.write_text(example.code)
    ran = subprocess.run(
        [*PROGRAMS[example.language], str(program)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert example.output is not None
    assert agrees(example.output, ran.stdout), f"{ran.stdout}\n{ran.stderr}"


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
    page.on("console", lambda message: lines.append(message.text))
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
