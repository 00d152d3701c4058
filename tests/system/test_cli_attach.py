"""`broker attach`: a person at a terminal, in a session that others use."""

from __future__ import annotations

import os
import pty
import re
import select
import threading
from pathlib import Path

import pytest

from broker.cli.attach import forget_typed
from tests.system.conftest import BROKER, RunningBroker
from tests.system.peer import (
    ask_until,
    attached,
    call,
    execute,
    gate,
    new_name,
    open_gate,
    row_of,
)
from tests.terminal import CTRL_C, CTRL_D, ENTER, TAB, UP, broker_on_terminal, terminal


def cell_origins(broker: RunningBroker, name: str) -> list[str | None]:
    made = call(broker, "GET", f"/v1/sessions/{name}/notebook").body
    return [cell["metadata"]["broker"].get("origin") for cell in made["cells"]]


def test_a_session_is_seen_and_used_beside_the_chat(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "answer = 41\nprint('from', 'the chat')")
    with broker_on_terminal(broker, "attach", name) as person:
        shown = person.until("In [2]:")
        assert "from the chat" in shown
        assert "> print('from', 'the chat')" in shown
        person.press(f"answer + 1{ENTER}")
        person.until("\n42")
        person.until("In [3]:")
        execute(broker, name, "print('some', 'more')")  # above the prompt
        shown = person.until("some more")
        assert "> print('some', 'more')" in shown
        person.until("[ok, ")
        person.until("In [4]:")
        person.press(f"for i in range(2):{ENTER}print('line', i){ENTER}{ENTER}")
        person.until("line 0\nline 1\n")
        person.until("In [5]:")
        person.press(f"1 / 0{ENTER}")
        person.until("ZeroDivisionError: division by zero")
        person.until("In [6]:")
        person.press(CTRL_D)
        assert person.end() == 0
        assert "goes on" in person.all
    assert cell_origins(broker, name) == [None, "attach", None, "attach", "attach"]
    assert execute(broker, name, "answer")["result"]["text/plain"] == "41"


def test_tab_completes_from_the_session_and_its_cells_are_the_history(
    broker: RunningBroker,
) -> None:
    name = new_name()
    execute(broker, name, "extraordinary = 6 * 7")
    execute(broker, name, "print(extraordinary, 'again')")
    with broker_on_terminal(broker, "attach", "-n", "0", name) as person:
        assert "again" not in person.until("In [3]:")
        person.press(f"extraord{TAB}")
        person.until("inary")
        person.press(ENTER)
        person.until("\n42")
        person.until("In [4]:")
        person.press(f"{UP}{UP}{ENTER}")
        person.until("42 again")
        person.until("In [5]:")
        person.press(CTRL_D)
        assert person.end() == 0


def test_ctrl_c_interrupts_ones_own_cell_and_clears_the_line(broker: RunningBroker) -> None:
    name = new_name()
    with broker_on_terminal(broker, "attach", "--create", name) as person:
        person.until("In [1]:")
        person.press(f"kept = 5; import time; print('u' + 'p', flush=True); time.sleep(60){ENTER}")
        person.until("\nup\n")
        person.press(CTRL_C)
        person.until("KeyboardInterrupt")
        person.until("In [2]:")
        person.press(f"nonsense{CTRL_C}")
        person.until("In [2]:")
        person.press(f"kept{ENTER}")
        person.until("\n5")
        person.until("In [3]:")
        person.press(f"exit{ENTER}")
        assert person.end() == 0


def test_code_asks_the_person_who_runs_it(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "def work(n):\n    half = n / 2\n    breakpoint()\n    return half")
    with broker_on_terminal(broker, "attach", "-n", "0", name) as person:
        person.until("In [2]:")
        person.press(f"'<' + input('name? ') + '>'{ENTER}")
        person.until("\nname? ")  # not the line that was typed
        person.press(f"Ada{ENTER}")
        person.until("'<Ada>'")
        person.until("In [3]:")
        person.press(f"import getpass; len(getpass.getpass('word? ')){ENTER}")
        person.until("\nword? ")
        person.press(f"hidden{ENTER}")
        person.until("\n6")
        assert "hidden" not in person.all
        person.until("In [4]:")
        person.press(f"work(10){ENTER}")
        person.until("db> ")
        person.press(f"p half{ENTER}")
        person.until("5.0")
        person.until("db> ")
        person.press(f"c{ENTER}")
        person.until("5.0")
        person.until("In [5]:")
        person.press(f"1 / 0{ENTER}")
        person.until("In [6]:")
        person.press(f"%debug{ENTER}")
        person.until("db> ")
        person.press(f"q{ENTER}")
        person.until("In [7]:")
        person.press(CTRL_D)
        assert person.end() == 0


def test_images_become_files_and_tables_text(broker: RunningBroker, tmp_path: Path) -> None:
    name = new_name()
    execute(broker, name, "import pandas as pd; pd.DataFrame({'city': ['Oslo']})")
    with broker_on_terminal(broker, "attach", "--save-images", str(tmp_path), name) as person:
        assert "0  Oslo" in person.until("In [2]:")
        person.press(f"import matplotlib.pyplot as plt; plt.plot([1, 2]);{ENTER}")
        person.until("[image/png ")
        person.until("image-001.png")
        person.until("In [3]:")
        person.press(CTRL_D)
        assert person.end() == 0
    [image] = tmp_path.iterdir()
    assert image.read_bytes().startswith(b"\x89PNG")


async def test_who_only_watches_sees_all_of_the_cell_that_runs(broker: RunningBroker) -> None:
    name = new_name()
    async with attached(broker, name) as peer:
        await peer.run("print('the first', 'cell')")
        await peer.send({"type": "execute", "id": "x", "code": gate("open" + "ed")})
        await peer.until("stream", id="x")
        with broker_on_terminal(broker, "attach", "--watch", name) as person:
            person.until("the first cell\n")
            person.until("In [2]")
            person.until("\nopened")
            open_gate(row_of(broker, name)["pid"])
            person.until("[ok, ")
            await peer.until("done", id="x")
            await peer.run("1 / 0")
            person.until("ZeroDivisionError: division by zero")
            person.until("[error, ")
            person.press(CTRL_C)
            assert person.end() == 0
    assert row_of(broker, name)["executions"] == 3


def test_what_waits_behind_others_says_so(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "1")
    path = f"/v1/sessions/{name}/execute"
    with broker_on_terminal(broker, "attach", "-n", "0", name) as person:
        person.until("In [2]:")

        body = {"code": gate("bu" + "sy")}
        chat = threading.Thread(target=call, args=(broker, "POST", path, body))
        chat.start()
        person.until("\nbusy\n")
        person.press(f"'mi' + 'ne'{ENTER}")
        person.until("it waits")
        open_gate(row_of(broker, name)["pid"])
        person.until("[ok, ")
        person.until("\n'mine'")
        person.until("In [4]:")
        person.press(CTRL_D)
        assert person.end() == 0
        chat.join()


def test_the_end_of_the_session_ends_the_prompt(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "1")
    with broker_on_terminal(broker, "attach", name) as person:
        person.until("In [2]:")
        broker.cli("kill", name, "--reason", "over")
        person.until("over")
        assert person.end() == 1
        assert f"`broker attach --create {name}` or `broker run -s {name}` starts it" in person.all
        assert "run it again" not in person.all


@pytest.mark.parametrize("flags", [[], ["--watch"]])
def test_a_lost_kernel_is_told_once_and_the_next_one_counts_anew(
    broker: RunningBroker, flags: list[str]
) -> None:
    name = new_name()
    execute(broker, name, "print('a')")
    execute(broker, name, "print('b' * 3)")
    with broker_on_terminal(broker, "attach", *flags, name) as person:
        person.until("In [2]" if flags else "In [3]:")
        if flags:
            person.until("[ok, ")
        execute(broker, name, "import os; os._exit(4)")
        person.until("lost")
        if not flags:
            person.until("In [1]:")
        execute(broker, name, "print('be' + 'hind')")
        person.until("behind")
        person.press(CTRL_C if flags else CTRL_D)
        person.end()
        assert person.all.count("state lost") == 1
        assert "generation 2, state lost" in person.all


def test_keys_that_nobody_has_read_are_dropped() -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"rm -r it\n")
        assert select.select([theirs], [], [], 30)[0]
        forget_typed(theirs)
        assert not select.select([theirs], [], [], 0)[0]
        os.write(ours, b"ls\n")
        assert os.read(theirs, 100) == b"ls\n"
    finally:
        os.close(ours)
        os.close(theirs)
    forget_typed(theirs)  # where there is no terminal any more, there is nothing to drop


def test_keys_for_a_session_that_was_killed_are_nobodys(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "1")
    program = f'{BROKER} attach {name}; stty -icanon min 0 time 0; echo "left:[$(head -c 99)]"'
    env = os.environ | {"BROKER_URL": broker.url, "BROKER_TOKEN": broker.token}
    with terminal(["sh", "-c", program], env=env) as person:
        person.until("In [2]:")
        person.press(f"print('be' + 'gun'); import time; time.sleep(60){ENTER}")
        person.until("begun")
        person.press(f"rm -r it{ENTER}")
        person.until("rm -r it")  # the terminal has it, and nobody reads
        broker.cli("kill", name, "--reason", "over")
        person.until("left:[")
        assert person.until("]") == ""
    assert person.all.count("rm") == 1  # as it was typed: no kernel has it, and no shell


def test_a_strangers_text_does_nothing_to_the_terminal(broker: RunningBroker) -> None:
    name = new_name()
    code = "print('\\x1b]0;owned\\x07\\x1b[2J\\x1b[31mred\\x1b[0m\\u202e')"
    execute(broker, name, code)
    for command in (["attach", "--watch", name], ["logs", name], ["run", "-s", name, code]):
        with broker_on_terminal(broker, *command) as person:
            shown = person.until("red")
            assert "\\x1b]0;owned\\x07\\x1b[2J" in shown.partition("[ok")[0]
            person.until("\\u202e")
            person.press(CTRL_C)
            person.end()


@pytest.mark.parametrize("flags", [[], ["--watch"]])
def test_a_session_that_is_not_there_is_an_error_with_the_next_step(
    broker: RunningBroker, flags: list[str]
) -> None:
    name = new_name()
    with broker_on_terminal(broker, "attach", *flags, name) as person:
        assert person.end() == 1
        assert name in person.all
        assert "broker ls" in person.all
        if not flags:
            assert "--create" in person.all
    assert name not in broker.sessions()


def test_without_a_terminal_it_names_the_command_that_needs_none(broker: RunningBroker) -> None:
    answer = broker.cli("attach", "x", stdin="1\n")
    assert answer.returncode == 2
    assert "broker run" in answer.stderr


def test_the_broker_may_be_killed_meanwhile(start_broker: object, short_dir: object) -> None:
    directory = short_dir()
    with start_broker(directory, "--warm", "1") as first:
        port = re.search(r":(\d+)", first.url[5:])
        assert port is not None
        execute(first, "s", "kept = 7")
        with broker_on_terminal(first, "attach", "s") as person:
            person.until("In [2]:")
            first.process.kill()
            first.process.wait(20)
            person.until("trying again")
            with start_broker(directory, "--warm", "1", "--port", port[1]) as second:
                person.until("connected again")
                person.press(f"kept{ENTER}")
                person.until("\n7")
                person.until("In [3]:")
                person.press(CTRL_D)
                assert person.end() == 0
                ask_until(lambda: second.sessions() == {"s"}, "session there")
                second.end({"s"})
