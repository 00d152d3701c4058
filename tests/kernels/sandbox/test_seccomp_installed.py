"""The filter in the running system: what it refuses, and what has to work under it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import fcntl
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq

from kernels.sandbox import capabilities, seccomp, system
from tests.kernels.sandbox.children import (
    LIBC,
    end_of_child,
    failure,
    in_child,
    need_capabilities,
    no_new_privileges,
    raw,
    take_capabilities,
)

pytestmark = pytest.mark.skipif(
    system.MACHINE not in ("x86_64", "aarch64"), reason=f"no filter for {system.MACHINE}"
)
only_x86 = pytest.mark.skipif(system.MACHINE != "x86_64", reason="a matter of x86_64")


def filtered(act: Callable[[], object], *, memory_files: bool = True) -> Callable[[], object]:
    """Return `act`, done under the filter."""

    def do() -> object:
        no_new_privileges()
        seccomp.install(seccomp.compile_filter(memory_files=memory_files))
        return act()

    return do


def restricted(act: Callable[[], object], *, memory_files: bool = True) -> object:
    return in_child(filtered(act, memory_files=memory_files))


def test_no_namespace_can_be_made_or_entered() -> None:
    def attempts() -> list[str]:
        own = os.open("/proc/self/ns/uts", os.O_RDONLY)
        clone = {"x86_64": 56, "aarch64": 220}[system.MACHINE]
        return [
            failure(system.unshare, system.CLONE_NEWUSER),
            failure(system.unshare, 0),
            failure(system.setns, own, 0),
            raw(clone, system.CLONE_NEWUSER | signal.SIGCHLD, 0, 0, 0, 0),
        ]

    assert restricted(attempts) == ["EPERM"] * 4


def test_nothing_can_be_mounted_traced_or_filtered_anew() -> None:
    def attempts() -> list[str]:
        seccomp_number = {"x86_64": 317, "aarch64": 277}[system.MACHINE]
        return [
            failure(system.mount, "none", "/tmp", "tmpfs"),  # noqa: S108 - refused
            failure(system.umount, "/proc"),
            failure(lambda: system.open_tree("/")),
            failure(os.chroot, "/"),
            raw({"x86_64": 101, "aarch64": 117}[system.MACHINE], 0, 0, 0, 0),  # PTRACE_TRACEME
            raw(seccomp_number, 2, 0, b"\0" * 8),  # SECCOMP_GET_ACTION_AVAIL
        ]

    assert restricted(attempts) == ["EPERM", "EPERM", "ENOSYS", "EPERM", "EPERM", "ENOSYS"]


def test_clone3_is_as_if_it_did_not_exist_so_that_glibc_falls_back() -> None:
    def attempts() -> tuple[str, bool]:
        ran = threading.Event()
        threading.Thread(target=ran.set).start()
        return raw(435, 0, 0), ran.wait(10)

    assert restricted(attempts) == ("ENOSYS", True)


FAMILIES = {
    "AF_NETLINK": (16, socket.SOCK_RAW, "ENOTSUP"),
    "AF_PACKET": (17, socket.SOCK_RAW, "EAFNOSUPPORT"),
    "AF_ALG": (38, socket.SOCK_SEQPACKET, "EAFNOSUPPORT"),
    "AF_VSOCK": (40, socket.SOCK_STREAM, "EAFNOSUPPORT"),
    "AF_INET raw": (socket.AF_INET, socket.SOCK_RAW, "EPERM"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_only_local_and_internet_sockets_can_be_made(family: str) -> None:
    number, kind, expected = FAMILIES[family]
    assert restricted(lambda: failure(socket.socket, number, kind)) == expected


def test_terminal_and_interface_requests_are_refused_and_harmless_ones_answered() -> None:
    def attempts() -> list[str]:
        near, far = socket.socketpair()
        far.send(b"abc")
        request = ctypes.create_string_buffer(64)
        return [
            raw({"x86_64": 16, "aarch64": 29}[system.MACHINE], near.fileno(), number, address)
            for number in (0x5412, 0x8912, 0x8913, 0x541B, 0x5421)
            for address in [ctypes.addressof(request)]
        ]

    assert restricted(attempts) == ["ENOTTY"] * 3 + ["", ""]


def test_memory_files_depend_on_the_level() -> None:
    def attempts() -> list[str]:
        shmget = {"x86_64": 29, "aarch64": 194}[system.MACHINE]
        return [failure(os.memfd_create, "m"), raw(shmget, 0, 4096, 0), raw(447, 0)]

    assert restricted(attempts) == ["", "", "ENOSYS"]
    assert restricted(attempts, memory_files=False) == ["ENOSYS"] * 3


def test_a_lease_cannot_hold_up_the_reader_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def attempt() -> str:
        descriptor = os.open(tmp_path / "file", os.O_RDONLY)
        return failure(lambda: fcntl.fcntl(descriptor, 1024, fcntl.F_RDLCK))

    assert in_child(attempt) == ""
    assert restricted(attempt) == "EINVAL"


def test_memory_stays_hidden_from_other_processes() -> None:
    def attempts() -> tuple[str, int]:
        system.prctl(system.PR_SET_DUMPABLE, 0)
        return failure(lambda: system.prctl(system.PR_SET_DUMPABLE, 1)), system.prctl(3)

    assert restricted(attempts) == ("EINVAL", 0)


@only_x86
def test_x32_kills() -> None:
    getpid = 0x40000000 | 39
    assert end_of_child(lambda: raw(getpid)) == "exit 0"
    assert end_of_child(filtered(lambda: raw(getpid))) == "SIGSYS"


@only_x86
def test_int80_kills() -> None:
    def getpid_of_i386() -> None:
        # mov eax, 20; int 0x80; ret
        code = bytes.fromhex("b814000000cd80c3")
        LIBC.mmap.restype = ctypes.c_void_p
        page = LIBC.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0))
        ctypes.memmove(page, code, len(code))
        ctypes.CFUNCTYPE(ctypes.c_int)(page)()

    if (end := end_of_child(getpid_of_i386)) != "exit 0":
        pytest.skip(f"this Linux has no int80: {end}")
    assert end_of_child(filtered(getpid_of_i386)) == "SIGSYS"


def test_every_thread_is_filtered() -> None:
    def attempt() -> str:
        go, said = threading.Event(), list[str]()

        def late() -> None:
            go.wait(10)
            said.append(failure(system.unshare, 0))

        thread = threading.Thread(target=late)
        thread.start()
        no_new_privileges()
        seccomp.install(seccomp.compile_filter(memory_files=True))
        go.set()
        thread.join()
        return said[0]

    assert in_child(attempt) == "EPERM"


def test_a_process_that_could_gain_privileges_cannot_be_filtered() -> None:
    need_capabilities()

    def attempt() -> str:
        take_capabilities()
        capabilities.drop()
        return failure(lambda: seccomp.install(seccomp.compile_filter(memory_files=True)))

    assert in_child(attempt) == "EACCES"


# --- what has to work ----------------------------------------------------------------------------


def use_subprocesses() -> None:
    assert subprocess.run(["/bin/echo", "a"], capture_output=True, check=True).stdout == b"a\n"
    subprocess.run(["/bin/true"], check=True, start_new_session=True, close_fds=False)
    assert os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)[1] == 0


def use_multiprocessing() -> None:
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]
    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        assert list(executor.map(abs, [-3])) == [3]


def use_asyncio() -> None:
    async def talk() -> bytes:
        async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.close()

        server = await asyncio.start_server(greet, "localhost", 0, family=socket.AF_INET)
        async with server:
            port = server.sockets[0].getsockname()[1]
            reader, writer = await asyncio.open_connection("localhost", port)
            said = await reader.read()
            writer.close()
        process = await asyncio.create_subprocess_exec("/bin/cat", stdin=-3, stdout=-1)
        assert await process.communicate() == (b"", None)
        return said

    assert asyncio.run(talk()) == b"hello"


def use_zmq_over_tcp() -> None:
    """Without the errno chosen for AF_NETLINK libzmq would abort here."""
    with zmq.Context() as context, context.socket(zmq.REP) as answers:
        port = answers.bind_to_random_port("tcp://127.0.0.1")
        with context.socket(zmq.REQ) as asks:
            asks.connect(f"tcp://127.0.0.1:{port}")
            asks.send(b"?")
            assert answers.recv() == b"?"


def use_files() -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        os.mkfifo(path / "fifo")
        (path / "link").symlink_to("fifo")
        shutil.copytree(Path(__file__).parent, path / "copy")
        shutil.make_archive(str(path / "archive"), "gztar", path / "copy")
        with sqlite3.connect(path / "base") as base:
            base.execute("PRAGMA journal_mode=WAL")
            base.execute("CREATE TABLE t (x)")
        base.close()
        os.sync()


def use_the_rest() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.sched_setaffinity(0, os.sched_getaffinity(0))
    os.nice(1)
    assert socket.getaddrinfo("localhost", 80)
    os.close(os.pidfd_open(os.getpid()))
    os.setuid(os.getuid())
    ctypes.CFUNCTYPE(None)(int)()
    signal.raise_signal(signal.SIGCHLD)


def use_the_compiler() -> None:
    if (compiler := shutil.which("gcc")) is None:
        return
    with tempfile.TemporaryDirectory() as directory:
        program = str(Path(directory) / "program")
        source = b"int main(void) { return 0; }"
        subprocess.run([compiler, "-x", "c", "-", "-o", program], input=source, check=True)
        subprocess.run([program], check=True)


def use_a_new_interpreter() -> None:
    subprocess.run([sys.executable, "-c", "import ssl, uuid, tempfile"], check=True)


USES = [
    *(use_subprocesses, use_multiprocessing, use_asyncio, use_zmq_over_tcp, use_files),
    *(use_the_rest, use_the_compiler, use_a_new_interpreter),
]


@pytest.mark.parametrize("memory_files", [True, False])
@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_python_works(use: Callable[[], None], memory_files: bool) -> None:
    restricted(use, memory_files=memory_files)
