"""What the broker promises, each promise once; the other modules try every side of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.system.conftest import RunningBroker, StartBroker
from tests.system.peer import (
    JSON,
    MSGPACK,
    Peer,
    attached,
    call,
    execute,
    new_name,
    row_of,
    value_of,
)

IDLE = 1.0
SETTINGS = f"""
[session]
idle_timeout = "{int(1000 * IDLE)}ms"
interrupt_grace = "1s"
output_bytes = "8K"
queue = 3
[profiles.python]
preload = []
warm = 2
warm_most = 2
memory = "128M"
processes = 32
workspace = "4M"
"""


@pytest.fixture(scope="module")
def narrow(start_broker: StartBroker, short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    """A broker with bounds that are reached at once; its kernels are shut in as well as can be."""
    directory = short_dir()
    (directory / "broker.toml").write_text(SETTINGS)
    with start_broker(directory, "--config", str(directory / "broker.toml")) as running:
        yield running


@pytest.fixture(params=[JSON, MSGPACK])
async def peer(broker: RunningBroker, request: Any) -> AsyncIterator[Peer]:
    """A client of a new session, in either subprotocol."""
    async with attached(broker, new_name(), subprotocols=[request.param]) as connected:
        yield connected


@asynccontextmanager
async def neighbour(broker: RunningBroker) -> AsyncIterator[None]:
    """Have another session answer throughout, as fast as ever, with its variables."""
    async with attached(broker, new_name()) as other:
        await other.run("kept = 20")
        waits: list[float] = []
        over = asyncio.Event()

        async def ask() -> None:
            while not over.is_set():
                began = time.monotonic()
                assert await other.value("kept + 1") == "21"
                waits.append(time.monotonic() - began)

        asking = asyncio.create_task(ask())
        try:
            yield
        finally:
            over.set()
            await asking
        assert max(waits) < 5.0, "a neighbour was kept waiting"


async def test_two_snippets_of_one_session_see_the_same_variables_in_order_and_two_sessions_never(
    peer: Peer, broker: RunningBroker
) -> None:
    for number in range(5):
        code = "seen = [0]" if not number else f"seen.append(seen[-1] + {number})"
        await peer.send({"type": "execute", "id": f"r{number}", "code": code})
    for number in range(5):
        assert (await peer.until("done", id=f"r{number}"))["status"] == "ok"
    assert await peer.value("seen") == "[0, 1, 3, 6, 10]"
    assert execute(broker, new_name(), "seen")["error"]["name"] == "NameError"


async def test_an_execution_ends_with_exactly_one_done_and_every_output_comes_before_it(
    peer: Peer,
) -> None:
    code = (
        "for i in range(300): print(i); display(i)\nimport sys; print('end', file=sys.stderr)\n1/0"
    )
    events = await peer.run(code, id="a")
    assert events[-1]["type"] == "done"
    await peer.run("1", id="b")  # whatever would come late had come by now
    about = [event for event in peer.events if event.get("id") == "a"]
    assert about == events
    assert [event["type"] for event in about].count("done") == 1
    text = "".join(event["text"] for event in about if event["type"] == "stream")
    assert "299\n" in text
    assert "end\n" in text
    assert [event["type"] for event in about].count("display") == 300


async def test_a_client_that_reconnects_gets_every_event_since_or_is_told_exactly_which_are_gone(
    broker: RunningBroker,
) -> None:
    name = new_name()
    async with attached(broker, name) as first:
        await first.run("print('seen')")
        last = first.events[-1]["seq"]
        async with attached(broker, name) as other:
            await other.run("print('while away')")
            told = [event for event in other.events if event.get("seq", 0) > last]
    async with attached(broker, name, after=last) as again:
        session = await again.next()
        assert "missed" not in session
        assert [await again.next() for _ in told] == told
    async with attached(broker, name) as flood:
        await flood.run("for i in range(1200): display(i)")
        newest = flood.events[-1]["seq"]
    async with attached(broker, name, after=last) as late:
        session = await late.next()
        begin, end = session["missed"]
        assert begin == last + 1
        assert (await late.next())["seq"] == end + 1
        assert (await late.until("done", seq=newest))["status"] == "ok"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "import mmap\nheld = []\nwhile True:\n held.append(mmap.mmap(-1, 8 << 20))\n"
            " held[-1].write(b'x' * (8 << 20))",
            "oom",
        ),
        ("import os; os._exit(3)", "exit 3"),
        ("import os; os.kill(os.getpid(), 11)", "signal SIGSEGV"),
        ("import signal; signal.signal(2, signal.SIG_IGN)\nwhile True: pass", "timeout"),
    ],
)
async def test_when_a_kernel_is_lost_the_next_reply_says_so_with_generation_and_reason(
    narrow: RunningBroker, code: str, reason: str
) -> None:
    name = new_name()
    async with attached(narrow, name) as peer:
        await peer.run("x = 1")
        done = (await peer.run(code, timeout=1.0 if reason == "timeout" else 60.0))[-1]
        assert done["status"] == ("timeout" if reason == "timeout" else "lost")
        assert (done["reason"], done["generation"]) == (reason, 1)
        after = await peer.run("'x' in globals()")
        assert after[-1]["generation"] == 2
        session = [event for event in peer.events if event["type"] == "session"][-1]
        told = session["state"], session["generation"], session["reason"]
        assert told == ("lost", 2, reason)


async def test_a_busy_session_is_never_reaped_for_idleness_which_counts_from_its_last_execution(
    narrow: RunningBroker,
) -> None:
    name = new_name()
    async with attached(narrow, name) as peer:
        done = (await peer.run(f"import time; time.sleep({2.5 * IDLE}); 1"))[-1]
        ended = time.time()
        assert (done["status"], done["generation"]) == ("ok", 1)
        while time.time() < done["expires_at"] - 0.3:  # traffic, and no execution
            await peer.send({"type": "ping", "id": "p"})
            await peer.until("pong")
        assert row_of(narrow, name)["state"] == "ready"
        assert (await peer.closed())[1] == "idle"
        assert time.time() - ended >= IDLE - 0.05


LIMITS = {
    # What runs, and each of status, error and reason that it may end with.
    "memory": (
        "held = []\nwhile True: held.append(bytearray(4 << 20))",
        {("error", "MemoryError", ""), ("lost", "", "oom")},
    ),
    "processes": (
        "import os, time\nfor _ in range(99): os.fork() or time.sleep(9)",
        {("error", "BlockingIOError", "")},
    ),
    "disk": ("open('f', 'wb').write(b'x' * (16 << 20))", {("error", "OSError", "")}),
    "output": ("for _ in range(10**5): print('x' * 50)", {("ok", "", "")}),
    "wall time": ("import time; time.sleep(60)", {("timeout", "KeyboardInterrupt", "timeout")}),
}


@pytest.mark.parametrize("limit", LIMITS)
async def test_no_limit_is_advisory_and_neighbours_do_not_notice(
    narrow: RunningBroker, limit: str
) -> None:
    code, ends = LIMITS[limit]
    async with neighbour(narrow), attached(narrow, new_name()) as peer:
        events = await peer.run(code, timeout=2.0 if limit == "wall time" else 60.0)
        done = events[-1]
        error = next((event["name"] for event in events if event["type"] == "error"), "")
        assert (done["status"], error, done.get("reason", "")) in ends
        if limit == "output":
            assert done["truncated"]["shown"] <= 9000 < done["truncated"]["total"]


async def test_every_queue_and_buffer_has_a_bound_and_a_stated_behaviour_at_it(
    narrow: RunningBroker,
) -> None:
    """The bounds of protocol.md each have a test of their own: `pytest -m row`. These are three."""
    async with attached(narrow, new_name()) as peer:
        await peer.send({"type": "execute", "id": "0", "code": "import time; time.sleep(1)"})
        await peer.until("started")
        for number in range(1, 4):
            await peer.send({"type": "execute", "id": str(number), "code": "1"})
        await peer.send({"type": "execute", "id": "4", "code": "1"})
        fault = await peer.until("fault")
        assert (fault["id"], fault["code"]) == ("4", "queue_full")
        assert (await peer.until("done", id="3"))["status"] == "ok"
        await peer.send(" " * (9 << 20))
        assert (await peer.until("fault"))["code"] == "too_large"
        done = (await peer.run("print('x' * 10**6)"))[-1]
        assert done["truncated"]["total"] == 10**6 + 1


async def test_bad_input_gets_one_clear_error_that_names_the_field_and_changes_nothing(
    peer: Peer,
) -> None:
    await peer.run("x = 20")
    before = len(peer.events)
    bad = {"type": "execute", "id": "bad", "code": "x = 0", "timeuot": 5}
    await peer.send(bad)
    await peer.send({"type": "ping", "id": "p"})
    await peer.until("pong")
    fault, pong = peer.events[before:]
    assert (fault["type"], fault["id"], fault["field"]) == ("fault", "bad", "timeuot")
    assert "did you mean timeout?" in fault["message"]
    assert pong["type"] == "pong"
    assert await peer.value("x") == "20"


def test_a_refused_request_over_http_changes_nothing_either(broker: RunningBroker) -> None:
    name = new_name()
    assert value_of(broker, name, "x = 20; x") == "20"
    answer = call(broker, "POST", f"/v1/sessions/{name}/execute", {"code": "x = 0", "n": 1})
    assert (answer.status, answer.error["field"]) == (400, "n")
    assert value_of(broker, name, "x") == "20"
