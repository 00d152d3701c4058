"""What a cell prints, draws and floods arrives: in order, whole, before `idle`, under a bound."""

from __future__ import annotations

import os
import re
import signal
import time
from itertools import groupby
from pathlib import Path

import pytest

from kernels.launch import Kernel
from kernels.spec import KernelSpec, Limits
from tests.kernels.talk import Said, Talk

pytestmark = pytest.mark.asyncio(loop_scope="module")

OUTPUT = 200_000  # bounds that a test reaches quickly
MESSAGE = 1 << 20
NOTE = r"\n?… (\d+) characters left out; all are in .outputs/1.txt …\n"


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


async def test_what_a_thread_has_only_just_read_comes_before_what_is_printed_after_it(
    talk: Talk,
) -> None:
    await talk.run(
        "import os, sys, threading\n"
        "stream, main = sys.stdout, threading.get_ident()\n"
        "admit, collect = stream.budget.admit, stream.collect\n"
        "read, came = threading.Event(), threading.Event()\n"
        "def admit_late(name, text):\n"
        "    if text == 'written\\n' and threading.get_ident() != main:\n"
        "        read.set()\n"
        "        came.wait(60)\n"
        "    return admit(name, text)\n"
        "def noted_collect():\n"
        "    if threading.get_ident() == main and read.is_set(): came.set()\n"
        "    return collect()\n"
        "stream.budget.admit, stream.collect = admit_late, noted_collect"
    )
    said = await talk.run(
        f"print('x' * {OUTPUT})\n_ = os.write(1, b'written\\n'), read.wait(60)\n"
        "print('printed')\ncame.set()\nread.is_set()"
    )
    assert said.value == "True"
    assert said.text().endswith("x\nwritten\nprinted\n")


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


async def test_streams_that_a_cell_writes_by_turns_come_in_few_messages(talk: Talk) -> None:
    said = await talk.run(
        "import sys\nfor i in range(5000):\n    print(i)\n    print(-i, file=sys.stderr)"
    )
    assert said.text() == "".join(f"{i}\n" for i in range(5000))
    assert said.text("stderr") == "".join(f"{-i}\n" for i in range(5000))
    assert len(said.contents("stream")) < 1000
    assert said.late == []


async def test_displays_and_text_keep_their_order(talk: Talk) -> None:
    said = await talk.run(
        "from IPython.display import display\n"
        "for i in range(3):\n    print(i)\n    display(i)\n'end'"
    )
    kinds = [m.type for m in said.messages if m.type not in ("status", "execute_input")]
    # A line is one piece or two, as the timer of 10 ms falls.
    runs = [kind for kind, _ in groupby(kinds)]
    assert runs == ["stream", "display_data"] * 3 + ["execute_result"]


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


# Runs until what was said of the cell's beginning has gone, and for as long again as text may wait:
# how long that takes depends on when the thread that sends it has its turn.
LATE = """
import sys
_publisher = sys.stdout.pub_thread
while _publisher._set or not _publisher.is_due(): pass
"""


async def test_text_comes_from_a_cell_that_lets_no_other_thread_run(talk: Talk) -> None:
    said = talk.start(f"{LATE}print('up')\n{HOLD}")
    await talk.until(said.text)
    await end(talk.kernel)


async def test_a_line_that_comes_late_is_sent_whole(talk: Talk) -> None:
    """`print` writes the end of a line by itself."""
    late = (
        "import sys, time\n_publisher = sys.stdout.pub_thread\n"
        "_publisher._due_at, _publisher._late_at = 0.0, time.monotonic() - 0.001\n"
        "_publisher._set = True\n"
    )
    said = await talk.run(f"{late}print('whole')")
    assert [one["text"] for one in said.contents("stream")] == ["whole\n"]


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
        "    if event == 'c_return' and frame.f_code.co_name == '_collect':\n"
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
    head, note, tail = re.split(NOTE, text)
    assert head.startswith("line 000000\nline 000001\n")
    assert tail.endswith("line 099999\n")
    total = 12 * 100_000
    assert len(head) + len(tail) == pytest.approx(OUTPUT, abs=2)
    assert int(note) == total - len(head) - len(tail)
    cut = {"shown": len(head) + len(tail), "total": total, "file": ".outputs/1.txt"}
    assert said.metadata["truncated"] == cut


@pytest.mark.parametrize(("last", "kind"), [("1 / 0", "error"), ("6 * 7", "execute_result")])
async def test_over_the_budget_the_end_of_a_cell_comes_after_its_text(
    talk: Talk, last: str, kind: str
) -> None:
    said = await talk.run("for i in range(100_000): print(f'line {i:06}')\n" + last)
    shown = [message.type for message in said.messages if message.type in ("stream", kind)]
    assert [each for each, _ in groupby(shown)] == ["stream", kind]
    head, note, tail = re.split(NOTE, said.text())
    assert tail.endswith("line 099999\n")
    assert OUTPUT // 4 < len(tail) <= OUTPUT // 2
    assert int(note) == 12 * 100_000 - len(head) - len(tail)


async def test_a_cell_that_shows_errors_all_along_keeps_to_its_bound(talk: Talk) -> None:
    said = await talk.run(
        "shell = get_ipython()\n"
        "for i in range(20):\n"
        "    for j in range(10_000): print(f'line {i:02} {j:04}')\n"
        "    try: 1 / 0\n"
        "    except ZeroDivisionError: shell.showtraceback()\n"
        "print('the last words')"
    )
    assert len(said.contents("error")) == 20
    shown = re.sub(r"\n?… \d+ characters left out; all are in \S+ …\n", "", said.text())
    assert len(shown) <= OUTPUT
    told = said.metadata["truncated"]
    assert (told["shown"], told["total"]) == (len(shown), 20 * 10_000 * 13 + 15)


async def test_all_text_that_is_too_long_to_be_shown_is_in_a_file(talk: Talk) -> None:
    said = await talk.run(
        "import os, subprocess, sys\n"
        "for i in range(30_000):\n"
        "    print(f'out {i:05}')\n"
        "    if i % 1000 == 0: print(f'err {i:05}', file=sys.stderr)\n"
        "    if i % 1000 == 1: subprocess.run(['echo', f'sub {i:05}'])\n"
        "os.chdir('/')"
    )
    assert "; all are in .outputs/1.txt …" in said.text()
    file = "(__import__('pathlib').Path(start) / '.outputs/1.txt').read_text().splitlines()"
    await talk.run("start = get_ipython().starting_dir")
    expected = (
        "[line for i in range(30_000) for line in [f'out {i:05}', *[f'err {i:05}'] * (i % 1000 =="
        " 0), *[f'sub {i:05}'] * (i % 1000 == 1)]]"
    )
    assert await talk.value(f"{file} == {expected}") == "True"


async def test_text_within_the_bound_leaves_no_file(talk: Talk) -> None:
    await talk.run("print('short')")
    assert await talk.value("__import__('os').listdir()") == "[]"


@pytest.mark.parametrize(
    "obstacle",
    [
        "open('.outputs', 'w').close()",
        "import os; os.mkdir('.outputs'); os.mkdir('.outputs/2.txt'); os.chmod('.outputs', 0o500)",
        "import shutil; shutil.rmtree('.outputs', ignore_errors=True); import os; "
        "os.symlink('/proc', '.outputs')",
    ],
)
async def test_a_file_that_cannot_be_written_costs_the_cell_nothing(
    talk: Talk, obstacle: str
) -> None:
    await talk.run(obstacle)
    said = await talk.run(f"print('x' * {2 * OUTPUT})")
    assert said.status == "ok"
    assert said.metadata["truncated"]["total"] == 2 * OUTPUT + 1


async def test_a_file_that_goes_away_ends_and_says_how_far_it_came(talk: Talk) -> None:
    said = await talk.run(
        "import os\nfor i in range(60):\n    print('x' * 9_999)\n"
        "    if i == 50: os.unlink('.outputs/1.txt')\n"
    )
    assert said.status == "ok"
    found = re.search(r"; the first (\d+) of all are in .outputs/1.txt …", said.text())
    assert found
    assert 0 < int(found[1]) <= 510_000


async def test_a_cell_that_closes_all_descriptors_has_its_file_all_the_same(talk: Talk) -> None:
    said = await talk.run(
        "import os\nprint('x' * 300_000)\n"
        "mine = [os.open('mine', os.O_RDWR | os.O_CREAT) for _ in range(50)]\n"
        "for i in range(60): print('x' * 9_999)\nos.path.getsize('mine')"
    )
    assert said.value == "0"
    assert await talk.value("os.path.getsize('.outputs/1.txt')") == "900001"


async def test_the_oldest_files_make_way(talk: Talk) -> None:
    await talk.run("open('kept', 'w').close()")
    for _ in range(24):
        await talk.run(f"print('x' * {2 * OUTPUT})")
    left = "sorted(int(name[:-4]) for name in __import__('os').listdir('.outputs'))"
    assert await talk.value(left) == str(list(range(6, 26)))


# Lines that are written over and over


BAR = (
    "import sys, time\n"
    "for i in range({count}):\n"
    "    sys.stderr.write(f'\\r{{i:6}}/{count} |{{\"#\" * (10 * i // {count}):10}}|')\n"
    "    sys.stderr.flush()\n"
    "    time.sleep({pause})\n"
)


async def test_a_progress_bar_sends_some_states_and_the_last(talk: Talk) -> None:
    began = time.monotonic()
    said = await talk.run(BAR.format(count=20_000, pause=0))
    # Ten a second at the most, on a machine of any speed.
    assert len(said.contents("stream")) < 10 * (time.monotonic() - began) + 10
    assert said.text("stderr").endswith(" 19999/20000 |######### |")
    assert "truncated" not in said.metadata
    assert said.late == []


async def test_a_bar_that_moves_a_hundred_times_a_second_is_told_ten_times(talk: Talk) -> None:
    said = talk.start(BAR.format(count=100, pause=0.01) + "print('end')")
    await talk.until(lambda: len(said.contents("stream")) > 3)  # while it runs
    assert "99/100" not in said.text("stderr")
    await talk.end(said)
    assert 4 < len(said.contents("stream")) < 50  # of a hundred; twenty on a machine at rest
    assert "    99/100 |" in said.text("stderr")
    assert streams(said)[-1] == ("stdout", "end\n")


async def test_a_state_that_nothing_follows_comes_while_the_cell_still_runs(talk: Talk) -> None:
    said = talk.start(f"{BAR.format(count=1000, pause=0)}while True: time.sleep(0.05)")
    await talk.until(lambda: " 999/1000" in said.text("stderr"))
    assert said.reply is None
    talk.kernel.interrupt()
    await talk.end(said)


async def test_a_bar_comes_before_what_was_written_or_shown_after_it(talk: Talk) -> None:
    said = await talk.run(
        "import os, sys\n"
        "sys.stderr.write('\\r1'); sys.stderr.write('\\r2'); print('one')\n"
        "sys.stderr.write('\\r3'); os.write(1, b'two\\n')\n"
        "sys.stderr.write('\\r4'); display('shown')\n"
        "sys.stderr.write('\\r5'); 1 / 0"
    )
    kinds = [
        m.content.get("text", m.type) for m in said.messages
        if m.type in ("stream", "display_data", "error")
    ]  # fmt: skip
    joined = re.sub(r"\r(?=\r)", "", "".join(kinds))
    assert joined == "\r1\r2one\n\r3two\n\r4display_data\r5error"


async def test_a_subprocesss_bar_is_kept_back_too(talk: Talk) -> None:
    program = "for i in range(100000): print(end=f'\\r{i:6}')"
    said = await talk.run(
        f"import subprocess, sys\n_ = subprocess.run([sys.executable, '-c', {program!r}])"
    )
    assert said.text().endswith("\r 99999")
    assert len(said.text()) < 10_000


async def test_line_ends_of_two_characters_stay(talk: Talk) -> None:
    said = await talk.run("for i in range(1000): print(i, end='\\r\\n')")
    assert said.text() == "".join(f"{i}\r\n" for i in range(1000))


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
        r"\[output of [\d,]+ bytes left out: the bound is 1,048,576; it is in .outputs/1.html\]",
        said.data["text/plain"],
    )
    assert said.contents("execute_result")[0]["metadata"] == {"file": ".outputs/1.html"}
    kept = "open('.outputs/1.html').read() == 'x' * 2_000_000"
    assert await talk.value(kept) == "True"


LARGE = {
    "png": ("{'image/png': b'\\x89PNG' * 400_000}", "b'\\x89PNG' * 400_000"),
    "bin": ("{'audio/wav': b'\\0\\1' * 800_000}", "b'\\0\\1' * 800_000"),
    "json": (
        "{'application/json': [1] * 900_000, 'text/plain': 'few'}",
        "__import__('json').dumps([1] * 900_000).encode()",
    ),
    "txt": ("{'text/plain': 'é' * 900_000}", "('é' * 900_000).encode()"),
}


@pytest.mark.parametrize("end", LARGE)
async def test_a_large_output_is_kept_as_what_it_is(talk: Talk, end: str) -> None:
    data, content = LARGE[end]
    said = await talk.run(f"display({data}, raw=True)")
    assert said.contents("display_data")[0]["metadata"] == {"file": f".outputs/1.{end}"}
    assert await talk.value(f"open('.outputs/1.{end}', 'rb').read() == {content}") == "True"


async def test_two_large_outputs_of_a_cell_have_two_files(talk: Talk) -> None:
    said = await talk.run("for i in '12': display({'text/html': i * 2_000_000}, raw=True)")
    files = [content["metadata"]["file"] for content in said.contents("display_data")]
    assert files == [".outputs/1.html", ".outputs/1-1.html"]


async def test_an_output_larger_than_half_of_what_is_left_is_not_kept(talk: Talk) -> None:
    said = await talk.run("display({'text/html': 'x' * 70_000_000}, raw=True)")
    assert said.data["text/plain"].endswith("the bound is 1,048,576]")
    assert await talk.value("__import__('os').listdir('.outputs')") == "[]"


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
