"""A request for files works in its own workspace, whoever leaves meanwhile."""

from __future__ import annotations

import asyncio
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broker.errors import UnknownSession
from broker.web.files import FileFace, OneFile
from broker.web.places import Turns
from broker.workspaces import Holding
from kernels.files import Files

SHM = "/dev/shm"  # noqa: S108 - a tmpfs, as workspaces are


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kb-", dir=SHM) as found:
        yield Path(found)


def face(home: Path, kind: type[Any] = FileFace) -> Any:
    """Return a handler that holds the files of a workspace, as after `hold`."""
    made = kind.__new__(kind)
    descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    session: Any = SimpleNamespace(name="s")
    workspace: Any = SimpleNamespace(descriptor=descriptor, changes=None)
    session.workspace = workspace
    made._finished = False
    made.principal = SimpleNamespace(tenant="t")
    made.house = SimpleNamespace(walks=Turns(1, share=1))
    made._holding = Holding(session, workspace)
    os.close(descriptor)
    return made


async def test_who_leaves_does_not_take_the_files_from_under_the_walk(home: Path) -> None:
    (home / "a").write_text("x")
    asker, loop = face(home), asyncio.get_running_loop()
    began, go_on = asyncio.Event(), threading.Event()
    opened = len(os.listdir("/proc/self/fd"))

    def walk(files: Files) -> list[str]:
        loop.call_soon_threadsafe(began.set)
        go_on.wait()
        return [entry.path for entry in files.entries()]

    walking = asyncio.create_task(asker.aside(walk))
    await began.wait()
    asker.on_finish()
    go_on.set()
    assert await walking == ["a"]
    assert len(os.listdir("/proc/self/fd")) < opened


async def test_who_leaves_before_the_turn_comes_has_nothing_walked(home: Path) -> None:
    asker = face(home)
    walked: list[Files] = []
    async with asker.house.walks.of("t"):
        waiting = asyncio.create_task(asker.aside(walked.append))
        await asyncio.sleep(0)
        asker.on_finish()
    with pytest.raises(UnknownSession):
        await waiting
    assert walked == []


async def test_an_upload_that_arrived_is_no_failure_if_its_file_is_gone_again(home: Path) -> None:
    asker = face(home, OneFile)
    answers: list[tuple[Any, int]] = []
    asker.answer = lambda body, status: answers.append((body, status))
    asker._upload = upload = asker._holding.files.write("a")
    upload.write(b"xyz")
    # Its kernel is quicker than we are.
    asker._holding.settle = lambda path: (home / path).unlink()
    await asker.put("s", "a")
    [(body, status)] = answers
    assert (body["path"], body["type"], body["size"], status) == ("a", "file", 3, 201)


async def test_a_file_that_was_renamed_is_told_of_even_if_it_is_gone_again(home: Path) -> None:
    (home / "a").write_text("xyz")
    holding = face(home, OneFile)._holding
    holding.settle = lambda path, new: (home / new).unlink()
    order: Any = SimpleNamespace(move_to="b", directory=False, replace=False)
    body, status = OneFile._changed(face(home, OneFile), holding, "a", order)
    assert (body["path"], body["type"], body["size"], status) == ("b", "file", 3, 200)
