"""Too much of something costs whoever caused it, and nobody's memory but its own, bounded."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from tests.system.conftest import RunningBroker
from tests.system.peer import (
    MSGPACK,
    PeakMemory,
    Peer,
    ask_until,
    attached,
    call,
    execute,
    metric,
    new_name,
    row_of,
    steady,
    value_of,
)

TEXT = 1 << 20  # bytes of text shown of one execution
GROWTH = 150  # MiB; the floods are several times that
SETTINGS = """
[wire]
ping_interval = "4s"
[profiles.python]
preload = ["json"]
warm = 2
"""


@pytest.fixture(scope="module")
def flooded(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> Iterator[RunningBroker]:
    """One broker for all floods of this worker, with kernels that begin small."""
    directory = short_dir()
    (directory / "broker.toml").write_text(SETTINGS)
    with start_broker(directory, "--config", str(directory / "broker.toml")) as running:
        yield running


def shown(events: list[dict[str, Any]], name: str) -> int:
    """Count the characters of a stream."""
    return sum(len(e["text"]) for e in events if e["type"] == "stream" and e["name"] == name)


async def kept(broker: RunningBroker, peer: Peer) -> None:
    """Assert that the session is as it was, and that others are served."""
    assert await peer.value("kept * 2 + 2") == "42"
    assert value_of(broker, new_name("other"), "1 + 1") == "2"


FLOODS = {
    "print": ("for _ in range(300_000): print('x' * 999)", "stdout"),
    "stderr": ("import sys\nfor _ in range(300_000): sys.stderr.write('x' * 1000)", "stderr"),
    "one write": ("import sys\nsys.stdout.write('x' * 300_000_000); None", "stdout"),
    "subprocess": ("!yes xxxxxxxxx | head -c 300000000", "stdout"),
    "subprocess's stderr": ("!(yes xxxxxxxxx | head -c 300000000) >&2", "stderr"),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_of_text_is_cut_and_said_so_in_bounded_memory(
    flooded: RunningBroker, name: str
) -> None:
    code, stream = FLOODS[name]
    session = new_name()
    async with attached(flooded, session) as peer:
        await peer.run("kept = 20")
        with (
            PeakMemory(flooded.pid) as broker,
            PeakMemory(row_of(flooded, session)["pid"]) as kernel,
        ):
            events = await peer.run(code)
        done = events[-1]
        assert done["status"] == "ok"
        # Line ends and the note of what is missing come on top.
        assert done["truncated"]["total"] == pytest.approx(300_000_000, rel=0.01)
        assert TEXT * 0.9 <= shown(events, stream) <= TEXT * 1.1
        assert broker.grown < GROWTH
        assert kernel.grown < GROWTH + (600 if name == "one write" else 0)  # its own argument
        await kept(flooded, peer)


@pytest.mark.row("rich outputs of one execution")
async def test_a_flood_of_displays_is_cut_and_said_so_in_bounded_memory(
    flooded: RunningBroker,
) -> None:
    session = new_name()
    async with attached(flooded, session, subprotocols=[MSGPACK]) as peer:
        await peer.run("kept = 20")
        pid = row_of(flooded, session)["pid"]
        with PeakMemory(flooded.pid) as broker, PeakMemory(pid) as kernel:
            events = await peer.run(
                "for _ in range(200): display({'text/plain': 'x' * 1_000_000}, raw=True)"
            )
        assert events[-1]["status"] == "ok"
        displays = [event for event in events if event["type"] == "display"]
        assert 60 <= len(displays) <= 67
        assert events[-1]["truncated"]["total"] > 100_000_000
        assert broker.grown < GROWTH
        assert kernel.grown < GROWTH
        await kept(flooded, peer)


async def test_a_display_at_the_bound_reaches_its_client_and_a_larger_one_is_a_note(
    flooded: RunningBroker,
) -> None:
    session = new_name()
    async with attached(flooded, session, subprotocols=[MSGPACK]) as peer:
        await peer.run("kept = 20")
        code = "display({{'application/x-a': 'x' * {}}}, raw=True)"
        [at] = [e for e in await peer.run(code.format(8_000_000)) if e["type"] == "display"]
        assert len(at["data"]["application/x-a"]) == 8_000_000
        [over] = [e for e in await peer.run(code.format(30_000_000)) if e["type"] == "display"]
        assert list(over["data"]) == ["text/plain"]
        assert "30,000" in over["data"]["text/plain"]
        await kept(flooded, peer)


async def test_a_flood_of_small_events_is_bounded_for_a_caller_over_http(
    flooded: RunningBroker,
) -> None:
    session = new_name()
    execute(flooded, session, "kept = 20")
    code = "from IPython.display import clear_output\nwhile True: clear_output()"
    with PeakMemory(flooded.pid) as broker:
        answer = await asyncio.to_thread(execute, flooded, session, code, timeout=4)
    assert answer["status"] == "timeout"
    assert len(answer["outputs"]) < 300_000
    assert broker.grown < GROWTH
    assert value_of(flooded, session, "kept") == "20"


async def test_a_thread_that_goes_on_printing_after_its_cell_is_bounded(
    flooded: RunningBroker,
) -> None:
    session = new_name()
    async with attached(flooded, session) as peer:
        await peer.run("kept = 20")
        pid = row_of(flooded, session)["pid"]
        with PeakMemory(flooded.pid) as broker, PeakMemory(pid) as kernel:
            await peer.run(
                "import threading\n"
                "stop, went = threading.Event(), threading.Event()\n"
                "def flood():\n"
                "    for n in range(100_000_000):\n"
                "        print('x' * 999)\n"
                "        if n > 100_000: went.set()\n"
                "        if stop.is_set(): return\n"
                "thread = threading.Thread(target=flood)\n"
                "thread.start()"
            )
            before = len(peer.events)
            # Others are served while it goes on, and so is its own session.
            assert (await peer.run("went.wait(60)"))[-1]["status"] == "ok"
            assert value_of(flooded, new_name("other"), "1 + 1") == "2"
            assert (await peer.run("stop.set(); thread.join()"))[-1]["status"] == "ok"
        stray = [e for e in peer.events[before:] if e["type"] == "stream" and "id" not in e]
        assert sum(len(event["text"]) for event in stray) <= 4 * TEXT
        assert broker.grown < GROWTH
        assert kernel.grown < GROWTH
        await kept(flooded, peer)


@pytest.mark.row("unread bytes of one client")
async def test_a_client_that_never_reads_is_let_go_and_costs_nobody_else(
    flooded: RunningBroker,
) -> None:
    session = new_name()
    slow_options = {"max_queue": 1}
    async with (
        attached(flooded, session) as peer,
        attached(flooded, session, options=slow_options) as slow,
    ):
        await peer.run("kept = 20")
        with PeakMemory(flooded.pid) as broker:
            events = await peer.run(
                "for _ in range(50): display({'text/plain': 'x' * 1_000_000}, raw=True)"
            )
            assert events[-1]["status"] == "ok"
            assert len([e for e in events if e["type"] == "display"]) == 50
        assert broker.grown < GROWTH
        assert "client too slow" in flooded.log
        assert row_of(flooded, session)["clients"] == 1
        await kept(flooded, peer)
        # What it had been sent before is there to be read, and then nothing more.
        slow.socket.transport.abort()


async def test_a_slow_client_that_reads_on_learns_why_it_was_let_go(
    flooded: RunningBroker,
) -> None:
    session = new_name()
    async with (
        attached(flooded, session, options={"max_queue": 1}) as slow,
        attached(flooded, session) as peer,
    ):
        await peer.run("kept = 20")
        await peer.run("for _ in range(40): display({'text/plain': 'x' * 1_000_000}, raw=True)")
        code, reason = await slow.closed()
        assert code == 4408
        assert "sequence number" in reason
        await kept(flooded, peer)


async def test_a_slow_client_that_reads_on_after_a_while_learns_why_it_was_let_go(
    flooded: RunningBroker,
) -> None:
    session = new_name()
    async with (
        attached(flooded, session, options={"max_queue": 1}) as slow,
        attached(flooded, session) as peer,
    ):
        await peer.run("for _ in range(40): display({'text/plain': 'x' * 1_000_000}, raw=True)")
        ask_until(lambda: row_of(flooded, session)["clients"] == 1, "let go", seconds=20)

        async def read_slowly() -> None:
            while await slow.socket.recv():
                await peer.run("import time; time.sleep(0.15)")  # it takes its time over each

        with pytest.raises(ConnectionClosed) as closed:
            await read_slowly()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4408


async def test_a_sole_client_that_reads_gets_all_of_a_large_output(
    flooded: RunningBroker,
) -> None:
    session = new_name()
    async with attached(flooded, session, subprotocols=[MSGPACK]) as peer:
        await peer.send(
            {
                "type": "execute",
                "id": "a",
                "code": "for _ in range(60): display({'text/plain': 'x' * 1_000_000}, raw=True)",
            }
        )
        count = 0
        while True:
            event = await peer.next()
            if event["type"] == "display":
                count += 1
                sum(event["data"]["text/plain"].encode())  # takes its time over each
            if event["type"] == "done":
                break
        assert count == 60


async def test_a_sole_client_that_never_reads_is_let_go_and_its_execution_ends(
    flooded: RunningBroker,
) -> None:
    session = new_name()
    code = "kept = 20\nfor _ in range(40): display({'text/plain': 'x' * 1_000_000}, raw=True)"
    async with attached(flooded, session) as silent:
        await silent.send({"type": "execute", "id": "a", "code": code})
        with PeakMemory(flooded.pid) as broker:
            # Nothing of ours reads while this asks: not even pings are answered.
            ask_until(lambda: row_of(flooded, session)["clients"] == 0, "let go", seconds=20)
        assert broker.grown < GROWTH
        silent.socket.transport.abort()
    async with attached(flooded, session) as peer:
        assert (await peer.run("1"))[-1]["status"] == "ok"
        await kept(flooded, peer)


async def test_a_timeout_costs_a_client_that_never_reads_its_connection_not_the_variables(
    flooded: RunningBroker,
) -> None:
    session = new_name()
    execute(flooded, session, "kept = 20")
    code = "while True: display({'text/plain': 'x' * 1_000_000}, raw=True)"
    async with attached(flooded, session) as silent:
        await silent.send({"type": "execute", "id": "a", "code": code, "timeout": 1})
        ask_until(lambda: row_of(flooded, session)["state"] == "busy", "begun")
        ask_until(lambda: row_of(flooded, session)["state"] != "busy", "ended", seconds=20)
        silent.socket.transport.abort()
    assert row_of(flooded, session)["generation"] == 1
    assert value_of(flooded, session, "kept") == "20"


async def test_half_open_connections_cost_little_and_end(flooded: RunningBroker) -> None:
    session = new_name()
    execute(flooded, session, "kept = 20")
    parts = urlsplit(flooded.url)
    address = (str(parts.hostname), int(parts.port or 0))
    process = psutil.Process(flooded.pid)
    steady(flooded)
    before = process.num_fds()
    sockets = [socket.create_connection(address) for _ in range(100)]
    try:
        for index, one in enumerate(sockets):
            one.sendall(b"GET /v1/sessions HTTP/1.1\r\nHost: a\r\n"[: index % 40])
        assert value_of(flooded, session, "kept") == "20"
    finally:
        for one in sockets:
            one.close()
    ask_until(
        lambda: bool(metric(flooded, "broker_sessions")) and process.num_fds() <= before + 2,
        "descriptors of half-open connections freed",
    )


async def test_a_peer_that_answers_no_pings_is_let_go(flooded: RunningBroker) -> None:
    session = new_name()
    parts = urlsplit(flooded.url)
    reader, writer = await asyncio.open_connection(str(parts.hostname), parts.port)
    writer.write(
        (
            f"GET /v1/sessions/{session}/ws HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
            "Sec-WebSocket-Protocol: broker.v1.json\r\n"
            f"Authorization: Bearer {flooded.token}\r\n\r\n"
        ).encode()
    )
    assert b" 101 " in await reader.readline()
    execute(flooded, session, "kept = 20")
    began = time.monotonic()
    async with asyncio.timeout(30):
        await reader.read()  # to the end: the broker cuts the connection
    # Two intervals of 4 s, and Tornado's 5 s for the handshake of the end.
    assert time.monotonic() - began < 16
    writer.close()
    ask_until(lambda: row_of(flooded, session)["clients"] == 0, "the client counted out")
    assert value_of(flooded, session, "kept") == "20"


async def test_300_opens_and_closes_leave_nothing_behind(flooded: RunningBroker) -> None:
    session = new_name()
    execute(flooded, session, "kept = 20")
    process = psutil.Process(flooded.pid)
    ask_until(lambda: metric(flooded, "broker_clients") == 0, "no clients at first")
    steady(flooded)
    before = process.num_fds()
    for index in range(300):
        async with attached(flooded, session) as peer:
            if index % 3 == 0:
                await peer.send({"type": "ping", "id": "p"})
                await peer.until("pong")
            elif index % 3 == 1:
                peer.socket.transport.abort()
    ask_until(lambda: metric(flooded, "broker_clients") == 0, "the clients gauge back at 0")
    ask_until(
        lambda: call(flooded, "GET", "/healthz").status == 200 and process.num_fds() <= before + 2,
        "the descriptors back where they were",
    )
    assert value_of(flooded, session, "kept") == "20"
    assert row_of(flooded, session)["generation"] == 1


@pytest.mark.row("queued", "queued executions")
async def test_a_queue_at_its_bound_refuses_and_goes_on(flooded: RunningBroker) -> None:
    session = new_name()
    async with attached(flooded, session) as peer:
        await peer.run("kept = 20")
        await peer.send({"type": "execute", "id": "run", "code": "import time; time.sleep(0.5)"})
        for index in range(40):
            await peer.send({"type": "execute", "id": f"q{index}", "code": "kept"})
        faults, done = [], []
        while len(faults) + len(done) < 41:
            event = await peer.next()
            if event["type"] == "fault":
                faults.append(event)
            elif event["type"] == "done":
                done.append(event["id"])
        assert {event["code"] for event in faults} == {"queue_full"}
        assert all(event["retry_after"] > 0 for event in faults)
        assert done == ["run", *(f"q{index}" for index in range(32))]
        await kept(flooded, peer)
