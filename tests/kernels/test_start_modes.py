"""However a zygote gets its namespaces, kernels are shut in: as root, and as an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.covered import command_under
from tests.system.ordinary import command_as, uid_of_worker

ROOT = Path(__file__).parent.parent.parent
FIRST_SUBUID = 700_000_000
UID = uid_of_worker(os.environ.get("PYTEST_XDIST_WORKER", "")) + 1000

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def masked() -> str:
    """Return a file of /proc that may be covered as container managers do it."""
    names = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug")
    return next(name for name in names if os.path.exists(name))


def trial(directory: Path) -> list[str]:
    return [sys.executable, "-m", "tests.kernels.trial", str(directory)]


def run(command: Sequence[str]) -> dict[str, Any]:
    """Run a trial; return what it found, or fail with its last words."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def expect_shut_in(found: dict[str, Any], mode: str) -> None:
    assert found["mode"] == mode
    assert found["unsafe"] == []
    assert found["said"] == ["1000 /home/user []\n"] * 2
    assert found["reason"] == "exit 3"
    assert found["level"] in ("standard", "full")
    assert found["memory"] is not None
    assert found["spent"] >= 0.25  # where nothing meters a kernel, too


def install_uidmap() -> None:
    """Install newuidmap, which some hosts have and Debian's smallest have not."""
    if not shutil.which("newuidmap") and os.path.exists("/usr/bin/apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "-y", "uidmap"]):
            line = ["/usr/bin/apt-get", "-qq", *command]
            subprocess.run(line, env=environment, capture_output=True, check=False)
    if not shutil.which("newuidmap"):
        pytest.skip("newuidmap is not there: install the package uidmap")


@pytest.fixture
def given(directory: Path) -> Path:
    """Yield a directory that belongs to the ordinary user."""
    os.chown(directory, UID, UID)
    return directory


def test_as_root_each_kernel_has_an_id_of_a_range_that_is_nobodys(directory: Path) -> None:
    found = run(trial(directory))
    expect_shut_in(found, "root")
    one, other = found["owners"]
    assert one != other
    assert min(one, other) > 1 << 29


def test_as_root_where_proc_is_masked(directory: Path) -> None:
    found = run(command_under({masked(): "/dev/null"}, trial(directory)))
    expect_shut_in(found, "root-plain")
    one, other = found["owners"]
    assert one != other
    assert min(one, other) > 1 << 29


def test_as_an_ordinary_user(given: Path) -> None:
    found = run(command_as(UID, trial(given), given))
    expect_shut_in(found, "user")
    assert found["owners"] == [UID, UID]
    assert found["level"] == "standard"  # nobody gave this user a cgroup


def test_as_an_ordinary_user_with_subordinate_ids(directory: Path, given: Path) -> None:
    install_uidmap()
    ranges = directory / "ranges"
    ranges.write_text(f"{UID}:{FIRST_SUBUID}:65536\n")
    names = directory / "names"
    names.write_text(f"{Path('/etc/passwd').read_text()}\nu{UID}:x:{UID}:{UID}::/:/bin/sh\n")
    for file in (ranges, names):
        file.chmod(0o644)
    state = given / "s"
    state.mkdir(mode=0o700)
    os.chown(state, UID, UID)
    covers = {"/etc/passwd": str(names), "/etc/subuid": str(ranges), "/etc/subgid": str(ranges)}
    found = run(command_under(covers, command_as(UID, trial(state), given)))
    expect_shut_in(found, "user-range")
    one, other = found["owners"]
    assert one != other
    assert {one, other} <= set(range(FIRST_SUBUID, FIRST_SUBUID + 65536))


def test_an_ordinary_user_who_may_not_mount_proc_is_told(given: Path) -> None:
    command = command_under({masked(): "/dev/null"}, command_as(UID, trial(given), given))
    with pytest.raises(AssertionError, match=rf"/proc is masked .*{masked()}.*Unmasked"):
        run(command)
