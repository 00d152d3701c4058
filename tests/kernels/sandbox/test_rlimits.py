"""Resource limits: by our names, never above what is allowed, and they bite."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from kernels.sandbox import rlimits
from tests.kernels.sandbox.children import failure, in_child


def applied(limits: Mapping[str, int], *names: str) -> object:
    def do() -> list[tuple[int, int]]:
        rlimits.apply(limits)
        return [resource.getrlimit(rlimits.NAMES[name]) for name in names]

    return in_child(do)


@pytest.mark.parametrize("name", sorted(rlimits.NAMES.keys() - {"stack_bytes", "address_bytes"}))
def test_soft_and_hard_limits_become_the_value(name: str) -> None:
    _, hard = resource.getrlimit(rlimits.NAMES[name])
    value = {"data_bytes": 1 << 40}.get(name, 90)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    assert applied({name: value}, name) == [(value, value)]


def test_the_address_space_is_bounded() -> None:
    def allocate() -> str:
        rlimits.apply({"address_bytes": 1 << 40})
        try:
            bytearray(1 << 41)
        except MemoryError:
            return "refused"
        return ""

    assert in_child(allocate) == "refused"


def test_of_the_stack_only_the_soft_limit_is_set() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_STACK)
    assert applied({"stack_bytes": 1 << 20}, "stack_bytes") == [(1 << 20, hard)]


def test_a_lower_hard_limit_stays() -> None:
    def twice() -> tuple[int, int]:
        rlimits.apply({"open_files": 50})
        rlimits.apply({"open_files": 60})
        return resource.getrlimit(resource.RLIMIT_NOFILE)

    assert in_child(twice) == (50, 50)


def test_what_is_absent_or_nothing_stays() -> None:
    before = [resource.getrlimit(kind) for kind in rlimits.NAMES.values()]
    limits = dict.fromkeys(rlimits.NAMES.keys() - rlimits.MAY_BE_NOTHING, 0)
    assert applied({}, *rlimits.NAMES) == before
    assert applied(limits, *rlimits.NAMES) == before


@pytest.mark.parametrize("name", sorted(rlimits.MAY_BE_NOTHING))
def test_nothing_is_a_limit_for_what_one_can_do_without(name: str) -> None:
    assert applied({name: 0}, name) == [(0, 0)]


def test_every_unknown_name_is_told_and_nothing_set() -> None:
    def attempt() -> tuple[str, bool]:
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            rlimits.apply({"open_files": 50, "opened_files": 1, "memory": 2})
        except ValueError as error:
            return str(error), resource.getrlimit(resource.RLIMIT_NOFILE) == before
        return "", False

    assert in_child(attempt) == ("unknown limits: memory, opened_files", True)


def test_a_file_cannot_grow_beyond_its_limit(tmp_path: Path) -> None:
    def write() -> tuple[str, int]:
        rlimits.apply({"file_bytes": 1000})
        said = failure((tmp_path / "file").write_bytes, b"x" * 2000)
        return said, (tmp_path / "file").stat().st_size

    assert in_child(write) == ("EFBIG", 1000)


def test_descriptors_run_out() -> None:
    def open_all() -> str:
        rlimits.apply({"open_files": 40})
        opened = []

        def exhaust() -> None:
            while True:
                opened.append(os.dup(0))

        return failure(exhaust)

    assert in_child(open_all) == "EMFILE"


def test_processes_run_out() -> None:
    if os.geteuid() == 0:
        pytest.skip("root's processes are not counted; needs an ordinary user")

    def start_all() -> bool:
        rlimits.apply({"processes": 1})
        try:
            threading.Thread(target=int).start()
        except RuntimeError:
            return True
        return False

    assert in_child(start_all)
