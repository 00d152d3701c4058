"""What code in a kernel finds: its own process, our defaults, none of our files; and interrupts."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import psutil
import pytest

from kernels.launch import Launcher
from kernels.spec import KernelSpec
from tests.kernels.talk import Said, Talk, talking

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def spec() -> KernelSpec:
    return KernelSpec(env=(("GREETING", "hello"),))


async def test_variables_live_on_between_cells(talk: Talk) -> None:
    assert await talk.value("x = 20") == ""
    assert await talk.value("x * 2 + 2") == "42"


@pytest.mark.parametrize("name", ["broker", "kernels", "tests"])
async def test_our_packages_are_not_there(talk: Talk, name: str) -> None:
    assert await talk.value(f"import {name}") == (f"ModuleNotFoundError: No module named '{name}'")
    assert await talk.value(f"import {name}.spec") == (
        f"ModuleNotFoundError: No module named '{name}'"
    )


async def test_our_files_are_not_on_the_path(talk: Talk) -> None:
    path = await talk.value("import sys; print(*sys.path, sep='\\n'); sys.path")
    assert str(ROOT) not in re.findall(r"'([^']*)'", path)
    assert await talk.value("sys.argv") == "['']"


async def test_a_package_of_our_name_on_the_users_path_is_found(talk: Talk) -> None:
    said = await talk.run(
        "import os, sys\nos.makedirs('lib/kernels')\n"
        "open('lib/kernels/__init__.py', 'w').write('mine = True')\n"
        "sys.path.insert(0, 'lib')\nimport kernels\nkernels.mine"
    )
    assert said.value == "True"


async def test_nothing_listens_on_tcp(talk: Talk) -> None:
    assert await talk.value("import matplotlib.pyplot, pandas; 1") == "1"
    kinds = psutil.Process(talk.kernel.pid).net_connections("inet")
    assert kinds == []


async def test_standard_descriptors_are_not_the_zygotes(talk: Talk, launcher: Launcher) -> None:
    log = os.readlink(f"/proc/{launcher.zygote_pid}/fd/1")
    assert log.endswith("zygote.log")
    descriptors = Path(f"/proc/{talk.kernel.pid}/fd")
    targets = {entry.name: os.readlink(entry) for entry in descriptors.iterdir()}
    assert log not in targets.values()
    assert targets["0"] == "/dev/null"
    assert targets["1"].startswith("pipe:")
    assert targets["2"].startswith("pipe:")


async def test_the_kernel_has_a_session_an_environment_and_a_home_of_its_own(
    talk: Talk, launcher: Launcher, isolation: str
) -> None:
    pid = talk.kernel.pid
    assert os.getsid(pid) == os.getpgid(pid) == pid
    home = "/home/user"
    if isolation == "none":
        assert talk.kernel.workspace is not None
        home = str(launcher.directory / f"w-{talk.kernel.workspace.workspace_id}")
    names = "os.getcwd(), os.environ['HOME'], os.environ['GREETING']"
    assert (await talk.run(f"import os; print({names})")).text() == f"{home} {home} hello\n"
    # Other users are a matter of the sandbox, and a workspace is closed to them anyway.
    mask = "0o77" if isolation == "none" else "0o22"
    assert await talk.value("oct(os.umask(0))") == repr(mask)
    assert not {"OPENBLAS_NUM_THREADS", "PYTEST_CURRENT_TEST"} & set(
        re.findall(r"'(\w+)':", await talk.value("dict(os.environ)"))
    )


async def test_two_kernels_differ_in_randomness(launcher: Launcher) -> None:
    code = "import random, uuid, numpy; random.random(), float(numpy.random.random())"
    async with talking(launcher) as one, talking(launcher) as other:
        first, second = eval(await one.value(code)), eval(await other.value(code))  # noqa: S307
    assert first[0] != second[0]
    assert first[1] != second[1]


async def test_a_new_kernel_is_as_if_nothing_had_run_in_it(talk: Talk) -> None:
    assert await talk.value("hasattr(__import__('sys'), 'last_type')") == "False"
    said = await talk.run("sorted(globals()), In, Out, _i")
    assert said.contents("execute_input")[0]["execution_count"] == 2
    names = "In Out _ __ ___ __builtin__ __builtins__ __doc__ __loader__ __name__ __package__"
    names += " __spec__ _dh _i _i1 _i2 _ih _ii _iii _oh exit get_ipython open quit"
    first, second = "hasattr(__import__('sys'), 'last_type')", "sorted(globals()), In, Out, _i"
    assert ast.literal_eval(said.value) == (names.split(), ["", first, second], {}, first)
    assert await talk.value("__import__('os').getcwd() == str(_dh[0])") == "True"
    home = "shell = get_ipython(); shell.home_dir, shell.starting_dir"
    assert len(set(ast.literal_eval(await talk.value(home)))) == 1


async def test_two_kernels_see_nothing_of_each_other(launcher: Launcher) -> None:
    async with talking(launcher) as one, talking(launcher) as other:
        await one.run("secret = 1")
        assert (await other.value("secret")).startswith("NameError")
        assert await one.value("secret") == "1"


async def test_no_history_is_written(talk: Talk) -> None:
    await talk.run("secret = 'do not write this down'")
    history = "get_ipython().history_manager"
    assert await talk.value(f"{history}.enabled, {history}.db is None") in (
        "(False, True)",
        "(False, False)",
    )
    for file in talk.kernel.directory.rglob("*"):
        if file.is_file():
            assert b"do not write this down" not in file.read_bytes()
            assert not file.name.endswith(".sqlite")


async def test_results_are_not_kept(talk: Talk) -> None:
    await talk.run("40 + 2")
    assert await talk.value("_1") == "NameError: name '_1' is not defined"


async def test_a_plot_is_a_png(talk: Talk) -> None:
    said = await talk.run("import matplotlib.pyplot as plt\n_ = plt.plot([1, 2, 3])")
    assert "image/png" in said.data, [(m.type, str(m.content)[:600]) for m in said.messages]
    assert said.data["image/png"].startswith("iVBOR")
    assert said.late == []


async def test_a_dataframe_is_html(talk: Talk) -> None:
    said = await talk.run("import pandas as pd\npd.DataFrame({'a': [1]})")
    assert "<table" in said.data["text/html"]


@pytest.mark.parametrize("word", ["import sys; sys.exit(3)", "raise SystemExit"])
async def test_leaving_is_answered(talk: Talk, word: str) -> None:
    said = await talk.run(word)
    assert said.status in ("ok", "error")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("1 +", "SyntaxError"),
        ("raise ValueError('no')", "ValueError: no"),
        ("class E(Exception):\n  def __str__(self): 1 / 0\nraise E", "E: (an exception that"),
        ("def f(): f()\nf()", "RecursionError"),
        ("'\\ud800'.encode()", "UnicodeEncodeError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
        ("class B(BaseException): pass\nraise B('own')", "B: own"),
        ("\0", "SyntaxError" if sys.version_info >= (3, 11, 4) else "ValueError"),
    ],
)
async def test_each_error_is_answered_and_harms_nothing(talk: Talk, code: str, error: str) -> None:
    said = await talk.run(code)
    assert said.status == "error"
    assert said.value.startswith(error)
    assert await talk.value("1 + 1") == "2"


async def test_lone_surrogates_are_answered(talk: Talk) -> None:
    said = await talk.run("print('a\\ud800b')")
    assert said.status == "ok"
    assert "a" in said.text()
    said = await talk.run("print(b'a\\xffb'.decode(errors='surrogateescape'))")
    assert said.text() == "a?b\n"
    said = await talk.run("raise ValueError('a\\ud800b')")
    assert said.value == "ValueError: a?b"
    assert await talk.value("1 + 1") == "2"


async def interrupted(talk: Talk, code: str) -> Said:
    """Run a cell that says `in` and then would never end; interrupt it."""
    said = talk.start(code)
    await talk.until(lambda: "in" in said.text())
    talk.kernel.interrupt()
    await talk.end(said)
    assert await talk.value("'alive'") == "'alive'"
    return said


@pytest.mark.parametrize(
    "code",
    [
        "print('in', flush=True)\nwhile True: pass",
        "import time\nprint('in')\ntime.sleep(60)",
        "import asyncio\nprint('in')\nawait asyncio.sleep(60)",
        "while True: print('in')",
        "import asyncio\nawait asyncio.sleep(0)\nprint('in')\nwhile True: pass",
        "import subprocess\nprint('in')\nsubprocess.run(['sleep', '60'])",
        "from IPython.display import display\nprint('in')\nwhile True: display(1)",
    ],
    ids=["loop", "sleep", "await", "loop after await", "prints", "subprocess", "displays"],
)
async def test_an_interrupt_ends_the_cell(talk: Talk, code: str) -> None:
    said = await interrupted(talk, code)
    assert said.status == "error"
    assert said.contents("error")[-1]["ename"] in ("KeyboardInterrupt", "CancelledError")


@pytest.mark.parametrize(
    "code",
    [
        "def spin():\n  print('in')\n  while True: pass\nspin()",
        "import asyncio\nawait asyncio.sleep(0)\ndef spin():\n  print('in')\n  while 1: 0\nspin()",
        "def spin():\n  while True: print('in', flush=True)\nspin()",
        "def spin():\n  print('in')\n  while True: pass\ntry: spin()\nfinally: 1 / 0",
    ],
    ids=["loop", "loop after await", "prints", "on the way out"],
)
async def test_the_traceback_of_an_interrupt_ends_in_the_users_code(talk: Talk, code: str) -> None:
    lines = "\n".join((await interrupted(talk, code)).contents("error")[-1]["traceback"])
    assert "spin" in lines
    assert "KeyboardInterrupt" in lines
    assert "kernels/inside" not in lines
    assert "_take_interrupt" not in lines


async def test_the_traceback_of_a_bad_write_ends_in_the_users_code(talk: Talk) -> None:
    lines = "\n".join(
        (await talk.run("import sys\nsys.stdout.write(3)")).contents("error")[-1]["traceback"]
    )
    assert "TypeError" in lines
    assert "kernels/inside" not in lines


async def test_an_interrupt_reaches_a_shell_command(talk: Talk) -> None:
    said = await interrupted(talk, "!echo in; exec sleep 60\nprint('code', _exit_code)")
    assert said.status == "error" or "code" in said.text()


async def test_an_interrupt_is_seen_by_what_the_cell_started(talk: Talk) -> None:
    child = (
        "import signal\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"  # it may come before the wait
        "print('in', flush=True)\nsignal.sigwait({signal.SIGINT})\nprint('seen')"
    )
    said = await interrupted(
        talk,
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}])\n"
        "try: child.wait()\nexcept KeyboardInterrupt: print(child.wait())",
    )
    assert said.text() == "in\nseen\n0\n"


async def test_an_interrupt_that_wakes_nobody_is_repeated(talk: Talk) -> None:
    """The cell swallows the first signal, below Python, and sleeps on."""
    code = (
        "import signal, time\n"
        "before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})\n"
        "print('in', flush=True)\n"
        "try: signal.sigwait({signal.SIGINT})\n"
        "finally: signal.pthread_sigmask(signal.SIG_SETMASK, before)\n"
        "time.sleep(60)"
    )
    assert (await interrupted(talk, code)).value.startswith("KeyboardInterrupt")


async def test_a_handler_of_the_cells_own_gets_an_interrupt_once(talk: Talk) -> None:
    code = (
        "import signal, time\n"
        "seen = []\n"
        "before = signal.signal(signal.SIGINT, lambda *_: seen.append(time.monotonic()))\n"
        "print('in', flush=True)\n"
        "until = time.monotonic() + 20\n"
        "while time.monotonic() < (seen[0] + 0.3 if seen else until): pass\n"
        "signal.signal(signal.SIGINT, before)\n"
        "print(len(seen))"
    )
    assert (await interrupted(talk, code)).text() == "in\n1\n"


async def test_a_signal_from_outside_reaches_the_process_that_runs_the_cell(talk: Talk) -> None:
    said = talk.start("import time\nprint('in')\ntime.sleep(60)")
    await talk.until(lambda: "in" in said.text())
    os.kill(talk.kernel.pid, signal.SIGINT)
    await talk.end(said)
    assert said.value.startswith("KeyboardInterrupt")


async def test_an_interrupt_between_cells_harms_nothing(talk: Talk) -> None:
    for _ in range(20):
        await talk.interrupt()
    assert await talk.value("1 + 1") == "2"


async def test_interrupts_at_any_moment_leave_each_cell_answered(talk: Talk) -> None:
    for number in range(200):
        said = talk.start("1 + 1")
        await asyncio.sleep(number / 100_000)  # s: from before its start to after its end
        os.killpg(talk.kernel.pid, signal.SIGINT)
        os.killpg(talk.kernel.pid, signal.SIGINT)
        await talk.end(said)
        assert said.status in ("ok", "error")
    assert await talk.value("1 + 1") == "2"


async def test_an_interrupt_among_prints_loses_no_message(talk: Talk) -> None:
    for _ in range(40):
        said = talk.start("i = 0\nwhile True:\n    print(i)\n    i += 1")
        await talk.until(lambda said=said: bool(said.text()))
        await talk.interrupt()
        await talk.end(said)
        lines = said.text().splitlines()
        assert lines == [str(number) for number in range(len(lines))]
        kinds = [message.type for message in said.messages]
        assert kinds[:2] == ["status", "execute_input"]
        assert kinds[-2:] == ["error", "status"]


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        ("pass", 0),
        ("raise ValueError('from the child')", 1),
        ("raise SystemExit(7)", 7),
        ("import asyncio; await asyncio.sleep(0)", 0),
        ("print('x' * 100_000); display(1)", 0),
    ],
)
async def test_a_forked_child_ends_with_its_cell(talk: Talk, ends: str, status: int) -> None:
    said = [await talk.run(f"import os\nchild = os.fork()\nif child == 0:\n    {ends}")]
    said += await asyncio.gather(*(talk.run(str(number)) for number in range(20)))
    said += [await talk.run("os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])")]
    assert [each.value for each in said] == ["", *map(str, range(20)), str(status)]
    for _ in range(100):  # what a child prints comes by the descriptors, also after its cell's end
        messages = [one for each in said for one in (*each.messages, *each.late)]
        words = "".join(one.content["text"] for one in messages if one.type == "stream")
        if "child" not in ends or "ValueError: from the child" in words:
            break
        said.append(await talk.run("import time; time.sleep(0.05)"))
    assert ("ValueError: from the child" in words) == ("child" in ends)


async def test_a_child_forked_in_a_thread_says_nothing_for_its_parent(talk: Talk) -> None:
    await talk.run(
        "import os, threading\n"
        "def work():\n"
        "    global child\n"
        "    if (child := os.fork()) == 0: print('in the child'); os._exit(0)\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()"
    )
    assert await talk.value("os.waitpid(child, 0)[1]") == "0"


async def test_completion_and_inspection_are_answered(talk: Talk) -> None:
    await talk.run("value = {'a': 1}")
    said = await talk.end(talk.ask("complete_request", {"code": "value.ke", "cursor_pos": 8}))
    assert said.reply is not None
    assert said.reply.content["matches"] == [".keys"]
    request = {"code": "value", "cursor_pos": 5, "detail_level": 0}
    said = await talk.end(talk.ask("inspect_request", request))
    assert said.reply is not None
    assert said.reply.content["found"] is True


@pytest.mark.parametrize("kind", ["nonsense", "nonsense_request"])
async def test_what_is_of_no_known_type_gets_no_reply_and_is_not_spoken_of(
    talk: Talk, kind: str
) -> None:
    asked = talk.ask(kind, {"code": "1"})
    await talk.until(lambda: asked.idle)
    said = await talk.run("print('after')")
    assert asked.reply is None
    assert [one.type for one in asked.messages + asked.late] == ["status", "status"]
    assert (said.text(), said.text("stderr")) == ("after\n", "")


async def test_an_interrupt_ends_a_completion_that_never_would(talk: Talk) -> None:
    await talk.run("class Slow:\n  def __dir__(self):\n    print('in', flush=True)\n    while 1: 0")
    await talk.run("slow = Slow()")
    said = talk.ask("complete_request", {"code": "slow.x", "cursor_pos": 6})
    await talk.until(lambda: "in" in said.text())
    talk.kernel.interrupt()
    await talk.end(said)
    assert await talk.value("1 + 1") == "2"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os; os._exit(3)", "exit 3"),
        ("exit()", "exit 0"),
        ("quit", "exit 0"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "signal SIGKILL"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "signal SIGTERM"),
        ("import ctypes; ctypes.string_at(0)", "signal SIGSEGV"),
        ("import os; os.abort()", "signal SIGABRT"),
    ],
)
async def test_the_end_of_the_process_is_known_with_its_reason(
    talk: Talk, code: str, reason: str
) -> None:
    talk.start(code)
    assert await talk.kernel.exited == reason
