"""The broker's own life: killed, stopped, started again, started twice, refused."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from kernels.sandbox import system
from tests.system.conftest import BROKER, RunningBroker, StartBroker, kill
from tests.system.peer import (
    ask_until,
    attached,
    call,
    execute,
    gate,
    new_name,
    open_gate,
    row_of,
    steady,
    value_of,
)

LEAN = "orphan_ttl = '20s'\n[profiles.python]\npreload = []\nwarm = 2\n"


def kernels_of(broker: RunningBroker) -> dict[str, int]:
    pools = call(broker, "GET", "/v1/pools").body["pools"]
    return {row["kernel"]: row["pid"] for pool in pools for row in pool["kernels"]}


def serve(
    directory: Path, *flags: str, before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a broker that is expected not to come up."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BROKER_")}
    return subprocess.run(
        [str(BROKER), "serve", "--state-dir", str(directory), "--port", "0", *flags],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=clean,
        cwd=directory,
        preexec_fn=before,
    )


async def test_kernels_outlive_a_killed_broker_and_the_next_one_adopts_them(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name, other = new_name(), new_name("other")
    with start_broker(*place) as broker:
        execute(broker, name, "x = 20")
        execute(broker, other, "y = 1; import os; os._exit(0)")
        execute(broker, other, "y = 2")
        steady(broker)
        before = row_of(broker, name)
        kernels = kernels_of(broker)
        zygotes = call(broker, "GET", "/v1/pools").body["zygotes"]
        kill(broker)
    assert psutil.pid_exists(before["pid"])
    with start_broker(*place) as again:
        assert again.pid != broker.pid
        row = row_of(again, name)
        same = ("kernel", "pid", "generation", "profile", "node", "created")
        assert {key: row[key] for key in same} == {key: before[key] for key in same}
        assert kernels_of(again) == kernels  # the warm ones too: none was started anew
        assert call(again, "GET", "/v1/pools").body["zygotes"] == zygotes
        async with attached(again, name) as peer:
            first = await peer.next()
            assert (first["state"], first["generation"]) == ("warm", 1)
            assert await peer.value("x * 2 + 2") == "42"
        body = execute(again, other, "y")
        assert (body["generation"], body["state"]) == (2, "warm")
        assert body["result"] == {"text/plain": "2"}
        # A warm kernel that was adopted serves a new session.
        fresh = new_name("fresh")
        assert value_of(again, fresh, "6 * 7") == "42"
        assert row_of(again, fresh)["kernel"] in kernels
        # The adopted session can be ended like any other.
        assert call(again, "DELETE", f"/v1/sessions/{name}").status == 200
        assert not psutil.pid_exists(before["pid"])
        assert execute(again, name, "1")["generation"] == 2
        assert "Traceback" not in again.log


async def test_a_running_cell_outlives_a_killed_broker(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    with start_broker(*place) as broker:
        async with attached(broker, name) as peer:
            code = f"x = 20\n{gate()}\nx += 22"
            await peer.send({"type": "execute", "id": "a", "code": code})
            await peer.until("stream", id="a")
            kill(broker)
    with start_broker(*place) as again:
        open_gate(row_of(again, name)["pid"])
        assert value_of(again, name, "x") == "42"
        assert row_of(again, name)["generation"] == 1


def test_a_kernel_that_died_while_the_broker_was_away_is_told_as_lost(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    with start_broker(*place) as broker:
        execute(broker, name, "x = 20")
        pid = row_of(broker, name)["pid"]
        kill(broker)
    process = psutil.Process(pid)
    process.kill()
    psutil.wait_procs([process], timeout=10)
    with start_broker(*place) as again:
        body = execute(again, name, "'x' in globals()")
        assert (body["generation"], body["state"]) == (2, "lost")
        assert body["result"] == {"text/plain": "False"}


def test_a_broker_told_to_stop_ends_everything_it_started(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    with start_broker(*place) as broker:
        execute(broker, name, "x = 20")
        steady(broker)
        pids = [*kernels_of(broker).values()]
        pids += [row["pid"] for row in call(broker, "GET", "/v1/pools").body["zygotes"]]
        pids += [child.pid for child in psutil.Process(broker.pid).children(recursive=True)]
        processes = [psutil.Process(pid) for pid in {*pids}]
        assert any("valkey" in process.name() for process in processes)
        broker.process.send_signal(signal.SIGTERM)
        assert broker.process.wait(20) == 0, broker.log
        _, alive = psutil.wait_procs(processes, timeout=10)
        assert alive == []
    assert not (place[0] / "server.json").exists()
    assert "Traceback" not in broker.log
    with start_broker(*place) as again:
        body = execute(again, name, "'x' in globals()")
        assert (body["generation"], body["state"]) == (2, "lost")
        row = row_of(again, name)
        assert row["reason"] == "shutdown"
        assert again.token == broker.token


async def test_a_broker_told_to_stop_lets_a_running_cell_finish(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    with start_broker(*place) as broker:
        async with attached(broker, name) as peer:
            code = f"{gate()}\nprint('finished')"
            await peer.send({"type": "execute", "id": "a", "code": code})
            await peer.until("stream", id="a")
            pid = row_of(broker, name)["pid"]
            broker.process.send_signal(signal.SIGTERM)
            while call(broker, "GET", "/readyz").status != 503:
                pass
            refused = call(broker, "POST", "/v1/execute", {"code": "1"})
            assert (refused.status, refused.error["code"]) == (503, "draining")
            open_gate(pid)
            assert (await peer.until("stream"))["text"] == "finished\n"
            assert (await peer.until("done", id="a"))["status"] == "ok"
            assert (await peer.closed())[0] == 1001
        assert broker.process.wait(20) == 0, broker.log


async def test_a_second_signal_ends_a_broker_that_waits(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    with start_broker(*place) as broker:
        async with attached(broker, new_name()) as peer:
            await peer.send({"type": "execute", "id": "a", "code": "import time; time.sleep(60)"})
            await peer.until("started", id="a")
            broker.process.send_signal(signal.SIGTERM)
            while call(broker, "GET", "/readyz").status != 503:
                pass
            broker.process.send_signal(signal.SIGTERM)
            done = await peer.until("done", id="a")
            assert (done["status"], done["reason"]) == ("lost", "shutdown")
            assert (await peer.closed())[0] == 1001
        assert broker.process.wait(20) == 0, broker.log


def test_a_second_broker_on_the_same_state_directory_is_refused(broker: RunningBroker) -> None:
    refused = serve(broker.state_dir, "--isolation", "none")
    assert refused.returncode == 1
    assert str(broker.state_dir) in refused.stderr
    assert "--state-dir" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert call(broker, "GET", "/healthz").status == 200


def test_a_port_in_use_is_refused_with_the_next_step(
    broker: RunningBroker, short_dir: Callable[[], Path]
) -> None:
    port = broker.url.rpartition(":")[2]
    refused = serve(short_dir(), "--isolation", "none", "--port", port)
    assert refused.returncode == 1
    assert port in refused.stderr
    assert "--port" in refused.stderr
    assert "Traceback" not in refused.stderr


def without_cgroups() -> None:
    """Hide the host's cgroups from the program that is about to start."""
    system.unshare(system.CLONE_NEWNS)
    system.mount("none", "/", flags=system.MS_REC | system.MS_PRIVATE)
    system.mount("none", "/sys", "tmpfs")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide the host's cgroups")
def test_an_isolation_that_is_not_there_is_refused_with_the_remedy(
    short_dir: Callable[[], Path],
) -> None:
    refused = serve(short_dir(), "--isolation", "full", before=without_cgroups)
    assert refused.returncode == 1
    assert "cgroup" in refused.stderr
    assert "chown" in refused.stderr  # the exact remedy
    assert "Traceback" not in refused.stderr


def test_nothing_without_isolation_listens_beyond_this_machine(
    short_dir: Callable[[], Path],
) -> None:
    refused = serve(short_dir(), "--isolation", "none", "--host", "0.0.0.0")  # noqa: S104
    assert refused.returncode in (1, 2)
    assert "host" in refused.stderr
    assert "isolation" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_an_upload_that_a_killed_broker_has_left_unfinished_is_swept(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name, parts = (
        new_name(),
        "import os; [n for n in os.listdir() if n.startswith('.broker-part-')]",
    )
    with start_broker(*place) as broker:
        execute(broker, name, "x = 20")
        where = urlsplit(broker.url)
        with socket.create_connection(
            (str(where.hostname), where.port or 80), timeout=30
        ) as sender:
            sender.sendall(
                f"PUT /v1/sessions/{name}/files/whole HTTP/1.1\r\nHost: {where.netloc}\r\n"
                f"Authorization: Bearer {broker.token}\r\nContent-Length: 1000\r\n\r\nhalf".encode()
            )
            ask_until(lambda: value_of(broker, name, parts) != "[]", "the upload begun")
            kill(broker)
    with start_broker(*place) as again:
        ask_until(lambda: value_of(again, name, parts) == "[]", "the leftover gone")
        assert value_of(again, name, "x") == "20"
        assert "Traceback" not in again.log
