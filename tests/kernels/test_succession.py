"""Zygotes come and go, by age and by accident; kernels and workspaces stay, and are known."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from kernels.launch import Kernel, Launcher
from kernels.spec import KernelSpec
from kernels.zygote import Zygote
from tests.kernels.talk import (
    Talk,
    launching,
    parent_of,
    settled,
    talking,
    until_gone,
    warden_of,
)

SECRET = b"s" * 32


async def lose_zygote(launcher: Launcher) -> None:
    """Kill the zygote, and wait until that is known here."""
    zygote = launcher._succession._zygote
    assert zygote is not None
    os.kill(launcher.zygote_pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        await zygote.lost


async def recycled(launcher: Launcher) -> int:
    """Wait for the change of guard that is under way, if any; return the zygote's id."""
    if (task := launcher._succession._recycling) is not None:
        async with asyncio.timeout(20):
            await asyncio.wait([task])
    return launcher.zygote_pid


async def test_a_lost_zygote_takes_no_kernel_and_no_workspace_with_it(
    directory: Path, isolation: str
) -> None:
    async with launching(directory, isolation) as launcher:
        async with talking(launcher) as talk:
            await talk.run("x = 1; open('kept', 'w').write('y')")
            old = launcher.zygote_pid
            await lose_zygote(launcher)
            assert await talk.value("x") == "1"
            talk.kernel.keep_workspace = True
        workspace = talk.kernel.workspace
        assert workspace is not None
        async with talking(launcher, workspace=workspace) as talk:
            assert launcher.zygote_pid not in (0, old)
            assert await talk.value("open('kept').read()") == "'y'"


async def test_ends_without_a_zygote_have_their_reasons_all_the_same(
    directory: Path, sandboxed: str
) -> None:
    async with launching(directory, sandboxed) as launcher, talking(launcher) as talk:
        await lose_zygote(launcher)
        talk.start("import os; os._exit(3)")
        async with asyncio.timeout(10):
            assert await talk.kernel.exited == "exit 3"


async def test_without_a_zygote_closing_ends_everything_too(
    directory: Path, isolation: str
) -> None:
    async with launching(directory, isolation) as launcher:
        kernel = await launcher.launch()
        warden = warden_of(launcher)
        await lose_zygote(launcher)
    await until_gone(warden)
    async with asyncio.timeout(10):
        await kernel.exited
    await until_gone(kernel.pid)
    await kernel.close()


async def test_with_the_warden_everything_in_a_sandbox_ends_and_the_next_launch_works(
    directory: Path, sandboxed: str
) -> None:
    async with launching(directory, sandboxed) as launcher:
        async with talking(launcher) as talk:
            pids = [launcher.zygote_pid, talk.kernel.pid]
            os.kill(warden_of(launcher), signal.SIGKILL)
            async with asyncio.timeout(10):
                assert await talk.kernel.exited in ("signal SIGKILL", "unknown")
            for pid in pids:
                await until_gone(pid)
        async with talking(launcher) as talk:
            assert await talk.value("1 + 1") == "2"


async def test_kernels_that_nobody_hands_over_are_ended(directory: Path, isolation: str) -> None:
    async with launching(directory, isolation, secret=SECRET) as launcher:
        kernels = [await launcher.launch() for _ in range(2)]
        pid = launcher.zygote_pid
        for kernel in kernels:
            kernel.channels.close()
        await launcher.aclose(leave=True)
        os.kill(pid, signal.SIGKILL)  # and with it goes the last that knew of them
        await until_gone(pid)
        async with launching(directory, isolation, secret=SECRET) as later:
            assert await later.adopt() == []
            for kernel in kernels:
                await until_gone(kernel.pid)
                assert not kernel.directory.exists()
            async with talking(later) as talk:
                assert await talk.value("1 + 1") == "2"


async def test_kernels_are_adopted_with_label_workspace_and_usage(
    directory: Path, sandboxed: str
) -> None:
    async with launching(directory, sandboxed, secret=SECRET) as launcher:
        bound, unbound = await launcher.launch(), await launcher.launch()
        await Talk(bound).run("x = 1; open('kept', 'w').write('y'); held = b'x' * (30 << 20)")
        bound.label("tenant/chat-42")
        for kernel in (bound, unbound):
            kernel.channels.close()
        await launcher.aclose(leave=True)
        async with launching(directory, sandboxed, secret=SECRET) as later:
            found = {label: kernel for kernel, label in await later.adopt()}
            assert {label: kernel.kernel_id for label, kernel in found.items()} == {
                "tenant/chat-42": bound.kernel_id,
                "": unbound.kernel_id,
            }
            kernel = found["tenant/chat-42"]
            assert await Talk(kernel).value("x") == "1"
            assert (kernel.workspace, bound.workspace) != (None, None)
            assert kernel.workspace.workspace_id == bound.workspace.workspace_id
            if later.level == "full":
                assert (kernel.usage().memory or 0) > 30 << 20
                kernel.tighten(processes=1)
                said = await Talk(kernel).value("import os; os.fork()")
                assert said.startswith("BlockingIOError")
            await kernel.close()
            async with talking(later, workspace=kernel.workspace) as talk:
                assert await talk.value("open('kept').read()") == "'y'"
            await found[""].close()


async def test_after_so_many_forks_another_zygote_serves(directory: Path, isolation: str) -> None:
    spec = KernelSpec(preload=(), recycle_forks=3)
    async with launching(directory, isolation, spec, secret=SECRET) as launcher:
        kernels: list[Kernel] = []
        parents = []
        for number in range(7):
            kernel = await launcher.launch()
            parents.append(parent_of(kernel.pid))
            await Talk(kernel).run(f"x = {number}")
            kernel.label(f"session {number}")
            kernels.append(kernel)
            await recycled(launcher)
        # The parent of those whose zygote has left is the warden, and that has stayed.
        assert [parents[at] == parents[at - 1] for at in range(1, 7)] == [1, 1, 0, 1, 1, 0]
        for pid in {*parents[:6]}:
            await until_gone(pid)
        assert {parent_of(kernel.pid) for kernel in kernels[:6]} == {warden_of(launcher)}
        assert parent_of(kernels[6].pid) == launcher.zygote_pid == parents[6]
        for number, kernel in enumerate(kernels):
            assert await Talk(kernel).value("x") == str(number)

        # Ends are known as ever, and a later controller finds them all.
        Talk(kernels[0]).start("import os; os._exit(3)")
        async with asyncio.timeout(10):
            # Without a reaper the system is asked; not every system knows.
            reasons = {"exit 3"} | ({"unknown"} if isolation == "none" else set())
            assert await kernels[0].exited in reasons
        await kernels[0].close()
        for kernel in kernels[1:]:
            kernel.channels.close()
        await settled(launcher)
        await launcher.aclose(leave=True)
        async with launching(directory, isolation, spec, secret=SECRET) as later:
            found = await later.adopt()
            assert sorted(label for _, label in found) == [f"session {n}" for n in range(1, 7)]
            for kernel, label in found:
                assert await Talk(kernel).value("x") == label.removeprefix("session ")
                await kernel.close()


async def test_no_launch_fails_during_a_change_of_guard(directory: Path, isolation: str) -> None:
    spec = KernelSpec(preload=(), recycle_forks=4)
    async with launching(directory, isolation, spec) as launcher:
        await launcher.start()
        first = launcher.zygote_pid
        kernels = await asyncio.gather(*(launcher.launch() for _ in range(20)))
        values = await asyncio.gather(*(Talk(kernel).value("6 * 7") for kernel in kernels))
        assert values == ["42"] * 20
        if launcher.mode == "root":  # two zygotes at once, and each chooses ids
            files = [kernel.workspace.descriptor for kernel in kernels if kernel.workspace]
            assert len({os.stat(descriptor).st_uid for descriptor in files}) == 20
        assert await recycled(launcher) not in (0, first)
        await asyncio.gather(*(kernel.close() for kernel in kernels))


async def test_an_old_zygote_is_replaced_at_its_next_fork(directory: Path, isolation: str) -> None:
    spec = KernelSpec(preload=(), recycle_after=0.0)
    async with launching(directory, isolation, spec) as launcher, talking(launcher) as talk:
        old = parent_of(talk.kernel.pid)
        assert await recycled(launcher) != old
        await until_gone(old)
        assert await talk.value("1 + 1") == "2"


async def test_workspaces_pass_from_zygote_to_zygote(directory: Path, sandboxed: str) -> None:
    spec = KernelSpec(preload=(), recycle_forks=1)
    async with launching(directory, sandboxed, spec) as launcher:
        async with talking(launcher) as talk:
            workspace = talk.kernel.workspace
            talk.kernel.keep_workspace = True
        owners = set()
        for turn in range(3):
            old = await recycled(launcher)
            async with talking(launcher, workspace=workspace) as talk:
                assert launcher.zygote_pid == old
                assert workspace is not None
                owners.add(os.stat(workspace.descriptor).st_uid)
                await talk.run(f"import os; open('{turn}', 'w').close()")
                assert await talk.value("len(os.listdir())") == str(turn + 1)
                async with talking(launcher) as other:  # of a zygote that did not make the first
                    assert other.kernel.workspace is not None
                    if launcher.mode != "user":
                        assert os.stat(other.kernel.workspace.descriptor).st_uid not in owners
                talk.kernel.keep_workspace = True
        assert len(owners) == 1


async def test_a_successor_that_cannot_start_leaves_the_zygote_in_its_place(
    directory: Path, sandboxed: str, python_with: Callable[..., str]
) -> None:
    once = "import os\nopen(os.environ['HOME'] + '/once', 'x').close()"
    spec = KernelSpec(python=python_with(once=once), preload=("once",), recycle_forks=2)
    async with launching(directory / "s", sandboxed, spec) as launcher:
        async with talking(launcher) as one, talking(launcher) as other:
            old = launcher.zygote_pid
            assert await recycled(launcher) == old
            async with talking(launcher) as third, talking(launcher) as fourth:
                # The second attempt fails as the first did, and takes no longer.
                assert await recycled(launcher) == old
                for talk in (one, other, third, fourth):
                    assert await talk.value("1 + 1") == "2"
        (launcher.directory / "cache" / "once").unlink()
        async with talking(launcher), talking(launcher):
            assert await recycled(launcher) not in (0, old)


async def expect_nobody_has(kernel: Kernel, launcher: Launcher, isolation: str) -> None:
    """Leave the kernel to a later launcher, which is to end it and all it has."""
    kernel.channels.close()
    await launcher.aclose(leave=True)
    async with launching(launcher.directory, isolation, secret=SECRET) as later:
        assert await later.adopt() == []
        await until_gone(kernel.pid)
        assert not kernel.directory.exists()


async def test_a_kernel_whose_label_cannot_be_written_is_nobodys(
    directory: Path, sandboxed: str
) -> None:
    # Read back as bound to nobody, it would be handed to anybody with all it holds.
    async with launching(directory, sandboxed, secret=SECRET) as launcher:
        kernel = await launcher.launch()
        deed = kernel.directory / "deed.json"
        deed.unlink()
        deed.symlink_to(directory / "elsewhere")  # what refuses to be written
        kernel.label("tenant/chat-42")
        assert not deed.is_symlink()
        await expect_nobody_has(kernel, launcher, sandboxed)


async def test_a_kernel_whose_label_can_be_neither_written_nor_removed_ends(
    directory: Path, isolation: str
) -> None:
    async with launching(directory, isolation) as launcher:
        kernel = await launcher.launch()
        deed = kernel.directory / "deed.json"
        deed.unlink()
        deed.mkdir()
        kernel.label("tenant/chat-42")
        async with asyncio.timeout(10):
            assert await kernel.exited == "cannot note whose it is: Is a directory"
        await kernel.close()


async def test_a_kernel_on_somebodys_files_is_not_adopted_before_it_is_bound(
    directory: Path, sandboxed: str
) -> None:
    async with launching(directory, sandboxed, secret=SECRET) as launcher:
        async with talking(launcher) as talk:
            await talk.run("open('private', 'w').write('x')")
            talk.kernel.keep_workspace = True
            files = talk.kernel.workspace
        await expect_nobody_has(await launcher.launch(workspace=files), launcher, sandboxed)


async def test_a_zygote_that_does_not_leave_is_let_go_of(
    directory: Path, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One that runs on, and was merely not told to leave, would have its successor ended.
    monkeypatch.setattr(Zygote, "leave", lambda zygote: os.kill(zygote.pid, signal.SIGSTOP))
    monkeypatch.setattr("kernels.succession.STOP_PATIENCE", 0.1)
    spec = KernelSpec(preload=(), recycle_forks=1)
    async with launching(directory, isolation, spec) as launcher:
        await launcher.start()
        old = launcher._succession._zygote
        assert old is not None
        try:
            await (await launcher.launch()).close()
            assert await recycled(launcher) not in (0, old.pid)
            assert old.lost.done()
            assert old._connection.fileno() == -1, "it is still listened to"
        finally:
            os.kill(old.pid, signal.SIGKILL)


async def test_an_upgrade_that_half_failed_is_not_tried_after_each_launch(
    directory: Path, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: Zygote) -> None:
        raise OSError("no")

    async with launching(directory, isolation) as launcher:
        await launcher.start()
        succession = launcher._succession
        old = succession._zygote
        assert old is not None
        old.code = "of before"
        monkeypatch.setattr(Zygote, "settle", fail)
        await (await launcher.launch()).close()
        pid = await recycled(launcher)
        assert pid != old.pid
        await (await launcher.launch()).close()
        assert await recycled(launcher) == pid
        old.close()
        os.kill(old.pid, signal.SIGKILL)
