"""Other projects' programs as they are released: their environment, and their processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.bench.stock import isolated
from tests.environments import environment
from tests.jupyter.rest import Place, call

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
TOKEN = "stock"
FILES = "work"  # of the directory that a server is given: what its users see
GRACE = 15.0  # s
PATIENCE = 90.0  # s
# A server prints its address before it listens, and where the port ended up that it was to try.
READY = r"(http://127\.0\.0\.1:\d+)/\S*\?token"


def python() -> Path:
    """Return the interpreter that has other projects' clients; the first call installs them."""
    return environment("faces-venv", HERE / "requirements.lock")


def mcp_python() -> Path:
    """Return the interpreter that has `jupyter-mcp-server` as well.

    Where that is installed, every Jupyter server gets extensions of its.
    """
    return environment("mcp-venv", HERE / "mcp.lock", below=python())


def provisioners(directory: Path) -> str:
    """Return a `PYTHONPATH` by which other environments have our provisioners, as if installed."""
    found, installed = directory / "provisioners", Path(sysconfig.get_path("purelib"))
    found.mkdir()
    (about,) = installed.glob("kernel_broker-*.dist-info")
    for one in (about, installed / "orjson"):
        (found / one.name).symlink_to(one)
    return f"{found}{os.pathsep}{ROOT}"


class Running:
    """A program that runs: what it has printed, and the line that said it is ready."""

    def __init__(self, process: subprocess.Popen[str], ready: str) -> None:
        self.process = process
        self.said: deque[str] = deque(maxlen=400)
        self.ready: re.Match[str] | None = None
        self._pattern = re.compile(ready)
        self._told = threading.Event()
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if self.ready is None and (found := self._pattern.search(line)):
                self.ready = found
                self._told.set()
        self._told.set()

    @property
    def log(self) -> str:
        return "".join(self.said)

    def wait(self) -> re.Match[str]:
        """Wait until it is ready. Raises RuntimeError with what it said instead."""
        self._told.wait(PATIENCE)
        if self.ready is None:
            raise RuntimeError(f"{self.process.args!r} did not become ready:\n{self.log}")
        return self.ready


@contextmanager
def program(argv: Sequence[str], env: Mapping[str, str], ready: str) -> Iterator[Running]:
    """Start a program in a process group of its own, and end it with the block."""
    with subprocess.Popen(
        argv,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        running = Running(process, ready)
        try:
            running.wait()
            yield running
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            running.reader.join()


def surroundings(directory: Path) -> dict[str, str]:
    """Return an environment with the clients on `PATH`, and nothing of this user's."""
    env = isolated(directory)
    env["PATH"] = f"{python().parent}{os.pathsep}{env['PATH']}"
    return env | {"HOME": str(directory), "JUPYTER_PLATFORM_DIRS": "1"}


@contextmanager
def jupyter(
    application: str, directory: Path, *flags: str, **env: str
) -> Iterator[tuple[Place, Running]]:
    """Start `jupyter server` or `jupyter lab` on a free port, end it with the block."""
    argv = [str(python()), "-m", application, "--no-browser", "--allow-root"]
    argv += ["--ip=127.0.0.1", "--port=29888", "--port-retries=400"]
    argv += [f"--ServerApp.root_dir={directory / FILES}", *flags]
    (directory / FILES).mkdir(exist_ok=True)
    surrounding = surroundings(directory) | {"JUPYTER_TOKEN": TOKEN} | env
    with program(argv, surrounding, READY) as running:
        assert running.ready is not None
        place = Place(running.ready[1], TOKEN)
        listening(place)
        yield place, running


def listening(place: Place) -> None:
    """Wait until the server answers. It has no event that says so: hence the asking."""
    for _ in range(2000):
        with suppress(OSError):
            call(place, "GET", "/api")
            return
        threading.Event().wait(0.02)
    raise RuntimeError(f"{place.url} does not answer")


@contextmanager
def stock_server(directory: Path) -> Iterator[Place]:
    """Start a Jupyter server whose kernels run in the interpreter that ours are forked from."""
    spec = directory / "data" / "kernels" / "python3"
    spec.mkdir(parents=True)
    launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    told = {"argv": launch, "display_name": "Python 3 (ipykernel)", "language": "python"}
    (spec / "kernel.json").write_text(json.dumps(told | {"metadata": {"debugger": True}}))
    # Beyond 1 MB/s it drops what a kernel prints.
    unbounded = "--ZMQChannelsWebsocketConnection.limit_rate=False"
    with jupyter("jupyter_server", directory, unbounded) as (place, _):
        yield place
