"""`broker doctor` tells what this host can do, without a server and without leaving anything."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.system.conftest import BROKER


def doctor(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    return subprocess.run(
        [str(BROKER), "doctor", *arguments],
        capture_output=True,
        text=True,
        env=clean | {"BROKER_PROFILES_PYTHON_PRELOAD": "", **env},
        cwd="/",
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def found() -> subprocess.CompletedProcess[str]:
    return doctor("--json")


def test_the_layers_and_the_cases_come_to_a_level(found: subprocess.CompletedProcess[str]) -> None:
    told = json.loads(found.stdout)
    assert found.returncode == (0 if told["isolation"] == "full" else 1)
    assert told["least"] == "full"
    layers = {row["layer"] for row in told["layers"]}
    assert {"user namespace", "seccomp", "landlock", "cgroup memory", "start mode"} <= layers
    if told["isolation"] == "none":
        assert told["trouble"] or not all(row["safe"] for row in told["cases"])
    else:
        assert len(told["cases"]) >= 12
        assert all(row["safe"] and row["evidence"] for row in told["cases"])


def test_people_get_tables_and_the_level_last(found: subprocess.CompletedProcess[str]) -> None:
    shown = doctor("--isolation", "none")
    told = json.loads(found.stdout)
    mode = f" ({told['mode']})" if told["mode"] else ""
    last = shown.stdout.splitlines()[-1]
    assert last == f"isolation {told['isolation']}{mode}: enough, none is configured"
    assert shown.returncode == 0
    for layer in {row["layer"] for row in told["layers"]}:
        assert f"\n{layer} " in shown.stdout


def test_a_profile_that_cannot_start_is_too_little_and_says_why() -> None:
    done = doctor(BROKER_PROFILES_PYTHON_PYTHON="/nowhere/python")
    assert done.returncode == 1
    assert "nothing could be tried: " in done.stdout
    assert "/nowhere/python" in done.stdout
    assert done.stdout.splitlines()[-1] == "isolation none: too little, full is configured"
    assert "Traceback" not in done.stderr


def test_a_profile_that_is_not_there_is_a_usage_error() -> None:
    done = doctor("--profile", "absent")
    assert done.returncode == 2
    assert "known: python" in done.stderr


def test_nothing_is_left_behind(short_dir: Callable[[], Path]) -> None:
    directory = short_dir()
    assert doctor(TMPDIR=str(directory)).stdout
    assert [*directory.iterdir()] == []
