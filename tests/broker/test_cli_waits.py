"""The command line against a server that takes connections and says nothing, and no address."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.client import BadRequest, Broker
from broker.client.find import find

BROKER = [sys.executable, "-W", "error", "-c", "from broker.cli import main; main()"]


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that never answers: the system takes the connections for it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def environ(url: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("BROKER_")}
    return {**kept, "BROKER_URL": url, "BROKER_TOKEN": "t"}


def command(url: str, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BROKER, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        env=environ(url) | more,
        check=False,
    )


@pytest.mark.parametrize("arguments", [["ls"], ["run", "-s", "s", "1"], ["files", "s", "get", "a"]])
def test_a_person_is_told_of_a_server_that_does_not_answer(
    silent: str, arguments: list[str], tmp_path: Path
) -> None:
    with subprocess.Popen(
        [*BROKER, *arguments],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environ(silent),
        cwd=tmp_path,  # where what it has fetched so far is left: nobody cleans up behind a kill
    ) as process:
        try:
            assert process.stderr is not None
            assert process.stderr.readline() == f"broker: waiting for {silent} to answer\n"
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ls", "--json"], "has not answered within 0.2 s"),
        (["run", "-s", "s", "--json", "1"], "timed out"),
    ],
)
def test_a_program_gets_the_end_of_the_wait_alone(
    silent: str, arguments: list[str], said: str
) -> None:
    answer = command(silent, *arguments, BROKER_ANSWER_TIMEOUT="200ms")
    assert answer.returncode == 1
    [line] = answer.stderr.splitlines()
    assert line.startswith("broker: ")
    assert silent in line
    assert said in line
    assert not answer.stdout


def test_a_wait_of_no_time_is_refused(silent: str) -> None:
    answer = command(silent, "ls", "--answer-timeout", "0")
    assert answer.returncode == 2
    assert "--answer-timeout is over 0" in answer.stderr


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("127.0.0.1:8000/", "http://127.0.0.1:8000/"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("broker.example.org", "https://broker.example.org"),
        ("localhost.example.org:80", "https://localhost.example.org:80"),
        ("ws://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("wss://broker.example.org/x", "https://broker.example.org/x"),
    ],
)
def test_an_address_without_its_scheme_is_told_as_it_should_be(url: str, meant: str) -> None:
    for given in ({"url": url}, {"environ": {"BROKER_URL": url}}):
        with pytest.raises(BadRequest) as refused:
            find(token="t", **given)
        assert refused.value.message == (
            f"{url!r} is no address: one begins with http:// or https://, as in {meant}"
        )
        assert refused.value.field == "url"


def test_an_address_is_taken_in_any_case() -> None:
    assert Broker("HTTP://localhost:1/", "t").place.url == "HTTP://localhost:1"


def test_the_command_says_which_address_was_meant() -> None:
    answer = command("", "ls", "--url", "localhost:8000")
    assert answer.returncode == 1
    told = "broker: 'localhost:8000' is no address: one begins with http:// or https://, as in"
    assert answer.stderr == f"{told} http://localhost:8000\n"
