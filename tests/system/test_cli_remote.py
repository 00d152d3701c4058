"""Every command against a broker elsewhere: --url and --token, and nothing else to go by."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from broker.cli.group import COMMANDS
from tests.system.conftest import BROKER, RunningBroker
from tests.system.peer import execute, new_name, row_of

LOCAL = {"serve", "config", "doctor", "completion"}  # they ask no server
# Put in by the test.
NAME, NEW, DOOMED, NODE, FILE, NOTEBOOK = "NAME", "NEW", "DOOMED", "NODE", "FILE", "NOTEBOOK"
REFUSED = ("nothing is running", "no session 'nobody'")  # by a broker that was asked all the same
# By command, the lines to try, and a word that each prints.
LINES: dict[str, list[tuple[list[str], str]]] = {
    "run": [(["-s", NAME, "6 * 7"], "42")],
    "ls": [([], NAME), (["--json", "--node", NODE, "--sort", "idle"], NAME)],
    "top": [(["--once", "--interval", "100ms"], NAME), (["--once", "--json"], NAME)],
    "inspect": [([NAME], "GENERATION"), ([NAME, "--json"], "history")],
    "interrupt": [([NAME], "nothing is running")],
    "kill": [([DOOMED, "--reason", "tidied"], "generation 1 ended"), (["--idle", "1h"], "no")],
    "vars": [([NAME], "x")],
    "export": [([NAME], "nbformat")],
    "logs": [([NAME], "x = 1")],
    "attach": [(["nobody", "--watch"], "no session 'nobody'")],
    "replay": [([NOTEBOOK, "-s", NEW], "0 cells")],
    "files": [([NAME, "put", FILE, "sent"], "sent"), ([NAME, "ls"], "sent")],
    "status": [(["--no-memory"], NODE)],
    "token": [(["create", "--name", "remote"], "run for tenant"), (["list"], "remote")],
    "drain": [([NODE, "--undo"], "takes new sessions again")],
}


@pytest.fixture
def nowhere(tmp_path: Path) -> dict[str, str]:
    """A home that knows another broker, at which nobody answers."""
    state = tmp_path / "home" / ".local" / "state" / "kernel-broker"
    state.mkdir(parents=True)
    wrong = {"url": "http://127.0.0.1:1", "token": "not-the-token-that-is-meant", "pid": 1}
    (state / "server.json").write_text(json.dumps(wrong))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    return {**kept, "HOME": str(tmp_path / "home")}


def test_every_command_that_asks_a_server_is_tried_here() -> None:
    assert set(LINES) == set(COMMANDS) - LOCAL


@pytest.mark.parametrize("command", LINES)
def test_a_command_takes_the_address_and_the_token_of_a_broker_elsewhere(
    broker: RunningBroker, nowhere: dict[str, str], tmp_path: Path, command: str
) -> None:
    name, doomed, place = new_name("live"), new_name("doomed"), tmp_path / "empty"
    place.mkdir()
    execute(broker, name, "x = 1")
    execute(broker, doomed, "1")
    sent = tmp_path / "sent.txt"
    sent.write_text("sent")
    saved = tmp_path / "saved.ipynb"
    saved.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": []}))
    node = row_of(broker, name)["node"]
    put = {NAME: name, DOOMED: doomed, NODE: node, FILE: str(sent), NOTEBOOK: str(saved)}
    put[NEW] = new_name("new")
    for arguments, word in LINES[command]:
        told = [put.get(one, one) for one in arguments]
        done = subprocess.run(
            [str(BROKER), command, *told, "--url", broker.url, "--token", broker.token],
            capture_output=True,
            text=True,
            timeout=60,
            env=nowhere,
            cwd=place,
            check=False,
        )
        assert put.get(word, word) in done.stdout + done.stderr, done
        assert done.returncode == (1 if word in REFUSED else 0), done
        assert broker.token not in done.stdout + done.stderr
    assert list(place.iterdir()) == []
