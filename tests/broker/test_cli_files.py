"""`broker files` and `broker token` on the command line, against the scripted peer."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.client import Broker, BrokerError
from tests.broker.scripted_peer import Peer, running_peer

Run = Callable[..., subprocess.CompletedProcess[str]]
BROKER = [sys.executable, "-W", "error", "-c", "from broker.cli import main; main()"]
ACTS = "f\x1b]0;PWN\x07.txt"
WHERE = f"/v1/sessions/a/files/{ACTS}"


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as scripted:
        yield scripted


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run a command where no server is named but by the command itself."""
    environ = {key: value for key, value in os.environ.items() if not key.startswith("BROKER_")}

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*BROKER, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env={**environ, "HOME": str(tmp_path)},
            cwd=tmp_path,
            check=False,
        )

    return command


def to(peer: Peer) -> tuple[str, ...]:
    return "--url", peer.url, "--token", peer.token


def test_no_name_of_a_file_acts_on_the_terminal(run: Run, peer: Peer, tmp_path: Path) -> None:
    peer.http[("GET", WHERE)] = (200, {})
    row = {"path": ACTS, "type": "file", "size": 2, "mtime": 1.0}
    peer.http[("PUT", WHERE)] = (200, row)
    got = run("files", "a", "get", *to(peer), ACTS, ACTS)
    assert (got.returncode, got.stderr) == (0, "f?]0;PWN?.txt -> f?]0;PWN?.txt\n")
    (tmp_path / ACTS).write_text("{}")
    put = run("files", "a", "put", *to(peer), ACTS)
    assert (put.returncode, put.stderr) == (0, "f?]0;PWN?.txt -> f?]0;PWN?.txt, 2 B\n")
    missing = run("files", "a", "put", *to(peer), "gone\x1b[2J")
    assert (missing.returncode, "\x1b" in missing.stderr) == (1, False)


def test_a_session_chooses_no_local_name_with_control_characters(
    run: Run, peer: Peer, tmp_path: Path
) -> None:
    peer.http[("GET", WHERE)] = (200, {})
    for given in ((), (".",)):
        got = run("files", "a", "get", *to(peer), ACTS, *given)
        assert (got.returncode, got.stderr.count("\n")) == (1, 1)
        assert "control characters: name the local file" in got.stderr
        assert "\x1b" not in got.stderr
    assert not [*tmp_path.glob("f*")]
    with pytest.raises(BrokerError, match="control characters"):
        Broker(peer.url, peer.token).files("a").download("d/f\n", tmp_path)


def test_where_the_server_is_may_stand_in_front_of_the_session(run: Run, peer: Peer) -> None:
    peer.http[("GET", "/v1/sessions/a/files")] = (200, {"files": []})
    peer.http[("GET", "/v1/tokens")] = (200, {"tokens": []})
    for command in (["files", *to(peer), "a", "ls"], ["token", *to(peer), "list"]):
        done = run(*command)
        assert done.returncode == 0, done.stderr
    # What stands behind it all is what counts.
    done = run("files", "--url", "http://127.0.0.1:1", "--token", "no", "a", "ls", *to(peer))
    assert done.returncode == 0, done.stderr


def test_a_state_directory_is_taken_in_front_too(run: Run, peer: Peer, tmp_path: Path) -> None:
    peer.http[("GET", "/v1/tokens")] = (200, {"tokens": []})
    (tmp_path / "s").mkdir()
    told = f'{{"url": "{peer.url}", "token": "{peer.token}", "pid": 1}}'
    (tmp_path / "s" / "server.json").write_text(told)
    done = run("token", "--state-dir", "s", "list")
    assert done.returncode == 0, done.stderr
