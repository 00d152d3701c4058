"""A broker that cannot begin says why in one clear line, and leaves with status 1."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.conftest import BROKER, RunningBroker, StartBroker
from tests.system.peer import value_of


def refusal(state_dir: Path, *flags: str) -> str:
    """Start a broker that must not come up, and return its last words."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    command = [str(BROKER), "serve", "--isolation", "none", "--port", "0", "--preload", "json"]
    ended = subprocess.run(
        [*command, "--state-dir", str(state_dir), *flags],
        capture_output=True,
        text=True,
        env=clean,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    [words] = [line for line in ended.stderr.splitlines() if line.startswith("broker: ")]
    return words


@pytest.fixture
def small_disk() -> Iterator[Callable[[int], Path]]:
    """Give a way to mount a disk of so many KiB."""
    mounted: list[str] = []

    def mount(kib: int) -> Path:
        directory = tempfile.mkdtemp(prefix="kb-")
        ended = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "none", directory],  # noqa: S607
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            Path(directory).rmdir()
            pytest.skip(f"no disk can be mounted here: {ended.stderr.strip()}")
        mounted.append(directory)
        return Path(directory)

    yield mount
    for directory in mounted:
        subprocess.run(["umount", "-l", directory], check=False)  # noqa: S607
        Path(directory).rmdir()


@pytest.mark.parametrize("room", range(0, 44, 4))  # each page that somebody may need
def test_a_full_disk_under_the_state_directory_is_a_clear_error(
    small_disk: Callable[[int], Path], room: int
) -> None:
    disk = small_disk(1024)
    with (disk / "filler").open("wb") as filler:
        filler.write(b"x" * ((1024 - room) << 10))
    words = refusal(disk / "s" if room > 4 else disk)
    assert "No space left" in words or "ended:" in words, words
    assert str(disk) in words


def test_a_state_directory_with_room_again_is_used(
    small_disk: Callable[[int], Path], start_broker: StartBroker
) -> None:
    disk = small_disk(4096)
    filler = disk / "filler"
    filler.write_bytes(b"x" * (4096 << 10))
    refusal(disk)
    filler.unlink()
    with start_broker(disk, "--preload", "json", "--warm", "1") as broker:
        assert value_of(broker, "a", "6 * 7") == "42"


@pytest.mark.parametrize("length", [85, 200])
def test_a_state_directory_too_long_for_sockets_is_a_clear_error(
    short_dir: Callable[[], Path], length: int
) -> None:
    root = short_dir()
    state = root / ("d" * (length - len(str(root)) - 1))
    words = refusal(state)
    assert "bytes" in words
    assert "shorter" in words


@pytest.mark.parametrize("kind", ["file", "below a file"])
def test_a_state_directory_that_is_none_is_a_clear_error(
    short_dir: Callable[[], Path], kind: str
) -> None:
    path = short_dir() / "file"
    path.touch()
    words = refusal(path if kind == "file" else path / "below")
    assert "--state-dir" in words


def test_a_port_in_use_is_a_clear_error(short_dir: Callable[[], Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        words = refusal(short_dir(), "--port", str(port))
    assert f"127.0.0.1:{port}" in words
    assert "in use" in words
    assert "--port" in words


def test_a_state_directory_in_use_is_a_clear_error(broker: RunningBroker) -> None:
    words = refusal(broker.state_dir)
    assert str(broker.state_dir) in words
    assert value_of(broker, "in-use", "6 * 7") == "42"


def test_a_token_file_that_others_can_read_is_refused(short_dir: Callable[[], Path]) -> None:
    state = short_dir()
    (state / "token").write_text("a-token-of-some-length\n")
    (state / "token").chmod(0o644)
    words = refusal(state)
    assert "chmod 600" in words
    assert "a-token-of-some-length" not in words


def test_a_broken_default_profile_names_the_module(short_dir: Callable[[], Path]) -> None:
    words = refusal(short_dir(), "--preload", "no_such_module_here")
    assert "no_such_module_here" in words


def test_a_redis_that_is_not_there_is_a_clear_error(short_dir: Callable[[], Path]) -> None:
    words = refusal(short_dir(), "--redis-url", "redis://user:hidden@127.0.0.1:1/0")
    assert "127.0.0.1:1" in words
    assert "hidden" not in words
