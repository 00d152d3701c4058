"""However a shut-in kernel ends, its reason is known, at once, and nothing of it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from kernels.launch import Kernel, Launcher
from kernels.safe_open import open_beneath
from kernels.spec import KernelSpec, Limits
from tests.kernels.talk import Talk, launching, talking, until_gone

pytestmark = pytest.mark.asyncio(loop_scope="module")

SOON = 0.5  # s from an end to its being known; 50 ms at most were measured on a busy machine
MEMORY = 200 << 20
SPEC = KernelSpec(preload=(), limits=Limits(memory=MEMORY, processes=64))
NOTE = "import os, time\nclock = os.open('clock', os.O_CREAT | os.O_WRONLY)\n"
# The time is noted again and again: the last note is of the end.
TICK = "os.pwrite(clock, str(time.time_ns()).encode(), 0)"
EAT = f"held = []\nwhile True:\n  {TICK}\n  held.append(b'x' * (1 << 20))"
# Shared memory is no part of what RLIMIT_DATA counts: only the cgroup knows of it.
EAT_SHARED = (
    "import mmap\nheld = []\nwhile True:\n"
    f"  {TICK}\n  held.append(mmap.mmap(-1, 1 << 20)); held[-1].write(b'x' * (1 << 20))"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def launcher(module_directory: Path, sandboxed: str) -> AsyncIterator[Launcher]:
    async with launching(module_directory, sandboxed, SPEC) as launcher:
        yield launcher


@pytest_asyncio.fixture(loop_scope="module")
async def talk(launcher: Launcher) -> AsyncIterator[Talk]:
    async with talking(launcher) as talk:
        yield talk
        talk.kernel.keep_workspace = False


def delay_of(kernel: Kernel) -> float:
    """Return the seconds since the kernel's last note of the time."""
    now = time.time_ns()
    assert kernel.workspace is not None
    with open(open_beneath(kernel.workspace.descriptor, "clock")) as file:
        return (now - int(file.read())) / 1e9


def need_cgroup(launcher: Launcher) -> None:
    if launcher.level != "full":
        pytest.skip("no cgroup holds kernels on this host")


async def end_of(talk: Talk) -> str:
    async with asyncio.timeout(20):
        return await talk.kernel.exited


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("os._exit(3)", "exit 3"),
        ("os._exit(0)", "exit 0"),
        ("import ctypes; ctypes.string_at(0)", "signal SIGSEGV"),
        ("os.abort()", "signal SIGABRT"),
        ("os.kill(os.getpid(), 9)", "signal SIGKILL"),
        ("os.kill(os.getpid(), 15)", "signal SIGTERM"),
        ("os.kill(os.getpid(), 31)", "signal SIGSYS"),
    ],
)
async def test_an_end_is_known_at_once_with_its_reason(talk: Talk, code: str, reason: str) -> None:
    talk.start(f"{NOTE}{TICK}\n{code}")
    assert await end_of(talk) == reason
    assert delay_of(talk.kernel) < SOON


async def test_a_kernel_that_is_killed_ends_for_the_reason_given(talk: Talk) -> None:
    talk.start("while True: pass")
    began = time.monotonic()
    talk.kernel.kill("idle")
    assert await end_of(talk) == "idle"
    assert time.monotonic() - began < SOON


async def test_its_children_end_with_it(talk: Talk) -> None:
    said = await talk.run(
        "import subprocess\n"
        "for _ in range(3): subprocess.Popen(['sleep', '1000'], start_new_session=True)"
    )
    assert said.status == "ok"
    children = [child.pid for child in psutil.Process(talk.kernel.pid).children(recursive=True)]
    assert len(children) == 3
    talk.start("import os; os._exit(0)")
    await end_of(talk)
    for pid in children:
        await until_gone(pid)


async def test_nothing_in_it_can_end_the_process_above(talk: Talk) -> None:
    said = await talk.run(
        "import os, signal\n"
        "for number in signal.Signals:\n"
        "  try: os.kill(1, number)\n"
        "  except PermissionError: pass\n"
        "'alive'"
    )
    assert said.value == "'alive'"


@pytest.mark.parametrize("where", ["the kernel", "a subprocess", "the workspace"])
async def test_memory_over_the_limit_ends_the_whole_kernel(
    launcher: Launcher, talk: Talk, where: str
) -> None:
    need_cgroup(launcher)
    code = {
        "the kernel": f"{NOTE}{EAT_SHARED}",
        "a subprocess": f"{NOTE}import subprocess, sys\nos.set_inheritable(clock, True)\n"
        "program = f'import os, time; clock = {clock}\\n' + " + repr(EAT) + "\n"
        "subprocess.run([sys.executable, '-c', program], close_fds=False)\n"
        "import signal; signal.pause()",
        "the workspace": f"{NOTE}file = open('full', 'wb', buffering=0)\n"
        f"while True:\n  {TICK}\n  file.write(b'x' * (1 << 20))",
    }[where]
    pid = talk.kernel.pid
    talk.start(code)
    assert await end_of(talk) == "oom"
    assert delay_of(talk.kernel) < SOON
    await until_gone(pid)


async def test_asking_for_too_much_at_once_is_an_error_and_harms_nothing(talk: Talk) -> None:
    await talk.run("x = 1")
    for _ in range(3):
        assert (await talk.value("held = b'x' * (4 << 30)")).startswith("MemoryError")
    assert await talk.value("x") == "1"


async def test_orphans_are_taken_in_and_use_up_nothing(talk: Talk) -> None:
    # 150 of them, and at most 64 processes: each must be gone before the last is made.
    said = await talk.run(
        "import os\nleft = []\n"
        "for number in range(150):\n"
        "  read, write = os.pipe()\n"
        "  child = os.fork()\n"
        "  if child == 0:\n"
        "    os.fork() and os._exit(0)\n"
        "    os._exit(0)\n"
        "  os.close(write); os.waitpid(child, 0); os.read(read, 1); os.close(read)\n"
        "'made'"
    )
    assert said.value == "'made'"
    reaper = psutil.Process(talk.kernel.process.reaper)
    async with asyncio.timeout(10):
        # Dead ones are taken in while the kernel answers.
        while reaper.children():
            assert await talk.value("1") == "1"


async def test_a_fork_bomb_meets_its_bound_and_leaves_the_kernel_alive(talk: Talk) -> None:
    said = await talk.run(
        "import os, signal\nchildren = []\n"
        "try:\n"
        "  while True:\n"
        "    pid = os.fork()\n"
        "    if pid == 0: signal.pause()\n"
        "    children.append(pid)\n"
        "except OSError as error: print(error.errno, len(children) < 64)\n"
        "for pid in children: os.kill(pid, 9); os.waitpid(pid, 0)"
    )
    assert said.text() == "11 True\n"
    assert await talk.value("1 + 1") == "2"


async def test_usage_grows_and_is_of_the_whole_tree(launcher: Launcher, talk: Talk) -> None:
    need_cgroup(launcher)
    before = talk.kernel.usage()
    await talk.run(
        "import subprocess, sys, time\nheld = b'x' * (50 << 20)\n"
        "burn = 'import time\\nwhile time.process_time() < 0.3: pass'\n"
        "subprocess.run([sys.executable, '-c', burn])\n"
        "idle = subprocess.Popen(['sleep', '1000'])"
    )
    after = talk.kernel.usage()
    assert None not in (*before, *after)
    assert after.cpu_seconds - before.cpu_seconds > 0.3
    assert after.memory - before.memory > 50 << 20
    assert after.memory_peak >= after.memory
    assert after.processes == before.processes + 1


async def test_a_tightened_bound_holds(launcher: Launcher, talk: Talk) -> None:
    need_cgroup(launcher)
    processes = talk.kernel.usage().processes
    assert processes is not None
    talk.kernel.tighten(memory=100 << 20, processes=processes + 2, cpu=0.5)
    said = await talk.run(
        "import subprocess, time\nbegan = time.monotonic()\n"
        "while time.process_time() < 0.3: pass\n"
        "print(time.monotonic() - began > 0.45)\n"
        "for _ in range(3): subprocess.Popen(['sleep', '1000'])"
    )
    assert said.text() == "True\n"
    assert said.value.startswith("BlockingIOError")
    talk.start("held = b'x' * (120 << 20)")
    assert await end_of(talk) == "oom"


async def test_usage_of_an_ended_kernel_is_nothing(talk: Talk) -> None:
    talk.kernel.kill()
    await talk.kernel.exited
    assert set(talk.kernel.usage()) == {None}


BURN = """
import os, subprocess, sys, time
burn = "import time; began = time.process_time()\\nwhile time.process_time() - began < 0.4: pass\\n"
exec(burn)
says = "print(end='.', flush=True); time.sleep(1000)"
other = subprocess.Popen([sys.executable, "-c", burn + says], stdout=subprocess.PIPE)
other.stdout.read(1)
os._exit(0)
"""


async def test_what_a_kernel_has_used_in_all_is_known_when_it_has_ended(
    launcher: Launcher, talk: Talk
) -> None:
    need_cgroup(launcher)
    before = talk.kernel.usage().cpu_seconds or 0.0
    assert talk.kernel.spent is None
    talk.start(BURN)  # and a process that nobody has waited for
    assert await end_of(talk) == "exit 0"
    assert talk.kernel.spent is not None
    assert 0.8 <= talk.kernel.spent - before < 10
