"""A file is opened below a directory, or not at all, whatever its owner does meanwhile."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import stat
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.errors import UnsafePath
from kernels.safe_open import open_beneath
from kernels.sandbox import system

NOBODY = 65534
SECRET = b"of the host"
REASONS = {"bad name", "outside", "symlink", "missing", "not a regular file"}
IS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root may mount and make device nodes")


class Place:
    """A workspace that a stranger has filled, and what lies outside of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.outside = root / "outside"
        self.outside.mkdir()
        (self.outside / "secret").write_bytes(SECRET)
        self.home = root / "home"
        (self.home / "folder" / "deeper").mkdir(parents=True)
        (self.home / "good").write_bytes(b"good")
        (self.home / "folder" / "deeper" / "good").write_bytes(b"deep")

    def read(self, path: str) -> bytes:
        directory = os.open(self.home, os.O_PATH | os.O_DIRECTORY)
        try:
            with os.fdopen(open_beneath(directory, path), "rb") as file:
                return file.read()
        finally:
            os.close(directory)

    def reason(self, path: str) -> str:
        """Return why a path is not opened; fail if it is."""
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(UnsafePath) as refused:
            self.read(path)
        assert len(os.listdir("/proc/self/fd")) == before, "a descriptor was left open"
        assert refused.value.path == path
        return refused.value.reason


@pytest.fixture
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory(prefix="kb-") as root:
        yield Place(Path(root))


def good_files(place: Place) -> None:
    assert place.read("good") == b"good"
    assert place.read("folder/deeper/good") == b"deep"
    assert place.read("./folder//deeper/./good") == b"deep"
    name = "ü \udc80\n…"  # any bytes but `/` and NUL
    (place.home / name).write_bytes(b"odd")
    assert place.read(name) == b"odd"
    (place.home / ("x" * 255)).write_bytes(b"long")
    assert place.read("x" * 255) == b"long"


def link_out(place: Place) -> None:
    (place.home / "link").symlink_to(place.outside / "secret")
    assert place.reason("link") == "symlink"
    (place.home / "relative").symlink_to("../outside/secret")
    assert place.reason("relative") == "symlink"


def link_within(place: Place) -> None:
    (place.home / "link").symlink_to("good")
    assert place.reason("link") == "symlink"
    (place.home / "loop").symlink_to("loop")
    assert place.reason("loop") == "symlink"


def linked_parent(place: Place) -> None:
    (place.home / "parent").symlink_to(place.outside)
    assert place.reason("parent/secret") == "symlink"
    (place.home / "within").symlink_to("folder")
    assert place.reason("within/deeper/good") == "symlink"


def path_outside(place: Place) -> None:
    for path in ("..", "../outside/secret", "folder/../good", "folder/../../outside/secret"):
        assert place.reason(path) == "outside"
    for path in ("/", "/etc/passwd", "//etc/passwd", str(place.home / "good")):
        assert place.reason(path) == "outside"


def bad_name(place: Place) -> None:
    for path in ("", "good\0", "\0", "\ud800", "x" * 256, "a/" * 2048, "x/" * 100_000):
        assert place.reason(path) == "bad name"


def missing(place: Place) -> None:
    for path in ("none", "none/good", "good/below", "good/", "a/" * 2047):
        assert place.reason(path) == "missing"


def directory_itself(place: Place) -> None:
    for path in (".", "./", "folder", "folder/deeper/", "folder/."):
        assert place.reason(path) == "not a regular file"


def fifo(place: Place) -> None:
    os.mkfifo(place.home / "fifo")
    assert place.reason("fifo") == "not a regular file"  # and returned: nobody writes to it


def unix_socket(place: Place) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place.home / "socket"))
        listener.listen()
        assert place.reason("socket") == "not a regular file"


def hard_link(place: Place) -> None:
    os.link(place.outside / "secret", place.home / "second")
    assert place.reason("second") == "hard link"
    os.unlink(place.outside / "secret")
    assert place.read("second") == SECRET  # its only name now


def leased(place: Place) -> None:
    """A lease would have whoever opens the file wait for `lease-break-time`, 45 s."""
    holder = os.open(place.home / "good", os.O_RDWR)
    fcntl.fcntl(holder, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    fcntl.fcntl(holder, fcntl.F_SETOWN, 0)  # nobody is told, so nobody gives it back
    assert place.reason("good") == "busy"
    os.close(holder)
    assert place.read("good") == b"good"


def not_inherited_and_not_writable(place: Place) -> None:
    directory = os.open(place.home, os.O_PATH | os.O_DIRECTORY)
    descriptor = open_beneath(directory, "good")
    assert not os.get_inheritable(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.write(descriptor, b"x")
    os.close(descriptor)
    os.close(directory)


CASES = (
    good_files,
    link_out,
    link_within,
    linked_parent,
    path_outside,
    bad_name,
    missing,
    directory_itself,
    fifo,
    unix_socket,
    hard_link,
    leased,
    not_inherited_and_not_writable,
)


def in_a_child(work: Callable[[], None]) -> None:
    """Run in a process of its own, for what cannot be taken back; its failure is ours."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        told = b""
        try:
            work()
        except BaseException:
            told = traceback.format_exc().encode()[-60_000:]
        os.write(writer, told)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert (status, told.decode()) == (0, "")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_only_a_plain_file_below_the_directory_is_opened(place: Place, case) -> None:
    case(place)


@pytest.mark.skipif(not IS_ROOT, reason="an ordinary user runs these cases anyway")
def test_the_same_holds_for_an_ordinary_user() -> None:
    def work() -> None:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        for case in (*CASES, unreadable):
            root = tempfile.mkdtemp(prefix="kb-")
            case(Place(Path(root)))
            os.chmod(Path(root) / "home" / "folder", 0o700)
            shutil.rmtree(root)

    in_a_child(work)


def unreadable(place: Place) -> None:
    (place.home / "good").chmod(0)
    assert place.reason("good") == "not allowed"
    (place.home / "folder").chmod(0)
    assert place.reason("folder/deeper/good") == "not allowed"


def test_a_magic_link_of_proc_leads_nowhere(place: Place) -> None:
    with open(place.outside / "secret", "rb") as secret:
        directory = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY)
        for path in (f"fd/{secret.fileno()}", "exe", "cwd/secret", "root/etc/passwd"):
            with pytest.raises(UnsafePath) as refused:
                open_beneath(directory, path)
            assert refused.value.reason == "symlink"
        os.close(directory)


@needs_root
def test_a_device_is_not_opened(place: Place) -> None:
    driven, undriven = os.makedev(1, 3), os.makedev(4095, 0)
    for number, kind in ((driven, stat.S_IFCHR), (undriven, stat.S_IFBLK)):
        try:
            os.mknod(place.home / f"device-{kind}", kind | 0o666, number)
        except PermissionError:
            pytest.skip("this root may not make device nodes")
        assert place.reason(f"device-{kind}") == "not a regular file"


@needs_root
def test_what_is_mounted_below_is_not_entered(place: Place) -> None:
    def work() -> None:
        system.unshare(system.CLONE_NEWNS)
        system.mount("none", "/", flags=system.MS_REC | system.MS_PRIVATE)
        system.mount("tmpfs", str(place.home / "folder"), "tmpfs")
        (place.home / "folder" / "file").write_bytes(SECRET)
        assert place.reason("folder/file") == "another mount"
        file = str(place.home / "good")
        system.mount(str(place.outside / "secret"), file, flags=system.MS_BIND)
        assert place.reason("good") == "another mount"
        # A descriptor of the mount itself is where it begins, and not a crossing.
        directory = os.open(place.home / "folder", os.O_PATH | os.O_DIRECTORY)
        os.close(open_beneath(directory, "file"))

    in_a_child(work)


@pytest.mark.parametrize("swapped", ["file", "parent"])
def test_whoever_exchanges_names_meanwhile_gains_nothing(place: Place, swapped: str) -> None:
    """The names flip between a good file and a link out, thousands of times, as we open."""
    if swapped == "file":
        path, name = "flip", place.home / "flip"
        target: Path = place.outside / "secret"
        (place.home / "honest").write_bytes(b"honest")
    else:
        path, name = "flip/secret", place.home / "flip"
        target = place.outside
        (place.home / "honest").mkdir()
        (place.home / "honest" / "secret").write_bytes(b"honest")
    os.rename(place.home / "honest", name)
    link, aside, stop = place.home / "link", place.home / "aside", threading.Event()
    link.symlink_to(target)

    def flip() -> None:
        while not stop.is_set():
            os.rename(name, aside)
            os.rename(link, name)
            os.rename(name, link)
            os.rename(aside, name)

    flipper = threading.Thread(target=flip)
    flipper.start()
    seen = set()
    try:
        for _ in range(20_000):
            try:
                seen.add(place.read(path))
            except UnsafePath as refused:
                seen.add(refused.reason.encode())
    finally:
        stop.set()
        flipper.join()
    assert SECRET not in seen
    assert b"honest" in seen
    assert seen <= {b"honest", b"symlink", b"missing", b"busy"}
    assert len(seen) > 1, "the names were never exchanged while we looked"


@given(st.lists(st.sampled_from(["..", ".", "", "a", "link", "good", "folder", "\0"]), max_size=6))
def test_no_spelling_of_a_path_leads_out(parts: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="kb-") as root:
        place = Place(Path(root))
        (place.home / "link").symlink_to("..")
        (place.home / "secret").symlink_to("../outside/secret")
        for path in ("/".join(parts), "/".join([*parts, "outside", "secret"])):
            try:
                found = place.read(path).decode()
            except UnsafePath as refused:
                found = refused.reason
            assert found in {"good", *REASONS}


def test_the_message_names_the_path_and_stays_short(place: Place) -> None:
    with pytest.raises(UnsafePath, match=r"'none' is not opened: missing"):
        place.read("none")
    with pytest.raises(UnsafePath) as refused:
        place.read("x" * 1_000_000)
    assert len(str(refused.value)) < 300


def test_the_hosts_own_fault_is_not_the_paths() -> None:
    with pytest.raises(OSError, match="openat2"):
        open_beneath(10_000, "good")
