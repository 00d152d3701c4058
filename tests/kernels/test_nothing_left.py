"""A thousand kernels come and go, and the machine is as it was."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import psutil
import pytest

from kernels.launch import Launcher
from kernels.spec import KernelSpec
from tests.kernels.talk import Talk, launching, settled, until_gone, warden_of

KERNELS = 1000
AT_A_TIME = 8
# No change of guard meanwhile: it is the same zygote's descriptors that are counted.
SPEC = KernelSpec(preload=(), recycle_forks=10 * KERNELS)


def descriptors(pid: int) -> list[str]:
    """Return what a process has open, sockets and namespaces among it, without their numbers."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(entry).partition(":")[0])
        except FileNotFoundError:
            continue  # the listing's own
    return sorted(found)


def mounts(pid: int) -> list[str]:
    """Return the mount points that a process sees."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return sorted(line.split(" ")[4] for line in lines)


def own_mounts(directory: Path) -> list[str]:
    """Return the mounts of ours that the host sees; others may come and go meanwhile."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if str(directory) in line or " - tmpfs workspace " in line]


def sockets_below(directory: Path) -> list[str]:
    """Return the names of the zygotes' sockets there; those of kernels tell no directory."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    return sorted({line.split()[-1] for line in lines if str(directory) in line})


def family(pid: int) -> list[tuple[str, bool]]:
    """Return the names of all processes below one, and whether each is dead and not yet buried."""
    below = psutil.Process(pid).children(recursive=True)
    return sorted((each.name(), each.status() == psutil.STATUS_ZOMBIE) for each in below)


def unburied() -> list[psutil.Process]:
    """Return our own children that are dead."""
    children = psutil.Process().children()
    return [child for child in children if child.status() == psutil.STATUS_ZOMBIE]


def everything(launcher: Launcher) -> dict[str, object]:
    """Return all that kernels might leave behind, in numbers and names."""
    zygote, warden = launcher.zygote_pid, warden_of(launcher)
    isolation = launcher._isolation
    assert isolation is not None
    return {
        "processes": family(warden),
        "dead children": unburied(),
        "mounts": [own_mounts(launcher.directory), mounts(warden), mounts(zygote)],
        "cgroups": isolation.cgroups.names() if isolation.cgroups is not None else set(),
        "files": sorted(str(path) for path in launcher.directory.rglob("*")),
        "sockets": sockets_below(launcher.directory),
        "descriptors": [descriptors(pid) for pid in (os.getpid(), warden, zygote)],
    }


def cgroups_of(launcher: Launcher) -> list[Path]:
    """Return the launcher's own directories of control groups."""
    isolation = launcher._isolation
    assert isolation is not None
    if isolation.cgroups is None:
        return []
    found = re.search(r"kernel-broker-\w+", isolation.cgroups.evidence())
    assert found is not None
    # Unlike rglob, it does not mind that those of other tests go meanwhile.
    walk = os.walk("/sys/fs/cgroup")
    return [Path(folder, found[0]) for folder, inside, _ in walk if found[0] in inside]


async def come_and_go(launcher: Launcher, count: int) -> None:
    """Have so many kernels start and end, by our hand or their own."""
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            kernel = await launcher.launch()
            if number % 10 == 0:
                await Talk(kernel).run("import subprocess; subprocess.Popen(['sleep', '1000'])")
            if number % 10 == 1:
                Talk(kernel).start("import os; os._exit(0)")
                await kernel.exited
            await kernel.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_A_TIME):
            group.create_task(some())
    await settled(launcher)


@pytest.mark.timeout(300)  # 50 s on two cores with other work to do
async def test_a_thousand_kernels_leave_nothing_behind(directory: Path, sandboxed: str) -> None:
    async with launching(directory, sandboxed, SPEC) as launcher:
        await come_and_go(launcher, 2 * AT_A_TIME)  # what is made once and kept is there now
        before = everything(launcher)
        assert launcher.level != "full" or cgroups_of(launcher)
        await come_and_go(launcher, KERNELS)
        after = everything(launcher)
        assert after == before
        warden = warden_of(launcher)
    await until_gone(warden)
    assert not cgroups_of(launcher)
