"""Time on the clock and on the processors, on a clock set by hand."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from broker.deadline import RESOLUTION, UNMETERED, Deadline
from broker.errors import QuotaExceeded
from broker.quotas import Quotas
from broker.roles import SessionLimits
from broker.settings import Tenant
from kernels.spec import Usage
from tests.broker.pool_fakes import elapse, now, on_manual_time
from tests.broker.session_fakes import FakeKernel, Scene


class BusyKernel(FakeKernel):
    """Uses so many cores from its beginning on; counts how often it is asked."""

    def __init__(self, cores: float, *, before: float = 100.0) -> None:
        super().__init__()
        self.is_metered = True
        self.rate: Callable[[float], float] = lambda seconds: cores * seconds
        self.before = before
        self.began = now()
        self.asked = 0
        self.ended = False

    def usage(self) -> Usage:
        self.asked += 1
        if self.ended:
            return Usage()
        return Usage(self.before + self.rate(now() - self.began), 5 << 20, 7 << 20, 3)


class Told:
    """A deadline, and when it said what."""

    def __init__(self, **limits: Any) -> None:
        self.began = now()
        self.said: list[tuple[str, str, float]] = []
        bounds = SessionLimits(**{"execution_timeout": 0.0, "interrupt_grace": 2.0, **limits})
        self.insisted: list[float] = []
        self.deadline = Deadline(
            bounds,
            expired=self.note("expired"),
            insist=lambda: self.insisted.append(round(now() - self.began, 2)),
            overdue=self.note("overdue"),
        )

    def note(self, what: str) -> Callable[[str], None]:
        return lambda reason: self.said.append((what, reason, round(now() - self.began, 2)))


@on_manual_time
async def test_the_clock_expires_and_then_the_grace() -> None:
    told = Told(execution_timeout=5.0)
    told.deadline.set(FakeKernel(), None)
    await elapse(60)
    assert told.said == [("expired", "timeout", 5.0), ("overdue", "timeout", 7.0)]


@on_manual_time
async def test_a_timeout_of_its_own_takes_the_place_of_the_sessions() -> None:
    told = Told(execution_timeout=5.0)
    told.deadline.set(FakeKernel(), 1.0)
    await elapse(2)
    told.deadline.clear()
    await elapse(60)
    assert told.said == [("expired", "timeout", 1.0)]


@on_manual_time
async def test_cpu_time_expires_when_it_is_used_up_and_not_before() -> None:
    told, kernel = Told(cpu_time=5.0, cpu=1.0), BusyKernel(0.5)
    told.deadline.set(kernel, None)
    await elapse(60)
    assert told.said == [("expired", "cpu", pytest.approx(10.0, abs=2 * RESOLUTION)),
                         ("overdue", "cpu", pytest.approx(12.0, abs=2 * RESOLUTION))]  # fmt: skip
    assert kernel.asked < 16  # each look halves what is left


@pytest.mark.parametrize(
    ("cpu_time", "left", "said"),
    [
        (0.0, 5.0, ("expired", "quota", 5.0)),
        (9.0, 5.0, ("expired", "quota", 5.0)),
        (5.0, 9.0, ("expired", "cpu", 5.0)),
        (5.0, inf, ("expired", "cpu", 5.0)),
        (0.0, 0.0, ("expired", "quota", RESOLUTION)),
        (0.0, inf, None),
    ],
)
def test_what_is_left_to_a_tenant_bounds_the_cpu_time_like_the_sessions_own(
    cpu_time: float, left: float, said: tuple[str, str, float] | None
) -> None:
    async def passed() -> None:
        told, kernel = Told(cpu_time=cpu_time, cpu=1.0), BusyKernel(1.0)
        told.deadline.set(kernel, None, left)
        await elapse(60)
        due = [] if said is None else [said, ("overdue", said[1], said[2] + 2.0)]
        near = [(what, why, pytest.approx(when, abs=2 * RESOLUTION)) for what, why, when in due]
        assert told.said == near

    on_manual_time(passed)()


@on_manual_time
async def test_all_cores_at_once_use_it_up_that_much_sooner() -> None:
    told, kernel = Told(cpu_time=6.0, cpu=3.0), BusyKernel(3.0)
    told.deadline.set(kernel, None)
    await elapse(60)
    assert told.said[0] == ("expired", "cpu", 2.0)
    assert kernel.asked < 6


@on_manual_time
async def test_a_cell_that_sleeps_is_looked_at_as_often_as_it_could_be_up() -> None:
    told, kernel = Told(cpu_time=1.0, cpu=1.0), BusyKernel(0.0)
    told.deadline.set(kernel, None)
    await elapse(100.5)
    assert told.said == []
    assert kernel.asked <= 103
    kernel.rate = lambda seconds: seconds - 100.5
    await elapse(5)
    assert told.said[0] == ("expired", "cpu", pytest.approx(101.5, abs=2 * RESOLUTION))


@on_manual_time
async def test_whichever_comes_first_is_the_reason() -> None:
    told = Told(execution_timeout=3.0, cpu_time=5.0, cpu=1.0)
    told.deadline.set(BusyKernel(1.0), None)
    await elapse(60)
    assert [said[:2] for said in told.said] == [("expired", "timeout"), ("overdue", "timeout")]
    told = Told(execution_timeout=30.0, cpu_time=5.0, cpu=1.0)
    told.deadline.set(BusyKernel(1.0), None)
    await elapse(60)
    assert [said[:2] for said in told.said] == [("expired", "cpu"), ("overdue", "cpu")]


@on_manual_time
async def test_a_kernel_that_ends_meanwhile_has_no_deadline() -> None:
    told, kernel = Told(cpu_time=1.0), BusyKernel(0.1)
    told.deadline.set(kernel, None)
    kernel.ended = True
    await elapse(60)
    assert told.said == []


@on_manual_time
async def test_where_cores_have_no_bound_all_of_the_machine_may_be_busy() -> None:
    told, kernel = Told(cpu_time=1.0, cpu=0.5), BusyKernel(os.cpu_count() or 1)
    kernel.is_metered = False
    told.deadline.set(kernel, None)
    await elapse(60)
    assert told.said[0][2] == pytest.approx(1.0 / (os.cpu_count() or 1), abs=UNMETERED)


@on_manual_time
async def test_a_kernel_that_is_dear_to_ask_is_asked_four_times_a_second_at_most() -> None:
    told, kernel = Told(cpu_time=1.0), BusyKernel(0.0)
    kernel.is_metered = False
    kernel.before = 0.0
    kernel.rate = lambda seconds: min(0.99, seconds)  # ever so near to its end
    told.deadline.set(kernel, None)
    await elapse(10)
    assert told.said == []
    assert kernel.asked <= 2 + 10 / UNMETERED


@on_manual_time
async def test_a_cell_that_ends_at_once_costs_one_look_at_its_start() -> None:
    for is_metered in (True, False):
        told, kernel = Told(cpu_time=60.0, cpu=1.0), BusyKernel(1.0)
        kernel.is_metered = is_metered
        assert told.deadline.set(kernel, None).cpu_seconds == 100.0
        told.deadline.clear()
        assert kernel.asked == 1


@on_manual_time
async def test_without_a_limit_a_kernel_that_is_dear_to_ask_is_not_asked() -> None:
    told, kernel = Told(), BusyKernel(1.0)
    kernel.is_metered = False
    assert told.deadline.set(kernel, None) == Usage()
    assert kernel.asked == 0


def timers() -> int:
    loop: Any = asyncio.get_running_loop()
    return sum(not handle.cancelled() for handle in loop._scheduled)


@on_manual_time
async def test_one_timer_serves_all_executions_one_after_the_other() -> None:
    told, before = Told(execution_timeout=5.0, cpu_time=3.0), timers()
    for _ in range(100):
        told.deadline.set(BusyKernel(0.1), None)
        await elapse(0.5)
        told.deadline.clear()
        assert timers() <= before + 1
    await elapse(60)
    assert (timers(), told.said) == (before, [])


@on_manual_time
async def test_a_shorter_time_than_the_last_ones_is_kept_and_so_is_a_longer() -> None:
    told = Told(execution_timeout=50.0)
    for timeout, expected in ((None, 50.0), (1.0, 1.0), (20.0, 20.0)):
        told.deadline.set(FakeKernel(), None)
        told.deadline.clear()
        told.said.clear()
        told.began = now()
        told.deadline.set(FakeKernel(), timeout)
        await elapse(60)
        assert told.said[0] == ("expired", "timeout", expected)


@on_manual_time
async def test_nothing_is_left_of_one_that_is_stopped() -> None:
    told, before = Told(execution_timeout=50.0), timers()
    told.deadline.set(FakeKernel(), None)
    told.deadline.stop()
    told.deadline.stop()
    assert timers() == before
    await elapse(60)
    assert told.said == []


# In a session


@on_manual_time
async def test_a_cell_over_its_cpu_time_is_interrupted_and_the_kernel_lives_on() -> None:
    scene = Scene(bound=False, cpu_time=3.0, cpu=1.0)
    kernel = BusyKernel(1.0)
    scene.session.bind(kernel, 1, "fresh", "")
    scene.submit("a")
    kernel.begin()
    await elapse(2.9)
    assert kernel.interrupts == 0
    await elapse(0.2)
    assert kernel.interrupts == 1
    kernel.end("error")
    done = scene.client.events[-1]
    assert (done["status"], done["reason"]) == ("timeout", "cpu")
    assert done["cpu"] == pytest.approx(3.1, abs=0.05)
    assert done["memory_peak"] == 7 << 20
    await elapse(60)
    assert not kernel.killed


@on_manual_time
async def test_a_cell_whose_kernel_dies_tells_what_that_had_used_by_its_end() -> None:
    scene = Scene(bound=False)
    kernel = BusyKernel(1.0)
    scene.session.bind(kernel, 1, "fresh", "")
    scene.submit("a", "b")
    kernel.begin()
    kernel.ended, kernel.spent = True, 107.5
    kernel.exited.set_result("exit 0")
    await elapse(1)
    found = {event["id"]: event["cpu"] for event in scene.client.events if event["type"] == "done"}
    assert found == {"a": 7.5, "b": None}  # what never ran has used nothing that is known
    assert scene.host.cpu == [7.5, None]


@on_manual_time
async def test_a_cell_whose_kernel_is_taken_away_tells_what_that_has_used() -> None:
    scene = Scene(bound=False)
    kernel = BusyKernel(1.0)
    scene.session.bind(kernel, 1, "fresh", "")
    scene.submit("a")
    kernel.begin()
    await elapse(4)
    scene.session.drop_kernel("closed")
    assert scene.client.events[-2]["cpu"] == pytest.approx(4, abs=0.1)


@on_manual_time
async def test_where_nothing_meters_a_bounded_cell_its_own_word_is_not_taken_for_its_cpu() -> None:
    for bound, cpu in ((3.0, pytest.approx(2, abs=0.1)), (0.0, 0.001)):
        scene = Scene(bound=False, cpu_time=bound)
        kernel = BusyKernel(1.0)
        kernel.is_metered = False
        scene.session.bind(kernel, 1, "fresh", "")
        scene.submit("a")
        kernel.begin()
        await elapse(2)
        kernel.say("shell", "execute_reply", {"status": "ok"}, metadata={"cpu": 0.001})
        kernel.say("iopub", "status", {"execution_state": "idle"})
        assert scene.client.events[-1]["cpu"] == cpu


@on_manual_time
async def test_one_that_goes_on_loses_its_kernel_for_it() -> None:
    scene = Scene(bound=False, cpu_time=3.0, cpu=1.0)
    kernel = BusyKernel(1.0)
    scene.session.bind(kernel, 1, "fresh", "")
    scene.submit("a", "b")
    kernel.begin()
    await elapse(5.1)
    assert kernel.killed
    kernel.exited.set_result("signal SIGKILL")
    await elapse(1)
    assert scene.client.dones == {"a": "timeout", "b": "aborted"}
    assert scene.client.told("state", "generation", "reason")[-1] == ("lost", 1, "cpu")


@on_manual_time
async def test_each_cell_has_its_own_cpu_time() -> None:
    scene = Scene(bound=False, cpu_time=3.0, cpu=1.0)
    kernel = BusyKernel(1.0)
    scene.session.bind(kernel, 1, "fresh", "")
    for name in ("a", "b", "c"):
        scene.submit(name)
        kernel.begin()
        await elapse(2.5)
        kernel.end()
        assert scene.client.events[-1]["cpu"] == pytest.approx(2.5, abs=0.01)
    assert (kernel.interrupts, set(scene.client.dones.values())) == (0, {"ok"})


@on_manual_time
async def test_a_cell_is_interrupted_when_its_tenants_hour_is_used_up() -> None:
    scene = Scene(bound=False, cpu=1.0, cpu_time=60.0)
    scene.host.quotas = Quotas(Tenant(cpu_hour=5.0), clock=now)
    scene.host.quotas.executed(scene.session, 3.0)  # in another of the tenant's sessions
    kernel = BusyKernel(1.0)
    scene.session.bind(kernel, 1, "fresh", "")
    scene.submit("a", "b", stop_on_error=False)
    kernel.begin()
    await elapse(1.9)
    assert kernel.interrupts == 0
    await elapse(0.2)
    assert kernel.interrupts == 1
    scene.host.quotas.executed(scene.session, 2.1)
    kernel.end("error")
    done = scene.client.events[-1]
    assert (done["id"], done["status"], done["reason"]) == ("a", "timeout", "quota")
    kernel.begin()  # what had waited gets as good as nothing
    await elapse(0.1)
    assert kernel.interrupts == 2
    with pytest.raises(QuotaExceeded):
        scene.submit("c")
