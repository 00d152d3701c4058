"""A counter is opened once, read as it is now, and missing rather than wrong."""

from __future__ import annotations

import os
from pathlib import Path

from kernels.sandbox.counters import Counter


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_counter_is_opened_once_and_read_as_it_is_now(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_text("1\n")
    counter, before = Counter(str(path)), open_files()
    assert counter.read() == 1
    path.write_text("23\n")
    assert counter.read() == 23
    assert open_files() == before + 1
    counter.close()
    counter.close()
    assert open_files() == before


def test_what_is_not_there_or_no_number_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "count"
    counter = Counter(str(path))
    assert counter.read() is None
    path.write_text("max\n")
    assert counter.read() is None
    path.write_text("5\n")
    assert counter.read() == 5
    counter.close()
