"""A real broker: a process of its own, on a free port, with its own state directory and Valkey."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker.client import Broker
from broker.client.errors import UnknownSession

BROKER = Path(sys.executable).parent / "broker"
StartBroker = Callable[..., AbstractContextManager["RunningBroker"]]


@dataclass
class RunningBroker:
    """A `broker serve` that is ready."""

    url: str
    token: str
    pid: int
    state_dir: Path
    process: subprocess.Popen[str]

    @property
    def log(self) -> str:
        """Return everything it has written to its standard error."""
        return (self.state_dir / "serve.log").read_text(errors="replace")

    @property
    def audited(self) -> list[dict[str, Any]]:
        """Return the lines of its audit log; the last may not be whole yet."""
        text = (self.state_dir / "audit.log").read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def sessions(self) -> set[str]:
        """Return the names of the live sessions."""
        return {row["session"] for row in Broker(self.url, self.token).sessions()}

    def end(self, names: set[str]) -> None:
        """End these sessions, those that have not ended by themselves."""
        client = Broker(self.url, self.token)
        for name in names:
            with contextlib.suppress(UnknownSession):
                client.kill(name)

    def cli(self, *arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run the broker command against it."""
        environment = os.environ | {"BROKER_URL": self.url, "BROKER_TOKEN": self.token}
        return subprocess.run(
            [str(BROKER), *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
        )


def kill(broker: RunningBroker) -> None:
    """End the broker as a crash does, and wait until its process is gone."""
    broker.process.kill()
    broker.process.wait(20)


@pytest.fixture(scope="session")
def short_dir() -> Iterator[Callable[[], Path]]:
    """Give directories with paths short enough for unix sockets, gone at the end."""
    made: list[Path] = []

    def make() -> Path:
        made.append(Path(tempfile.mkdtemp(prefix="kb-")))
        return made[-1]

    yield make
    for directory in made:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def place(short_dir: Callable[[], Path], request: pytest.FixtureRequest) -> tuple[Path, str, str]:
    """A state directory with the module's settings, as the arguments that start a broker there."""
    directory = short_dir()
    (directory / "broker.toml").write_text(request.module.LEAN)
    return directory, "--config", str(directory / "broker.toml")


@contextmanager
def broker_process(state_dir: Path, *flags: str, **env: str) -> Iterator[RunningBroker]:
    """Start a broker and yield it once it is ready; it and its kernels are gone afterwards."""
    ready = state_dir / "ready.json"
    ready.unlink(missing_ok=True)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    command = [str(BROKER), "serve", "--isolation", "standard"]
    command += ["--host", "127.0.0.1", "--port", "0"]
    command += ["--state-dir", str(state_dir), "--ready-file", str(ready), *flags]
    with (
        (state_dir / "serve.log").open("ab") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=clean | env
        ) as process,
    ):
        try:
            assert process.stdout is not None
            # The ready line is the event; the ready file is there before it.
            if not any("http://" in line for line in process.stdout):
                pytest.fail((state_dir / "serve.log").read_text(errors="replace")[-4000:])
            told = json.loads(ready.read_text())
            yield RunningBroker(told["url"], told["token"], told["pid"], state_dir, process)
        finally:
            # The second time it does not wait for what still runs.
            for patience in (1.0, 20.0):
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(patience)
                    break
            else:
                process.kill()


@pytest.fixture(scope="session")
def start_broker() -> Callable[..., AbstractContextManager[RunningBroker]]:
    """Give the way to start a broker of a test's own, in a directory that it may choose."""
    return broker_process


@pytest.fixture(scope="session")
def shared_broker(short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    """One broker for all tests of this worker that do not harm it."""
    # What many tests claim in a second is not to move what some of them count.
    fixed = {"BROKER_PROFILES_PYTHON_WARM_MOST": "3"}
    with broker_process(short_dir(), "--warm", "3", **fixed) as running:
        yield running


@pytest.fixture
def broker(shared_broker: RunningBroker) -> Iterator[RunningBroker]:
    """The shared broker; the sessions that a test leaves behind end with it."""
    before = shared_broker.sessions()
    yield shared_broker
    shared_broker.end(shared_broker.sessions() - before)
