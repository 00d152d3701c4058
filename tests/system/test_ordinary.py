"""Commands of tests run as an ordinary user, wherever the interpreter and the clone are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.conftest import BROKER
from tests.system.ordinary import ROOT, closed_above, command_as, uid_of_worker

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def uid(worker_id: str) -> int:
    return uid_of_worker("" if worker_id == "master" else worker_id)


def said(command: list[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_command_is_an_ordinary_users_in_no_group_but_its_own(uid: int) -> None:
    asked = "import os; print(os.getresuid(), os.getresgid(), os.getgroups())"
    assert said(command_as(uid, [sys.executable, "-c", asked])) == f"{(uid,) * 3} {(uid,) * 3} []\n"


def test_the_command_line_of_ours_starts(uid: int) -> None:
    assert "serve" in said(command_as(uid, [str(BROKER), "--help"]))


def test_what_is_needed_below_a_closed_directory_is_reached_and_nothing_beside_it(
    uid: int, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    for name in ("needed", "beside"):
        (closed / name).mkdir(parents=True)
        (closed / name / "file").write_text(name)
    closed.chmod(0o700)
    needed = closed / "needed"
    assert closed_above(str(needed))
    assert said(command_as(uid, ["/bin/cat", str(needed / "file")], needed)) == "needed"
    assert said(command_as(uid, ["/bin/ls", str(closed)], needed)) == "needed\n"
    assert sorted(path.name for path in closed.iterdir()) == ["beside", "needed"]


def test_the_work_tree_can_be_read_and_not_written(uid: int) -> None:
    tried = f"cat {ROOT}/pyproject.toml >/dev/null && ! touch {ROOT}/x && echo as it was"
    assert said(command_as(uid, ["/bin/sh", "-c", tried])) == "as it was\n"


def test_each_worker_is_a_user_of_its_own() -> None:
    assert len({uid_of_worker(worker) for worker in ("gw0", "gw1", "gw2")}) == 3
