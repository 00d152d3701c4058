"""`broker logs` and `broker export`: what a session has run, while it lives and afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.system.conftest import BROKER, RunningBroker
from tests.system.peer import ask_until, attached, call, execute, gate, new_name, open_gate, row_of


@contextmanager
def following(broker: RunningBroker, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run `broker logs -f`; it is interrupted at the end, and ends well."""
    environment = os.environ | {"BROKER_URL": broker.url, "BROKER_TOKEN": broker.token}
    with subprocess.Popen(
        [str(BROKER), "logs", "-f", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        try:
            yield process
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
            assert process.returncode == 0, said
            assert "Traceback" not in said
        finally:
            process.kill()


def until(process: subprocess.Popen[str], word: str) -> list[str]:
    """Return the lines up to one with this word."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if word in line:
            return lines
    pytest.fail(f"no {word!r} in {lines}")


def test_what_ran_is_text_with_its_time_and_its_end(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "print('one')\n2")
    execute(broker, name, "1 / 0", metadata={"origin": "mine"})
    execute(broker, name, "for i in range(100): print(i)")
    execute(broker, name, "from IPython.display import Image; Image(b'\\x89PNG')")
    answer = broker.cli("logs", name)
    assert answer.returncode == 0, answer
    first, second, third, fourth = answer.stdout.rstrip("\n").split("\n\n")
    assert first.startswith("In [1]  20")
    assert "\n> print('one')\n> 2\none\n2\n[ok, 0." in first
    assert second.splitlines()[0].endswith("  mine")
    assert "ZeroDivisionError: division by zero\n[error, 0." in second
    assert "\n8\n9\n… 80 more lines: --full shows what is kept\n90\n91\n" in third
    assert "\n98\n99\n[ok" in third
    assert "[image/png 4 B]" in fourth
    full = broker.cli("logs", name, "--full", "-n", "2").stdout
    assert full.startswith("In [3]")
    assert "\n99\n" in full


def test_in_a_pipe_a_progress_bar_is_its_last_state(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "for i in range(101): print(f'\\r{i:3} %', end='')")
    execute(broker, name, "print('\\x1b[31mred\\x1b[0m \\x1b]52;c;aGk=\\x07'); 1 / 0")
    said = broker.cli("logs", name).stdout
    assert "\n100 %\n[ok, " in said
    assert "\nred \\x1b]52;c;aGk=\\x07\n" in said
    assert not {"\r", "\x1b", "\x07"} & set(said)


def test_of_a_flood_the_log_and_the_notebook_have_the_last_lines_before_the_error(
    broker: RunningBroker, tmp_path: Path
) -> None:
    name, path = new_name(), tmp_path / "a.ipynb"
    execute(broker, name, "for i in range(200_000): print(f'line {i:06}')\n1 / 0")
    said = broker.cli("logs", name, "--full").stdout
    first, _, rest = said.partition(" characters of text left out here; while the session lives, ")
    assert "\nline 000000\nline 000001\n" in first
    assert rest.startswith(".outputs/1.txt has it]\n")
    assert "\nline 199998\nline 199999\n------" in rest
    assert rest.endswith(" s]\n\n")
    assert "ZeroDivisionError: division by zero\n[error, " in rest
    broker.cli("export", name, "-o", str(path))
    outputs = nbformat.read(path, as_version=4)["cells"][0]["outputs"]
    kinds = [(one["output_type"], one.get("name")) for one in outputs]
    stdout, stderr = ("stream", "stdout"), ("stream", "stderr")
    assert kinds == [stdout, stderr, stdout, ("error", None)]
    again = broker.cli("replay", str(path), "-s", new_name())
    assert again.returncode == 0, again.stdout


def test_for_programs_the_cells_are_one_object(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "print('one')")
    execute(broker, name, "2", metadata={"origin": "mine"})
    told = json.loads(broker.cli("logs", name, "--json", "-n", "1").stdout)
    [cell] = told["cells"]
    assert told["session"] == name
    assert (cell["execution_count"], cell["code"], cell["status"]) == (2, "2", "ok")
    assert cell["origin"] == "mine"
    assert cell["outputs"] == [{"type": "result", "data": {"text/plain": "2"}}]


async def test_following_goes_on_from_what_was_kept_each_cell_once(broker: RunningBroker) -> None:
    name = new_name()
    async with attached(broker, name) as peer:
        await peer.run("print('before')")
        await peer.run("'not to be seen'", silent=True)
        await peer.send({"type": "execute", "id": "x", "code": gate("opened")})
        await peer.until("stream", id="x")
        with following(broker, name) as log:
            assert sum("before" in line for line in until(log, "[ok,")) == 2  # code, and output
            shown = until(log, "opened")
            assert not any("not to be seen" in line for line in shown)
            shown += until(log, "opened") if shown[-1].startswith(">") else []
            open_gate(row_of(broker, name)["pid"])
            until(log, "[ok,")
            await peer.until("done", id="x")
            await peer.run("print('af' + 'ter')")
            shown = until(log, "[ok,")
            assert "after" in shown


async def test_following_for_programs_is_a_line_for_each_cell(broker: RunningBroker) -> None:
    name = new_name()
    async with attached(broker, name) as peer:
        await peer.run("print('before')")
        with following(broker, name, "--json") as log:
            assert json.loads(until(log, "before")[-1])["execution_count"] == 1
            await peer.run("print('a'); print('b'); 3", metadata={"origin": "mine"})
            told = json.loads(until(log, "mine")[-1])
            assert told["outputs"] == [
                {"type": "stream", "name": "stdout", "text": "a\nb\n"},
                {"type": "result", "data": {"text/plain": "3"}},
            ]
            assert told["duration"] > 0


def test_following_ends_with_the_session(broker: RunningBroker) -> None:
    name = new_name()
    execute(broker, name, "1")
    environment = os.environ | {"BROKER_URL": broker.url, "BROKER_TOKEN": broker.token}
    with subprocess.Popen(
        [str(BROKER), "logs", "-f", name],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        until(process, "[ok,")
        ask_until(lambda: row_of(broker, name)["clients"] == 1, "following")
        broker.cli("kill", name, "--reason", "over")
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "over" in said


def test_what_never_was_has_no_log(broker: RunningBroker) -> None:
    for command in (["logs"], ["logs", "-f"], ["export"]):
        answer = broker.cli(*command, new_name())
        assert answer.returncode == 1
        assert "broker ls" in answer.stderr
        assert "Traceback" not in answer.stderr


def exported(broker: RunningBroker, name: str, directory: Path) -> Any:
    """Return the notebook that the command writes, which validates."""
    path = directory / "chat.ipynb"
    answer = broker.cli("export", name, "-o", str(path))
    assert answer.returncode == 0, answer
    made = nbformat.read(path, as_version=4)
    nbformat.validate(made)
    assert broker.cli("export", name).stdout == path.read_text()
    return made


def test_a_session_that_was_killed_is_exported_whole(broker: RunningBroker, tmp_path: Path) -> None:
    name, secret = new_name(), "sk-a-secret-value"
    path = f"/v1/sessions/{name}"
    call(broker, "POST", path, {"env": {"CHAT_API_KEY": secret}})
    execute(broker, name, "import os; print(os.environ['CHAT_API_KEY'])")
    execute(broker, name, "import pandas as pd; pd.DataFrame({'a': [1]})")
    execute(broker, name, "1 / 0", metadata={"origin": "attach"})
    broker.cli("kill", name, "--reason", "over")
    made = exported(broker, name, tmp_path)
    first, second, third = made["cells"]
    assert secret not in json.dumps(made)
    assert first["outputs"][0]["text"] == "[redacted CHAT_API_KEY]\n"
    assert "text/html" in second["outputs"][0]["data"]
    assert third["outputs"][0]["ename"] == "ZeroDivisionError"
    assert third["metadata"]["broker"]["status"] == "error"
    assert third["metadata"]["broker"]["origin"] == "attach"
    assert third["metadata"]["broker"]["duration"] > 0
    assert set(third["metadata"]["execution"]) == {"iopub.execute_input", "shell.execute_reply"}
    assert "> 1 / 0" in broker.cli("logs", name).stdout


@pytest.fixture(scope="module")
def brief(start_broker: Any, short_dir: Any) -> Iterator[RunningBroker]:
    """A broker that ends sessions as soon as they are idle."""
    with start_broker(short_dir(), "--warm", "1", BROKER_SESSION_IDLE_TIMEOUT="1s") as broker:
        yield broker


def test_a_session_that_ended_idle_is_exported_whole(brief: RunningBroker, tmp_path: Path) -> None:
    execute(brief, "s", "print('kept')")
    ask_until(lambda: not brief.sessions(), "ended")
    made = exported(brief, "s", tmp_path)
    assert made["cells"][0]["outputs"][0]["text"] == "kept\n"
    assert "kept" in brief.cli("logs", "s").stdout
    follows = brief.cli("logs", "-f", "s")
    assert follows.returncode == 1
    assert "without -f" in follows.stderr


def test_a_session_is_exported_whole_after_its_broker_was_killed(
    start_broker: Any, short_dir: Any, tmp_path: Path
) -> None:
    directory = short_dir()
    with start_broker(directory, "--warm", "1") as broker:
        execute(broker, "s", "a = 1")
        execute(broker, "s", "print(a + 1)")
        exported(broker, "s", tmp_path)
        ask_until(lambda: stored(directory) == 2, "cells written")
        os.kill(broker.pid, signal.SIGKILL)
        broker.process.wait(20)
    with start_broker(directory, "--warm", "1") as broker:
        made = exported(broker, "s", tmp_path)
        assert [cell["source"] for cell in made["cells"]] == ["a = 1", "print(a + 1)"]
        assert made["cells"][1]["outputs"][0]["text"] == "2\n"
        broker.end({"s"})


def stored(directory: Path) -> int:
    import redis

    with redis.Redis(unix_socket_path=str(directory / "valkey.sock")) as client:
        return sum(int(client.llen(key)) for key in client.scan_iter("*:transcript:*"))


def test_following_goes_on_with_the_next_broker(start_broker: Any, short_dir: Any) -> None:
    directory = short_dir()
    with start_broker(directory, "--warm", "1") as first:
        port = first.url.rpartition(":")[2]
        execute(first, "s", "a = 1")
        with following(first, "s") as log:
            until(log, "[ok,")
            ask_until(lambda: row_of(first, "s")["clients"] == 1, "following")
            first.process.kill()
            first.process.wait(20)
            with start_broker(directory, "--warm", "1", "--port", port) as second:
                ask_until(lambda: row_of(second, "s")["clients"] == 1, "following")
                execute(second, "s", "print('a', 'is', a)")
                until(log, "a is 1")
                second.end({"s"})
                log.wait(30)
