"""Other projects' own test suites, unmodified, on kernels that our provisioner forks.

Each runs twice at the same time, on the stock provisioner and on ours, and must end alike.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CACHE = Path(__file__).parents[2] / ".cache" / "suites"
SANDBOX = "kernel-broker-sandbox"
PROVISIONERS = ("local-provisioner", "kernel-broker-zygote")
CLOSING = re.compile(r"(\d+) (passed|failed|skipped|errors?|xfailed|xpassed)")
PYTEST = (
    "-p", "no:cacheprovider", "--color=no", "--no-header", "-q",
    "-o", "asyncio_default_fixture_loop_scope=function",  # its absence is a warning, so an error
    "--force-flaky", "--max-runs=3",  # both runs and more share two cores
)  # fmt: skip


class Suite(NamedTuple):
    """A release of a project, as its source distribution."""

    project: str
    version: str
    sha256: str
    files: tuple[str, ...]
    left_out: tuple[str, ...] = ()


SUITES = (
    Suite(
        "jupyter_kernel_test",
        "0.7.0",
        "078b6fe7f770dd164f9549bdd7a355663225a3ff9b0f7575ad546d27239ec609",
        ("test_ipykernel.py",),
    ),
    Suite(
        "ipykernel",
        "7.4.0",
        "4330114d22b9b33575b2c7c68753fc8faabbbcfbc60b0cdff9f14dd4ce63742f",
        (
            "tests/test_message_spec.py",
            "tests/test_debugger.py",
            "tests/test_subshells.py",
            "tests/test_kernel.py",
        ),
    ),
)

# But for two tests that have their kernel read and write files of the host.
SHARING_FILES = ("test_sys_path_profile_dir", "test_save_history")
SANDBOXED = (
    SUITES[0],
    SUITES[1]._replace(left_out=tuple(f"tests/test_kernel.py::{name}" for name in SHARING_FILES)),
)


def download(suite: Suite) -> Path:
    """Return the suite's archive, fetched by pip once and checked each time."""
    installed = importlib.metadata.version(suite.project)
    assert installed == suite.version, f"{installed} is installed: pin its archive above"
    CACHE.mkdir(parents=True, exist_ok=True)
    archive = CACHE / f"{suite.project}-{suite.version}.tar.gz"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
            command += ["--no-binary", suite.project, "--no-build-isolation", "--dest", str(CACHE)]
            subprocess.run([*command, f"{suite.project}=={suite.version}"], check=True)
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == suite.sha256
    return archive


def unpack(archive: Path, target: Path) -> Path:
    """Take the tests and their settings out; the package under test is the installed one."""
    root = archive.name.removesuffix(".tar.gz")
    with tarfile.open(archive) as tar:
        members = [
            member
            for member in tar.getmembers()
            if member.name == f"{root}/pyproject.toml"
            or re.match(rf"{re.escape(root)}/(tests/|test_\w+\.py$)", member.name)
        ]
        # Python 3.11 has the filter from 3.11.4 on; the archive's hash is pinned in any case.
        safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(target, members, **safely)  # noqa: S202 - its hash is pinned
    return target / root


@pytest.fixture
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="kb-"))
    yield path
    for zygote in path.rglob("zygote.sock"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(zygote))
            connection.send(b'{"op": "stop"}')
    shutil.rmtree(path, ignore_errors=True)


def start(suite: Suite, provisioner: str, home: Path) -> subprocess.Popen[str]:
    """Start the suite with a home of its own."""
    folder = home / provisioner
    folder.mkdir()
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV"))
    }
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", *PYTEST, *suite.files),
            *(f"--deselect={name}" for name in suite.left_out),
        ],
        cwd=unpack(download(suite), folder),
        env={
            **inherited,
            "JUPYTER_DEFAULT_PROVISIONER_NAME": provisioner,
            "HOME": str(folder),
            "IPYTHONDIR": str(folder / "ipython"),
            "JUPYTER_RUNTIME_DIR": str(folder / "r"),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def counts(output: str) -> dict[str, int]:
    """Read the closing line."""
    last = next(line for line in reversed(output.splitlines()) if CLOSING.search(line))
    return {word: int(number) for number, word in CLOSING.findall(last)}


@pytest.mark.faces
@pytest.mark.timeout(400)
@pytest.mark.parametrize("suite", SANDBOXED, ids=lambda suite: suite.project)
def test_a_suite_ends_in_the_sandbox_as_outside_of_it(suite: Suite, home: Path) -> None:
    running = {name: start(suite, name, home) for name in (PROVISIONERS[0], SANDBOX)}
    outputs = {name: process.communicate()[0] for name, process in running.items()}
    stock, ours = (counts(outputs[name]) for name in (PROVISIONERS[0], SANDBOX))
    report = f"stock {stock}, ours {ours}\n{outputs[SANDBOX][-6000:]}"
    sys.stdout.write(report.splitlines()[0])
    assert set(ours) <= {"passed", "skipped"}, report
    assert ours.get("skipped") == stock.get("skipped"), report
    assert ours["passed"] >= stock["passed"] > 0, report
    assert list((home / SANDBOX / "r" / "zygotes").iterdir())


@pytest.mark.faces
@pytest.mark.timeout(400)
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.project)
def test_a_suite_ends_on_forked_kernels_as_on_started_ones(suite: Suite, home: Path) -> None:
    running = {name: start(suite, name, home) for name in PROVISIONERS}
    outputs = {name: process.communicate()[0] for name, process in running.items()}
    stock, ours = (counts(outputs[name]) for name in PROVISIONERS)
    report = f"stock {stock}, ours {ours}\n{outputs[PROVISIONERS[1]][-6000:]}"
    sys.stdout.write(report.splitlines()[0])
    assert set(ours) <= {"passed", "skipped"}, report
    assert ours.get("skipped") == stock.get("skipped"), report
    assert ours["passed"] >= stock["passed"] > 0, report
    zygotes = [name / "r" / "zygotes" for name in home.iterdir()]
    assert [path.parents[1].name for path in zygotes if path.exists()] == [PROVISIONERS[1]]
