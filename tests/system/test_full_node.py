"""A full node of a real broker: who waits and is told so, who is refused, and who comes next."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.system.conftest import RunningBroker
from tests.system.peer import ask_until, attached, call, execute, metric, new_name
from tests.system.test_tokens import Holder, made

SETTINGS = """
[tenant]
waiting = 2
[tenants.many]
waiting = 50
[profiles.python]
preload = []
warm = 0
cap = 2
"""


@pytest.fixture(scope="module")
def small(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> Iterator[RunningBroker]:
    directory = short_dir()
    (directory / "broker.toml").write_text(SETTINGS)
    with start_broker(directory, "--config", str(directory / "broker.toml")) as running:
        yield running


@pytest.fixture
def taken(small: RunningBroker) -> Iterator[list[str]]:
    """Two sessions that hold all the kernels there may be."""
    names = [new_name("holder"), new_name("holder")]
    for name in names:
        execute(small, name, "x = 1")
    yield names
    for tenant in ("default", "acme", "other", "many"):
        holder = made(small, tenant=tenant)
        for row in call(holder, "GET", "/v1/sessions").body["sessions"]:
            end(holder, row["session"])


def end(holder: Holder | RunningBroker, name: str) -> None:
    assert call(holder, "DELETE", f"/v1/sessions/{name}").status in (200, 404)


def opening(holder: Holder) -> int:
    return len(call(holder, "GET", "/v1/sessions?state=opening").body["sessions"])


async def test_a_session_that_waits_is_told_its_place_until_it_runs(
    small: RunningBroker, taken: list[str]
) -> None:
    acme, other = made(small, tenant="acme"), made(small, tenant="other")
    async with attached(acme, new_name()) as first, attached(other, new_name()) as second:
        await first.send({"type": "execute", "id": "a", "code": "6 * 7"})
        assert (await first.until("queued", id="a"))["position"] == 1
        await second.send({"type": "execute", "id": "b", "code": "6 * 7"})
        assert (await second.until("queued", id="b"))["position"] == 2
        end(small, taken[0])
        assert (await first.until("done", id="a"))["status"] == "ok"
        assert (await second.until("queued", id="b"))["position"] == 1
        end(small, taken[1])
        assert (await second.until("done", id="b"))["status"] == "ok"
        kinds = [event["type"] for event in first.events]
        assert kinds.index("queued") < kinds.index("session") < kinds.index("started")


async def test_a_place_is_told_before_anything_is_asked(
    small: RunningBroker, taken: list[str]
) -> None:
    async with attached(made(small, tenant="acme"), new_name()) as peer:
        event = await peer.until("queued")
        assert (event["position"], "id" in event) == (1, False)
        end(small, taken[0])
        assert (await peer.until("session"))["generation"] == 1


@pytest.mark.row("sessions that wait for a full node")
async def test_over_its_bound_a_tenant_is_refused_at_once_and_another_waits(
    small: RunningBroker, taken: list[str]
) -> None:
    acme, other = made(small, tenant="acme"), made(small, tenant="other")
    async with attached(acme, new_name()) as first, attached(acme, new_name()) as second:
        await first.until("queued")
        await second.until("queued")
        assert call(small, "GET", "/v1/pools").body["pools"][0]["waiting"] == 2
        began = time.monotonic()
        answer = await asyncio.to_thread(call, acme, "POST", "/v1/execute", {"code": "1"})
        assert time.monotonic() - began < 0.5  # within 50 ms, on a machine with nothing else to do
        assert (answer.status, answer.error["code"]) == (503, "capacity")
        assert answer.error["retry_after"] >= 1
        assert "2 of this tenant's sessions wait already" in answer.error["message"]
        async with attached(other, new_name()) as third:
            assert (await third.until("queued"))["position"] == 2  # after one of acme's


async def test_who_leaves_the_queue_takes_no_kernel(small: RunningBroker, taken: list[str]) -> None:
    acme, name = made(small, tenant="acme"), new_name()
    async with attached(acme, name) as peer:
        await peer.until("queued")
    ask_until(lambda: opening(acme) == 0, "the session forgotten")
    end(small, taken[0])
    assert execute(small, new_name(), "6 * 7")["status"] == "ok"
    assert metric(small, "broker_sessions") == 2


async def test_a_tenant_that_asks_for_ten_times_as_much_delays_nobody_else(
    small: RunningBroker, taken: list[str]
) -> None:
    tenants = {"many": 20, "acme": 2, "other": 2}
    holders = {name: made(small, tenant=name) for name in tenants}
    ended: list[str] = []

    async def once(tenant: str) -> None:
        answer = await asyncio.to_thread(
            call, holders[tenant], "POST", "/v1/execute", {"code": "6 * 7"}
        )
        assert answer.status == 200, answer.text
        ended.append(tenant)

    async with asyncio.TaskGroup() as group:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(32))
        for tenant, number in tenants.items():
            for _ in range(number):
                group.create_task(once(tenant))
            holder = holders[tenant]
            await asyncio.to_thread(
                ask_until, lambda h=holder, n=number: opening(h) == n, f"{tenant} waits"
            )
        for name in taken:
            end(small, name)
    assert len(ended) == 24
    # Each has every third turn: the last of the others is served among the first six.
    last = max(at for at, tenant in enumerate(ended) if tenant != "many")
    assert last < 10, ended


async def test_the_wait_ends_in_a_refusal_that_says_when_to_come_again(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> None:
    directory = short_dir()
    text = SETTINGS.replace("cap = 2", "cap = 1") + '[pool]\nacquire_timeout = "300ms"\n'
    (directory / "broker.toml").write_text(text)
    with start_broker(directory, "--config", str(directory / "broker.toml")) as broker:
        execute(broker, "holder", "x = 20")
        answer = call(broker, "POST", "/v1/execute", {"code": "1"})
        assert (answer.status, answer.error["code"]) == (503, "capacity")
        assert "within 0.3 s" in answer.error["message"]
        async with attached(broker, new_name()) as peer:
            events = await peer.run("1")
            assert events[-1]["code"] == "capacity"
            assert [event["type"] for event in events[:-1]] == ["queued"]
        assert execute(broker, "holder", "x")["result"]["text/plain"] == "20"
