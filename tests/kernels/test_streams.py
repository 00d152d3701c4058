"""What a cell prints, draws and floods arrives: in order, whole, before `idle`, under a bound."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from kernels.launch import Kernel
from kernels.spec import KernelSpec, Limits
from tests.kernels.talk import Said, Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")

OUTPUT = 200_000  # bounds that a test reaches quickly
MESSAGE = 1 << 20


@pytest.fixture(scope="module")
def spec() -> KernelSpec:
    limits = Limits(output_bytes=OUTPUT, message_bytes=MESSAGE)
    return KernelSpec(preload=(), limits=limits)


def streams(said: Said) -> list[tuple[str, str]]:
    """Return stream names with texts, neighbours of one name joined."""
    joined: list[tuple[str, str]] = []
    for content in said.contents("stream"):
        if joined and joined[-1][0] == content["name"]:
            joined[-1] = (content["name"], joined[-1][1] + content["text"])
        else:
            joined.append((content["name"], content["text"]))
    return joined


async def test_output_comes_in_the_order_it_was_written_and_before_idle(talk: Talk) -> None:
    said = await talk.run(
        "import os, subprocess, sys\n"
        "for i in range(50):\n"
        "    print('print', i)\n"
        "    os.write(1, f'write {i}\\n'.encode())\n"
        "    if i % 10 == 0: subprocess.run(['echo', 'echo', str(i)])\n"
    )
    expected = []
    for i in range(50):
        expected += [f"print {i}", f"write {i}", *([f"echo {i}"] if i % 10 == 0 else [])]
    assert said.text().splitlines() == expected
    assert said.late == []


async def test_stdout_and_stderr_keep_their_order(talk: Talk) -> None:
    said = await talk.run(
        "import os, sys\n"
        "print('one')\nprint('two', file=sys.stderr)\nprint('three')\n"
        "os.write(2, b'four\\n')\nprint('five')\nprint('six', file=sys.stderr)"
    )
    assert streams(said) == [
        ("stdout", "one\n"),
        ("stderr", "two\n"),
        ("stdout", "three\n"),
        ("stderr", "four\n"),
        ("stdout", "five\n"),
        ("stderr", "six\n"),
    ]


async def test_displays_and_text_keep_their_order(talk: Talk) -> None:
    said = await talk.run(
        "from IPython.display import display\n"
        "for i in range(3):\n    print(i)\n    display(i)\n'end'"
    )
    kinds = [m.type for m in said.messages if m.type not in ("status", "execute_input")]
    assert kinds == ["stream", "display_data"] * 3 + ["execute_result"]


@pytest.mark.parametrize("character", ["é", "€", "😀"])
async def test_utf8_from_a_subprocess_is_whole_across_reads(talk: Talk, character: str) -> None:
    said = await talk.run(
        "import subprocess, sys\n"
        f"text = '{character}'\n"
        "program = f'import os\\nfor b in {text!r}.encode() * 3000: os.write(1, bytes([b]))'\n"
        "_ = subprocess.run([sys.executable, '-c', program])"
    )
    assert said.text() == character * 3000


async def test_bytes_that_are_no_utf8_are_replaced(talk: Talk) -> None:
    said = await talk.run(r"import os; _ = os.write(1, b'a\xffb\n')")
    assert said.text() == "a\ufffdb\n"


async def test_a_forked_childs_print_arrives(talk: Talk) -> None:
    said = await talk.run(
        "import multiprocessing, warnings\n"
        "warnings.simplefilter('ignore')\n"
        "fork = multiprocessing.get_context('fork')\n"
        "child = fork.Process(target=print, args=('from the child',))\n"
        "child.start(); child.join(); child.exitcode"
    )
    assert said.text() == "from the child\n"
    assert said.value == "0"


async def test_a_shell_commands_lines_end_in_newlines(talk: Talk) -> None:
    said = await talk.run("!echo one; echo two >&2")
    assert said.text() == "one\n"
    assert said.text("stderr") == "two\n"


async def test_text_comes_while_the_cell_still_runs(talk: Talk) -> None:
    said = talk.start("import time\nprint('waiting')\nwhile True: time.sleep(0.05)")
    await talk.until(lambda: said.text() == "waiting\n")
    assert said.reply is None
    talk.kernel.interrupt()
    assert (await talk.end(said)).status == "error"


# Holds the interpreter's lock: no other thread of the kernel does anything any more.
HOLD = "import ctypes; ctypes.PyDLL(None).pause()"


async def end(kernel: Kernel) -> None:
    """End a kernel that hears no interrupt."""
    os.kill(kernel.pid, signal.SIGKILL)
    assert await kernel.exited == "signal SIGKILL"


async def test_text_comes_from_a_cell_that_lets_no_other_thread_run(talk: Talk) -> None:
    late = "import time\nend = time.monotonic() + 0.03\nwhile time.monotonic() < end: pass\n"
    said = talk.start(f"{late}print('up')\n{HOLD}")
    await talk.until(said.text)
    await end(talk.kernel)


async def test_what_is_shown_comes_at_once(talk: Talk) -> None:
    said = talk.start(f"print('before')\ndisplay('up')\n{HOLD}")
    await talk.until(lambda: said.data)
    assert said.text() == "before\n"
    await end(talk.kernel)


async def test_what_is_shown_is_seen_of_a_kernel_that_dies_of_it(talk: Talk) -> None:
    said = talk.start("display('last'); import os; os._exit(3)")
    assert await talk.kernel.exited == "exit 3"
    assert said.data == {"text/plain": "'last'"}


FLUSHED = {  # what a cell publishes that is no text, by the type of its message
    "execute_result": "sys.displayhook(41)",
    "error": "get_ipython().showtraceback((KeyError, KeyError('last'), None))",
    "comm_open": "import comm; comm.create_comm(target_name='last')",
    "clear_output": "from IPython.display import clear_output; clear_output()",
}


@pytest.mark.parametrize(("kind", "code"), FLUSHED.items())
async def test_what_is_flushed_is_seen_of_a_kernel_that_dies(
    talk: Talk, kind: str, code: str
) -> None:
    said = talk.start(f"import os, sys\n{code}\nsys.stdout.flush()\nos._exit(3)")
    assert await talk.kernel.exited == "exit 3"
    assert said.contents(kind)


async def test_a_cell_that_closes_its_stdout_keeps_nobody_busy(talk: Talk) -> None:
    said = await talk.run("import os, time\nos.close(1)\nprint('still heard')")
    assert said.text() == "still heard\n"
    busy = "began = time.process_time(); time.sleep(0.5); time.process_time() - began"
    assert float(await talk.value(busy)) < 0.25


async def test_a_handler_that_raises_after_a_read_loses_nothing_of_it(talk: Talk) -> None:
    said = await talk.run(
        "import os, sys\n"
        "def strike(frame, event, called):\n"
        "    if event == 'c_return' and frame.f_code.co_name == 'collect':\n"
        "        if called.__name__ in ('read', 'extend'): raise TimeoutError\n"
        "for turn in range(1000):\n"
        "    os.write(2, b'kept\\n')\n"  # the control thread may be the one who reads it
        "    sys.setprofile(strike)\n"
        "    try: print(end='')\n"
        "    except TimeoutError: break\n"
        "    finally: sys.setprofile(None)\n"
        "print(turn)"
    )
    assert 0 <= int(said.text()) < 999
    assert said.text("stderr") == "kept\n" * (int(said.text()) + 1)


async def test_a_thread_prints_for_the_cell_that_started_it(talk: Talk) -> None:
    said = await talk.run(
        "import threading\nthread = threading.Thread(target=print, args=('thread',))\n"
        "thread.start(); thread.join()"
    )
    assert said.text() == "thread\n"


async def test_over_the_budget_head_and_tail_are_kept(talk: Talk) -> None:
    said = await talk.run("for i in range(100_000): print(f'line {i:06}')")
    text = said.text()
    head, note, tail = re.split(r"\n?… (\d+) characters left out …\n", text)
    assert head.startswith("line 000000\nline 000001\n")
    assert tail.endswith("line 099999\n")
    total = 12 * 100_000
    assert len(head) + len(tail) == pytest.approx(OUTPUT, abs=2)
    assert int(note) == total - len(head) - len(tail)
    assert said.metadata["truncated"] == {"shown": len(head) + len(tail), "total": total}


async def test_under_the_budget_nothing_is_left_out(talk: Talk) -> None:
    said = await talk.run(f"print('x' * {OUTPUT - 1})")
    assert said.text() == "x" * (OUTPUT - 1) + "\n"
    assert "truncated" not in said.metadata


async def test_each_execution_has_its_own_budget(talk: Talk) -> None:
    for _ in range(2):
        assert "truncated" in (await talk.run(f"print('x' * {2 * OUTPUT})")).metadata
    assert (await talk.run("print('short')")).text() == "short\n"


async def memory_peak(talk: Talk) -> int:
    """Return how many bytes were resident at most, so far."""
    status = Path(f"/proc/{talk.kernel.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


@pytest.mark.parametrize(
    "code",
    [
        "for i in range(300_000): print(i)",
        "import sys\nfor i in range(30_000): print(i); print(i, file=sys.stderr)",
        "import os\nfor i in range(3000): os.write(1, b'y' * 10_000)",
        "!head -c 50000000 /dev/zero | tr '\\0' y",
        "from IPython.display import display\nfor i in range(5000): display(i)",
        "from IPython.display import HTML, display\n"
        "page = HTML('x' * 900_000)\nfor i in range(300): display(page)",
    ],
    ids=["prints", "both streams", "descriptor", "subprocess", "displays", "large displays"],
)
async def test_a_flood_keeps_memory_bounded_and_ends(talk: Talk, code: str) -> None:
    before = await memory_peak(talk)
    said = await talk.run(code)
    assert said.status == "ok"
    assert await memory_peak(talk) - before < 100 << 20
    assert await talk.value("6 * 7") == "42"


async def test_no_output_of_earlier_cells_is_kept(talk: Talk) -> None:
    await talk.run("from IPython.display import display\nprint('x')\ndisplay(1)\n2")
    await talk.run("1 / 0")
    history = "get_ipython().history_manager"
    said = await talk.value(f"len({history}.outputs), len({history}.exceptions), Out")
    assert said == "(0, 0, {})"


async def test_a_background_process_that_never_stops_writing_does_not_hold_the_cell(
    talk: Talk,
) -> None:
    said = await talk.run("import subprocess\nyes = subprocess.Popen(['yes'])\n'done'")
    assert said.value == "'done'"
    said = await talk.run("yes.kill(); yes.wait()")
    assert said.value == "-9"


async def test_a_display_over_the_bound_becomes_a_note(talk: Talk) -> None:
    said = await talk.run("from IPython.display import HTML\nHTML('x' * 2_000_000)")
    assert said.status == "ok"
    assert list(said.data) == ["text/plain"]
    assert re.fullmatch(
        r"\[output of [\d,]+ bytes left out: the bound is 1,048,576\]", said.data["text/plain"]
    )


async def test_an_error_over_the_bound_becomes_a_note_and_is_answered(talk: Talk) -> None:
    said = await talk.run("raise ValueError('x' * 5_000_000)")
    assert (await talk.end(said)).status == "error"
    (error,) = said.contents("error")
    assert error["ename"] == "ValueError"
    assert "left out" in error["evalue"]
    assert said.reply is not None
    assert "left out" in said.reply.content["evalue"]
    assert await talk.value("1 + 1") == "2"


async def test_code_over_the_bound_is_run_and_echoed_as_a_note(talk: Talk) -> None:
    said = await talk.run("'" + "x" * 1_500_000 + "'; 5 + 5")
    assert said.value == "10"
    assert "left out" in said.contents("execute_input")[0]["code"]
