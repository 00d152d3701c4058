"""The CPU time of one execution, all of its processes together."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.conftest import RunningBroker, StartBroker
from tests.system.peer import attached, execute, new_name

LIMIT = 0.6  # CPU seconds
SETTINGS = f"""
[profiles.python]
preload = []
warm = 2
cpu = 1
cpu_time = "{int(1000 * LIMIT)}ms"
[session]
interrupt_grace = "2s"
"""
DEAF = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass"
IN_CHILDREN = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'while True: pass'])"


@pytest.fixture(scope="module")
def thrifty(start_broker: StartBroker, short_dir: Callable[[], Path]) -> Iterator[RunningBroker]:
    """A broker whose cells have little CPU time."""
    directory = short_dir()
    (directory / "broker.toml").write_text(SETTINGS)
    with start_broker(directory, "--config", str(directory / "broker.toml")) as running:
        yield running


@pytest.mark.parametrize("code", ["while True: pass", IN_CHILDREN], ids=["itself", "its child"])
def test_a_cell_over_its_cpu_time_is_stopped_and_its_session_lives_on(
    thrifty: RunningBroker, code: str
) -> None:
    name = new_name()
    execute(thrifty, name, "x = 20")
    done = execute(thrifty, name, code)["done"]
    assert (done["status"], done["reason"]) == ("timeout", "cpu")
    assert LIMIT <= done["cpu"] < 2 * LIMIT
    after = execute(thrifty, name, "x")
    assert (after["result"], after["generation"]) == ({"text/plain": "20"}, 1)


async def test_one_that_does_not_stop_loses_its_kernel_and_the_reason_is_cpu(
    thrifty: RunningBroker,
) -> None:
    async with attached(thrifty, new_name()) as peer:
        done = (await peer.run(DEAF))[-1]
        assert (done["status"], done["reason"]) == ("timeout", "cpu")
        lost = await peer.until("session")
        assert (lost["state"], lost["reason"]) == ("lost", "cpu")
        assert (await peer.run("1"))[-1]["generation"] == 2


def test_waiting_costs_no_cpu_time(thrifty: RunningBroker) -> None:
    began = time.monotonic()
    done = execute(thrifty, new_name(), f"import time; time.sleep({2 * LIMIT})")["done"]
    assert done["status"] == "ok"
    assert time.monotonic() - began >= 2 * LIMIT
    assert done["cpu"] < LIMIT / 2


def test_each_cell_has_its_own(thrifty: RunningBroker) -> None:
    name = new_name()
    code = f"import time\nwhile time.process_time() % 100 < {{}} * {LIMIT / 2}: pass"
    dones = [execute(thrifty, name, code.format(turn))["done"] for turn in (1, 2, 3, 4)]
    assert {done["status"] for done in dones} == {"ok"}
