"""Kernels come up ready, outlive the process that asked for them, and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from kernels.channels import Channels
from kernels.errors import LaunchError
from kernels.fork import Child
from kernels.launch import Kernel, Launcher, launch
from kernels.process import Process
from kernels.spec import KernelSpec, Limits
from kernels.zygote import Forked
from tests.kernels.talk import LIGHT, Talk, launching, talking, until_gone

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = b"s" * 32


def names(directory: Path) -> set[str]:
    return {entry.name for entry in directory.iterdir()}


async def test_a_launched_kernel_takes_requests_at_once(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        assert await talk.value("6 * 7") == "42"
        assert "running" in repr(talk.kernel)


async def test_many_at_once_are_each_their_own(launcher: Launcher, isolation: str) -> None:
    kernels = await asyncio.gather(*(launcher.launch() for _ in range(8)))
    try:
        assert len({kernel.pid for kernel in kernels}) == 8
        pids = await asyncio.gather(
            *(Talk(kernel).value("import os; os.getpid()") for kernel in kernels)
        )
        # In a sandbox each is the second process of its own namespace.
        seen = [kernel.pid if isolation == "none" else 2 for kernel in kernels]
        assert pids == list(map(str, seen))
    finally:
        await asyncio.gather(*(kernel.close() for kernel in kernels))


async def test_closing_leaves_nothing_behind_and_may_be_repeated(
    launcher: Launcher, isolation: str
) -> None:
    await launcher.start()
    before = names(launcher.directory)
    kernel = await launcher.launch()
    assert kernel.workspace is not None
    files = {f"w-{kernel.workspace.workspace_id}"} if isolation == "none" else set()
    assert names(launcher.directory) == before | {kernel.directory.name} | files
    await kernel.close()
    await kernel.close()
    assert await kernel.exited == "signal SIGKILL"
    assert names(launcher.directory) == before
    assert not Path(f"/proc/{kernel.pid}").exists()


async def test_only_we_can_reach_its_directory(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        assert talk.kernel.directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("delay", [0.0, 0.002, 0.01, 0.03])
async def test_a_cancelled_launch_leaves_nothing_behind(launcher: Launcher, delay: float) -> None:
    await launcher.start()
    before = names(launcher.directory)
    kernel = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(delay):
            kernel = await launcher.launch()
    if kernel is not None:  # it was faster
        await kernel.close()
    async with talking(launcher) as talk:
        assert await talk.value("1") == "1"
    assert names(launcher.directory) == before


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (KernelSpec(preload=(), env=(("A\0B", ""),)), "could not start: ValueError: embedded null"),
        # ZeroMQ's library aborts the process, or says so, depending on which descriptor is missing.
        (
            KernelSpec(preload=(), limits=Limits(open_files=8)),
            "ended while it started: signal|could not start: .* Too many open files",
        ),
    ],
)
async def test_a_kernel_that_cannot_start_says_why(
    directory: Path, isolation: str, spec: KernelSpec, says: str
) -> None:
    async with launching(directory, isolation, spec) as launcher:
        await launcher.start()
        before = names(directory)
        with pytest.raises(LaunchError, match=says):
            await launcher.launch()
        assert names(directory) == before


async def test_a_path_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"bytes too long .* shorter state directory"):
        Launcher(LIGHT, tmp_path / ("long" * 20))


async def test_a_kernel_is_a_context_manager(directory: Path, isolation: str) -> None:
    async with launch(LIGHT, directory, isolation=isolation) as kernel:
        assert await Talk(kernel).value("1 + 1") == "2"
    assert await kernel.exited == "signal SIGKILL"


CONTROLLER = """
import asyncio, pathlib, sys
from kernels.launch import Launcher
from tests.kernels.talk import LIGHT, Talk

async def main():
    directory, isolation = pathlib.Path(sys.argv[1]), sys.argv[2]
    launcher = Launcher(LIGHT, directory, secret=b"s" * 32, isolation=isolation)
    for number in range(2):
        kernel = await launcher.launch()
        await Talk(kernel).run(f"x = {number}")
        kernel.label(f"session {number}")
    unbound = await launcher.launch()
    talk = Talk(kernel)
    running = talk.start(
        "import os\\nos.mkfifo('go')\\nprint('here')\\ny = open('go').read()"
    )
    await talk.until(lambda: "here" in running.text())
    print(launcher.zygote_pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def run_and_kill_a_controller(directory: Path, isolation: str) -> int:
    """Run a process that launches kernels; SIGKILL it. Returns its zygote's pid."""
    root = Path(__file__).parent.parent.parent
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CONTROLLER, str(directory), isolation),
        stdout=subprocess.PIPE,
        cwd=root,
    )
    assert process.stdout is not None
    zygote = int(await process.stdout.readline())
    process.kill()
    await process.wait()
    return zygote


def write_into(kernel: Kernel, name: str, text: str) -> None:
    """Write to a file of the kernel's workspace, as somebody outside."""
    assert kernel.workspace is not None
    home = kernel.directory.parent / f"w-{kernel.workspace.workspace_id}"
    opener = None
    if kernel.workspace.descriptor >= 0:
        home, files = Path(), kernel.workspace.descriptor
        opener = lambda path, flags: os.open(path, flags, dir_fd=files)  # noqa: E731
    with open(home / name, "w", opener=opener) as file:
        file.write(text)


async def test_kernels_outlive_a_killed_controller_and_are_adopted(
    directory: Path, isolation: str
) -> None:
    zygote = await run_and_kill_a_controller(directory, isolation)
    async with launching(directory, isolation, secret=SECRET) as launcher:
        found = sorted(await launcher.adopt(), key=lambda pair: pair[1])
        assert launcher.zygote_pid == zygote
        assert [label for _, label in found] == ["", "session 0", "session 1"]
        unbound, first, second = (Talk(kernel) for kernel, _ in found)
        assert await first.value("x") == "0"
        assert (await unbound.value("x")).startswith("NameError")
        # The cell that was running has gone on.
        await asyncio.to_thread(write_into, second.kernel, "go", "on")
        assert await second.value("x, y") == "(1, 'on')"
        # Its end is known as that of any other.
        first.start("import os; os._exit(5)")
        assert await first.kernel.exited == "exit 5"
        for kernel, _ in found:
            await kernel.close()


async def test_a_second_party_is_welcomed_beside_the_first(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        kernel = talk.kernel
        key = launcher._key(kernel.kernel_id).encode()
        second = Channels(kernel.directory / "k", key, "second")
        async with asyncio.timeout(10):
            await second.subscribed
        second.close()
        assert await talk.value("1 + 1") == "2"


async def test_what_dead_kernels_left_is_swept_at_adoption(directory: Path, isolation: str) -> None:
    async with launching(directory, isolation) as launcher:
        for left in ("000000000000", "w-000000000001"):
            (directory / left / "files").mkdir(parents=True)
        (directory / "not-a-kernel").mkdir()
        assert await launcher.adopt() == []
        assert not {"000000000000", "w-000000000001"} & names(directory)
        assert "not-a-kernel" in names(directory)


async def kill_zygote(launcher: Launcher) -> None:
    zygote = launcher._succession._zygote
    assert zygote is not None
    os.kill(launcher.zygote_pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        await zygote.lost


async def test_a_killed_zygote_leaves_its_kernels_to_the_next(
    directory: Path, isolation: str
) -> None:
    async with (
        launching(directory, isolation, secret=SECRET) as launcher,
        talking(launcher) as talk,
    ):
        await talk.run("x = 1")
        talk.kernel.label("bound")
        old = launcher.zygote_pid
        await kill_zygote(launcher)
        assert await talk.value("x") == "1"
        async with talking(launcher) as other:
            assert launcher.zygote_pid not in (0, old)
            assert await other.value("1 + 1") == "2"
        assert await talk.value("x") == "1"

        # The new zygote knows the old one's kernel, for a controller that comes later.
        talk.kernel.channels.close()
        await launcher.aclose(leave=True)
        async with launching(directory, isolation, secret=SECRET) as later:
            ((kernel, label),) = await later.adopt()
            assert (kernel.kernel_id, label) == (talk.kernel.kernel_id, "bound")
            assert await Talk(kernel).value("x") == "1"
            await kernel.close()


async def test_the_end_of_a_kernel_without_its_zygote_is_known(
    directory: Path, isolation: str
) -> None:
    async with launching(directory, isolation) as launcher, talking(launcher) as talk:
        await kill_zygote(launcher)
        os.kill(talk.kernel.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            # Linux keeps the status for us from 6.15 on; what keeps none says so.
            assert await talk.kernel.exited in ("signal SIGKILL", "unknown")


async def test_a_zygote_killed_while_kernels_start_fails_them_and_not_the_next(
    directory: Path, isolation: str
) -> None:
    async with launching(directory, isolation) as launcher:
        await launcher.start()
        pid = launcher.zygote_pid
        tasks = [asyncio.create_task(launcher.launch()) for _ in range(4)]
        os.kill(pid, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Kernel):
                await result.close()
            else:
                assert isinstance(result, LaunchError)
        await until_gone(pid)
        async with talking(launcher) as talk:
            assert await talk.value("1") == "1"


async def test_a_stranger_on_the_sockets_gets_nothing_done(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.connect(str(talk.kernel.directory / "k-1"))
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 100)
        assert await talk.value("1 + 1") == "2"


async def test_a_failed_start_that_nobody_waits_for_any_more_has_its_end_all_the_same() -> None:
    with subprocess.Popen(["/bin/sleep", "600"]) as sleeper:  # noqa: ASYNC220 - for its pid alone
        process = Process(os.pidfd_open(sleeper.pid))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, theirs:
            ours.setblocking(False)
            theirs.send(b'{"last_words": ""}')
            child = Child(Forked("k", process, "", -1), ours)
            _, waiting = await asyncio.wait([asyncio.create_task(child.answer())], timeout=0.1)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
        sleeper.kill()
        async with asyncio.timeout(30):
            assert await process.exited
