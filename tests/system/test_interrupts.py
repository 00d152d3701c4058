"""Cells that do not want to stop, through a real broker; their neighbours do not notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.system.conftest import RunningBroker, broker_process
from tests.system.peer import attached, new_name

GRACE = 4.0  # s; on a machine with much else to do
UP = "print('up', flush=True)"

# What a signal or a message stops; the kernel lives on.
STOPS = {
    "sleep": f"import time\n{UP}\ntime.sleep(100)",
    "loop": f"{UP}\nwhile True: pass",
    "subprocess": f"import subprocess\n{UP}\nsubprocess.run(['sleep', '100'])",
    "await": f"import asyncio\n{UP}\nawait asyncio.sleep(100)",
    "lock": f"import threading\n{UP}\nthreading.Event().wait()",
    # Holds the interpreter, so that nothing inside reads a message: a signal from outside ends it.
    "pause": f"import ctypes\npause = ctypes.PyDLL(None).pause\n{UP}\npause()",
    "first only": f"import time\ntry:\n    {UP}\n    time.sleep(100)\n"
    "except KeyboardInterrupt:\n    time.sleep(100)",
}
# What nothing but a kill stops.
STAYS = {
    "ignores": f"import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n{UP}\n"
    "while True: pass",
    "catches": "told = []\nwhile True:\n    try:\n"
    f"        told or {UP}\n        told.append(1)\n        while True: pass\n"
    "    except KeyboardInterrupt: pass",
    "never looks": f"{UP}\nmax(range(10 ** 13))",  # at signals, and lets nobody else run
}


@pytest.fixture(scope="module")
def impatient(short_dir) -> Iterator[RunningBroker]:
    """A broker whose grace is short."""
    grace = {"BROKER_SESSION_INTERRUPT_GRACE": f"{GRACE}s"}
    with ExitStack() as stack:
        yield stack.enter_context(broker_process(short_dir(), "--warm", "2", **grace))


@pytest.mark.asyncio
@pytest.mark.parametrize("name", STOPS)
@pytest.mark.row("interrupt")
async def test_an_interrupt_stops_it_and_keeps_the_kernel(
    impatient: RunningBroker, name: str
) -> None:
    async with attached(impatient, new_name()) as peer:
        await peer.run("kept = 1")
        await peer.send({"type": "execute", "id": "x", "code": STOPS[name]})
        await peer.until("stream")
        await peer.send({"type": "interrupt", "id": "i"})
        done = await peer.until("done")
        assert (done["status"], done["reason"]) == ("interrupted", "interrupted")
        assert await peer.value("kept") == "1"


@pytest.mark.asyncio
@pytest.mark.parametrize("name", STAYS)
async def test_what_does_not_stop_is_killed_after_the_grace(
    impatient: RunningBroker, name: str
) -> None:
    async with attached(impatient, new_name()) as peer, attached(impatient, new_name()) as beside:
        await beside.run("kept = 1")
        await peer.send({"type": "execute", "id": "x", "code": STAYS[name]})
        await peer.until("stream")
        began = time.monotonic()
        await peer.send({"type": "interrupt", "id": "i"})
        await asyncio.sleep(0)
        await peer.send({"type": "interrupt", "id": "j"})
        done = await peer.until("done")
        assert (done["status"], done["reason"]) == ("interrupted", "killed")
        assert time.monotonic() - began < GRACE + 5
        lost = await peer.until("session", state="lost")
        assert (lost["generation"], lost["reason"]) == (1, "killed")
        assert await peer.value("1 + 1") == "2"
        again = next(event for event in peer.events if event.get("generation") == 2)
        assert (again["state"], again["reason"]) == ("lost", "killed")
        assert await beside.value("kept") == "1"
        assert all(event.get("generation", 1) == 1 for event in beside.events)


@pytest.mark.asyncio
async def test_a_timeout_that_comes_to_nothing_ends_the_same_way(impatient: RunningBroker) -> None:
    async with attached(impatient, new_name()) as peer:
        await peer.send({"type": "execute", "id": "x", "code": STAYS["ignores"], "timeout": 0.3})
        done = await peer.until("done")
        assert (done["status"], done["reason"]) == ("timeout", "timeout")
        lost = await peer.until("session", state="lost")
        assert lost["reason"] == "timeout"


@pytest.mark.asyncio
async def test_an_interrupt_of_what_waits_names_what_would_take_it_out(
    impatient: RunningBroker,
) -> None:
    async with attached(impatient, new_name()) as peer:
        await peer.send({"type": "execute", "id": "x", "code": STOPS["sleep"]})
        await peer.until("stream")
        await peer.send({"type": "execute", "id": "y", "code": "1"})
        await peer.until("queued", id="y")
        await peer.send({"type": "interrupt", "id": "i", "target": "y"})
        fault = await peer.until("fault")
        assert (fault["code"], fault["field"]) == ("not_running", "target")
        assert "cancel" in fault["message"]
        await peer.send({"type": "interrupt", "id": "j", "target": "x"})
        await peer.until("done", id="x")
