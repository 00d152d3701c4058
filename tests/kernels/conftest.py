"""Launchers in short directories, with and without a sandbox, and kernels of them to talk to."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from kernels.inside.peers import Peer
from kernels.inside.session import KernelSession
from kernels.launch import Launcher
from kernels.sandbox import system
from kernels.spec import KernelSpec
from tests.kernels.sandbox.children import failure, in_child
from tests.kernels.talk import LIGHT, Talk, launching, talking
from tests.kernels.wires import PATIENCE, Threaded


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


@pytest.fixture(scope="module")
def spec() -> KernelSpec:
    """Return what a module's kernels are; a module that wants another has its own."""
    return LIGHT


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def launcher(
    module_directory: Path, isolation: str, spec: KernelSpec
) -> AsyncIterator[Launcher]:
    """Yield a launcher for all tests of a module."""
    async with launching(module_directory, isolation, spec) as launcher:
        yield launcher


@pytest_asyncio.fixture(loop_scope="module")
async def talk(launcher: Launcher) -> AsyncIterator[Talk]:
    """Yield a talk with a kernel of the test's own."""
    async with talking(launcher) as talk:
        yield talk


@pytest.fixture
def python_with(directory: Path) -> Callable[..., str]:
    """Return a function that makes an interpreter with our libraries and the given packages."""
    from tests.kernels.interpreters import make

    return lambda **packages: make(directory / "venv", packages)


@pytest.fixture
def control() -> Iterator[Threaded]:
    """Run a loop on a thread of its own."""
    control = Threaded()
    yield control
    control.close()


@pytest.fixture
def session() -> KernelSession:
    """Return what makes a kernel's messages."""
    session = KernelSession()
    session.begin(b"key")
    return session


@pytest.fixture
def ends(control: Threaded) -> Iterator[tuple[Peer, socket.socket]]:
    """Yield a peer and the other end of its socket."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE)
    peer = Peer(ours, b"XPUB", control.loop)
    yield peer, theirs
    theirs.close()
    control.call(peer.close)
