"""Why a kernel ended is said at once, and in the same words wherever somebody may look."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.conftest import RunningBroker, StartBroker
from tests.system.peer import ask_until, attached, call, metric, new_name, row_of

logger = logging.getLogger(__name__)

SETTINGS = """
[profiles.python]
preload = []
warm = 2
[session]
idle_timeout = "3s"
interrupt_grace = "200ms"
"""
PROMISED = 0.1  # s from the end of a kernel to the word of it, on a machine that is not busy
BOUND = 2.0  # s, on one that is
DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
# What the code prints right before its end: the moment that counts.
LAST_WORDS = "import os, time; print(time.time(), flush=True); "


@pytest.fixture(scope="module")
def mortal(start_broker: StartBroker, short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    """A broker whose sessions end soon."""
    directory = short_dir()
    (directory / "broker.toml").write_text(SETTINGS)
    with start_broker(directory, "--config", str(directory / "broker.toml")) as running:
        yield running


def told_in(what: str, seconds: float) -> None:
    logger.info("%s: told after %.0f ms, %.0f promised", what, 1000 * seconds, 1000 * PROMISED)
    assert seconds < BOUND


def listed(broker: RunningBroker, name: str) -> str:
    """Return the reason that `broker ls` shows."""
    lines = broker.cli("ls", "--state", "all").stdout.splitlines()
    [line] = [line for line in lines if line.split()[0] == name]
    return line[lines[0].index("REASON") :].strip()


async def told_everywhere(broker: RunningBroker, name: str, reason: str, kind: str) -> None:
    """Look for the reason in the listing, the metrics, the log, and the next generation."""
    exits = "broker_kernel_exits_total"
    ask_until(lambda: metric(broker, exits, reason=kind) == 1, f"counted as {kind}")
    assert listed(broker, name) == reason
    assert f"session=default/{name} generation 1 ended: {reason}" in broker.log
    async with attached(broker, name) as again:
        session = await again.until("session", generation=2)
        assert (session["state"], session["reason"]) == ("lost", reason)
        assert listed(broker, name) == reason


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        ("os._exit(3)", "exit 3", "exit"),
        ("os.kill(os.getpid(), 11)", "signal SIGSEGV", "signal"),
    ],
)
async def test_the_end_of_a_kernel_is_told_with_its_reason_at_once(
    mortal: RunningBroker, code: str, reason: str, kind: str
) -> None:
    name = new_name()
    async with attached(mortal, name) as peer:
        await peer.send({"type": "execute", "id": "a", "code": LAST_WORDS + code})
        died = float((await peer.until("stream"))["text"])
        done = await peer.until("done", id="a")
        told_in(reason, time.time() - died)
        assert (done["status"], done["reason"]) == ("lost", reason)
        lost = await peer.until("session")
        assert (lost["state"], lost["generation"], lost["reason"]) == ("lost", 1, reason)
    await told_everywhere(mortal, name, reason, kind)


async def test_a_kernel_killed_for_its_time_is_told_as_timeout(mortal: RunningBroker) -> None:
    name = new_name()
    async with attached(mortal, name) as peer:
        began = time.time()
        done = (await peer.run(DEAF, timeout=0.3))[-1]
        told_in("timeout", time.time() - began - 0.3 - 0.2)
        assert (done["status"], done["reason"]) == ("timeout", "timeout")
        assert (await peer.until("session"))["reason"] == "timeout"
    await told_everywhere(mortal, name, "timeout", "timeout")


async def test_a_kernel_that_an_operator_ends_says_so_everywhere(mortal: RunningBroker) -> None:
    name, reason = new_name(), "killed by operator"
    async with attached(mortal, name) as peer:
        await peer.send({"type": "execute", "id": "a", "code": "while True: pass"})
        await peer.until("started", id="a")
        asked = time.time()
        assert call(mortal, "DELETE", f"/v1/sessions/{name}").body["reason"] == reason
        done = await peer.until("done", id="a")
        told_in(reason, time.time() - asked)
        assert (done["status"], done["reason"]) == ("lost", reason)
        assert (await peer.until("session"))["reason"] == reason
        assert await peer.closed() == (4404, reason)
    await told_everywhere(mortal, name, reason, "killed")
    assert row_of(mortal, name)["generation"] == 2


async def test_an_idle_session_ends_on_time_and_says_so_everywhere(mortal: RunningBroker) -> None:
    name = new_name()
    async with attached(mortal, name) as peer:
        due = (await peer.run("1"))[-1]["expires_at"]
        lost = await peer.until("session")
        told_in("idle", time.time() - due)
        assert lost["reason"] == "idle"
    before = metric(mortal, "broker_kernel_exits_total", reason="idle")
    assert before >= 1  # those of the tests before this one, too
    assert f"session=default/{name} generation 1 ended: idle" in mortal.log


async def test_a_restart_is_told_as_such(mortal: RunningBroker) -> None:
    name = new_name()
    async with attached(mortal, name) as peer:
        await peer.run("x = 1")
        await peer.send({"type": "restart", "id": "r"})
        assert (await peer.until("session"))["reason"] == "restart"
        assert (await peer.until("session"))["generation"] == 2
    exits = "broker_kernel_exits_total"
    ask_until(lambda: metric(mortal, exits, reason="restart") == 1, "counted as restart")
    assert f"session=default/{name} generation 1 ended: restart" in mortal.log
