"""Launchers in short directories, and kernels of them to talk to."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def directory() -> Iterator[Path]:
    """Yield a directory of its own with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="kb-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture(scope="module")
def module_directory() -> Iterator[Path]:
    """Yield the like for all tests of a module."""
    with tempfile.TemporaryDirectory(prefix="kb-", ignore_cleanup_errors=True) as path:
        yield Path(path)
