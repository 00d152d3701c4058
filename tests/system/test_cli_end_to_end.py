"""The command line against a running broker: what the README's first steps promise."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.system.conftest import BROKER, RunningBroker
from tests.system.peer import call, new_name, row_of, steady


def test_a_session_keeps_its_variables_and_shares_them_with_no_other(
    broker: RunningBroker,
) -> None:
    one, other = new_name("a"), new_name("b")
    assert broker.cli("run", "-s", one, "x = 20").returncode == 0
    answer = broker.cli("run", "-s", one, "x * 2 + 2")
    assert (answer.returncode, answer.stdout) == (0, "42\n")
    unknown = broker.cli("run", "-s", other, "x")
    assert unknown.returncode == 1
    assert "NameError: name 'x' is not defined" in unknown.stdout + unknown.stderr
    listing = broker.cli("ls")
    assert listing.returncode == 0
    assert one in listing.stdout
    assert other in listing.stdout

    killed = broker.cli("kill", one)
    assert (killed.returncode, killed.stdout) == (0, f"{one}: generation 1 ended\n")
    after = broker.cli("run", "-s", one, "x")
    assert after.returncode == 1
    assert "NameError" in after.stdout + after.stderr
    assert "generation 2" in after.stderr
    assert "killed by operator" in after.stderr


@pytest.mark.parametrize(
    ("code", "flags", "status", "word"),
    [
        ("print('out')", [], 0, "out"),
        ("1 / 0", [], 1, "ZeroDivisionError"),
        ("import time; time.sleep(60)", ["--timeout", "200ms"], 124, "timeout"),
        ("import os; os._exit(3)", [], 137, "exit 3"),
        ("import os, signal; os.kill(os.getpid(), 9)", [], 137, "signal SIGKILL"),
    ],
    ids=["ok", "error", "timeout", "exit", "killed"],
)
def test_the_exit_status_says_how_the_code_ended(
    broker: RunningBroker, code: str, flags: list[str], status: int, word: str
) -> None:
    answer = broker.cli("run", "-s", new_name(), *flags, code)
    assert answer.returncode == status, answer
    assert word in answer.stdout + answer.stderr


@pytest.mark.parametrize("code", ["import sys\nprint('o'); print('e', file=sys.stderr)\n42", "1/0"])
def test_run_for_programs_answers_as_the_route_does(broker: RunningBroker, code: str) -> None:
    own = ("session", "outputs", "done", "execution_count", "state")
    answers = [
        json.loads(broker.cli("run", "-s", new_name(), "--json", code).stdout),
        call(broker, "POST", f"/v1/sessions/{new_name()}/execute", {"code": code}).body,
    ]
    kinds = [[each["type"] for each in one["outputs"]] for one in answers]
    assert kinds[0] == kinds[1]
    assert answers[0].keys() == answers[1].keys()
    assert answers[0]["done"].keys() == answers[1]["done"].keys()
    for name in answers[0].keys() - set(own):
        assert answers[0][name] == answers[1][name], name


def test_ctrl_c_interrupts_the_code_and_keeps_the_session(broker: RunningBroker) -> None:
    name = new_name()
    environment = os.environ | {"BROKER_URL": broker.url, "BROKER_TOKEN": broker.token}
    code = "x = 20; import time; print('up', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [str(BROKER), "run", "-s", name, code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert broker.cli("run", "-s", name, "x").stdout == "20\n"


def test_code_comes_from_an_argument_a_pipe_or_a_file(
    broker: RunningBroker, tmp_path: Path
) -> None:
    name, file = new_name(), tmp_path / "code.py"
    file.write_text("y = x + 1\ny")
    assert broker.cli("run", "-s", name, "-", stdin="x = 1\nprint(x)").stdout == "1\n"
    assert broker.cli("run", "-s", name, str(file)).stdout == "2\n"
    assert broker.cli("run", "-s", name, stdin="x + y").stdout == "3\n"


def test_images_are_saved_and_named(broker: RunningBroker, tmp_path: Path) -> None:
    code = "import matplotlib.pyplot as plt; plt.plot([1, 2]);"
    answer = broker.cli("run", "-s", new_name(), "--save-images", str(tmp_path), code)
    assert answer.returncode == 0, answer
    [image] = tmp_path.iterdir()
    assert image.read_bytes().startswith(b"\x89PNG")
    assert image.name in answer.stdout


def test_every_listing_is_json_for_programs(broker: RunningBroker) -> None:
    name = new_name()
    broker.cli("run", "-s", name, "1")
    listing = json.loads(broker.cli("ls", "--json").stdout)
    [row] = [row for row in listing["sessions"] if row["session"] == name]
    described, moving = row_of(broker, name), ("clients", "idle", "usage")
    assert row == {key: row[key] if key in moving else described[key] for key in row}
    status = json.loads(broker.cli("status", "--json").stdout)
    assert status["pools"][0]["profile"] == "python"
    assert status["broker"]["pid"] == broker.pid
    killed = json.loads(broker.cli("kill", name, "--json").stdout)
    assert killed == {
        "killed": [{"session": name, "generation": 1, "reason": "killed by operator"}],
        "refused": [],
    }


def test_status_shows_node_pools_and_memory(broker: RunningBroker) -> None:
    steady(broker)
    answer = broker.cli("status")
    assert answer.returncode == 0, answer
    assert broker.url in answer.stdout
    assert "python" in answer.stdout
    assert re.search(r"\d MB|\d+(\.\d+)? ?M", answer.stdout)


def test_idle_sessions_are_ended_together(broker: RunningBroker) -> None:
    name = new_name()
    broker.cli("run", "-s", name, "1")
    assert broker.cli("kill", "--idle", "1h").returncode == 0
    assert row_of(broker, name)["state"] == "ready"


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["run", "1"], 2, "--session"),
        (["kill"], 2, "--all"),
        (["kill", "absent"], 1, "absent"),
        (["run", "-s", "no spaces", "1"], 1, "session"),
        (["run", "-s", "a", "--profile", "absent", "1"], 1, "absent"),
        (["--token", "wrong", "ls"], None, "token"),
        (["ls", "--token", "wrong"], None, "token"),
    ],
)
def test_a_mistake_is_one_clear_line(
    broker: RunningBroker, arguments: list[str], status: int | None, word: str
) -> None:
    answer = broker.cli(*arguments)
    assert answer.returncode == status if status else answer.returncode in (1, 2)
    assert word in answer.stderr
    assert "Traceback" not in answer.stderr


def test_without_a_broker_it_says_how_to_start_one(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    answer = subprocess.run(
        [str(BROKER), "ls"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=clean | {"BROKER_STATE_DIR": str(tmp_path)},
    )
    assert answer.returncode == 1
    assert "broker serve" in answer.stderr


def test_the_local_broker_is_found_through_its_state_directory(broker: RunningBroker) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    answer = subprocess.run(
        [str(BROKER), "run", "-s", new_name(), "6 * 7"],
        capture_output=True,
        text=True,
        check=False,
        env=clean | {"BROKER_STATE_DIR": str(broker.state_dir)},
    )
    assert (answer.returncode, answer.stdout) == (0, "42\n")
    server = broker.state_dir / "server.json"
    assert server.stat().st_mode & 0o777 == 0o600
    assert json.loads(server.read_text()) == {
        "url": broker.url,
        "token": broker.token,
        "pid": broker.pid,
    }
    assert call(broker, "GET", "/healthz").status == 200
