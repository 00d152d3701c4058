"""Kernels of ordinary Jupyter managers, forked instead of started."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager

from kernels.provisioner import Command, ForkedProcess, ZygoteProvisioner, parse_command

NAME = "kernel-broker-zygote"
ARGV = ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]


class OneSpec(KernelSpecManager):
    """A kernelspec that asks for our provisioner, without a file."""

    argv: tuple[str, ...] = tuple(ARGV)

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        metadata = {"kernel_provisioner": {"provisioner_name": NAME, "config": {"orphan_ttl": 5}}}
        return KernelSpec(argv=list(self.argv), language="python", metadata=metadata)


@pytest.fixture(autouse=True)
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="kb-"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(path))
    monkeypatch.setenv("IPYTHONDIR", str(path / "ipython"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@asynccontextmanager
async def manager(
    argv: list[str] = ARGV, **options: Any
) -> AsyncIterator[tuple[AsyncKernelManager, Any]]:
    specs = OneSpec()
    specs.argv = tuple(argv)
    kernel_manager = AsyncKernelManager(kernel_spec_manager=specs)
    await kernel_manager.start_kernel(**options)
    client = kernel_manager.client()
    client.start_channels()
    try:
        await client.wait_for_ready(timeout=30)
        yield kernel_manager, client
    finally:
        client.stop_channels()
        await kernel_manager.shutdown_kernel(now=True)


async def evaluate(client: Any, expression: str) -> str:
    reply = await client.execute(
        "", user_expressions={"it": expression}, reply=True, silent=True, timeout=30
    )
    it = reply["content"]["user_expressions"]["it"]
    return str(it.get("data", it.get("evalue", {})) and it["data"]["text/plain"])


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (ARGV, Command("python", ())),
        (["/p", "-Xfrozen_modules=off", *ARGV[1:]], Command("/p", ())),
        (["/p", "-m", "ipykernel", "-f={f}", "--debug"], Command("/p", ("--debug",))),
        (["/p", "-O", *ARGV[1:]], None),
        (["/p", "-m", "other_kernel", "-f", "x"], None),
        (["/p", "kernel.py", "x"], None),
        (["R", "--slave"], None),
        ([], None),
    ],
)
def test_only_a_plain_ipykernel_command_is_taken_for_one(
    argv: list[str], command: Command | None
) -> None:
    assert parse_command(argv) == command


async def test_a_kernel_is_a_fork_and_its_parent_the_zygote() -> None:
    async with manager() as (one, client), manager() as (other, _):
        parents = {psutil.Process(km.provisioner.pid).ppid() for km in (one, other)}
        assert len(parents) == 1
        assert "boot.py" in " ".join(psutil.Process(parents.pop()).cmdline())
        assert await evaluate(client, "20 + 22") == "42"
        assert one.transport == "ipc"


async def test_the_callers_directory_environment_arguments_and_umask_are_the_kernels(
    runtime: Path,
) -> None:
    environment = {**os.environ, "COLOUR": "green", "PYTHONPATH": str(runtime)}
    (runtime / "found_by_path.py").write_text("x = 1\n")
    (runtime / "cwd").mkdir()
    options: Mapping[str, Any] = {
        "cwd": str(runtime / "cwd"),
        "env": environment,
        "extra_arguments": ["--HistoryManager.enabled=False"],
    }
    mask = os.umask(0o022)
    os.umask(mask)
    async with manager(**options) as (_, client):
        assert await evaluate(client, "__import__('os').getcwd()") == repr(str(runtime / "cwd"))
        assert await evaluate(client, "__import__('os').environ['COLOUR']") == "'green'"
        assert await evaluate(client, "__import__('found_by_path').x") == "1"
        assert await evaluate(client, "get_ipython().history_manager.enabled") == "False"
        assert await evaluate(client, "__import__('os').umask(0)") == str(mask)


async def test_exit_status_is_known_at_once_and_the_same_as_a_childs() -> None:
    async with manager() as (kernel_manager, client):
        process = kernel_manager.provisioner.process
        assert isinstance(process, ForkedProcess)
        client.execute("import os; os._exit(3)")
        assert await kernel_manager.provisioner.wait() == 3
        assert process.poll() == 3
        assert not await kernel_manager.is_alive()
        process.send_signal(signal.SIGTERM)  # no error, as with `subprocess`


async def test_a_cell_that_exits_is_answered_before_the_kernel_ends() -> None:
    """As ipykernel has it: nbclient and papermill take the reply for the cell's end."""
    async with manager() as (kernel_manager, client):
        reply = await client.execute_interactive(
            "print('last words'); exit()", timeout=30, output_hook=lambda message: None
        )
        assert reply["content"]["status"] == "ok"
        assert await kernel_manager.provisioner.wait() == 0


async def test_a_figure_is_shown_as_an_image() -> None:
    """Also where the zygote has imported matplotlib, for a shell of its own."""
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    shown: list[dict[str, Any]] = []
    async with manager() as (_, client):
        await client.execute_interactive(code, timeout=30, output_hook=shown.append)
    (data,) = (one["content"]["data"] for one in shown if one["msg_type"] == "display_data")
    assert data["image/png"].startswith("iVBOR")


async def test_a_restarted_kernel_has_the_same_addresses_and_key() -> None:
    async with manager() as (kernel_manager, client):
        before = kernel_manager.get_connection_info()
        pid = kernel_manager.provisioner.pid
        await kernel_manager.restart_kernel()
        assert kernel_manager.get_connection_info() == before
        assert kernel_manager.provisioner.pid != pid
        await client.wait_for_ready(timeout=30)
        assert await evaluate(client, "1 + 1") == "2"


async def test_interrupt_reaches_the_kernels_children_too() -> None:
    async with manager() as (kernel_manager, client):
        code = "import subprocess; print(end='.'); r = subprocess.call(['sleep', '60'])"
        client.execute(code, reply=False)
        while (await client.get_iopub_msg(timeout=30))["msg_type"] != "stream":
            pass
        await kernel_manager.interrupt_kernel()
        assert (await client.get_shell_msg(timeout=30))["content"]["status"] == "error"


async def test_who_asks_a_client_that_has_gone_is_told_at_once() -> None:
    async with manager() as (_, client):
        code = "try:\n    input('name? ')\nexcept Exception as error:\n    print(error)"
        client.execute(code, reply=False)
        await client.get_stdin_msg(timeout=30)
        client.stdin_channel.close()  # such a client never comes back
        while (said := await client.get_iopub_msg(timeout=30))["msg_type"] != "stream":
            pass
        assert said["content"]["text"] == "whoever ran the code has gone\n"


async def test_shutdown_leaves_no_file(runtime: Path) -> None:
    async with manager() as (kernel_manager, _):
        directory = Path(kernel_manager.ip).parent
        assert directory.is_dir()
    assert not directory.exists()
    assert not Path(kernel_manager.connection_file).exists()


async def test_what_is_no_ipykernel_is_started_as_ever(runtime: Path) -> None:
    code = "from ipykernel.kernelapp import launch_new_instance as go; go()"
    argv = [sys.executable, "-c", code, "-f", "{connection_file}"]
    async with manager(argv) as (kernel_manager, client):
        assert isinstance(kernel_manager.provisioner, ZygoteProvisioner)
        assert isinstance(kernel_manager.provisioner.process, subprocess.Popen)
        assert kernel_manager.transport == "tcp"
        assert await evaluate(client, "1 + 1") == "2"


async def test_a_kernel_that_is_to_outlive_its_manager_is_started_as_ever() -> None:
    async with manager(independent=True) as (kernel_manager, _):
        assert isinstance(kernel_manager.provisioner.process, subprocess.Popen)


SCRIPT = """
    import os, sys
    from jupyter_client.manager import start_new_kernel

    km, client = start_new_kernel()
    from_zygote = client.execute_interactive("import os; print(os.getppid())", timeout=30)
    print(km.provisioner.pid, flush=True)
    sys.stdin.read()
    os.kill(os.getpid(), 9)
"""


def test_blocking_managers_of_successive_processes_share_a_zygote_and_leave_no_kernel(
    runtime: Path,
) -> None:
    environment = {**os.environ, "JUPYTER_DEFAULT_PROVISIONER_NAME": NAME}
    zygotes = set()
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(SCRIPT)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdin
            assert process.stdout
            zygotes.add(int(process.stdout.readline()))
            kernel = psutil.Process(int(process.stdout.readline()))
            process.stdin.close()  # and it dies by SIGKILL
        kernel.wait(timeout=10)
    assert len(zygotes) == 1
    zygote = psutil.Process(zygotes.pop())
    zygote.kill()


def test_the_directory_of_zygotes_is_private(runtime: Path) -> None:
    (runtime / "zygotes").mkdir(mode=0o755)
    from kernels import provisioner
    from kernels.errors import LaunchError

    with pytest.raises(LaunchError, match="is not private"):
        provisioner._root()


async def test_who_gives_up_waiting_for_the_end_keeps_it_from_nobody() -> None:
    async with manager() as (kernel_manager, _):
        provisioner = kernel_manager.provisioner
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(provisioner.wait(), 0.1)
        waiting = asyncio.create_task(provisioner.wait())
        await provisioner.kill()
        assert await asyncio.wait_for(waiting, 30) == -signal.SIGKILL
