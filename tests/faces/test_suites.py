"""Other projects' own test suites, unmodified, on kernels that our provisioners fork and shut in.

Each runs at the same time on the stock provisioner and on ours, and must end alike.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

CACHE = Path(__file__).parents[2] / ".cache" / "suites"
STOCK, ZYGOTE, SANDBOX = "local-provisioner", "kernel-broker-zygote", "kernel-broker-sandbox"
CLOSING = re.compile(r"(\d+) (passed|failed|skipped|deselected|errors?|xfailed|xpassed)")
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
    # Of the sandbox: what has its kernel read and write files of the host.
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
        (
            "tests/test_kernel.py::test_sys_path_profile_dir",
            "tests/test_kernel.py::test_save_history",
        ),
    ),
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
            *(f"--deselect={name}" for name in suite.left_out if provisioner == SANDBOX),
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
@pytest.mark.timeout(600)
@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.project)
def test_a_suite_ends_on_forked_kernels_and_in_the_sandbox_as_on_started_ones(
    suite: Suite, home: Path
) -> None:
    running = {name: start(suite, name, home) for name in (STOCK, ZYGOTE, SANDBOX)}
    with ThreadPoolExecutor() as readers:
        communicated = readers.map(subprocess.Popen.communicate, running.values())
        outputs = dict(zip(running, (told for told, _ in communicated), strict=True))
    found = {name: counts(output) for name, output in outputs.items()}
    stock = found[STOCK]
    for name, left_out in ((ZYGOTE, 0), (SANDBOX, len(suite.left_out))):
        ours = found[name]
        report = f"{name} {ours}, stock {stock}\n{outputs[name][-6000:]}"
        sys.stdout.write(f"{report.splitlines()[0]}\n")
        assert set(ours) <= {"passed", "skipped", "deselected"}, report
        assert ours.get("skipped") == stock.get("skipped"), report
        assert ours["passed"] >= stock["passed"] - left_out > 0, report
        assert ours.get("deselected", 0) == left_out, report
    forked = {path.parents[1].name for path in home.glob("*/r/zygotes") if any(path.iterdir())}
    assert forked == {ZYGOTE, SANDBOX}
