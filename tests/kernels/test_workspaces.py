"""A session's files: they outlive its kernels, are bounded exactly, and are nobody else's."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from kernels.errors import UnsafePath
from kernels.launch import Launcher, Workspace
from kernels.safe_open import open_beneath
from kernels.spec import KernelSpec, Limits
from tests.kernels.talk import LIGHT, Talk, launching, settled, talking, warden_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = 1 << 20
FILES = 20
SMALL = KernelSpec(preload=(), limits=Limits(workspace_bytes=SIZE, workspace_files=FILES))
FILL = """
import errno, os
written = 0
with open('full', 'wb', buffering=0) as file:
    try:
        while True:
            written += file.write(b'x' * 10_000)
    except OSError as error:
        print(errno.errorcode[error.errno], written)
"""
CROWD = """
import errno, itertools
try:
    for number in itertools.count():
        open(f'file {number}', 'x').close()
except OSError as error:
    print(errno.errorcode[error.errno], number)
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def launcher(module_directory: Path, isolation: str) -> AsyncIterator[Launcher]:
    async with launching(module_directory, isolation) as launcher:
        yield launcher


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shut_in(module_directory: Path, sandboxed: str) -> AsyncIterator[Launcher]:
    """Yield a launcher of kernels in a sandbox, with small workspaces."""
    async with launching(module_directory / "s", sandboxed, SMALL) as launcher:
        yield launcher


def workspace_of(talk: Talk) -> Workspace:
    assert talk.kernel.workspace is not None
    return talk.kernel.workspace


def read(directory: int, name: str) -> str:
    with open(open_beneath(directory, name)) as file:
        return file.read()


def mounted(launcher: Launcher) -> set[str]:
    """Return the names of the workspaces that the warden has mounted."""
    mounts = Path(f"/proc/{warden_of(launcher)}/mountinfo").read_text()
    points = [Path(line.split(" ")[4]) for line in mounts.splitlines()]
    return {point.name for point in points if point.parent.name == ".workspaces"}


async def test_a_workspace_survives_its_kernel_and_its_variables_do_not(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await talk.run("open('kept', 'w').write('from the first'); x = 1")
        talk.kernel.keep_workspace = True
    workspace = workspace_of(talk)
    async with talking(launcher, workspace=workspace) as talk:
        assert workspace_of(talk) is workspace
        assert await talk.value("open('kept').read()") == "'from the first'"
        assert (await talk.value("x")).startswith("NameError")
        # What the first one made is the second one's to change.
        assert (await talk.run("open('kept', 'a').write('!')")).status == "ok"


async def test_a_dropped_workspace_is_gone(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await talk.run("open('kept', 'w').close()")
        talk.kernel.keep_workspace = True
    launcher.drop_workspace(workspace_of(talk))
    again = Workspace(workspace_of(talk).workspace_id)
    async with talking(launcher, workspace=again) as talk:
        assert await talk.value("import os; os.listdir()") == "[]"


async def test_a_workspace_ends_with_its_kernel_unless_it_is_kept(
    launcher: Launcher, isolation: str
) -> None:
    async with talking(launcher) as talk:
        name = workspace_of(talk).workspace_id
        await talk.run("open('left', 'w').close()")
    if isolation == "none":
        assert not (launcher.directory / f"w-{name}").exists()
        return
    await settled(launcher)
    assert name not in mounted(launcher)


async def test_a_workspace_that_ends_without_a_zygote_is_dropped_by_the_next(
    directory: Path, sandboxed: str
) -> None:
    async with launching(directory, sandboxed) as launcher:
        async with talking(launcher):
            zygote = launcher._succession._zygote
            assert zygote is not None
            os.kill(launcher.zygote_pid, signal.SIGKILL)
            await zygote.lost
        async with talking(launcher) as other:
            await other.run("1")
            assert mounted(launcher) == {workspace_of(other).workspace_id}


async def test_home_has_two_names(shut_in: Launcher) -> None:
    async with talking(shut_in) as talk:
        code = "import os; open('/mnt/data/x', 'w').write('same')\nos.getcwd(), open('x').read()"
        assert await talk.value(code) == "('/home/user', 'same')"
        assert await talk.value("os.path.expanduser('~'), os.environ['HOME']") == (
            "('/home/user', '/home/user')"
        )
        assert await talk.value("os.path.samefile('/home/user', '/mnt/data')") == "True"


async def test_its_size_is_exact(shut_in: Launcher) -> None:
    async with talking(shut_in) as talk:
        assert (await talk.run(FILL)).text() == f"ENOSPC {SIZE}\n"
        # The next cell is told as much, and deleting helps.
        assert (await talk.value("os.remove('full'); open('x', 'w').write('y')")) == "1"


async def test_its_number_of_files_is_exact(shut_in: Launcher) -> None:
    async with talking(shut_in) as talk:
        # The directory itself is one of them.
        assert (await talk.run(CROWD)).text() == f"ENOSPC {FILES - 1}\n"


async def test_no_session_sees_anothers_files(shut_in: Launcher) -> None:
    async with talking(shut_in) as one, talking(shut_in) as other:
        await one.run("import os; open('mine', 'w').close(); os.chmod('.', 0o777)")
        found = (
            "import os\n"
            "tops = ('/home', '/mnt', '/tmp', '/run', '/var', '/dev', '/.workspaces')\n"
            "[top for start in tops for top, _, names in os.walk(start) if 'mine' in names]"
        )
        assert await other.value(found) == "[]"
        named = [await talk.value("open('/proc/self/mountinfo').read()") for talk in (one, other)]
        names = [workspace_of(talk).workspace_id for talk in (one, other)]
        assert not any(name in text for name in names for text in named)


async def test_each_workspace_is_owned_by_a_user_of_its_own(shut_in: Launcher) -> None:
    async with talking(shut_in) as one, talking(shut_in) as other:
        owners = [os.stat(workspace_of(talk).descriptor).st_uid for talk in (one, other)]
        if shut_in.mode == "user":  # there is one id for all
            assert owners == [os.getuid()] * 2
        else:
            assert len({0, os.getuid(), *owners}) == len({0, os.getuid()}) + 2
        # It sees itself as the owner of what is its own, under a name that tells nothing.
        assert await one.value("import os; os.getuid(), os.stat('.').st_uid") == "(1000, 1000)"


async def test_what_is_in_it_can_be_read_from_outside(shut_in: Launcher) -> None:
    async with talking(shut_in) as talk:
        await talk.run("import os; os.mkdir('d'); open('d/f', 'w').write('text')")
        await talk.run("os.symlink('/etc/passwd', 'link'); os.mkfifo('fifo')")
        files = workspace_of(talk).descriptor
        assert read(files, "d/f") == "text"
        for name, reason in (("link", "symlink"), ("fifo", "not a regular"), ("../x", "outside")):
            with pytest.raises(UnsafePath, match=reason):
                open_beneath(files, name)
        talk.kernel.keep_workspace = True
    # And while no kernel is there to have it.
    assert read(workspace_of(talk).descriptor, "d/f") == "text"
    shut_in.drop_workspace(workspace_of(talk))


async def test_every_workspace_there_is_can_be_given_to_one_kernel_after_another(
    directory: Path, sandboxed: str
) -> None:
    async with launching(directory, sandboxed, LIGHT) as launcher:
        workspaces = [Workspace(f"session-{number}") for number in range(3)]
        for turn in range(2):
            for number, workspace in enumerate(workspaces):
                async with talking(launcher, workspace=workspace) as talk:
                    await talk.run(f"open('turn {turn}', 'w').close(); s = {number}")
                    talk.kernel.keep_workspace = True
                    names = await talk.value("import os; sorted(os.listdir())")
                    assert names == str([f"turn {number}" for number in range(turn + 1)])
        await settled(launcher)
