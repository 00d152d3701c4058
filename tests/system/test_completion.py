"""Completion in real shells, on a terminal: what Tab makes of a line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.system.conftest import BROKER, RunningBroker
from tests.system.peer import execute, row_of
from tests.terminal import TAB, Terminal, terminal

SHELLS = ("bash", "zsh", "fish")
# The script, and a function in place of the command that tells what it is given. What completes is
# the program: the scripts start it by its path.
TELLS = 'broker() { printf "<%s>" "$@"; echo; }'
SETUP = {
    "bash": f'source "$HOME/broker.bash"; {TELLS}',
    "zsh": f'autoload -Uz compinit && compinit -u && source "$HOME/broker.zsh"; {TELLS}',
    "fish": 'source $HOME/broker.fish; function broker; printf "<%s>" $argv; echo; end',
}
COMMANDS = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
LEAN = """
[profiles.python]
preload = []
warm = 2
[profiles.python-other]
preload = []
warm = 0
"""


def installed(shell: str) -> bool:
    """Tell whether there is such a shell, after installing Debian's where this may."""
    if not shutil.which(shell) and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", shell]):
            subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False)
    return shutil.which(shell) is not None


@pytest.fixture(scope="module")
def broker(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> Iterator[RunningBroker]:
    directory = short_dir()
    (directory / "broker.toml").write_text(LEAN)
    with start_broker(directory, "--config", str(directory / "broker.toml")) as running:
        hostile = "open('da$(touch pwned).csv', 'w'); open('da;ls', 'w')"
        code = "import os; os.mkdir('data'); open('data/rows.csv', 'w'); open('notes.txt', 'w')"
        execute(running, "alpha-1", f"{code}; {hostile}")
        execute(running, "chat:beta@home", "1")
        yield running


@contextmanager
def shell(name: str, broker: RunningBroker, home: Path) -> Iterator[Terminal]:
    """Run a shell that has read its script."""
    if not installed(name):
        pytest.skip(f"no {name}, and it cannot be installed here: that takes root and apt-get")
    script = broker.cli("completion", name)
    assert script.returncode == 0, script.stderr
    (home / f"broker.{name}").write_text(script.stdout)
    told = {
        "BROKER_URL": broker.url,
        "BROKER_TOKEN": broker.token,
        "HOME": str(home),
        "PATH": f"{BROKER.parent}{os.pathsep}{os.environ['PATH']}",
        "PS1": "ready> ",
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "LC_ALL": "C.UTF-8",
    }
    with terminal(COMMANDS[name], env=os.environ | told, cwd=home, columns=200) as screen:
        screen.press(SETUP[name] + "; echo set''up\r")
        screen.until_match("setup")
        yield screen


def words(screen: Terminal, line: str, *, more: str = "") -> list[str]:
    """Press Tab behind a line, and Enter; return what the command is given then."""
    screen.press(f"{line}{TAB}{more}\r")
    return re.findall("<([^<>]*)>", screen.until_match(r"(?:<[^<>]*>)+\s")[0])


@pytest.mark.parametrize("name", SHELLS)
@pytest.mark.parametrize(
    ("line", "whole"),
    [
        ("broker insp", "inspect"),
        ("broker kill alp", "alpha-1"),
        ("broker kill chat:b", "chat:beta@home"),
        ("broker inspect cha", "chat:beta@home"),
        ("broker run -s chat:beta@h", "chat:beta@home"),
        ("broker run -s alpha-1 'x = 1' --profile python-", "python-other"),
        ("broker files alpha-1 get no", "notes.txt"),
        ("broker files alpha-1 rm data/", "data/rows.csv"),
        ("broker ls --state bu", "busy"),
        ("broker ls --sor", "--sort"),
    ],
)
def test_tab_completes_commands_sessions_profiles_and_files(
    broker: RunningBroker, tmp_path: Path, name: str, line: str, whole: str
) -> None:
    with shell(name, broker, tmp_path) as screen:
        assert words(screen, line)[-1] == whole


@pytest.mark.parametrize("name", SHELLS)
def test_tab_completes_the_names_of_nodes(broker: RunningBroker, tmp_path: Path, name: str) -> None:
    node = row_of(broker, "alpha-1")["node"]
    with shell(name, broker, tmp_path) as screen:
        assert words(screen, f"broker drain {node[:3]}")[-1] == node


@pytest.mark.parametrize("name", SHELLS)
def test_a_directory_is_not_the_end_of_a_path(
    broker: RunningBroker, tmp_path: Path, name: str
) -> None:
    with shell(name, broker, tmp_path) as screen:
        given = words(screen, "broker files alpha-1 get dat", more="rows.csv")
        assert given[-1] == "data/rows.csv"


@pytest.mark.parametrize("name", SHELLS)
def test_no_name_of_a_file_is_offered_that_a_shell_would_act_upon(
    broker: RunningBroker, tmp_path: Path, name: str
) -> None:
    with shell(name, broker, tmp_path) as screen:
        assert words(screen, "broker files alpha-1 get da")[-1] == "data/"


@pytest.mark.parametrize("name", SHELLS)
def test_without_a_server_tab_offers_nothing_and_says_nothing(
    broker: RunningBroker, tmp_path: Path, name: str
) -> None:
    with shell(name, broker, tmp_path) as screen:
        gone = "broker kill --url http://127.0.0.1:1 al"
        assert words(screen, gone)[-1] == "al"
        assert not re.search("Traceback|Error", screen.seen)
