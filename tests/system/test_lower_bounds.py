"""A client asks for less than its profile allows, and gets no more than it asked for."""

from __future__ import annotations

import time
from urllib.parse import urlencode

import pytest

from broker.client import BadRequest, Broker
from tests.system.conftest import RunningBroker
from tests.system.peer import attached, call, execute, new_name

MB = 1 << 20


@pytest.fixture(autouse=True)
def _full(broker: RunningBroker) -> None:
    """Skip where no control group holds kernels to the bounds of their trees."""
    [pool] = call(broker, "GET", "/v1/pools").body["pools"]
    if pool["isolation"] != "full":
        pytest.skip(f"isolation is {pool['isolation']}")


async def test_less_memory_ends_a_kernel_sooner_with_the_reason_and_its_next_one_too(
    broker: RunningBroker,
) -> None:
    name = new_name()
    async with attached(broker, name, memory="128M") as peer:
        session = await peer.until("session")
        assert session["limits"]["memory"] == 128 * MB
        for generation in (1, 2):
            done = (
                await peer.run(f"x = bytearray({200 * MB}); x[::4096] = b'x' * (len(x) // 4096)")
            )[-1]
            assert (done["status"], done["reason"]) == ("lost", "oom")
            assert done["generation"] == generation
        session = [event for event in peer.events if event["type"] == "session"][-1]
        assert session["limits"]["memory"] == 128 * MB
        assert (await peer.run(f"len(bytearray({20 * MB}))"))[-1]["status"] == "ok"
    other = execute(
        broker, new_name(), f"x = bytearray({200 * MB}); x[::4096] = b'x' * (len(x) // 4096)"
    )
    assert other["status"] == "ok"


def test_less_cpu_time_stops_a_cell_sooner(broker: RunningBroker) -> None:
    with Broker(broker.url, broker.token).session(new_name(), limits={"cpu_time": "300ms"}) as one:
        began = time.monotonic()
        result = one.execute("while True: pass", timeout=20)
        assert (result.status, result.reason) == ("timeout", "cpu")
        assert time.monotonic() - began < 15
        assert one.execute("6 * 7").value == "42"


def test_fewer_processes_are_kept_to(broker: RunningBroker) -> None:
    limits = {"processes": 24}
    code = """
import threading
gate, count = threading.Event(), 0
try:
    while True:
        threading.Thread(target=gate.wait).start(); count += 1
except RuntimeError:
    pass
gate.set()
count"""
    with Broker(broker.url, broker.token).session(new_name(), limits=limits) as one:
        assert 1 <= int(str(one.execute(code).value)) < 24


def test_a_one_shot_over_http_may_ask_too(broker: RunningBroker) -> None:
    code = "while True: pass"
    body = call(broker, "POST", "/v1/execute?cpu_time=200ms", {"code": code, "timeout": 20}).body
    assert (body["status"], body["done"]["reason"]) == ("timeout", "cpu")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"memory": "2G"}, "memory"),
        ({"cpu": "100"}, "cpu"),
        ({"memory": "lots"}, "memory"),
        ({"execution_timeout": "1d"}, "execution_timeout"),
        ({"memoy": "1G"}, "memoy"),
    ],
)
def test_more_than_the_profile_allows_is_one_clear_error(
    broker: RunningBroker, query: dict[str, str], field: str
) -> None:
    name = new_name()
    path = f"/v1/sessions/{name}/execute?{urlencode(query)}"
    answer = call(broker, "POST", path, {"code": "1"})
    assert (answer.status, answer.error["field"]) == (400, field)
    assert call(broker, "GET", f"/v1/sessions/{name}").status == 404
    if field != "memoy":
        with pytest.raises(BadRequest) as caught:
            Broker(broker.url, broker.token).session(name, limits=query).attach()
        assert caught.value.field == field


def test_the_command_line_asks_for_lower_bounds(broker: RunningBroker) -> None:
    name = new_name()
    done = broker.cli("run", "-s", name, "--cpu-time", "300ms", "while True: pass")
    assert (done.returncode, done.stderr.splitlines()[-1]) == (124, "broker: timeout: cpu")
    refused = broker.cli("run", "-s", name, "--memory", "9G", "1")
    assert refused.returncode == 1
    assert "memory: the session has 1G already" in refused.stderr
