"""Kernels of other projects in our sandbox: what holds for ours holds for them."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from kernels.errors import LaunchError
from kernels.launch import Launcher, Workspace
from kernels.options import PORT
from kernels.sandbox import landlock
from kernels.spec import KernelSpec, Limits
from tests.kernels.talk import Talk, launching, talking, until_gone

STOCK = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
SMALL = Limits(memory=256 << 20, processes=48, workspace_bytes=8 << 20)
CONNECTION = "import json; info = json.load(open('/tmp/kernel.json'))\n"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that installs a kernelspec and returns its name."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    def install(argv: list[str] = STOCK, **fields: Any) -> str:
        name = f"other-{secrets.token_hex(4)}"
        folder = tmp_path / "kernels" / name
        folder.mkdir(parents=True)
        spec = {"argv": argv, "display_name": name, "language": "python", **fields}
        (folder / "kernel.json").write_text(json.dumps(spec))
        return name

    return install


@pytest.fixture
async def launcher(
    directory: Path, sandboxed: str, install: Callable[..., str]
) -> AsyncIterator[Launcher]:
    async with launching(
        directory, sandboxed, KernelSpec(kernelspec=install(), limits=SMALL)
    ) as it:
        yield it


async def end_of(talk: Talk, code: str) -> str:
    """Return the reason for the end that a cell brings about."""
    talk.start(code)
    async with asyncio.timeout(20):
        return await talk.kernel.exited


async def test_a_profile_of_a_kernelspec_passes_the_self_test(launcher: Launcher) -> None:
    findings = await launcher.self_test()
    assert len(findings) > 10
    assert [finding for finding in findings if not finding.safe] == []


async def test_it_sees_no_process_but_itself(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        seen = "import os; [int(pid) for pid in os.listdir('/proc') if pid.isdigit()]"
        assert await talk.value(seen) == "[3]"
        assert await talk.value("(os.getpid(), os.getuid(), os.getcwd())") == (
            "(3, 1000, '/home/user')"
        )


async def test_nothing_of_the_relay_can_be_read_or_traced(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        for name in ("mem", "environ", "maps", "fd/3"):
            assert "Error" in await talk.value(f"open('/proc/2/{name}', 'rb').read(1)")
        attach = "import ctypes; ctypes.CDLL(None).ptrace(16, 2, 0, 0)"
        assert await talk.value(attach) == "-1"


async def test_it_cannot_end_or_stop_the_relay(launcher: Launcher) -> None:
    if landlock.abi() < 6:
        pytest.skip("needs Linux 6.12: Landlock's word on signals")
    async with talking(launcher) as talk:
        for number in ("SIGKILL", "SIGSTOP", "SIGINT"):
            tried = await talk.value(f"import os, signal; os.kill(2, signal.{number})")
            assert tried.startswith("PermissionError")
        await talk.run("os.kill(-1, signal.SIGKILL)")
        assert await talk.value("6 * 7") == "42"


async def test_both_it_and_the_relay_are_filtered_and_powerless(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        relay = psutil.Process(talk.kernel.pid)
        for process in (relay, *relay.children(recursive=True)):
            text = Path(f"/proc/{process.pid}/status").read_text()
            said = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
            assert (said["Seccomp"], said["NoNewPrivs"]) == ("2", "1")
            assert {int(said[name], 16) for name in ("CapEff", "CapPrm", "CapBnd")} == {0}
        assert len(relay.children(recursive=True)) == 1


async def test_it_holds_none_of_the_sockets_that_the_broker_made(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        code = (
            "import os, socket, stat\nfound = []\n"
            "for number in map(int, os.listdir('/proc/self/fd')):\n"
            "    try:\n        mode = os.fstat(number).st_mode\n"
            "    except OSError:\n        continue\n"
            "    if stat.S_ISSOCK(mode):\n"
            "        found.append(socket.socket(fileno=os.dup(number)))\n"
        )
        assert (await talk.run(code)).status == "ok"
        listening = "s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)"
        families = f"{{s.family.name for s in found if {listening}}}"
        assert await talk.value(families) == "{'AF_INET'}"
        assert await talk.value(f"os.path.exists({str(launcher.directory)!r})") == "False"


async def test_two_of_them_have_the_same_ports_and_reach_only_their_own(
    launcher: Launcher,
) -> None:
    async with talking(launcher) as one, talking(launcher) as other:
        keys = set()
        for talk in (one, other):
            await talk.run(CONNECTION)
            assert (
                await talk.value("info['ip'], info['shell_port']") == f"('127.0.0.1', {PORT + 1})"
            )
            keys.add(await talk.value("info['key']"))
        assert len(keys) == 2
        await one.run("import socket; s = socket.create_server(('127.0.0.1', 5000))")
        refused = await other.value("import socket; socket.create_connection(('127.0.0.1', 5000))")
        assert refused.startswith("ConnectionRefusedError")
        for port in (5000, *range(PORT + 1, PORT + 6)):
            with socket.socket() as host, pytest.raises(ConnectionRefusedError):
                host.connect(("127.0.0.1", port))


async def test_the_connection_file_is_for_it_alone(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        assert await talk.value("import os; oct(os.stat('/tmp/kernel.json').st_mode)") == (
            "'0o100600'"
        )


async def test_on_the_hosts_network_it_opens_no_port(
    directory: Path, sandboxed: str, install: Callable[..., str]
) -> None:
    spec = KernelSpec(kernelspec=install(), network="host")
    async with launching(directory, sandboxed, spec) as launcher, talking(launcher) as talk:
        await talk.run(CONNECTION)
        assert await talk.value("info['transport'], info['ip']") == "('ipc', '/tmp/.sockets/k')"
        assert await talk.value("import os; oct(os.stat('/tmp/.sockets').st_mode)") == "'0o40700'"


async def test_a_thousand_connections_to_its_own_ports_do_not_break_it(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        await talk.run(CONNECTION)
        code = (
            "import socket\n"
            "for _ in range(10):\n"
            "    many = [socket.create_connection(('127.0.0.1', info['shell_port']))"
            " for _ in range(100)]\n"
            "    for each in many: each.close()\n"
        )
        assert (await talk.run(code)).status == "ok"
        assert await talk.value("6 * 7") == "42"


async def test_a_flood_that_the_broker_leaves_unread_does_not_grow_the_relay(
    launcher: Launcher,
) -> None:
    async with talking(launcher) as talk:
        await talk.run("pass")
        relay = psutil.Process(talk.kernel.pid)
        before = relay.memory_info().rss
        talk.kernel.channels.pause()
        said = talk.start("for _ in range(60): print('x' * 500_000, flush=True)")
        await talk.until(lambda: said.reply is not None)
        assert relay.memory_info().rss < before + (4 << 20)
        talk.kernel.channels.resume()
        assert await talk.value("'on'") == "'on'"


async def test_a_megabyte_goes_through_in_order(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        said = await talk.run("print(''.join(f'{n:07d}' for n in range(150_000)))")
        assert said.text() == "".join(f"{n:07d}" for n in range(150_000)) + "\n"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(3)", "exit 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "signal SIGSEGV"),
    ],
)
async def test_its_end_has_a_reason_and_leaves_nothing(
    launcher: Launcher, code: str, reason: str
) -> None:
    async with talking(launcher) as talk:
        processes = psutil.Process(talk.kernel.process.reaper), psutil.Process(talk.kernel.pid)
        pids = [each.pid for each in (*processes, *processes[1].children(recursive=True))]
        assert len(pids) == 3
        assert await end_of(talk, code) == reason
        for pid in pids:
            await until_gone(pid)


async def test_what_its_processes_hold_together_ends_it_as_oom(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        code = (
            "import os, signal\n"
            "for _ in range(6):\n"
            "    if not os.fork():\n"
            "        x = os.urandom(1 << 20) * 60\n"
            "        signal.pause()\n"
            "os.wait()"
        )
        assert await end_of(talk, code) == "oom"


async def test_its_processes_are_bounded(launcher: Launcher) -> None:
    async with talking(launcher) as talk:
        code = (
            "import os, signal\nchildren = []\n"
            "try:\n"
            "    while len(children) < 500:\n"
            "        pid = os.fork()\n"
            "        if not pid:\n            signal.pause()\n"
            "        children.append(pid)\n"
            "except OSError as error:\n    print(error.errno)\n"
            "for pid in children: os.kill(pid, 9), os.waitpid(pid, 0)\n"
        )
        assert (await talk.run(code)).text() == "11\n"
        assert int(await talk.value("len(children)")) < 48


async def test_its_files_are_bounded_and_outlive_it(launcher: Launcher) -> None:
    kernel = await launcher.launch()
    kernel.keep_workspace = True
    talk = Talk(kernel)
    full = await talk.value("open('big', 'wb').write(bytes(64 << 20))")
    assert full.startswith("OSError: [Errno 28]")
    await talk.run("import os; os.remove('big'); open('kept', 'w').write('text')")
    await kernel.close()
    assert isinstance(kernel.workspace, Workspace)
    async with talking(launcher, workspace=kernel.workspace) as talk:
        assert await talk.value("open('kept').read()") == "'text'"


@pytest.mark.parametrize("mode", ["signal", "message"])
async def test_an_interrupt_reaches_what_a_cell_started(
    directory: Path, sandboxed: str, install: Callable[..., str], mode: str
) -> None:
    spec = KernelSpec(kernelspec=install(interrupt_mode=mode))
    async with launching(directory, sandboxed, spec) as launcher, talking(launcher) as talk:
        said = talk.start(
            "import subprocess\n"
            "child = subprocess.Popen(['sleep', '60'])\n"
            "print('up', flush=True)\n"
            "child.wait()"
        )
        await talk.until(said.text)
        talk.kernel.interrupt()
        assert (await talk.end(said)).status == "error"
        # 0 where the interrupt came between the child's end and the note of its status.
        assert await talk.value("child.wait(10)") in ("-2", "0")
        assert await talk.value("6 * 7") == "42"


async def test_it_outlives_the_broker(
    directory: Path, sandboxed: str, install: Callable[..., str]
) -> None:
    spec, secret = KernelSpec(kernelspec=install()), secrets.token_bytes(32)
    first = Launcher(spec, directory, isolation=sandboxed, secret=secret)
    kernel = await first.launch()
    await Talk(kernel).run("x = 41")
    kernel.label("chat-42")
    kernel.channels.close()
    await first.aclose(leave=True)
    async with launching(directory, sandboxed, spec, secret=secret) as second:
        ((adopted, label),) = await second.adopt()
        assert label == "chat-42"
        assert adopted.pid == kernel.pid
        talk = Talk(adopted)
        assert await talk.value("x + 1") == "42"
        said = talk.start("print('up', flush=True)\nwhile True: pass")
        await talk.until(said.text)
        adopted.interrupt()
        assert (await talk.end(said)).status == "error"
        assert await talk.value("x") == "41"
        await adopted.close()


async def test_the_environment_is_the_kernelspecs_over_the_profiles(
    directory: Path, sandboxed: str, install: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKER_TOKEN", "secret")
    name = install(env={"COLOUR": "green", "PALETTE": "${SHADE} and ${NONE}"})
    spec = KernelSpec(kernelspec=name, env=(("COLOUR", "red"), ("SHADE", "dark")))
    async with launching(directory, sandboxed, spec) as launcher, talking(launcher) as talk:
        await talk.run("import os; env = os.environ")
        assert await talk.value("env['COLOUR'], env['PALETTE']") == "('green', 'dark and ${NONE}')"
        assert await talk.value("env['HOME']") == "'/home/user'"
        assert await talk.value("env.get('BROKER_TOKEN'), env.get('JPY_PARENT_PID')") == (
            "(None, None)"
        )


async def test_its_last_words_say_why_it_did_not_start(
    directory: Path, sandboxed: str, install: Callable[..., str]
) -> None:
    words = "import sys; print('no such language', file=sys.stderr); sys.exit(7)"
    spec = KernelSpec(kernelspec=install([sys.executable, "-c", words]))
    async with launching(directory, sandboxed, spec) as launcher:
        with pytest.raises(LaunchError, match="exit 7; no such language"):
            await launcher.launch()


async def test_a_program_that_the_sandbox_does_not_show_is_named(
    directory: Path, sandboxed: str, tmp_path: Path, install: Callable[..., str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    program = tmp_path / "elsewhere" / "program"
    program.write_text("#!/usr/bin/nothing-there\n")
    program.chmod(0o755)
    async with launching(
        directory, sandboxed, KernelSpec(kernelspec=install([str(program)]))
    ) as it:
        with pytest.raises(LaunchError, match=r"could not start: .*No such file"):
            await it.launch()


async def test_what_a_profile_shows_beside_can_be_read_and_not_written(
    directory: Path, sandboxed: str, tmp_path: Path, install: Callable[..., str]
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows").write_text("1,2,3")
    spec = KernelSpec(kernelspec=install(), paths=(str(tmp_path / "data"),))
    async with launching(directory, sandboxed, spec) as launcher, talking(launcher) as talk:
        path = str(tmp_path / "data" / "rows")
        assert await talk.value(f"open({path!r}).read()") == "'1,2,3'"
        assert "Error" in await talk.value(f"open({path!r}, 'w')")


async def test_kernels_that_others_start_elsewhere_are_refused(
    directory: Path, sandboxed: str, install: Callable[..., str]
) -> None:
    elsewhere = {"kernel_provisioner": {"provisioner_name": "kubernetes-provisioner"}}
    spec = KernelSpec(kernelspec=install(metadata=elsewhere))
    with pytest.raises(LaunchError, match=r"kubernetes-provisioner.*isolation `none`"):
        await Launcher(spec, directory, isolation=sandboxed).start()


async def test_without_a_sandbox_there_are_none_of_them(
    directory: Path, install: Callable[..., str]
) -> None:
    with pytest.raises(LaunchError, match="free of a sandbox"):
        await Launcher(KernelSpec(kernelspec=install()), directory).start()


async def test_closing_leaves_no_process(launcher: Launcher) -> None:
    kernel = await launcher.launch()
    children = psutil.Process(kernel.pid).children(recursive=True)
    assert children
    await kernel.close()
    for child in children:
        await until_gone(child.pid)
    assert not os.path.exists(kernel.directory)
