"""Capabilities: none is left, and no way leads back."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernels.sandbox import capabilities, system
from tests.kernels.sandbox.children import (
    failure,
    in_child,
    need_capabilities,
    take_capabilities,
)

PR_GET_KEEPCAPS, PR_SET_KEEPCAPS, PR_GET_SECUREBITS = 7, 8, 27
PR_CAP_AMBIENT_RAISE = 2
CAP_SETPCAP, CAP_NET_RAW = 8, 13


@pytest.fixture(autouse=True)
def _capable() -> None:
    need_capabilities()


def dropped(act: Callable[[], object]) -> Any:
    def do() -> object:
        take_capabilities()
        capabilities.drop()
        return act()

    return in_child(do)


def sets(status: str) -> set[str]:
    return set(re.findall(r"^Cap\w+:\t(\w+)$", status, re.MULTILINE))


def test_every_set_is_empty_afterwards() -> None:
    assert dropped(lambda: sets(Path("/proc/self/status").read_text())) == {"0" * 16}


def test_a_program_that_root_starts_has_none_either() -> None:
    user = os.geteuid()

    def exec_as_root() -> str:
        take_capabilities()
        if user != 0:
            Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        assert os.geteuid() == 0
        capabilities.drop()
        command = ["/bin/cat", "/proc/self/status"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert sets(in_child(exec_as_root)) == {"0" * 16}


def test_the_secure_bits_are_locked() -> None:
    def attempts() -> tuple[int, list[str]]:
        return system.prctl(PR_GET_SECUREBITS), [
            failure(system.prctl, system.PR_SET_SECUREBITS, 0),
            failure(system.prctl, PR_SET_KEEPCAPS, 1),
            failure(system.prctl, system.PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_RAW),
            failure(system.syscall, "capset", capabilities._HEADER, b"\xff" * 24),
        ]

    assert dropped(attempts) == (0b11101111, ["EPERM"] * 4)


def test_a_process_without_the_capability_is_told() -> None:
    assert dropped(lambda: failure(capabilities.drop)) == "EPERM"
