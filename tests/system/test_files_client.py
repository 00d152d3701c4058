"""The Python client and the command send and fetch a session's files, and tell what went wrong."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.client import (
    AsyncBroker,
    BadPath,
    BadRequest,
    Broker,
    FileConflict,
    FileExists,
    NoSuchFile,
    Session,
    UnknownSession,
    WorkspaceFull,
)
from tests.system.conftest import RunningBroker
from tests.system.peer import new_name

MIB = 1 << 20


@pytest.fixture
def session(broker: RunningBroker) -> Iterator[Session]:
    with Broker(broker.url, broker.token).session(new_name("client")) as session:
        yield session


def test_files_go_in_and_come_out(session: Session, tmp_path: Path) -> None:
    local = tmp_path / "in.csv"
    local.write_text("a\n1\n")
    made = session.files.upload(local)
    assert (made.path, made.type, made.size) == ("in.csv", "file", 4)
    assert session.execute("open('in.csv').read()").value == r"'a\n1\n'"
    assert session.files.upload(b"bytes", "d/b").path == "d/b"
    session.files.upload(io.BytesIO(b"xxstream"), "d/s")
    pipe, end = os.pipe()
    os.write(end, b"of unknown length")
    os.close(end)
    with os.fdopen(pipe, "rb", buffering=0) as source:
        assert session.files.upload(source, "d/p").size == 17
    assert [one.path for one in session.files.list("d")] == ["d/b", "d/p", "d/s"]
    assert session.files.read("d/s", start=2, end=5) == b"str"
    assert session.files.read("d/s", start=2, end=2) == b""
    assert list(session.files.stream("d/s", size=3)) == [b"xxs", b"tre", b"am"]
    assert session.files.download("d/b", tmp_path) == tmp_path / "b"
    assert (tmp_path / "b").read_bytes() == b"bytes"
    kept = io.BytesIO()
    session.files.download("d/p", kept)
    assert kept.getvalue() == b"of unknown length"
    assert session.files.move("d/p", "q").path == "q"
    assert session.files.mkdir("e/f").type == "directory"
    session.files.delete("d", recursive=True)
    assert [one.path for one in session.files.iterate() if not one.path.startswith(".")] == [
        "e",
        "in.csv",
        "q",
    ]


def test_each_refusal_is_an_error_of_its_own(session: Session, tmp_path: Path) -> None:
    files = session.files
    files.upload(b"x", "f")
    files.mkdir("d")
    for kind, act in (
        (NoSuchFile, lambda: files.read("none")),
        (BadPath, lambda: files.read("../f")),
        (BadPath, lambda: files.upload(b"x", "/etc/passwd")),
        (FileExists, lambda: files.upload(b"x", "f", replace=False)),
        (FileExists, lambda: files.move("f", "d")),
        (FileConflict, lambda: files.upload(b"x", "d")),
        (FileConflict, lambda: files.read("d")),
        (BadRequest, lambda: files.upload(b"x")),
        (BadRequest, lambda: files.read("f", start=3, end=1)),
        (NoSuchFile, lambda: files.download("none", tmp_path / "none")),
    ):
        with pytest.raises(kind):
            act()
    assert list(tmp_path.iterdir()) == []


def test_an_upload_over_the_bound_is_refused_however_it_is_sent(session: Session) -> None:
    class Endless(io.RawIOBase):
        """More than any workspace holds, and does not say so."""

        sent = 0

        def readable(self) -> bool:
            return True

        def read(self, size: int = -1) -> bytes:
            self.sent += size
            return bytes(size)

    endless: Any = Endless()
    with pytest.raises(WorkspaceFull, match="268,435,456 bytes"):
        session.files.upload(endless, "endless")
    assert endless.sent < 300 * MIB
    sized = io.BytesIO(bytes(300 * MIB))
    with pytest.raises(WorkspaceFull, match="314,572,800 bytes"):
        session.files.upload(sized, "sized")
    assert sized.tell() == 0, "not a byte of it was sent"
    assert [one.path for one in session.files.list() if one.type == "file"] == []


def test_a_large_file_passes_in_pieces(session: Session, tmp_path: Path) -> None:
    local, back, block = tmp_path / "large", tmp_path / "back", os.urandom(MIB)
    with local.open("wb") as file:
        for _ in range(64):
            file.write(block)
    seen: list[tuple[int, int | None]] = []
    session.files.upload(b"", "first")
    tracemalloc.start()
    try:
        session.files.upload(local, on_progress=lambda *told: seen.append(told))
        session.files.download("large", back)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * MIB
    assert (seen[-1], len(seen)) == ((64 * MIB, 64 * MIB), 256)
    digests = [hashlib.sha256(path.read_bytes()).digest() for path in (local, back)]
    assert digests[0] == digests[1]


async def test_the_same_for_asyncio(broker: RunningBroker, tmp_path: Path) -> None:
    client = AsyncBroker(broker.url, broker.token)
    async with client.session(new_name("client")) as session:
        await session.files.upload(b"0123456789", "f")
        assert [piece async for piece in session.files.stream("f", size=4)] == [
            b"0123",
            b"4567",
            b"89",
        ]
        uploads = (session.files.upload(bytes(MIB), f"d/{number}") for number in range(8))
        await asyncio.gather(*uploads)
        assert len(await session.files.list("d")) == 8
        assert await session.files.download("f", tmp_path / "f") == tmp_path / "f"
        await session.files.move("f", "g")
        assert await session.files.read("g", start=8) == b"89"
        assert (await session.files.mkdir("e")).type == "directory"
        await session.files.delete("d", recursive=True)
        with pytest.raises(NoSuchFile):
            await session.files.list("d")
        assert await client.files(session.name).read("g") == b"0123456789"


def test_files_of_a_session_by_name_start_none(broker: RunningBroker) -> None:
    files = Broker(broker.url, broker.token).files(new_name())
    with pytest.raises(UnknownSession):
        files.list()


def test_a_name_that_is_no_utf_8_goes_both_ways(session: Session) -> None:
    session.execute("open(b'odd\\xff', 'w').write('here')")
    (name,) = [one.path for one in session.files.list() if one.path.startswith("odd")]
    assert name == os.fsdecode(b"odd\xff")
    assert session.files.read(name) == b"here"
    session.execute(
        "import os; os.mkdir(b'\\xff')\nfor i in range(1010): open(b'\\xff/%d\\xfe' % i, 'w')"
    )
    assert len(session.files.list("\udcff")) == 1010
    session.files.move(name, "even")
    assert session.files.read("even") == b"here"
    session.files.delete("\udcff", recursive=True)


def test_the_command_lists_fetches_sends_renames_and_removes(
    broker: RunningBroker, session: Session, tmp_path: Path
) -> None:
    local = tmp_path / "in.txt"
    local.write_text("text")
    name = session.name
    assert broker.cli("files", name, "put", str(local), "d/").returncode == 0
    assert broker.cli("files", name, "put", "-", "given", stdin="of a pipe").returncode == 0
    session.execute("open('bad\\x1b[31m', 'w').close(); open('.hidden', 'w').close()")
    listed = broker.cli("files", name, "ls", "-r").stdout
    assert [line.split()[0] for line in listed.splitlines()] == [
        "PATH",
        "bad?[31m",
        "d/",
        "d/in.txt",
        "given",
    ]
    told = json.loads(broker.cli("files", name, "ls", "d", "--json").stdout)
    assert [(row["path"], row["size"]) for row in told["files"]] == [("d/in.txt", 4)]
    assert broker.cli("files", name, "get", "given", "-").stdout == "of a pipe"
    assert broker.cli("files", name, "get", "d/in.txt", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out").read_text() == "text"
    assert broker.cli("files", name, "mv", "given", "d/g").returncode == 0
    refused = broker.cli("files", name, "put", str(local), "d/g", "--new")
    assert (refused.returncode, "file_exists" in refused.stderr) == (1, False)
    assert "d/g" in refused.stderr
    assert broker.cli("files", name, "rm", "d").returncode == 1
    assert broker.cli("files", name, "rm", "-r", "d").returncode == 0
    missing = broker.cli("files", name, "put", str(tmp_path / "none"))
    assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)


def test_the_command_lists_what_is_in_a_folder_whose_own_name_is_hidden(
    broker: RunningBroker, session: Session
) -> None:
    for path in (".outputs/1.txt", ".outputs/.kept", ".outputs/d/.e/2.txt"):
        session.files.upload(b"x", path)

    def listed(*arguments: str) -> list[str]:
        answer = broker.cli("files", session.name, "ls", *arguments, "--json")
        return [one["path"] for one in json.loads(answer.stdout)["files"]]

    for folder in (".outputs", "./.outputs/"):
        assert listed(folder) == [".outputs/1.txt", ".outputs/d"]
    assert listed(".outputs", "--recursive") == [".outputs/1.txt", ".outputs/d"]
    assert listed() == []
    assert ".outputs/.kept" in listed(".outputs", "--all")
