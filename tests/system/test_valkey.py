"""The embedded Valkey as a real process: its start, its deaths, and its end."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from broker.errors import StateDirError, StoreUnavailable
from broker.store import Lease, Store
from broker.valkey import Valkey

LOG = logging.getLogger("valkey")

# A broker, as far as the server is concerned: it says the server's pid and then does nothing.
BROKER = """
import asyncio, logging, pathlib, sys
from broker.valkey import Valkey
async def main():
    async with Valkey(pathlib.Path(sys.argv[1]), logging.getLogger()) as valkey:
        print(valkey.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="kb-") as path:
        yield Path(path)


@pytest.fixture
def small_disk(directory: Path) -> Iterator[Path]:
    """Yield a directory with 2 MB of room."""
    mount = directory / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs", str(mount)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        pytest.skip(f"no small disk can be made here: {error}")
    if done.returncode:
        pytest.skip(f"no small disk can be made here: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)  # noqa: S607


def fill(directory: Path) -> Path:
    """Write a file until the disk has no room, and return it."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            return path
    raise AssertionError("the disk never filled")


async def start_broker(directory: Path) -> tuple[asyncio.subprocess.Process, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BROKER, str(directory), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    pid = int(await asyncio.wait_for(process.stdout.readline(), 20))
    return process, pid


async def gone(pid: int) -> None:
    """Return once the process has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), 10)
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)


class Listener(logging.Handler):
    """Sets an event when the log says a certain thing."""

    def __init__(self, sign: str, heard: asyncio.Event) -> None:
        super().__init__()
        self._sign = sign
        self._heard = heard

    def emit(self, record: logging.LogRecord) -> None:
        if self._sign in record.getMessage():
            self._heard.set()


async def lines(url: str) -> int:
    """Return how many entries the test list has, after adding one."""
    async with Redis.from_url(url) as client:
        return int(await client.rpush("list", "x"))


async def test_it_serves_on_a_private_unix_socket_alone(directory: Path) -> None:
    async with Valkey(directory / "state", LOG) as valkey:
        assert valkey.url == f"unix://{directory}/state/valkey.sock"
        async with Redis.from_url(valkey.url, decode_responses=True) as client:
            config = await client.config_get("*")
        wanted = {
            "port": "0",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "protected-mode": "yes",
            "maxmemory-policy": "noeviction",
        }
        assert {name: config[name] for name in wanted} == wanted
        assert (directory / "state").stat().st_mode & 0o777 == 0o700
        assert valkey.socket.stat().st_mode & 0o777 == 0o700
        assert str(valkey.pid) in repr(valkey)


async def test_it_ends_with_the_block_and_keeps_what_it_was_told(directory: Path) -> None:
    async with Valkey(directory, LOG) as valkey:
        assert await lines(valkey.url) == 1
        pid = valkey.pid
    await gone(pid)
    assert valkey.pid == 0
    async with Valkey(directory, LOG) as valkey:
        assert await lines(valkey.url) == 2
        assert valkey.restarts == 0


async def test_a_killed_server_is_started_again_and_has_lost_nothing(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    back = asyncio.Event()
    async with Valkey(directory, LOG, on_restart=back.set) as valkey:
        for turn in (1, 2, 3):
            assert await lines(valkey.url) == turn
            killed = valkey.pid
            back.clear()
            os.kill(killed, signal.SIGKILL)
            await asyncio.wait_for(back.wait(), 10)
            assert (valkey.restarts, valkey.trouble) == (turn, "")
            assert valkey.pid not in (0, killed)
    assert "ended: signal SIGKILL" in caplog.text
    assert "serves again" in caplog.text


async def test_a_server_that_does_not_end_at_sigterm_is_killed(directory: Path) -> None:
    async with Valkey(directory, LOG, stop_timeout=0.2) as valkey:
        pid = valkey.pid
        os.kill(pid, signal.SIGSTOP)
    await gone(pid)


async def test_leaving_while_it_restarts_leaves_no_server(directory: Path) -> None:
    async with Valkey(directory, LOG) as valkey:
        os.kill(valkey.pid, signal.SIGKILL)
        await gone(valkey.pid)
    assert valkey.pid == 0
    async with Valkey(directory, LOG, lock_timeout=0.1):
        pass  # the lock was free: nobody was left to hold it


async def test_it_ends_when_the_broker_is_killed_and_the_next_broker_takes_over(
    directory: Path,
) -> None:
    broker, server = await start_broker(directory)
    assert await lines(f"unix://{directory}/valkey.sock") == 1
    broker.kill()
    # Not waited for: the next broker waits, for as long as the last one's server holds the lock.
    async with Valkey(directory, LOG) as valkey:
        assert await lines(valkey.url) == 2
        assert valkey.pid != server
        await gone(server)
    await broker.communicate()


async def test_the_next_broker_waits_until_the_last_server_has_ended(directory: Path) -> None:
    broker, server = await start_broker(directory)
    os.kill(server, signal.SIGSTOP)  # it cannot end yet
    broker.kill()
    await broker.communicate()
    entering = asyncio.create_task(Valkey(directory, LOG).__aenter__())
    done, _ = await asyncio.wait((entering,), timeout=0.3)
    assert not done
    os.kill(server, signal.SIGCONT)
    valkey = await asyncio.wait_for(entering, 10)
    await valkey.__aexit__(None, None, None)


async def test_a_second_broker_on_the_same_directory_is_refused_clearly(directory: Path) -> None:
    async with Valkey(directory, LOG) as valkey:
        with pytest.raises(StateDirError) as caught:
            await Valkey(directory, LOG, lock_timeout=0.2).__aenter__()
        assert caught.value.field == "state_dir"
        assert f"in use by the broker with pid {os.getpid()}: stop it first" in str(caught.value)
        assert await lines(valkey.url) == 1  # the first is unharmed


async def test_a_path_too_long_for_a_socket_is_refused_before_anything_is_made(
    directory: Path,
) -> None:
    deep = directory / ("d" * 100)
    with pytest.raises(StateDirError, match="choose a shorter state_dir"):
        await Valkey(deep, LOG).__aenter__()
    assert not deep.exists()


async def test_a_state_directory_that_is_a_file_is_named(directory: Path) -> None:
    place = directory / "state"
    place.write_text("")
    with pytest.raises(StateDirError, match=r"state.* cannot be used: .*exists"):
        await Valkey(place, LOG).__aenter__()


async def test_an_unreadable_append_only_file_is_reported_in_the_servers_words(
    directory: Path,
) -> None:
    async with Valkey(directory, LOG) as valkey:
        await lines(valkey.url)
    [log] = (directory / "valkey" / "appendonlydir").glob("*.incr.aof")
    log.write_bytes(b"this is no log\r\n" + log.read_bytes())
    with pytest.raises(StateDirError) as caught:
        await Valkey(directory, LOG).__aenter__()
    assert "Bad file format reading the append only file" in str(caught.value)
    assert f"Move {directory}/valkey away" in str(caught.value)
    # The next step is a real one.
    (directory / "valkey").rename(directory / "away")
    async with Valkey(directory, LOG, lock_timeout=0.1) as valkey:
        assert await lines(valkey.url) == 1


async def test_a_log_cut_short_by_a_crash_is_no_trouble(directory: Path) -> None:
    async with Valkey(directory, LOG) as valkey:
        assert await lines(valkey.url) == 1
        assert await lines(valkey.url) == 2
    [log] = (directory / "valkey" / "appendonlydir").glob("*.incr.aof")
    os.truncate(log, log.stat().st_size - 3)
    async with Valkey(directory, LOG) as valkey:
        assert await lines(valkey.url) == 2


async def test_a_full_disk_at_start_is_said_with_the_next_step(small_disk: Path) -> None:
    filler = fill(small_disk)
    with pytest.raises(StateDirError) as caught:
        await Valkey(small_disk, LOG).__aenter__()
    assert "No space left" in str(caught.value)
    assert "Free some space" in str(caught.value) or "cannot be used" in str(caught.value)
    filler.unlink()
    async with Valkey(small_disk, LOG, lock_timeout=0.1) as valkey:
        assert await lines(valkey.url) == 1


async def test_a_disk_that_fills_while_it_runs_is_an_error_until_there_is_room_again(
    small_disk: Path,
) -> None:
    lease = Lease("acme", "chat", 1, "k1", "python", "ready", 1.0, 1.0, 0.0)
    heard = asyncio.Event()
    log = logging.Logger("a disk that fills")
    log.addHandler(Listener("The server can write again", heard))
    async with Valkey(small_disk, log) as valkey:
        store = await Store.connect(valkey.url, prefix="t", node="n1", lease=15)
        assert await store.renew([lease]) == ["rewritten"]
        filler = fill(small_disk)

        async def write_until_refused() -> None:
            for turn in range(10_000):
                await store.claim(
                    "acme", f"s{turn}", kernel="k", profile="python", now=1.0, expires=0.0
                )

        with pytest.raises(StoreUnavailable, match="No space left"):
            await asyncio.wait_for(write_until_refused(), 30)
        assert (await store.get("acme", "chat")) is not None  # what can be read is still read
        filler.unlink()
        await asyncio.wait_for(heard.wait(), 20)
        assert await store.renew([lease]) == ["ok"]
        await store.aclose()


def test_the_lock_is_nobodys_once_all_have_gone(directory: Path) -> None:
    async def live() -> None:
        async with Valkey(directory, LOG):
            pass

    asyncio.run(live())
    with (directory / "valkey.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
