"""The command line against the scripted peer, as a program with real descriptors."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.broker.scripted_peer import Peer, running_peer

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as scripted:
        yield scripted


BROKER = [sys.executable, "-W", "error", "-c", "from broker.cli import main; main()"]


@pytest.fixture
def environ(peer: Peer, tmp_path: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BROKER_")}
    return {**kept, "BROKER_URL": peer.url, "BROKER_TOKEN": peer.token, "HOME": str(tmp_path)}


@pytest.fixture
def run(environ: dict[str, str], tmp_path: Path) -> Run:
    def command(*arguments: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*BROKER, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env={**environ, **env},
            cwd=tmp_path,
            check=False,
        )

    return command


def ends(status: str, **fields: Any) -> dict[str, Any]:
    return {"type": "done", "status": status, **fields}


def test_run_prints_each_stream_on_its_descriptor(run: Run, peer: Peer) -> None:
    peer.answers["x"] = [
        {"type": "stream", "name": "stdout", "text": "out"},
        {"type": "stream", "name": "stderr", "text": "err\n"},
        {"type": "result", "data": {"text/plain": "42", "text/html": "<b>"}},
    ]
    done = run("run", "-s", "a", "x")
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n42\n", "err\n")


@pytest.mark.parametrize(
    ("status", "code"),
    [("ok", 0), ("error", 1), ("timeout", 124), ("interrupted", 130), ("lost", 137)],
)
def test_run_exits_as_the_execution_ended(run: Run, peer: Peer, status: str, code: int) -> None:
    peer.answers["x"] = [ends(status, reason="why")]
    assert run("run", "-s", "a", "x").returncode == code


def test_replay_names_the_tenant_whose_session_goes_on(run: Run, tmp_path: Path) -> None:
    cell = {"cell_type": "code", "source": "x", "outputs": [], "metadata": {}}
    made = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": [cell]}
    (tmp_path / "a.ipynb").write_text(json.dumps(made))
    replayed = ("replay", "a.ipynb", "--into", "-s", "a")
    assert "goes on (`broker attach a`)\n" in run(*replayed).stderr
    theirs = run(*replayed, "--tenant", "acme")
    assert "goes on (`broker attach a --tenant acme`)\n" in theirs.stderr


def test_replay_goes_on_behind_a_cell_that_cannot_be_sent(
    run: Run, peer: Peer, tmp_path: Path
) -> None:
    long = "a message of 9000000 bytes is over the bound of 8388608"
    peer.answers["long"] = [{"do": "fault", "code": "too_large", "message": long}]
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "source": source, "outputs": [], "metadata": {}}
        for source in ('print("\ud800")', "long", "x")
    ]
    made = {"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": cells}
    (tmp_path / "a.ipynb").write_text(json.dumps(made))
    replayed = ("replay", "a.ipynb", "--into", "-s", "a")
    done = run(*replayed)
    assert done.returncode == 1
    assert "[1/3] error" in done.stdout
    assert "    cannot be sent: 'utf-8' codec" in done.stdout
    assert f"    {long}\n" in done.stdout
    assert "\n3 cells: 2 error, 1 new\n" in done.stdout
    assert "goes on (`broker attach a`)" in done.stderr
    told = json.loads(run(*replayed, "--stop-on-error", "--json").stdout)
    assert [cell["verdict"] for cell in told["cells"]] == ["error", "not run", "not run"]


@pytest.mark.parametrize("arguments", [[], ["-"], ["--json"]])
def test_run_without_code_runs_nothing(run: Run, peer: Peer, arguments: list[str]) -> None:
    done = run("run", "-s", "a", *arguments, stdin=" \n")
    assert (done.returncode, "there is no code on standard input" in done.stderr) == (2, True)
    assert not peer.requests


def test_who_is_not_the_operator_is_told_whose_token_it_takes(run: Run, peer: Peer) -> None:
    for words, step in (
        ("this is for the operator: it takes a token of the tenant", "give the operator's token"),
        ("this takes the scope admin", "use a token with wider rights"),
    ):
        fault = {"error": {"code": "forbidden", "message": words}}
        peer.http[("GET", "/v1/sessions")] = (403, fault)
        told = run("ls", "--tenant", "beta").stderr
        assert f"{words} ({step}" in told
        assert ("token create" in told) == ("scope" in words)


def test_run_shows_a_traceback_on_stderr(run: Run, peer: Peer) -> None:
    told = {"name": "NameError", "message": "x", "traceback": ["Traceback", "NameError: x"]}
    peer.answers["x"] = [{"type": "error", **told}, ends("error")]
    done = run("run", "-s", "a", "x")
    assert (done.stdout, done.stderr) == ("", "Traceback\nNameError: x\n")


def test_run_takes_code_from_files_and_pipes(run: Run, peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "cell.py").write_text("from_py")
    (tmp_path / "cell.txt").write_text("from_txt")
    run("run", "-s", "a", "cell.py")
    run("run", "-s", "a", "--file", "cell.txt")
    run("run", "-s", "a", "cell.txt")
    run("run", "-s", "a", "-", stdin="from_dash")
    run("run", "-s", "a", stdin="from_pipe", BROKER_STATE_DIR=str(tmp_path))
    codes = [request["code"] for request in peer.requests]
    assert codes == ["from_py", "from_txt", "from_txt", "from_dash", "from_pipe"]
    absent = run("run", "-s", "a", "nothing.py")
    assert (absent.returncode, "there is no file nothing.py" in absent.stderr) == (2, True)
    missing = run("run", "-s", "a", "--file", "nothing.py")
    assert missing.returncode == 2
    assert "cannot read nothing.py" in missing.stderr


def test_run_notes_images_and_saves_them(run: Run, peer: Peer, tmp_path: Path) -> None:
    image = base64.b64encode(bytes(12 * 1024)).decode()
    data = {"image/png": image, "text/plain": "<Figure>"}
    peer.answers["plot"] = [{"type": "display", "data": data}] * 2
    assert run("run", "-s", "a", "plot").stdout == "[image/png 12 KB]\n" * 2
    saved = run("run", "-s", "a", "--save-images", "pics", "plot").stdout.splitlines()
    assert saved[1] == "[image/png 12 KB in pics/image-002.png]"
    assert (tmp_path / "pics" / "image-002.png").stat().st_size == 12 * 1024


def test_run_prints_one_object_for_programs(run: Run, peer: Peer) -> None:
    image = {"image/png": base64.b64encode(b"png").decode()}
    stream = {"type": "stream", "name": "stdout", "text": "out"}
    error = {"type": "error", "name": "E", "message": "m", "traceback": ["E: m"], "short": "E: m"}
    peer.answers["x"] = [
        stream,
        {"type": "display", "data": image},
        {"type": "result", "data": {"text/plain": "42", "n": float("nan")}},
        error,
        ends("error", generation=1, state="warm", execution_count=3),
    ]
    done = run("run", "-s", "a", "--json", "x")
    told = json.loads(done.stdout, parse_constant=pytest.fail)
    assert (done.returncode, done.stderr) == (1, "")
    assert [event["type"] for event in told.pop("outputs")] == [
        "stream",
        "display",
        "result",
        "error",
    ]
    assert told.pop("done")["status"] == "error"
    assert told == {
        "session": "a",
        "generation": 1,
        "state": "warm",
        "status": "error",
        "execution_count": 3,
        "stdout": "out",
        "stderr": "",
        "result": {"text/plain": "42", "n": None},
        "displays": [image],
        "error": {name: error[name] for name in ("name", "message", "short", "traceback")},
    }


def test_run_prints_json_of_code_alone(run: Run) -> None:
    pictures = run("run", "-s", "a", "--json", "--save-images", "pics", "x")
    assert (pictures.returncode, "--save-images" in pictures.stderr) == (2, True)


def test_run_says_when_the_state_was_lost(run: Run, peer: Peer) -> None:
    peer.attach["a"] = {"generation": 2, "state": "lost", "reason": "killed by operator"}
    assert (
        run("run", "-s", "a", "x").stderr
        == "broker: generation 2, state lost: killed by operator\n"
    )
    peer.attach["a"] = {"generation": 2, "state": "warm"}
    assert run("run", "-s", "a", "x").stderr == ""


def test_run_says_once_that_the_kernel_was_lost(run: Run, peer: Peer) -> None:
    lost = {"type": "session", "state": "lost", "generation": 1, "reason": "oom"}
    peer.answers["x"] = [lost, ends("lost", reason="oom")]
    done = run("run", "-s", "a", "x")
    assert (done.returncode, done.stderr) == (137, "broker: lost: oom\n")


def test_run_says_what_was_cut(run: Run, peer: Peer) -> None:
    cut = {"shown": 1024 * 1024, "total": 5 * 1024 * 1024, "file": "out.txt"}
    peer.answers["x"] = [ends("ok", truncated=cut)]
    told = "broker: output cut, 1.0 MB of 5.0 MB shown; more of it is in out.txt\n"
    assert run("run", "-s", "a", "x").stderr == told


def test_ctrl_c_interrupts_and_a_second_one_leaves(peer: Peer, environ: dict[str, str]) -> None:
    told = {"type": "stream", "name": "stdout", "text": "on\n"}
    peer.answers["once"] = [told, {"do": "wait"}]
    peer.answers["twice"] = [told, {"do": "wait"}, {**told, "text": "still\n"}, {"do": "wait"}]
    for code in ("once", "twice"):
        with subprocess.Popen(
            [*BROKER, "run", "-s", "a", code], env=environ, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "on\n"
            process.send_signal(signal.SIGINT)
            if code == "twice":
                assert process.stdout.readline() == "still\n"
                process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130


def test_refusals_are_one_line_with_the_next_step(run: Run, peer: Peer) -> None:
    for arguments in (["ls"], ["run", "-s", "a", "1"], ["status"], ["kill", "a"]):
        done = run(*arguments, BROKER_TOKEN="wrong")
        assert done.returncode == 1
        step = "give the server's token with --token or BROKER_TOKEN"
        assert done.stderr == f"broker: wrong token ({step})\n"
    peer.answers["x"] = [{"do": "fault", "code": "capacity", "message": "the node is full"}]
    done = run("run", "-s", "a", "x")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "broker kill --idle 10m" in done.stderr


def test_without_a_server_the_next_step_is_told(run: Run, tmp_path: Path) -> None:
    done = run("ls", BROKER_URL="", BROKER_TOKEN="")
    assert done.returncode == 1
    assert "no broker runs here" in done.stderr
    assert "`make run` or `broker serve`" in done.stderr
    assert run("ls", BROKER_URL="http://127.0.0.1:1").stderr.startswith("broker: no broker answers")


def test_the_local_server_is_found_by_its_state_directory(
    run: Run, peer: Peer, tmp_path: Path
) -> None:
    peer.http[("GET", "/v1/sessions")] = (200, {"sessions": [], "next": None})
    (tmp_path / ".state").mkdir()
    (tmp_path / ".state" / "server.json").write_text(
        json.dumps({"url": peer.url, "token": peer.token, "pid": 1})
    )
    for more in ({}, {"BROKER_STATE_DIR": ".state"}):
        assert run("ls", BROKER_URL="", BROKER_TOKEN="", **more).returncode == 0
    assert run("ls", "--state-dir", "elsewhere", BROKER_URL="", BROKER_TOKEN="").returncode == 1


ROWS = [
    {"session": "chat:1:smile:", "state": "busy", "generation": 2, "profile": "python",
     "kernel": "0123456789abcdef", "last_used": 1.0, "clients": 1, "executions": 7},
    {"session": "old", "state": "closed", "reason": "idle", "generation": 1, "last_used": 0.5},
    {"session": "[red]b", "state": "ready", "generation": 1, "kernel": "f" * 32, "last_used": 2.0},
]  # fmt: skip


def test_run_asks_for_lower_bounds(run: Run, peer: Peer) -> None:
    peer.answers["1"] = [ends("ok")]
    bounds = ["--memory", "256M", "--cpu-time", "5s", "--processes", "40", "--cpu", "0.5"]
    assert run("run", "-s", "a", *bounds, "1").returncode == 0
    assert peer.queries[-1] == {
        "memory": "256M",
        "cpu_time": "5s",
        "processes": "40",
        "cpu": "0.5",
    }
    assert run("run", "-s", "a", "1").returncode == 0
    assert peer.queries[-1] == {}


def test_ls_is_a_table_for_people_and_json_for_programs(run: Run, peer: Peer) -> None:
    peer.http[("GET", "/v1/sessions")] = (200, {"sessions": ROWS, "next": None})
    lines = run("ls").stdout.splitlines()
    assert lines[0].split() == [
        *("SESSION", "STATE", "GEN", "PROFILE", "KERNEL", "IDLE", "CLIENTS", "EXECUTIONS", "REASON")
    ]
    assert lines[1].split()[:2] == ["[red]b", "ready"]
    assert lines[2].split() == [
        "chat:1:smile:",
        "busy",
        "2",
        "python",
        "01234567",
        "-",
        "1",
        "7",
        "-",
    ]
    assert (lines[3].split()[1], lines[3].split()[-1]) == ("closed", "idle")
    listing = json.loads(run("ls", "--json", "--idle", "10m").stdout)
    assert [row["session"] for row in listing["sessions"]] == ["[red]b", "chat:1:smile:", "old"]
    assert peer.asked[-1][2] == {"idle": "600.0"}
    assert run("ls", "--idle", "soon").returncode == 2


def test_kill_ends_the_named_all_or_the_idle(run: Run, peer: Peer) -> None:
    peer.http[("GET", "/v1/sessions")] = (200, {"sessions": ROWS, "next": None})
    for name in ("a", "chat:1:smile:"):
        told = {"session": name, "generation": 3}
        peer.http[("DELETE", f"/v1/sessions/{name}")] = (200, told)
    peer.http[("DELETE", "/v1/sessions/[red]b")] = (200, {"session": "b", "generation": 1})
    assert run("kill", "a", "--reason", "test").stdout == "a: generation 3 ended\n"
    assert peer.asked[-1][2] == {"reason": "test"}
    done = run("kill", "nobody", "a")
    assert (done.returncode, done.stdout) == (1, "a: generation 3 ended\n")
    assert "nobody: no such" in done.stderr
    assert json.loads(run("kill", "--all", "-y", "--json").stdout)["refused"] == []
    deleted = [path for method, path, *_ in peer.asked if method == "DELETE"]
    assert deleted[-2:] == ["/v1/sessions/[red]b", "/v1/sessions/chat:1:smile:"]
    assert run("kill", "--idle", "10m").stdout == "b: generation 1 ended\n"
    for wrong in ([], ["a", "--all"], ["--all", "--idle", "1m"], ["--all"]):
        assert run("kill", *wrong).returncode == 2


def test_status_shows_nodes_pools_and_memory(run: Run, peer: Peer) -> None:
    mb = 1024 * 1024
    process = {"pid": 7, "rss": 100 * mb, "pss": 50 * mb, "uss": 9 * mb}
    kernel = {"kernel": "k" * 32, "state": "warm", "age": 65.0, **process}
    pool = {"profile": "python", "warm": 4, "target": 4, "starting": 0, "bound": 1, "stopping": 0,
            "cap": 64, "state": "backoff", "error": "no [numpy]", "retry_in": 3,
            "kernels": [kernel]}  # fmt: skip
    node = {"node": "n1", "url": "http://x", "version": "0.1.0", "capacity": 64, "warm": 4,
            "bound": 1, "draining": True, "started": 1.0}  # fmt: skip
    pools = {"pools": [pool], "broker": process, "zygotes": [{"profile": "python", **process}]}
    pools["store"] = {"url": "unix:///v.sock", "embedded": True, "restarts": 2}
    peer.http[("GET", "/v1/nodes")] = (200, {"nodes": [node]})
    peer.http[("GET", "/v1/pools")] = (200, pools)
    text = run("status").stdout
    for part in ("draining", "backoff, again in 3s: no [numpy]", "unix:///v.sock (embedded, 2"):
        assert part in text
    assert "kkkkkkkk" in text
    assert "100 MB  50 MB  9.0 MB" in text
    assert json.loads(run("status", "--json").stdout)["nodes"] == [node]
    assert peer.asked[-1][2] == {"memory": "true"}


def test_completion_prints_a_script_and_completes_session_names(run: Run, peer: Peer) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_BROKER_COMPLETE" in run("completion", shell).stdout
    peer.http[("GET", "/v1/sessions")] = (200, {"sessions": ROWS, "next": None})
    asked = {"_BROKER_COMPLETE": "bash_complete", "COMP_WORDS": "broker run -s ", "COMP_CWORD": "3"}
    assert "plain,old" in run(**asked).stdout
    assert (
        run(**{**asked, "COMP_WORDS": "broker kill o", "COMP_CWORD": "2"}).stdout == "plain,old\n"
    )
    assert run(**asked, BROKER_URL="http://127.0.0.1:1").stdout.strip() == ""


def test_help_and_version(run: Run) -> None:
    assert run("--version").stdout.startswith("broker ")
    text = run("--help").stdout
    for name in ("serve", "run", "ls", "kill", "status", "config", "completion"):
        assert f"  {name} " in text
    assert run("nonsense").returncode == 2
    assert run("run", "-s").returncode == 2


def test_the_client_commands_import_no_server() -> None:
    script = """
import sys
from broker.cli.group import cli
sys.argv = ["broker", "run", "-s", "a", "1", "--url", "http://127.0.0.1:1"]
try:
    cli()
except SystemExit:
    pass
heavy = {"tornado", "zmq", "redis", "rich", "prompt_toolkit", "msgspec", "orjson", "psutil"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
