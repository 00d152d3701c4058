"""Brokers that shut kernels in: started as whoever runs the tests, and as an ordinary user."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kernels.isolation import proc_covers
from kernels.sandbox.cgroups import Cgroups, Unavailable
from tests.security.corpus import Snippet
from tests.system.conftest import BROKER, RunningBroker, short_dir
from tests.system.ordinary import ROOT, command_as, uid_of_worker
from tests.system.peer import call, execute, new_name, row_of

__all__ = ["short_dir"]

TOKEN = "the-operators-own-token-0123456789"
MIB = 1 << 20
LIMITS = {
    "memory": 256 * MIB,
    "processes": 64,
    "cpu": 1.0,
    "workspace": 16 * MIB,
    "workspace_files": 256,
    "tmp": 16 * MIB,
    "tmp_files": 256,
    "open_files": 1024,
    "file_size": 64 * MIB,
}
PLACES = ("/home/user", "/tmp", "/dev/shm")  # noqa: S108
SETTINGS = """
[session]
interrupt_grace = "300ms"
[profiles.python]
preload = ["json"]
warm = 2
"""
# Hostile code that nothing shuts in must not change the host it is tested on: its mounts, queues,
# name and processes are its own, and end with it.
CONTAINED = (
    *("/usr/bin/unshare", "--mount", "--propagation", "private", "--ipc", "--uts", "--pid"),
    *("--fork", "--mount-proc", "--kill-child"),
)
NEIGHBOUR = """
import ctypes, json, os, random, socket, subprocess
neighbours_numbers = [random.getrandbits(64) for _ in range(4)]
neighbours_secret = {secret!r}
neighbours_files = [f"{{place}}/neighbours-file" for place in {places!r}]
for path in neighbours_files:
    with open(path, "w") as file:
        file.write(neighbours_secret)
neighbours_child = subprocess.Popen(["/bin/sleep", "987654"])
neighbours_server = socket.create_server(("127.0.0.1", 0))
neighbours_abstract = socket.socket(socket.AF_UNIX)
neighbours_abstract.bind({abstract!r})
neighbours_abstract.listen()
ctypes.CDLL(None).shmget(0x6B62, 4096, 0o1666)

def neighbours_state():
    read = [open(path).read() == neighbours_secret for path in neighbours_files]
    return all(read) and neighbours_child.poll() is None and socket.gethostname()

print(json.dumps({{
    "files": neighbours_files, "child": neighbours_child.pid, "shm": 0x6B62,
    "port": neighbours_server.getsockname()[1], "abstract": {abstract!r},
    "numbers": neighbours_numbers, "host": socket.gethostname(),
}}))
"""


def pattern(secret: bytes) -> str:
    """Return an expression that matches a secret, and in which it is not to be found."""
    return "".join(f"[\\x{byte:02x}]" for byte in secret)


@dataclass
class Outcome:
    """What came of a snippet."""

    answer: dict[str, Any]

    @property
    def status(self) -> str:
        return str(self.answer["status"])

    @property
    def reason(self) -> str:
        return str(self.answer["done"].get("reason", ""))

    @property
    def verdict(self) -> str:
        """The last line in which a snippet judges itself."""
        lines = self.answer["stdout"].splitlines()
        return next((line for line in reversed(lines) if re.match("(UN)?SAFE:", line)), "")

    @property
    def told(self) -> str:
        error = self.answer["error"] or {}
        fault = f"{error.get('name')}: {error.get('message')}" if error else ""
        return f"{self.status} {self.reason} {fault} {self.verdict}".strip()


@dataclass
class Target:
    """A broker under attack, and the session beside the attacker's."""

    broker: RunningBroker
    host: dict[str, Any] = field(default_factory=dict)
    neighbour: str = ""
    shared: str = field(default_factory=lambda: new_name("shared"))

    def run(self, snippet: Snippet, session: str) -> Outcome:
        """Run a snippet as a cell of a session."""
        code = snippet.cell(self.host)
        return Outcome(execute(self.broker, session, code, timeout=snippet.timeout))

    def end(self, session: str) -> None:
        """End a session."""
        self.broker.end({session})

    def neighbour_says(self) -> str:
        """Ask the neighbour whether all is as it was."""
        told = execute(self.broker, self.neighbour, "print(neighbours_state())")
        return f"generation {told['generation']}: {told['stdout'].strip()}"


@contextmanager
def shut_in_broker(
    state_dir: Path, isolation: str, *, uid: int | None = None
) -> Iterator[RunningBroker]:
    """Start a broker that asks for this isolation at least, as a user of one's choice."""
    ready = state_dir / "ready.json"
    config = state_dir / "broker.toml"
    limits = "".join(f"{name} = {value}\n" for name, value in LIMITS.items())
    config.write_text(SETTINGS + limits)
    command = [str(BROKER), "serve", "--isolation", isolation, "--port", "0"]
    command += ["--state-dir", str(state_dir), "--config", str(config), "--ready-file", str(ready)]
    if uid is not None:
        for path in (state_dir, config):
            os.chown(path, uid, uid)
        command = command_as(uid, command, state_dir)
    if isolation == "none":
        command = [*CONTAINED, *command]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    clean["BROKER_TOKEN"] = TOKEN
    with (
        (state_dir / "serve.log").open("ab") as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, text=True, env=clean
        ) as process,
    ):
        try:
            assert process.stdout is not None
            if not any("http://" in line for line in process.stdout):
                pytest.fail((state_dir / "serve.log").read_text(errors="replace")[-4000:])
            told = json.loads(ready.read_text())
            yield RunningBroker(told["url"], TOKEN, told["pid"], state_dir, process)
        finally:
            if isolation == "none":
                process.kill()  # `unshare` hears nothing else, and takes all below it along
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@contextmanager
def host_services(directory: Path) -> Iterator[dict[str, Any]]:
    """Yield what a host has beside the broker: files, and services that listen."""
    name = f"kernel-broker-test-{os.getpid()}-{directory.name}"
    marks = [Path(tempfile.gettempdir()) / name, Path("/dev/shm") / name]  # noqa: S108
    for mark in marks:
        mark.write_text("of the host")
    with ExitStack() as stack:
        service = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        listeners = {"abstract": f"\0{name}", "unix": str(marks[0].with_suffix(".sock"))}
        for address in listeners.values():
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(address)
            listener.listen()
        try:
            os.chmod(listeners["unix"], 0o777)  # noqa: S103
            yield {
                "marks": [*map(str, marks), str(directory / "serve.log")],
                "service": service.getsockname()[1],
                **listeners,
            }
        finally:
            for path in (*marks, Path(listeners["unix"])):
                path.unlink(missing_ok=True)


def make_neighbour(target: Target, services: dict[str, Any], *, is_shut_in: bool) -> None:
    """Begin the session beside the attacker's, and fill in what attackers are told."""
    broker = target.broker
    target.neighbour = new_name("beside")
    secret = f"value-of-{new_name('neighbour')}"
    places = PLACES if is_shut_in else (".",)
    abstract = f"\0{new_name('abstract')}"
    code = NEIGHBOUR.format(secret=secret, abstract=abstract, places=places)
    told = execute(broker, target.neighbour, code)
    assert told["status"] == "ok", told["error"]
    row = row_of(broker, target.neighbour)
    root = (broker.state_dir / "secret").read_bytes()
    key = hmac.digest(root, row["kernel"].encode(), hashlib.sha256).hex()
    [directory] = [
        path.parent
        for path in broker.state_dir.rglob("deed.json")
        if row["kernel"] in path.read_text()
    ]
    secrets = [TOKEN.encode(), root, root.hex().encode(), key.encode(), secret.encode()]
    target.host = {
        **services,
        "port": int(broker.url.rpartition(":")[2]),
        # Seconds, of which no other broker of these tests has as many.
        "for_ever": str(7_000_000 + int(broker.url.rpartition(":")[2])),
        "state_dir": str(broker.state_dir),
        "repo": str(ROOT),
        "store": str(broker.state_dir / "valkey.sock"),
        "broker_pid": broker.pid,
        "neighbour_pid": row["pid"],
        "neighbour_dir": str(directory),
        "neighbour": json.loads(told["stdout"].splitlines()[-1]),
        "uid": os.stat(broker.state_dir).st_uid,
        "key": "kernel-broker-test",
        "secrets": [pattern(each) for each in secrets],
        # What another session is called, and its kernel.
        "private": [pattern(each.encode()) for each in (target.neighbour, row["kernel"])],
        "shown": [str(ROOT), sys.prefix, sys.base_prefix],
        "limits": LIMITS,
    }


@contextmanager
def under_attack(directory: Path, isolation: str, *, uid: int | None = None) -> Iterator[Target]:
    """Start a broker with a neighbour in it, and services of the host beside it."""
    with (
        shut_in_broker(directory, isolation, uid=uid) as broker,
        host_services(directory) as services,
    ):
        target = Target(broker)
        make_neighbour(target, services, is_shut_in=isolation != "none")
        # Kernels that were warm before know nothing of the neighbour: the next ones were forked
        # after it was.
        for _ in range(3):
            session = new_name("passing")
            execute(broker, session, "1")
            target.end(session)
        yield target


@pytest.fixture(scope="session")
def full_target(short_dir: Callable[[], Path]) -> Iterator[Target]:
    """A broker with every layer, memory cgroups among them."""
    try:
        Cgroups.open("test-probe").remove()
    except Unavailable as missing:
        pytest.skip(f"isolation full is not to be had here: {missing}")
    with under_attack(short_dir(), "full") as target:
        yield target


@pytest.fixture(scope="session")
def standard_target(short_dir: Callable[[], Path], worker_id: str) -> Iterator[Target]:
    """A broker started by an ordinary user, who may make no cgroups."""
    if masked := proc_covers(Path("/proc/self/mountinfo").read_text()):
        pytest.skip(f"an ordinary user cannot shut kernels in here: {masked} are masked")
    uid = uid_of_worker("" if worker_id == "master" else worker_id) if not os.geteuid() else None
    directory = short_dir()
    probe = ["/usr/bin/unshare", "-Ur", "/bin/true"]
    tried = subprocess.run(
        command_as(uid, probe, directory) if uid else probe,
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        pytest.skip(f"an ordinary user may make no user namespace here: {tried.stderr.strip()}")
    with under_attack(directory, "standard", uid=uid) as target:
        yield target


@pytest.fixture(scope="session")
def bare_target(short_dir: Callable[[], Path]) -> Iterator[Target]:
    """A broker that shuts nothing in, as root."""
    if os.geteuid():
        pytest.skip("only root's code is free enough for every attack to succeed")
    with under_attack(short_dir(), "none") as target:
        yield target


@pytest.fixture
def attack_session(request: pytest.FixtureRequest) -> Iterator[Callable[[Target], str]]:
    """Give sessions of this test's own, ended with it."""
    made: list[tuple[Target, str]] = []

    def make(target: Target) -> str:
        made.append((target, new_name("attack")))
        return made[-1][1]

    yield make
    for target, session in made:
        with contextlib.suppress(AssertionError):
            call(target.broker, "DELETE", f"/v1/sessions/{session}")
