"""Quotas of a real broker: what each refuses, in which words, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests.system.conftest import RunningBroker
from tests.system.peer import attached, call, execute, gate, new_name, open_gate, row_of
from tests.system.test_tokens import Holder, made

SETTINGS = """
[profiles.python]
preload = []
warm = 2
[profiles.plain]
preload = []
warm = 0
[tenants.acme]
profiles = ["plain"]
[tenants.few]
sessions = 2
[tenants.small]
memory = "2G"
[tenants.one]
running = 1
[tenants.brief]
cpu_hour = "1s"
[tenants.evader]
cpu_hour = "1s"
"""


@pytest.fixture(scope="module")
def strict(
    start_broker: Callable[..., AbstractContextManager[RunningBroker]],
    short_dir: Callable[[], Path],
) -> Iterator[RunningBroker]:
    directory = short_dir()
    (directory / "broker.toml").write_text(SETTINGS)
    with start_broker(directory, "--config", str(directory / "broker.toml")) as running:
        yield running


def end(holder: Holder, *names: str) -> None:
    for name in names:
        assert call(holder, "DELETE", f"/v1/sessions/{name}").status == 200


def refusal(holder: Holder, name: str, query: str = "") -> dict[str, object]:
    answer = call(holder, "POST", f"/v1/sessions/{name}/execute{query}", {"code": "1"})
    assert (answer.status, answer.error["code"]) == (429, "quota"), answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    return answer.error


def test_a_tenant_uses_its_own_profiles_and_learns_of_no_other(strict: RunningBroker) -> None:
    acme, name = made(strict, tenant="acme"), new_name()
    assert execute(acme, name, "1")["status"] == "ok"
    assert row_of(acme, name)["profile"] == "plain"
    answers = [
        call(acme, "POST", "/v1/execute", {"code": "1", "profile": profile})
        for profile in ("python", "nothing")
    ]
    for answer, profile in zip(answers, ("python", "nothing"), strict=True):
        assert answer.status == 400
        assert answer.error["message"] == f"no profile '{profile}'; known: plain"
    end(acme, name)


def test_sessions_over_the_quota_are_refused_and_the_others_live_on(strict: RunningBroker) -> None:
    few, names = made(strict, tenant="few"), [new_name() for _ in range(3)]
    for name in names[:2]:
        execute(few, name, "x = 1")
    told = refusal(few, names[2])
    assert told["field"] == "sessions"
    assert execute(few, names[0], "x")["status"] == "ok"
    assert execute(strict, names[2], "1")["status"] == "ok"  # another tenant's
    end(few, names[0])
    assert execute(few, names[2], "1")["status"] == "ok"
    end(few, *names[1:])


def test_memory_over_the_quota_is_refused_and_less_of_it_is_not(strict: RunningBroker) -> None:
    small, names = made(strict, tenant="small"), [new_name() for _ in range(3)]
    execute(small, names[0], "1")
    call(small, "POST", f"/v1/sessions/{names[1]}/execute?memory=512M", {"code": "1"})
    assert refusal(small, names[2])["field"] == "memory"
    half = call(small, "POST", f"/v1/sessions/{names[2]}/execute?memory=512M", {"code": "1"})
    assert half.status == 200, half.text
    end(small, *names)


@pytest.mark.row("sessions, executions, CPU and memory of a tenant")
async def test_one_at_a_time_is_one_at_a_time(strict: RunningBroker) -> None:
    one, names = made(strict, tenant="one"), [new_name(), new_name()]
    async with attached(one, names[0]) as first, attached(one, names[1]) as second:
        await first.send({"type": "execute", "id": "a", "code": gate()})
        await first.until("stream", text="up\n")
        fault = (await second.run("1"))[-1]
        assert (fault["type"], fault["code"], fault["field"]) == ("fault", "quota", "running")
        assert fault["retry_after"] >= 1
        open_gate(row_of(one, names[0])["pid"])
        await first.until("done", id="a")
        assert (await second.run("1"))[-1]["status"] == "ok"
    end(one, *names)


def test_cpu_time_over_the_quota_is_stopped_and_refused_until_the_hour_has_room(
    strict: RunningBroker,
) -> None:
    brief, name = made(strict, tenant="brief"), new_name()
    answer = execute(brief, name, "while True: pass")
    assert (answer["status"], answer["done"]["reason"]) == ("timeout", "quota")
    assert 0.9 < answer["done"]["cpu"] < 2.5
    told = refusal(brief, name)
    assert told["field"] == "cpu_hour"
    assert isinstance(told["retry_after"], float)
    assert 3000 < told["retry_after"] <= 3660
    refused = new_name()
    assert refusal(brief, refused)["field"] == "cpu_hour"
    assert call(brief, "GET", f"/v1/sessions/{refused}").status == 404  # a refusal opens none
    assert execute(strict, new_name(), "1")["status"] == "ok"
    end(brief, name)


def test_who_ends_his_kernel_with_each_cell_uses_up_his_hour_all_the_same(
    strict: RunningBroker,
) -> None:
    evader, name = made(strict, tenant="evader"), new_name()
    code = "import os, time\nbegan = time.process_time()\n"
    code += "while time.process_time() - began < 0.4: pass\nos._exit(0)"
    first = execute(evader, name, code)["done"]
    assert (first["status"], first["cpu"] >= 0.4) == ("lost", True)
    used = first["cpu"]
    while used < 1:  # the last of them has what is left, and is stopped
        used += execute(evader, name, code)["done"]["cpu"]
    assert refusal(evader, name)["field"] == "cpu_hour"
    end(evader, name)
