"""Landlock: what stays reachable, and that no ABI is asked for what it does not know."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from kernels.sandbox import landlock
from tests.kernels.sandbox.children import failure, in_child, no_new_privileges

ABI = landlock.abi()
pytestmark = pytest.mark.skipif(ABI == 0, reason="this Linux has no Landlock")
SYSTEM = ("/usr", "/bin", "/lib", "/lib64", sys.base_prefix, sys.prefix, "/nowhere")


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "file").write_text("outside")
    return directory


@pytest.fixture
def readable(tmp_path: Path) -> Path:
    directory = tmp_path / "readable"
    directory.mkdir()
    (directory / "file").write_text("readable")
    return directory


@pytest.fixture
def home(tmp_path: Path) -> Path:
    directory = tmp_path / "home"
    directory.mkdir()
    return directory


def restricted(act: Callable[[], object], *readable: Path, home: Path) -> object:
    def do() -> object:
        no_new_privileges()
        paths = [str(path) for path in readable]
        assert landlock.restrict((*SYSTEM, *paths), [str(home)], ["/dev/null"]) == ABI
        return act()

    return in_child(do)


def test_what_is_not_named_cannot_be_reached(outside: Path, readable: Path, home: Path) -> None:
    def attempts() -> list[str]:
        return [
            failure((outside / "file").read_text),
            failure(os.listdir, outside),
            failure((outside / "new").touch),
            failure((outside / "file").unlink),
            failure(os.link, readable / "file", home / "link"),
            failure(os.rename, outside / "file", home / "taken"),
        ]

    assert set(in_child(lambda: [failure((outside / "file").read_text)])) == {""}
    refusals = restricted(attempts, readable, home=home)
    assert isinstance(refusals, list)
    assert set(refusals) <= {"EACCES", "EXDEV"}
    assert (outside / "file").exists()


def test_what_is_readable_can_be_read_and_executed_but_not_changed(
    readable: Path, home: Path
) -> None:
    shutil.copy("/bin/true", readable / "true")

    def attempts() -> list[str]:
        assert (readable / "file").read_text() == "readable"
        assert sorted(os.listdir(readable)) == ["file", "true"]
        subprocess.run([str(readable / "true")], check=True, stdin=0)
        return [
            failure((readable / "file").write_text, "x"),
            failure((readable / "new").touch),
            failure((readable / "new").mkdir),
            failure((readable / "file").unlink),
            failure(os.mkfifo, readable / "new"),
            failure(os.symlink, "file", readable / "new"),
        ]

    assert restricted(attempts, readable, home=home) == ["EACCES"] * 6


def test_a_single_file_can_be_readable(readable: Path, home: Path) -> None:
    def attempts() -> list[str]:
        return [failure((readable / "file").read_text), failure(os.listdir, readable)]

    assert restricted(attempts, readable / "file", home=home) == ["", "EACCES"]


def test_anything_but_devices_can_be_made_in_the_home(home: Path) -> None:
    def attempts() -> list[str]:
        (home / "directory").mkdir()
        (home / "file").write_text("text")
        (home / "file").chmod(0o700)
        os.truncate(home / "file", 2)
        os.mkfifo(home / "fifo")
        (home / "link").symlink_to("file")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(home / "socket"))
        shutil.copy("/bin/true", home / "true")
        subprocess.run([str(home / "true")], check=True, stdin=0)
        if ABI >= 2:  # the first could not tell a move between directories from an escape
            (home / "file").rename(home / "directory" / "file")
        shutil.rmtree(home / "directory")
        return [
            failure(os.mknod, home / "device", kind | 0o600, os.makedev(7, 7))
            for kind in (stat.S_IFCHR, stat.S_IFBLK)
        ]

    # Landlock is asked before CAP_MKNOD, whose lack would be EPERM.
    assert restricted(attempts, home=home) == ["EACCES"] * 2


def test_devices_can_be_read_and_written(home: Path) -> None:
    def attempts() -> list[str]:
        with open("/dev/null", "w") as null:
            null.write("x")
        return [failure(os.open, "/dev/zero", os.O_RDONLY)]

    assert restricted(attempts, home=home) == ["EACCES"]


def test_a_server_on_localhost_works(home: Path) -> None:
    def talk() -> bytes:
        with socket.create_server(("127.0.0.1", 0)) as server:
            near = socket.create_connection(server.getsockname())
            far, _ = server.accept()
            with near, far:
                near.send(b"a")
                return far.recv(1)

    assert restricted(talk, home=home) == b"a"


@pytest.mark.skipif(ABI < 6, reason=f"ABI {ABI} scopes neither signals nor sockets")
def test_signals_reach_ones_own_children_and_threads_but_nobody_else(home: Path) -> None:
    tests = os.getpid()

    def attempts() -> tuple[list[str], int]:
        child = subprocess.Popen(["/bin/sleep", "60"], stdin=0)
        done = threading.Event()
        thread = threading.Thread(target=done.wait, args=[10])
        thread.start()
        signal.pthread_kill(thread.ident or 0, 0)
        done.set()
        said = [failure(child.kill), failure(os.kill, os.getpid(), 0), failure(os.kill, tests, 0)]
        return said, child.wait()

    assert restricted(attempts, home=home) == (["", "", "EPERM"], -signal.SIGKILL)


@pytest.mark.skipif(ABI < 6, reason=f"ABI {ABI} scopes neither signals nor sockets")
def test_abstract_sockets_reach_ones_own_but_nobody_elses(home: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind("")  # autobind: an abstract name of the kernel's choice
        other.listen()
        name = other.getsockname()

        def attempts() -> list[str]:
            own = socket.socket(socket.AF_UNIX)
            own.bind("")
            own.listen()
            return [
                failure(socket.socket(socket.AF_UNIX).connect, target)
                for target in (own.getsockname(), name)
            ]

        assert in_child(attempts) == ["", ""]
        assert restricted(attempts, home=home) == ["", "EPERM"]


def test_a_process_that_could_gain_privileges_cannot_be_restricted_unless_it_is_root() -> None:
    if os.geteuid() == 0:
        pytest.skip("root may do without NO_NEW_PRIVS")
    assert in_child(lambda: failure(landlock.restrict, [], [], [])) == "EPERM"


RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16, 6: 16, 7: 16}  # linux/landlock.h: bits by ABI


@pytest.mark.parametrize("version", RIGHTS)
def test_an_abi_is_asked_only_for_the_rights_it_knows(version: int) -> None:
    assert landlock.rights(version) == (1 << RIGHTS[version]) - 1


def test_no_more_than_the_rights_of_a_file_are_asked_for_devices() -> None:
    assert landlock.DEVICE & ~landlock.OF_A_FILE == 0
    assert landlock.WRITABLE & (landlock.MAKE_CHAR | landlock.MAKE_BLOCK | landlock.IOCTL_DEV) == 0


def test_no_descriptor_stays_open(home: Path) -> None:
    def count() -> int:
        before = set(os.listdir("/proc/self/fd"))
        no_new_privileges()
        landlock.restrict(["/usr", "/proc"], [str(home)], ["/dev/null"])
        return len(set(os.listdir("/proc/self/fd")) - before)

    assert in_child(count) == 0
