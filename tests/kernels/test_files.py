"""A stranger's files are read, written, moved and removed in their place, or not at all."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.errors import NoRoom, UnsafePath
from kernels.files import Files
from kernels.sandbox import system
from kernels.walk import PREFIX

IS_ROOT = os.geteuid() == 0
SHM = "/dev/shm"  # noqa: S108 - a tmpfs, as workspaces are
EXCHANGE = 2  # RENAME_EXCHANGE, linux/fs.h
OWNER = 65534 if IS_ROOT else os.geteuid()
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root may mount and be somebody else")


class Place:
    """A workspace of somebody else's, and what lies outside of it."""

    def __init__(self, root: Path) -> None:
        self.outside = root / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_bytes(b"of the host")
        self.home = root / "home"
        self.home.mkdir()
        if IS_ROOT:
            os.chmod(root, 0o711)  # noqa: S103 - its kernel is to come through
            os.chown(self.home, OWNER, OWNER)
        directory = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY)
        self.files = Files(directory)
        os.close(directory)

    def put(self, path: str, data: bytes = b"new", *, replace: bool = True) -> bool:
        upload = self.files.write(path, replace=replace)
        try:
            upload.write(data)
            return upload.commit()
        finally:
            upload.abort()

    def get(self, path: str) -> bytes:
        with os.fdopen(self.files.open(path).descriptor, "rb") as file:
            return file.read()

    def paths(self, path: str = "", *, recursive: bool = True) -> list[str]:
        return [entry.path for entry in self.files.entries(path, recursive=recursive)]

    def reason(self, act: Callable[[], object]) -> str:
        """Return why something is refused; fail if it is not, or if it leaves anything."""
        opened = len(os.listdir("/proc/self/fd"))
        with pytest.raises(UnsafePath) as refused:
            act()
        assert len(os.listdir("/proc/self/fd")) <= opened, "a descriptor was left open"
        assert not [name for name in os.listdir(self.home) if name.startswith(PREFIX)]
        return refused.value.reason


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="kb-", dir=SHM) as root:
        found = Place(Path(root))
        yield found
        found.files.close()
        assert (found.outside / "secret").read_bytes() == b"of the host"
        assert os.listdir(found.outside) == ["secret"]


def test_what_is_written_is_there_and_belongs_to_the_kernel(place: Place) -> None:
    assert place.put("a/b/c.txt", b"one")
    assert not place.put("a/b/c.txt", b"two")
    assert place.get("a//./b/c.txt") == b"two"
    assert place.files.entry("a//./b/c.txt").path == "a/b/c.txt"
    for path in ("a", "a/b", "a/b/c.txt"):
        status = (place.home / path).stat()
        assert (status.st_uid, status.st_gid) == (OWNER, OWNER if IS_ROOT else os.getegid())


def test_a_half_upload_is_never_seen_and_leaves_nothing(place: Place) -> None:
    place.put("kept", b"old")
    upload = place.files.write("kept")
    upload.write(b"half")
    assert place.get("kept") == b"old"
    assert place.paths() == ["kept"]
    upload.abort()
    upload.abort()
    assert os.listdir(place.home) == ["kept"]


def test_create_only_replaces_nothing_even_what_came_meanwhile(place: Place) -> None:
    upload = place.files.write("a", replace=False)
    upload.write(b"mine")
    (place.home / "a").write_bytes(b"theirs")
    assert place.reason(upload.commit) == "exists"
    assert place.reason(lambda: place.put("a", replace=False)) == "exists"
    assert place.get("a") == b"theirs"


HOSTILE = {
    "..": "outside",
    "../x": "outside",
    "a/../x": "outside",
    "/x": "outside",
    "/": "outside",
    "": "bad name",
    ".": "bad name",
    "a\0b": "bad name",
    "\ud800": "bad name",
    "x" * 256: "bad name",
    "a/" * 2100: "bad name",
    "link/x": "symlink",
    "within/x": "symlink",
    "plain/x": "not a directory",
}


@pytest.mark.parametrize("path", HOSTILE, ids=lambda path: ascii(path[:12]))
def test_bad_paths_are_refused_with_a_reason_whatever_is_asked(place: Place, path: str) -> None:
    (place.home / "link").symlink_to(place.outside)
    (place.home / "within").symlink_to("folder")
    place.put("folder/x")
    place.put("plain")
    files = place.files
    acts: list[Callable[[], object]] = [
        lambda: place.put(path),
        lambda: files.make_directory(path),
        lambda: files.remove(path, recursive=True),
        lambda: files.move(path, "elsewhere"),
        lambda: files.move("plain", path),
        lambda: files.entry(path),
    ]
    assert {place.reason(act) for act in acts} == {HOSTILE[path]}
    assert place.get("plain") == b"new"
    if path not in ("", "."):
        assert place.reason(lambda: files.entries(path)) == HOSTILE[path]


def test_only_plain_files_are_replaced(place: Place) -> None:
    (place.home / "link").symlink_to(place.outside / "secret")
    os.mkfifo(place.home / "fifo")
    os.link(place.outside / "secret", place.home / "second")
    (place.home / "folder").mkdir()
    asked = {
        name: place.reason(lambda name=name: place.put(name)) for name in os.listdir(place.home)
    }
    assert asked == {
        "link": "symlink",
        "fifo": "not a regular file",
        "second": "hard link",
        "folder": "is a directory",
    }
    for name in ("link", "fifo", "second"):
        place.files.remove(name)
    assert place.reason(lambda: place.files.open("folder")) == "is a directory"


def test_removing_a_link_removes_the_link(place: Place) -> None:
    (place.home / "folder").mkdir()
    (place.home / "folder" / "link").symlink_to(place.outside)
    (place.home / "link").symlink_to(place.outside)
    if IS_ROOT:
        os.chown(place.home / "folder", OWNER, OWNER)
    place.files.remove("link")
    assert place.reason(lambda: place.files.remove("folder")) == "not empty"
    place.files.remove("folder", recursive=True)
    assert os.listdir(place.home) == []
    assert place.reason(lambda: place.files.remove("folder")) == "missing"


def test_moving_overwrites_only_when_told(place: Place) -> None:
    place.put("a/b", b"one")
    place.put("c", b"two")
    assert place.reason(lambda: place.files.move("a/b", "c")) == "exists"
    place.files.move("a/b", "new/place")
    place.files.move("new/place", "c", replace=True)
    assert place.get("c") == b"one"
    assert place.reason(lambda: place.files.move("a", "a/b/c")) == "into itself"
    assert place.reason(lambda: place.files.move("none", "x")) == "missing"
    assert place.files.make_directory("d/e")
    assert not place.files.make_directory("d/e")
    place.files.move("d", "f")
    assert place.paths() == ["a", "a/b", "c", "f", "f/e", "new"]


def test_pages_of_a_listing_are_the_listing(place: Place) -> None:
    for number in range(7):
        place.put(f"d{number % 3}/e{number}/file", b"x" * number)
        place.put(f"top{number}")
    place.put("d1/e1.txt")
    (place.home / "link").symlink_to(place.outside)
    for recursive in (True, False):
        whole = place.files.entries(recursive=recursive)
        assert len({entry.path for entry in whole}) == len(whole)
        for limit in (1, 2, 5, 100):
            pages, after = [], ""
            while page := place.files.entries(recursive=recursive, after=after, limit=limit):
                assert len(page) <= limit
                pages += page
                after = page[-1].path
            assert pages == whole
    assert "link/secret" not in place.paths()
    assert place.paths("d1") == ["d1/e1", "d1/e1/file", "d1/e1.txt", "d1/e4", "d1/e4/file"]
    kinds = {entry.path: entry.kind for entry in place.files.entries()}
    assert (kinds["link"], kinds["d1"], kinds["top1"]) == ("symlink", "directory", "file")


def test_a_hundred_thousand_names_are_listed_in_pages(place: Place) -> None:
    folder = place.home / "many"
    folder.mkdir(mode=0o755)
    for number in range(100_000):
        os.symlink("x", folder / f"{number:06}")
    page = place.files.entries("many", limit=1001)
    assert (len(page), page[-1].path) == (1001, "many/001000")
    assert place.files.entries("many", after="many/099998")[-1].path == "many/099999"
    if IS_ROOT:
        os.chown(folder, OWNER, OWNER)
    place.files.remove("many", recursive=True)
    assert os.listdir(place.home) == []


def test_a_tree_ten_thousand_deep_is_removed(place: Place) -> None:
    place.files.make_directory("deep")
    here = os.open(place.home / "deep", os.O_RDONLY | os.O_DIRECTORY)
    for number in range(10_000):
        os.mkdir("d", 0o755, dir_fd=here)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=here))
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.fchown(below, OWNER, -1)
        if number % 100 == 0:
            os.fchmod(below, 0o500)
        os.close(here)
        here = below
    os.close(here)
    listed = place.files.entries("deep", recursive=True, limit=10_000)
    assert 3000 < len(listed) <= 2 * 2048, "what no path can name is left out"
    place.files.remove("deep", recursive=True)
    assert os.listdir(place.home) == []


@needs_root
@pytest.mark.parametrize("bound", ["bytes", "files"])
def test_the_workspaces_own_bound_is_named(place: Place, bound: str) -> None:
    options = "size=64k" if bound == "bytes" else "size=1m,nr_inodes=4"
    system.mount("tmp", str(place.home), "tmpfs", 0, f"{options},mode=700,uid={OWNER},gid={OWNER}")
    try:
        directory = os.open(place.home, os.O_RDONLY | os.O_DIRECTORY)
        files = Files(directory)
        os.close(directory)
        upload = files.write("one")
        acts = {
            "bytes": lambda: upload.write(b"x" * 70_000),
            "files": lambda: files.make_directory("a/b/c/d"),
        }
        with pytest.raises(NoRoom, match=r"65,536 bytes|4 files") as refused:
            acts[bound]()
        assert refused.value.bound == bound
        upload.abort()
        assert not [name for name in os.listdir(place.home) if name.startswith(PREFIX)]
        files.close()
    finally:
        system.umount(str(place.home))


def test_what_another_process_has_left_unfinished_is_swept_and_nothing_else(place: Place) -> None:
    left = [f"{PREFIX}{'0a' * 8}", f"{PREFIX}{'1b' * 12}"]
    (place.home / left[0]).write_bytes(b"half a file")
    (place.home / left[1] / "below").mkdir(parents=True)
    (place.home / left[1] / "below" / "file").write_bytes(b"half removed")
    kept = [f"{PREFIX}notes", f"{PREFIX}{'0A' * 8}", "file"]
    for name in kept:
        (place.home / name).write_bytes(b"somebody's")
    for path in (place.home / left[1]).rglob("*"):
        os.chown(path, OWNER, OWNER)
    os.chown(place.home / left[1], OWNER, OWNER)
    upload = place.files.write("mine")
    upload.write(b"under way")
    assert place.files.sweep() == 2
    assert place.files.sweep() == 0
    assert upload.commit()
    assert sorted(os.listdir(place.home)) == sorted([*kept, "mine"])


def test_a_sweep_takes_no_more_than_it_is_told(place: Place) -> None:
    for number in range(5):
        (place.home / f"{PREFIX}{number:016x}").write_bytes(b"x")
    assert [place.files.sweep(most=3) for _ in range(3)] == [3, 2, 0]


@needs_root
def test_what_the_kernel_could_not_read_or_change_neither_can_we(place: Place) -> None:
    (place.home / "roots").mkdir(mode=0o755)
    (place.home / "roots" / "file").write_bytes(b"x")
    os.chmod(place.home / "roots" / "file", 0o600)
    assert place.reason(lambda: place.get("roots/file")) == "not allowed"
    assert place.reason(lambda: place.put("roots/new")) == "not allowed"
    assert os.stat("/proc/self/fd").st_uid == 0, "our own rights are back"


@pytest.mark.parametrize("act", ["write", "remove", "move", "list"])
def test_whoever_exchanges_directories_meanwhile_leads_nobody_out(place: Place, act: str) -> None:
    """A directory and a link out of the workspace change places, thousands of times."""
    name, link = os.fsencode(place.home / "flip"), os.fsencode(place.home / "link")
    place.files.make_directory("flip/sub")
    os.symlink(place.outside, link)
    for below in ("sub/secret", "secret"):
        place.put(f"flip/{below}", b"honest")
    stop = threading.Event()

    def flip() -> None:
        while not stop.is_set():
            system.syscall("renameat2", system.AT_FDCWD, name, system.AT_FDCWD, link, EXCHANGE)

    flipper = threading.Thread(target=flip)
    flipper.start()
    done, reasons = 0, set()
    try:
        for number in range(2000):
            try:
                _flipped(place, act, number)
                done += 1
            except UnsafePath as error:
                reasons.add(error.reason)
                with suppress(UnsafePath):
                    place.put("flip/secret", b"honest")
    finally:
        stop.set()
        flipper.join()
    assert done
    assert reasons, "the names were never exchanged while we looked"
    assert reasons <= {"symlink", "missing", "busy"}


def _flipped(place: Place, act: str, number: int) -> None:
    if act == "write":
        place.put("flip/secret", b"honest")
    elif act == "remove":
        place.files.remove("flip/secret")
        place.put("flip/secret", b"honest")
    elif act == "move":
        place.files.move("flip/secret", f"flip/sub/{number}")
        place.files.move(f"flip/sub/{number}", "flip/secret")
    else:
        found = place.files.entries("flip", recursive=True)
        assert {entry.size for entry in found if entry.kind == "file"} <= {6}


@given(st.lists(st.sampled_from(["..", ".", "", "a", "link", "up", "\0", "ü"]), max_size=6))
def test_no_spelling_of_a_path_writes_or_removes_outside(parts: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="kb-", dir=SHM) as root:
        place = Place(Path(root))
        (place.home / "link").symlink_to("..")
        (place.home / "up").symlink_to("../outside/secret")
        for path in ("/".join(parts), "/".join([*parts, "outside", "secret"])):
            with suppress(UnsafePath):
                place.put(path, b"overwritten")
            with suppress(UnsafePath):
                place.files.move(path, "stolen", replace=True)
            with suppress(UnsafePath):
                place.files.remove(path, recursive=True)
        place.files.close()
        assert (place.outside / "secret").read_bytes() == b"of the host"
        assert sorted(os.listdir(root)) == ["home", "outside"]
