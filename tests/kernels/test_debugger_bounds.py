"""What the requests to a debugger come to, with a debugger that does what a test has it do."""

from __future__ import annotations

import asyncio
import gc
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from kernels.inside.debugging import LIMIT, Debugging
from kernels.inside.interrupts import Aim
from kernels.inside.questions import MOST_WAITING
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.kernels.test_evaluations import evaluating


def debugging(*stopped: int) -> Debugging:
    """Return the requests' way to a debugger that has stopped these threads."""
    debugger = SimpleNamespace(stopped_threads={*stopped}, stop=lambda: None)
    iopub = SimpleNamespace(silent=set())
    return Debugging(SimpleNamespace(debugger=debugger, iopub_socket=iopub), Aim())


def request(command: str) -> dict[str, Any]:
    return {"type": "request", "seq": 1, "command": command, "arguments": {}}


async def test_where_no_thread_is_free_it_is_not_told_as_slowness() -> None:
    served, gate = debugging(), threading.Event()

    async def waits() -> dict[str, Any]:
        gate.wait()
        return {"success": True}

    asked = request("modules")
    most = [asyncio.create_task(served.answer(asked, waits())) for _ in range(MOST_WAITING + 1)]
    await asyncio.sleep(0)  # all are asked
    refused = await served.answer(asked, waits())
    assert (refused["success"], refused["message"]) == (False, "too much is asked already")
    gate.set()
    assert all(one["success"] for one in await asyncio.gather(*most))


async def test_what_stops_meanwhile_is_not_told_as_slowness() -> None:
    async def waits() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {}

    refused = await debugging().answer(request("richInspectVariables"), waits())
    assert (refused["success"], "took too long" in refused["message"]) == (False, False)
    assert "stopped" in refused["message"]


async def test_whatever_is_raised_is_told_by_its_name() -> None:
    async def fails() -> dict[str, Any]:
        raise SystemExit("its own")

    refused = await debugging().answer(request("inspectVariables"), fails())
    assert refused["message"] == "inspectVariables failed: SystemExit('its own')"


async def test_an_error_that_cannot_be_told_is_named() -> None:
    class Mute(Exception):
        def __repr__(self) -> str:
            raise ValueError("no")

    async def fails() -> dict[str, Any]:
        raise Mute

    refused = await debugging().answer(request("inspectVariables"), fails())
    assert refused["message"] == "inspectVariables failed: Mute"


@on_manual_time
async def test_what_cannot_be_stopped_and_fails_in_the_end_leaves_no_word() -> None:
    served, complaints = debugging(1), []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: complaints.append(context["message"]))
    ended: asyncio.Future[None] = loop.create_future()

    async def fails() -> dict[str, Any]:
        await ended
        raise ValueError("in the end")

    refused = await served.answer(request("evaluate"), fails())
    assert "cannot be stopped" in refused["message"]
    ended.set_result(None)
    await elapse()
    del served
    gc.collect()
    assert complaints == []


@on_manual_time
async def test_an_error_of_the_debuggers_own_is_let_through() -> None:
    async def fails() -> dict[str, Any]:
        raise ValueError("at once")

    with pytest.raises(ValueError, match="at once"):
        await debugging(1).answer(request("evaluate"), fails())


@on_manual_time
async def test_what_ends_just_in_time_is_not_stopped_any_more() -> None:
    served = debugging(1)
    with evaluating() as one:
        answer = asyncio.get_running_loop().create_future()

        async def evaluate() -> Any:
            return await answer

        asked = asyncio.create_task(served.answer(request("evaluate"), evaluate()))
        await elapse(LIMIT)
        answer.set_result({"success": True})  # which is on its way out when the stop comes
        assert (await asked)["success"]
    assert one.raised is None


@on_manual_time
async def test_what_could_not_be_stopped_and_ends_is_not_stopped_any_more() -> None:
    served = debugging(1)
    with evaluating() as one:
        answer = asyncio.get_running_loop().create_future()

        async def evaluate() -> Any:
            return await answer

        refused = await served.answer(request("evaluate"), evaluate())
        assert "cannot be stopped" in refused["message"]
        answer.set_result({"success": True})
        await elapse()
    assert one.raised is None


@on_manual_time
async def test_what_is_left_is_stopped_once_it_can_be() -> None:
    served = debugging(1)
    with evaluating() as one:
        await served.answer(request("evaluate"), asyncio.Event().wait())
        assert (await served.answer(request("disconnect"), asyncio.sleep(0)))["success"]
        await elapse()
    assert one.raised is not None
