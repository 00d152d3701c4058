"""The fork server: what makes one, what breaks one, and what must never be in it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from kernels.errors import LaunchError, ZygoteFailed
from kernels.launch import Launcher
from kernels.spec import KernelSpec
from kernels.warden import connect, lock, stop
from kernels.zygote import Zygote
from tests.kernels.talk import LIGHT, launching, settled, talking, until_gone


async def test_another_interpreter_finds_its_own_package_of_our_name(
    directory: Path, isolation: str, python_with: Callable[..., str]
) -> None:
    python = python_with(kernels="whose = 'another project'")
    spec = KernelSpec(python=python, preload=("kernels",))
    async with launching(directory, isolation, spec) as launcher, talking(launcher) as talk:
        assert await talk.value("import sys; sys.executable") == repr(python)
        assert await talk.value("import kernels; kernels.whose") == "'another project'"
        assert (await talk.value("import kernels.spec")).startswith("ModuleNotFoundError")
        assert (await talk.value("import broker")).startswith("ModuleNotFoundError")


async def test_a_preload_that_starts_a_thread_is_refused(
    directory: Path, isolation: str, python_with: Callable[..., str]
) -> None:
    code = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"
    spec = KernelSpec(python=python_with(busy=code), preload=("busy",))
    async with launching(directory, isolation, spec) as launcher:
        with pytest.raises(LaunchError, match=r"2 threads; a preloaded module started them"):
            await launcher.launch()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("import no_such_module", "cannot import 'bad'.*no_such_module"),
        ("1 / 0", "cannot import 'bad'.*division by zero"),
        ("raise SystemExit('enough')", "cannot import 'bad'.*enough"),
        ("import os; os._exit(7)", "the zygote ended"),
        ("import os; os.write(2, b'last words'); os.abort()", "last words"),
    ],
)
async def test_a_broken_preload_fails_with_its_name_or_its_last_words(
    directory: Path, isolation: str, python_with: Callable[..., str], text: str, says: str
) -> None:
    spec = KernelSpec(python=python_with(bad=text), preload=("bad",))
    async with launching(directory, isolation, spec) as launcher:
        with pytest.raises(ZygoteFailed, match=says):
            await launcher.start()


async def test_an_unknown_preload_is_named(directory: Path, isolation: str) -> None:
    spec = KernelSpec(preload=("no_such_module",))
    async with launching(directory, isolation, spec) as launcher:
        with pytest.raises(ZygoteFailed, match="cannot import 'no_such_module'"):
            await launcher.start()


async def test_an_unknown_interpreter_is_named(directory: Path, isolation: str) -> None:
    spec = KernelSpec(python="/no/such/python")
    async with launching(directory, isolation, spec) as launcher:
        with pytest.raises(ZygoteFailed, match="cannot start /no/such/python"):
            await launcher.start()


async def test_an_interpreter_that_is_none_is_told_with_its_last_words(
    directory: Path, isolation: str
) -> None:
    # To know what a sandbox must show, the interpreter is asked where it lives.
    says = "the zygote ended" if isolation == "none" else "cannot start /bin/false: .* status 1"
    async with launching(directory, isolation, KernelSpec(python="/bin/false")) as launcher:
        with pytest.raises(ZygoteFailed, match=says):
            await launcher.start()


async def test_imports_that_take_too_long_are_given_up(
    directory: Path, isolation: str, python_with: Callable[..., str]
) -> None:
    spec = KernelSpec(
        name="slow", python=python_with(slow="import signal; signal.pause()"), preload=("slow",)
    )
    async with launching(directory, isolation, spec, timeout=0.5) as launcher:
        with pytest.raises(ZygoteFailed, match=r"the imports of 'slow' took over 0\.5 s"):
            await launcher.start()


async def test_a_zygote_that_takes_nobody_in_is_told_and_not_waited_for(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as hangs, ExitStack() as waiting:
        hangs.bind(str(directory / "zygote.sock"))
        hangs.listen(1)
        with suppress(BlockingIOError):
            while True:
                one = waiting.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                one.setblocking(False)
                one.connect(str(directory / "zygote.sock"))
        with pytest.raises(ZygoteFailed, match="takes no connections: it hangs"):
            await asyncio.wait_for(asyncio.to_thread(connect, directory, "a recipe"), 30)
        await asyncio.wait_for(asyncio.to_thread(stop, directory), 30)  # nobody, as far as we see


async def test_a_changed_recipe_makes_a_new_zygote(directory: Path, isolation: str) -> None:
    async with launching(directory, isolation) as first:
        await first.start()
        pid = first.zygote_pid
        await first.aclose(leave=True)
    async with launching(directory, isolation) as same:
        await same.start()
        assert same.zygote_pid == pid
        await same.aclose(leave=True)
    spec = KernelSpec(preload=("decimal",))
    async with launching(directory, isolation, spec) as changed:
        await changed.start()
        assert changed.zygote_pid != pid
        await until_gone(pid)


async def test_the_zygote_ends_when_it_is_closed(directory: Path, isolation: str) -> None:
    launcher = Launcher(LIGHT, directory, isolation=isolation)
    kernel = await launcher.launch()
    pid = launcher.zygote_pid
    await launcher.aclose()
    await until_gone(pid)
    await until_gone(kernel.pid)
    assert launcher.zygote_pid == 0
    await kernel.close()


def memory_of(pid: int) -> Iterator[bytes]:
    """Yield the contents of each writable mapping of a process."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            found = re.match(r"(\w+)-(\w+) rw", line)
            if found:
                start, end = (int(group, 16) for group in found.groups())
                memory.seek(start)
                yield memory.read(end - start)


async def test_the_zygote_never_learns_whose_a_kernel_is_or_where(
    directory: Path, isolation: str
) -> None:
    # What it knows, each later kernel can read in a copy of its memory.
    async with launching(directory, isolation) as launcher:
        first = await launcher.launch()
        label, later = f"tenant/{os.urandom(8).hex()}", f"tenant/{os.urandom(8).hex()}"
        first.label(label)
        second = await launcher.launch()
        old = launcher.zygote_pid
        os.kill(old, signal.SIGKILL)
        first.label(later)
        third = await launcher.launch()  # by another zygote, to which the others were handed over
        assert launcher.zygote_pid != old
        told = [label, later, first.kernel_id, second.kernel_id, third.kernel_id]
        if isolation != "none":
            told.append(str(directory))
        for pid in (launcher.zygote_pid, third.pid):
            memory = b"".join(memory_of(pid))
            assert first.directory.name.encode() in memory or pid == third.pid
            assert [text for text in told if text.encode() in memory] == []
        for kernel in (first, second, third):
            await kernel.close()


async def test_no_key_is_ever_in_the_zygote_or_in_a_file(directory: Path, isolation: str) -> None:
    secret = os.urandom(32)
    async with (
        launching(directory, isolation, secret=secret) as launcher,
        talking(launcher) as talk,
        talking(launcher) as other,
    ):
        assert await talk.value("1") == "1"
        for kernel in (talk.kernel, other.kernel):
            key = launcher._key(kernel.kernel_id).encode()
            own = memory_of(kernel.pid)
            assert any(key in part for part in own), "the scan finds nothing"
            for needle in (key, bytes.fromhex(key.decode()), secret):
                assert not any(needle in part for part in memory_of(launcher.zygote_pid))
                for file in directory.rglob("*"):
                    if file.is_file():
                        assert needle not in file.read_bytes()
        # A later kernel's memory began as the zygote's: nor does it hold the first one's.
        first = launcher._key(talk.kernel.kernel_id).encode()
        assert not any(first in part for part in memory_of(other.kernel.pid))


async def test_the_zygote_stays_single_and_holds_no_descriptors_of_its_kernels(
    directory: Path, isolation: str
) -> None:
    async with launching(directory, isolation) as launcher:
        await settled(launcher)
        descriptors = Path(f"/proc/{launcher.zygote_pid}/fd")
        before = len(list(descriptors.iterdir()))
        for _ in range(5):
            async with talking(launcher) as talk:
                assert await talk.value("1") == "1"
        await settled(launcher)
        assert len(list(descriptors.iterdir())) == before
        assert len(os.listdir(f"/proc/{launcher.zygote_pid}/task")) == 1


async def test_nothing_of_our_environment_reaches_the_zygote(
    directory: Path, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_TOKEN", "a-secret-of-ours")
    async with launching(directory, isolation) as launcher, talking(launcher) as talk:
        for pid in (launcher.zygote_pid, talk.kernel.pid):
            assert b"a-secret-of-ours" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert (await talk.value("import os; os.environ['BROKER_TOKEN']")).startswith("KeyError")


async def test_orphans_end_after_their_time(directory: Path, isolation: str) -> None:
    launcher = Launcher(LIGHT, directory, isolation=isolation, orphan_ttl=0.2)
    kernel = await launcher.launch()
    pid = launcher.zygote_pid
    await launcher.aclose(leave=True)
    await until_gone(pid)
    await until_gone(kernel.pid)
    await kernel.close()


async def test_a_zygote_that_is_wanted_again_in_time_stays(directory: Path) -> None:
    launcher = Launcher(LIGHT, directory, orphan_ttl=30)
    await launcher.start()
    pid = launcher.zygote_pid
    await launcher.aclose(leave=True)
    zygote = await Zygote.open(LIGHT, directory, orphan_ttl=30, timeout=30)
    assert zygote.pid == pid
    assert await zygote.kernels() == []
    zygote.stop()
    await zygote.lost
    with pytest.raises(LaunchError, match="the zygote is gone"):
        await zygote.kernels()
    with pytest.raises(LaunchError, match="the zygote is gone"):
        await zygote.fork("k", [], channels=0, workspace={"name": ""})
    zygote.close()


async def test_a_killed_zygote_is_no_zombie(directory: Path, isolation: str) -> None:
    async with launching(directory, isolation) as launcher:
        await launcher.start()
        pid = launcher.zygote_pid
        os.kill(pid, signal.SIGKILL)
        await until_gone(pid)
        await launcher.start()
        assert not Path(f"/proc/{pid}").exists()


def test_one_process_at_a_time_has_the_directory(directory: Path) -> None:
    descriptor = lock(directory)
    with pytest.raises(BlockingIOError):
        lock(directory)
    os.close(descriptor)
    os.close(lock(directory))
