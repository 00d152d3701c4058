"""What every source of kernels promises, whoever starts the kernel."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kernels.errors import KernelDied, LaunchError
from kernels.foreign import ForeignKernel, ForeignLauncher
from kernels.launch import Kernel, Launcher, Workspace
from kernels.messages import Message
from kernels.spec import KernelSpec, Limits
from tests.kernels.conftest import sandboxed  # noqa: F401 - a fixture

KINDS = ("zygote", "ipykernel", "echo")
SOURCES = [(kind, isolation) for isolation in ("none", "standard") for kind in KINDS]

ECHO_KERNEL = '''
"""A kernel in no time: it prints what it is told, and is no IPython."""

import os
import time

from ipykernel.kernelapp import IPKernelApp
from ipykernel.kernelbase import Kernel


class Echo(Kernel):
    implementation = "echo"
    implementation_version = "1"
    banner = "echo"
    language_info = {"name": "echo", "mimetype": "text/plain", "file_extension": ".txt"}

    async def do_execute(self, code, silent, *args, **options):
        verb, _, rest = code.partition(" ")
        if verb == "exit":
            os._exit(int(rest))
        if verb == "sleep":
            try:
                self.send_response(self.iopub_socket, "stream", {"name": "stdout", "text": "zzz"})
                time.sleep(float(rest))
            except KeyboardInterrupt:
                return {"status": "error", "ename": "Stopped", "evalue": "", "traceback": []}
        if verb == "env":
            rest = os.environ.get(rest, "")
        if verb == "cwd":
            rest = os.getcwd()
        if verb in ("say", "env", "cwd"):
            self.send_response(self.iopub_socket, "stream", {"name": "stdout", "text": rest})
        return {
            "status": "ok",
            "execution_count": self.execution_count,
            "payload": [],
            "user_expressions": {},
        }


IPKernelApp.launch_instance(kernel_class=Echo)
'''
MUTE_KERNEL = "import sys; print('no such language', file=sys.stderr); sys.exit(7)"
PYTHON = {
    "say": "print({0!r}, end='')",
    "sleep": "import time; print('zzz', flush=True); time.sleep({0})",
    "exit": "import os; os._exit({0})",
    "env": "import os; print(os.environ.get({0!r}, ''), end='')",
    "cwd": "import os; print(os.getcwd(), end='')",
}


class Source(NamedTuple):
    """Where kernels come from, and how they are shut in."""

    kind: str
    isolation: str


def cell(source: Source, verb: str, argument: str = "") -> str:
    """Return the code that does it in the language of the source's kernels."""
    return f"{verb} {argument}" if source.kind == "echo" else PYTHON[verb].format(argument)


class Conversation:
    """Execute cells on a kernel and keep what comes back."""

    def __init__(self, kernel: Kernel | ForeignKernel) -> None:
        self.kernel = kernel
        self.text = ""
        self.started = asyncio.Event()
        kernel.channels.receiver = self._take

    def start(self, code: str) -> None:
        self.text = ""
        self.started.clear()
        self._missing = {"reply", "idle"}
        self._done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._status = ""
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False}
        self._id = self.kernel.channels.send("shell", "execute_request", content)

    async def end(self) -> str:
        async with asyncio.timeout(30):
            return await self._done

    async def run(self, code: str) -> str:
        self.start(code)
        await self.end()
        return self.text

    def _take(self, channel: str, message: Message) -> None:
        if message.parent_id != self._id:
            return
        if message.type == "stream":
            self.text += message.content["text"]
            self.started.set()
        elif message.type == "execute_reply":
            self._status = message.content["status"]
            self._missing.discard("reply")
        elif message.type == "status" and message.content["execution_state"] == "idle":
            self._missing.discard("idle")
        if not self._missing and not self._done.done():
            self._done.set_result(self._status)


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="kb-"))
    yield path / "k"
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def kernelspecs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install stock ipykernel under another name, and a kernel that is not Python."""
    commands = {
        "ipykernel": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "echo": [sys.executable, "{resource_dir}/echo.py", "-f", "{connection_file}"],
        "broken": [str(tmp_path / "missing"), "{connection_file}"],
        "mute": [sys.executable, "-c", MUTE_KERNEL, "{connection_file}"],
    }
    for name, argv in commands.items():
        folder = tmp_path / "kernels" / f"other-{name}"
        folder.mkdir(parents=True)
        spec = {"argv": argv, "display_name": name, "language": name}
        (folder / "kernel.json").write_text(json.dumps(spec))
        (folder / "echo.py").write_text(ECHO_KERNEL)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    return tmp_path


def make(source: Source, directory: Path, **options: Any) -> Launcher | ForeignLauncher:
    kernelspec = "" if source.kind == "zygote" else f"other-{source.kind}"
    spec = KernelSpec(preload=(), kernelspec=kernelspec, **options)
    if kernelspec and source.isolation == "none":
        return ForeignLauncher(spec, directory)
    return Launcher(spec, directory, isolation=source.isolation, orphan_ttl=20.0)


@pytest.fixture(params=["none", "standard"])
def isolation(request: pytest.FixtureRequest) -> str:
    if request.param != "none":
        request.getfixturevalue("sandboxed")
    return str(request.param)


@pytest.fixture(params=SOURCES, ids="-".join)
def source(request: pytest.FixtureRequest) -> Source:
    found = Source(*request.param)
    if found.isolation != "none":
        request.getfixturevalue("sandboxed")
    return found


@pytest.fixture
async def launcher(
    source: Source, directory: Path, kernelspecs: Path
) -> AsyncIterator[Launcher | ForeignLauncher]:
    launcher = make(source, directory, env=(("COLOUR", "green"),))
    await launcher.start()
    yield launcher
    await launcher.aclose()


async def test_a_launched_kernel_takes_requests_at_once(
    launcher: Launcher | ForeignLauncher, source: Source
) -> None:
    kernel = await launcher.launch()
    assert not kernel.exited.done()
    os.kill(kernel.pid, 0)
    assert await Conversation(kernel).run(cell(source, "say", "hello")) == "hello"
    await kernel.close()


async def test_each_kernel_has_its_own_id_process_and_directory(
    launcher: Launcher | ForeignLauncher, source: Source
) -> None:
    one: Kernel | ForeignKernel
    other: Kernel | ForeignKernel
    one, other = await asyncio.gather(launcher.launch(), launcher.launch())
    assert one.kernel_id != other.kernel_id
    assert one.pid != other.pid
    homes = [await Conversation(kernel).run(cell(source, "cwd")) for kernel in (one, other)]
    if source.isolation == "none":
        assert homes[0] != homes[1]
        assert all(Path(home).is_relative_to(launcher.directory) for home in homes)
    else:
        assert homes == ["/home/user", "/home/user"]
        workspaces = [kernel.workspace for kernel in (one, other)]
        files = [os.fstat(each.descriptor) for each in workspaces if isinstance(each, Workspace)]
        assert not os.path.samestat(*files)
    await asyncio.gather(one.close(), other.close())


async def test_the_environment_is_the_profiles_and_not_the_brokers(
    launcher: Launcher | ForeignLauncher, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_TOKEN", "secret")
    kernel = await launcher.launch()
    talk = Conversation(kernel)
    assert await talk.run(cell(source, "env", "COLOUR")) == "green"
    assert await talk.run(cell(source, "env", "BROKER_TOKEN")) == ""
    await kernel.close()


async def test_the_end_of_a_kernel_is_told_with_its_reason(
    launcher: Launcher | ForeignLauncher, source: Source
) -> None:
    kernel = await launcher.launch()
    Conversation(kernel).start(cell(source, "exit", "3"))
    async with asyncio.timeout(10):
        assert await kernel.exited == "exit 3"
    await kernel.close()


async def test_kill_ends_a_kernel_and_says_so(launcher: Launcher | ForeignLauncher) -> None:
    kernel = await launcher.launch()
    kernel.kill()
    async with asyncio.timeout(10):
        assert await kernel.exited == "signal SIGKILL"
    await kernel.close()


async def test_an_interrupted_cell_ends_and_the_kernel_goes_on(
    launcher: Launcher | ForeignLauncher, source: Source
) -> None:
    kernel = await launcher.launch()
    talk = Conversation(kernel)
    talk.start(cell(source, "sleep", "60"))
    await talk.started.wait()
    kernel.interrupt()
    assert await talk.end() == "error"
    assert await talk.run(cell(source, "say", "on")) == "on"
    await kernel.close()


async def test_closing_removes_the_process_and_every_file_and_may_be_repeated(
    launcher: Launcher | ForeignLauncher,
) -> None:
    kernel = await launcher.launch()
    pid = kernel.pid
    await asyncio.gather(kernel.close(), kernel.close())
    await kernel.close()
    assert kernel.exited.done()
    assert not kernel.directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_a_label_is_taken_and_a_fresh_launcher_adopts_nothing(
    launcher: Launcher | ForeignLauncher,
) -> None:
    assert await launcher.adopt() == []
    kernel = await launcher.launch()
    kernel.label("default/chat-42")
    await kernel.close()


async def test_closing_the_launcher_ends_its_kernels(
    launcher: Launcher | ForeignLauncher,
) -> None:
    kernel = await launcher.launch()
    await launcher.aclose()
    async with asyncio.timeout(10):
        await kernel.exited
    await kernel.close()


async def test_the_directory_is_private(launcher: Launcher | ForeignLauncher) -> None:
    kernel = await launcher.launch()
    assert launcher.directory.stat().st_mode & 0o077 == 0
    assert kernel.directory.stat().st_mode & 0o077 == 0
    await kernel.close()


async def test_no_bound_on_messages_means_none(
    source: Source, directory: Path, kernelspecs: Path
) -> None:
    launcher = make(source, directory, limits=Limits(message_bytes=0))
    kernel = await launcher.launch()
    assert await Conversation(kernel).run(cell(source, "say", "x" * 1000)) == "x" * 1000
    await kernel.close()
    await launcher.aclose()


async def test_an_unknown_kernelspec_is_named_together_with_the_installed_ones(
    directory: Path, kernelspecs: Path, isolation: str
) -> None:
    with pytest.raises(LaunchError, match=r"no kernelspec 'other-none'; installed: .*other-echo"):
        await make(Source("none", isolation), directory).start()


async def test_a_kernelspec_whose_program_is_missing_is_a_launch_error(
    directory: Path, kernelspecs: Path, isolation: str
) -> None:
    with pytest.raises(LaunchError, match="cannot start 'other-broken'"):
        await make(Source("broken", isolation), directory).launch()
    assert list(directory.iterdir()) == []


async def test_a_kernel_that_ends_before_it_is_ready_is_told_with_its_reason(
    directory: Path, kernelspecs: Path, isolation: str
) -> None:
    launcher = make(Source("mute", isolation), directory)
    with pytest.raises((KernelDied, LaunchError), match="exit 7"):
        await launcher.launch()
    assert [path for path in directory.iterdir() if re.fullmatch("[0-9a-f]{12}", path.name)] == []
    await launcher.aclose()
