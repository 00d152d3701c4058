"""What a shut-in kernel can see and reach: its own, what its profile shows, and nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from kernels.errors import IsolationUnavailable
from kernels.launch import Launcher
from kernels.sandbox import landlock
from kernels.spec import KernelSpec, Limits
from tests.kernels.talk import Talk, launching, talking

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def launcher(module_directory: Path, sandboxed: str) -> AsyncIterator[Launcher]:
    async with launching(module_directory / "none", sandboxed) as launcher:
        yield launcher


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def with_network(module_directory: Path, sandboxed: str) -> AsyncIterator[Launcher]:
    """Yield a launcher of kernels that share the host's network."""
    spec = KernelSpec(preload=(), network="host")
    async with launching(module_directory / "host", sandboxed, spec) as launcher:
        yield launcher


@pytest.fixture
def server() -> Iterator[int]:
    """Yield the port of a server on the host's loopback that greets whoever comes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        loop = asyncio.get_event_loop_policy().get_event_loop()
        listener.setblocking(False)

        def greet() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"hello")
            connection.close()

        loop.add_reader(listener, greet)
        yield int(listener.getsockname()[1])
        loop.remove_reader(listener)


def connect(port: int) -> str:
    return f"import socket; socket.create_connection(('127.0.0.1', {port}), 5).recv(9)"


async def unsafe(launcher: Launcher) -> dict[str, str]:
    """Return the cases of a self-test that succeeded as attacks, with the layer each is for."""
    return {found.case: found.layer for found in await launcher.self_test() if not found.safe}


async def test_the_self_test_finds_nothing(launcher: Launcher) -> None:
    findings = await launcher.self_test()
    assert [found for found in findings if not found.safe] == []
    assert len(findings) >= 12
    assert all(found.evidence and not found.remedy for found in findings)


@pytest.mark.parametrize("layer", ["seccomp", "landlock", "capabilities"])
async def test_the_self_test_names_the_layer_that_is_missing(
    directory: Path, sandboxed: str, layer: str
) -> None:
    if layer == "landlock" and not landlock.abi():
        pytest.skip("this host has no Landlock")
    async with launching(directory, sandboxed, without=(layer,)) as launcher:
        assert set((await unsafe(launcher)).values()) == {layer}
        # It works, only less shut in: nothing depends on a layer for more than safety.
        async with talking(launcher) as talk:
            assert await talk.value("1 + 1") == "2"


async def test_the_self_test_leaves_nothing(launcher: Launcher) -> None:
    await launcher.self_test()
    before = sorted(entry.name for entry in launcher.directory.iterdir())
    await launcher.self_test()
    assert sorted(entry.name for entry in launcher.directory.iterdir()) == before


async def test_it_is_an_ordinary_user_of_a_small_machine(talk: Talk) -> None:
    said = await talk.run(
        "import getpass, os, pwd, socket\n"
        "print(os.getuid(), os.geteuid(), os.getgid(), os.getgroups(), getpass.getuser())\n"
        "print(pwd.getpwuid(os.getuid()).pw_dir, socket.gethostname(), os.getpid(), os.getppid())\n"
        "print(sorted(os.listdir('/dev')), os.path.exists('/sys'))"
    )
    ids, names, rest = said.text().splitlines()
    assert ids.startswith("1000 1000 1000 [") and ids.endswith("] user")  # noqa: PT018
    assert names == "/home/user sandbox 2 0"  # its reaper is no parent of it
    devices = (
        "'fd', 'full', 'null', 'random', 'shm', 'stderr', 'stdin', 'stdout', 'urandom', 'zero'"
    )
    assert rest == f"[{devices}] False"


async def test_two_kernels_see_no_process_of_each_other(launcher: Launcher) -> None:
    async with talking(launcher) as one, talking(launcher) as other:
        marked = "import subprocess; p = subprocess.Popen(['sleep', '987654'])"
        await one.run(marked)
        listed = await other.value(
            "import glob; [open(f).read() for f in glob.glob('/proc/[0-9]*/cmdline')]"
        )
        assert "987654" not in listed
        assert "boot.py" in listed
        # Numbers of the host mean nothing in it.
        for pid in (one.kernel.pid, one.kernel.process.reaper, launcher.zygote_pid, os.getpid()):
            assert (await other.value(f"import os; os.kill({pid}, 0)")).startswith("ProcessLookup")


async def test_two_kernels_reach_no_socket_of_each_other(
    launcher: Launcher, with_network: Launcher
) -> None:
    served = "import socket; s = socket.socket(socket.AF_UNIX); s.bind('\\0name'); s.listen()"
    asked = "import socket; socket.socket(socket.AF_UNIX).connect('\\0name')"
    async with talking(launcher) as one, talking(launcher) as other:
        assert (await one.run(served)).status == "ok"
        assert (await one.run(asked)).status == "ok"
        assert (await other.value(asked)).startswith("ConnectionRefusedError")
    if landlock.abi() < 6:  # where one network is shared, only Landlock parts these names
        return
    async with talking(with_network) as one, talking(with_network) as other:
        assert (await one.run(served)).status == "ok"
        assert (await other.value(asked)).startswith("PermissionError")


async def test_two_kernels_share_no_temporary_files(launcher: Launcher) -> None:
    async with talking(launcher) as one, talking(launcher) as other:
        for place in ("/tmp", "/dev/shm"):  # noqa: S108
            assert (await one.run(f"open('{place}/x', 'w').close()")).status == "ok"
            assert await other.value(f"import os; 'x' in os.listdir('{place}')") == "False"


async def test_temporary_files_are_bounded(directory: Path, sandboxed: str) -> None:
    spec = KernelSpec(preload=(), limits=Limits(tmp_bytes=1 << 20, tmp_files=16))
    fill = (
        "def fill(place):\n"
        "  bound = os.statvfs(place)\n"
        "  try:\n"
        "    with open(place + '/full', 'wb', buffering=0) as file:\n"
        "      while True: file.write(b'x' * 4096)\n"
        "  except OSError as error:\n"
        "    written = os.stat(place + '/full').st_size == bound.f_bavail * bound.f_frsize\n"
        "    return error.errno, bound.f_blocks * bound.f_frsize, written\n"
    )
    async with launching(directory, sandboxed, spec) as launcher, talking(launcher) as talk:
        await talk.run(f"import os\n{fill}")
        for place in ("/tmp", "/dev/shm"):  # noqa: S108
            assert await talk.value(f"fill({place!r})") == f"(28, {1 << 20}, True)"


async def test_without_a_network_there_is_a_loopback_of_its_own(talk: Talk, server: int) -> None:
    devices = "open('/proc/self/net/dev').read().split('\\n')[2:]"
    assert await talk.value(f"[line.split(':')[0].strip() for line in {devices}]") == "['lo', '']"
    assert (await talk.value(connect(server))).startswith("ConnectionRefusedError")
    said = await talk.run(
        "import socket\n"
        "for family, host in ((socket.AF_INET, '127.0.0.1'), (socket.AF_INET6, '::1')):\n"
        "  with socket.create_server((host, 0), family=family) as server:\n"
        "    client = socket.create_connection(server.getsockname()[:2])\n"
        "    server.accept()[0].sendall(b'here'); print(client.recv(9))\n"
        "print(socket.gethostbyname('localhost'))"
    )
    assert said.text() == "b'here'\nb'here'\n127.0.0.1\n"
    assert (await talk.value("socket.create_connection(('192.0.2.1', 80), 5)")).startswith(
        "OSError"
    )


async def test_processes_of_one_kernel_work_together(talk: Talk) -> None:
    said = await talk.run(
        "import multiprocessing, warnings\nwarnings.simplefilter('ignore')\n"
        "context = multiprocessing.get_context('fork')\n"
        "queue = context.Queue()\n"
        "child = context.Process(target=queue.put, args=('queued',)); child.start()\n"
        "print(queue.get()); child.join()\n"
        "with context.Pool(2) as pool: print(pool.map(abs, [-1, -2]))\n"
        "with multiprocessing.Manager() as manager: print(manager.list([3]))\n"
        "from multiprocessing.shared_memory import SharedMemory\n"
        "shared = SharedMemory(create=True, size=64); print(shared.size); shared.unlink()\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as threads: print(sum(threads.map(abs, range(100))))"
    )
    assert said.text() == "queued\n[1, 2]\n[3]\n64\n4950\n", said.value


async def test_with_the_hosts_network_everything_else_is_shut(
    with_network: Launcher, server: int
) -> None:
    assert await unsafe(with_network) == {}
    async with talking(with_network) as talk:
        assert await talk.value(connect(server)) == "b'hello'"
        assert await talk.value("import os; os.path.exists('/etc/shadow')") == "False"
        assert await talk.value("socket.gethostname()") == "'sandbox'"


async def test_the_import_policy_reaches_the_kernel(directory: Path, sandboxed: str) -> None:
    spec = KernelSpec(preload=(), deny_imports=("sqlite3",))
    async with launching(directory, sandboxed, spec) as launcher, talking(launcher) as talk:
        assert (await talk.value("import sqlite3")).startswith("ImportError")
        assert await talk.value("import json; json.dumps(1)") == "'1'"


async def test_paths_of_a_profile_are_shown_and_cannot_be_changed(
    directory: Path, sandboxed: str
) -> None:
    data = directory / "data"
    (data / "below").mkdir(parents=True)
    (data / "below" / "table").write_text("1,2")
    (data / "below").chmod(0o755)
    data.chmod(0o755)
    spec = KernelSpec(preload=(), paths=(str(data),))
    async with launching(directory / "s", sandboxed, spec) as launcher, talking(launcher) as talk:
        assert await unsafe(launcher) == {}
        assert await talk.value(f"open('{data}/below/table').read()") == "'1,2'"
        for attempt in ("open('{}/new', 'w')", "open('{}/below/table', 'a')", "os.rmdir('{}')"):
            said = await talk.value("import os; " + attempt.format(data))
            assert said.startswith(("OSError: [Errno 30]", "PermissionError"))
        # Its neighbours are not.
        assert await talk.value(f"os.listdir('{directory}')") == "['data']"
    assert (data / "below" / "table").read_text() == "1,2"


@pytest.mark.parametrize("where", ["", "state"])
async def test_a_state_directory_that_kernels_could_read_is_refused(
    directory: Path, sandboxed: str, where: str
) -> None:
    spec = KernelSpec(preload=(), paths=(str(directory),))
    async with launching(directory / where, sandboxed, spec) as launcher:
        with pytest.raises(IsolationUnavailable, match=r"kernels can read.*--state-dir") as caught:
            await launcher.start()
        assert caught.value.layer == "mounts"


async def test_an_interpreter_may_live_where_only_its_owner_can_go(
    directory: Path, sandboxed: str, python_with: Callable[..., str]
) -> None:
    python = python_with(extra="value = 7")
    assert directory.stat().st_mode & 0o077 == 0
    spec = KernelSpec(python=python, preload=("extra",))
    async with launching(directory / "s", sandboxed, spec) as launcher, talking(launcher) as talk:
        assert await talk.value("import extra, sys; extra.value, sys.executable") == str(
            (7, python)
        )
        # A subprocess of the same interpreter finds it too.
        code = "import subprocess; subprocess.check_output([sys.executable, '-c', 'import extra'])"
        assert await talk.value(code) == "b''"
        assert await talk.value(f"import os; os.listdir('{directory}')") == "['venv']"


async def test_programs_of_the_system_run(talk: Talk) -> None:
    said = await talk.run("!ls -d /usr; id -un; python3 --version; echo $HOME; pwd")
    version = f"Python {sys.version.split()[0]}"
    assert said.text().splitlines() == ["/usr", "user", version, "/home/user", "/home/user"]
