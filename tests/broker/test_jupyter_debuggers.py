"""Whose the debugger of a session's kernel is, and what comes of it when they have gone."""

from __future__ import annotations

from typing import Any

import pytest

from broker.jupyter.debuggers import DEBUG, GRACE
from broker.jupyter.exchange import ABSENCE
from broker.jupyter.follower import Follower
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.test_jupyter_exchange import Stage


def ask(stage: Stage, one: Follower, *commands: str) -> None:
    for command in commands:
        fields: dict[str, Any] = {"type": "request", "seq": 1, "command": command}
        stage.ask(one, DEBUG, channel="control", **fields, arguments={})


def left(stage: Stage) -> list[dict[str, Any]]:
    """Return what the kernel was asked of debuggers by the broker itself."""
    asked = [content for _, kind, content, _ in stage.kernel.channels.passed if kind == DEBUG]
    return [one for one in asked if "terminateDebuggee" in one["arguments"]]


@on_manual_time
async def test_the_debugger_is_left_when_the_last_who_used_it_has_not_come_back() -> None:
    stage = Stage()
    one, _ = stage.come()
    other, _ = stage.come("b")
    ask(stage, one, "initialize", "attach")
    ask(stage, other, "debugInfo", "stackTrace")
    stage.exchange.leave(one, comes_back=True)
    await elapse(2 * GRACE)
    assert left(stage) == []  # somebody is there to say that it goes on
    stage.exchange.leave(other, comes_back=True)
    await elapse(GRACE - 1)
    assert left(stage) == []
    await elapse(1)
    [asked] = left(stage)
    assert (asked["command"], asked["arguments"]["terminateDebuggee"]) == ("disconnect", False)
    await elapse(2 * GRACE)
    assert len(left(stage)) == 1


@on_manual_time
async def test_who_comes_back_in_time_has_the_debugger_still() -> None:
    stage = Stage()
    one, _ = stage.come()
    ask(stage, one, "initialize", "attach")
    stage.exchange.leave(one, comes_back=True)
    await elapse(GRACE - 1)
    back, _ = stage.come()
    assert back is one
    await elapse(2 * GRACE)
    assert left(stage) == []


@pytest.mark.parametrize("commands", [("initialize", "attach"), ("attach", "terminate")])
def test_of_who_cannot_come_back_the_debugger_is_left_at_once(commands: tuple[str, ...]) -> None:
    @on_manual_time
    async def leaves() -> None:
        stage = Stage()
        one, _ = stage.come()
        ask(stage, one, *commands)
        stage.exchange.leave(one, comes_back=False)
        assert len(left(stage)) == 1

    leaves()


@pytest.mark.parametrize(
    "commands", [("debugInfo", "inspectVariables"), ("attach", "disconnect"), ("terminate",)]
)
def test_who_does_not_use_the_debugger_leaves_nothing(commands: tuple[str, ...]) -> None:
    @on_manual_time
    async def leaves() -> None:
        stage = Stage()
        one, _ = stage.come()
        ask(stage, one, *commands)
        stage.exchange.leave(one, comes_back=False)
        assert left(stage) == []

    leaves()


@on_manual_time
async def test_a_lost_kernel_takes_its_debugger_with_it() -> None:
    stage = Stage()
    one, _ = stage.come()
    ask(stage, one, "initialize", "attach")
    stage.session.drop_kernel("oom")
    before = stage.kernel
    kernel = stage.kernel = type(before)("k2")
    kernel.channels = type(before.channels)()
    stage.session.bind(kernel, 2, "lost", "oom")
    stage.exchange.leave(one, comes_back=False)
    assert left(stage) == []


@on_manual_time
async def test_a_kernel_that_reads_nothing_is_left_as_it_is() -> None:
    stage = Stage()
    one, _ = stage.come()
    ask(stage, one, "initialize", "attach")
    stage.kernel.channels.full = True
    stage.exchange.leave(one, comes_back=False)
    assert not stage.kernel.killed


@on_manual_time
async def test_who_takes_up_the_debugger_of_somebody_who_was_lost_keeps_it() -> None:
    stage = Stage()
    one, _ = stage.come()
    other, _ = stage.come("b")
    ask(stage, one, "initialize", "attach")
    stage.exchange.leave(one, comes_back=True)
    await elapse(GRACE / 6)
    ask(stage, other, "initialize", "attach")
    await elapse(2 * GRACE)
    assert left(stage) == []
    stage.exchange.leave(other, comes_back=True)
    await elapse(GRACE - 1)
    assert left(stage) == []  # its own time, not what was left of the other's
    await elapse(1)
    assert len(left(stage)) == 1


@on_manual_time
async def test_who_has_gone_for_good_leaves_the_debugger_to_who_uses_it() -> None:
    stage = Stage()
    one, _ = stage.come()
    other, _ = stage.come("b")
    ask(stage, one, "initialize", "attach")
    stage.exchange.leave(one, comes_back=True)
    ask(stage, other, "attach")
    await elapse(2 * ABSENCE)
    assert left(stage) == []
    stage.exchange.leave(other, comes_back=False)
    assert len(left(stage)) == 1  # of the other, nothing is kept any more


@on_manual_time
async def test_who_is_away_and_may_come_back_has_time_when_another_has_gone_for_good() -> None:
    stage = Stage()
    one, _ = stage.come()
    other, _ = stage.come("b")
    ask(stage, one, "initialize", "attach")
    stage.exchange.leave(one, comes_back=True)
    ask(stage, other, "attach")
    await elapse(GRACE)
    stage.exchange.leave(other, comes_back=False)
    await elapse(GRACE - 1)
    assert left(stage) == []
    await elapse(1)
    assert len(left(stage)) == 1


@on_manual_time
async def test_who_only_looks_keeps_no_debugger_from_being_left() -> None:
    stage = Stage()
    one, _ = stage.come()
    other, _ = stage.come("b")
    ask(stage, one, "initialize", "attach")
    stage.exchange.leave(one, comes_back=True)
    ask(stage, other, "debugInfo")
    await elapse(GRACE)
    assert len(left(stage)) == 1
