"""Launchers in short directories, with and without a sandbox, and kernels of them to talk to."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kernels.sandbox import system
from tests.kernels.sandbox.children import failure, in_child


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


@pytest.fixture(scope="session")
def sandboxed() -> str:
    """Return the isolation to ask for: the best there is. Skips where no sandbox can be made."""
    flags = system.CLONE_NEWNS if os.geteuid() == 0 else system.CLONE_NEWUSER | system.CLONE_NEWNS
    if refusal := in_child(lambda: failure(system.unshare, flags)):
        pytest.skip(f"no sandbox can be made here: unshare says {refusal}")
    return "standard"


@pytest.fixture(scope="module", params=["none", "standard"])
def isolation(request: pytest.FixtureRequest) -> str:
    """Run the test without a sandbox, and in the best one of this host."""
    if request.param == "none":
        return "none"
    return str(request.getfixturevalue("sandboxed"))


@pytest.fixture
def python_with(directory: Path) -> Callable[..., str]:
    """Return a function that makes an interpreter with our libraries and the given packages."""
    from tests.kernels.interpreters import make

    return lambda **packages: make(directory / "venv", packages)
