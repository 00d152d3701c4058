"""What becomes of requests that were passed on when those who sent them have gone."""

from __future__ import annotations

from typing import Any

from broker.jupyter.exchange import ABSENCE
from broker.jupyter.follower import Follower
from broker.jupyter.passage import DOUBT
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.test_jupyter_exchange import Passing, Stage

LIMITS: dict[str, Any] = {"execution_timeout": 5.0, "interrupt_grace": 2.0}


def sent(stage: Stage, one: Follower, kind: str) -> str:
    """Send the kernel a request; return the kernel's id of it."""
    stage.ask(one, kind, code="a", data={})
    return stage.kernel.channels.passed[-1][3]


def next_kernel(stage: Stage) -> None:
    stage.session.drop_kernel("exit 1")
    stage.kernel = type(stage.kernel)("k2")
    stage.kernel.channels = Passing()
    stage.session.bind(stage.kernel, 2, "lost", "exit 1")


@on_manual_time
async def test_what_is_answered_after_its_client_has_left_ends_no_kernel() -> None:
    stage = Stage(**LIMITS)
    one, _ = stage.come()
    names = [sent(stage, one, kind) for kind in ("complete_request", "comm_msg")]
    stage.exchange.leave(one, comes_back=False)
    for name in names:
        stage.status("busy", name)
        stage.status("idle", name)
    stage.say("shell", "complete_reply", {"matches": []}, names[0])
    assert stage.session.tap is None  # nobody is there, and nothing is open
    await elapse(60.0)
    assert (stage.kernel.interrupts, stage.kernel.killed) == (0, False)


@on_manual_time
async def test_what_its_client_has_left_behind_a_cell_ends_no_kernel() -> None:
    stage = Stage(**LIMITS)
    one, _ = stage.come()
    stage.run(one, "x")
    stage.status("busy")
    name = sent(stage, one, "complete_request")
    stage.exchange.leave(one, comes_back=False)
    stage.status("idle")
    stage.say("shell", "execute_reply", {"status": "ok"})
    stage.status("busy", name)
    stage.say("shell", "complete_reply", {"matches": []}, name)
    stage.status("idle", name)
    await elapse(60.0)
    assert (stage.kernel.interrupts, stage.kernel.killed) == (0, False)


@on_manual_time
async def test_what_is_answered_after_its_clients_place_is_gone_ends_no_kernel() -> None:
    stage = Stage(execution_timeout=2 * ABSENCE)
    one, _ = stage.come()
    name = sent(stage, one, "complete_request")
    stage.exchange.leave(one, comes_back=True)
    await elapse(ABSENCE)
    stage.status("busy", name)
    stage.say("shell", "complete_reply", {"matches": []}, name)
    stage.status("idle", name)
    assert stage.session.tap is None
    await elapse(2 * ABSENCE + 60.0)
    assert (stage.kernel.interrupts, stage.kernel.killed) == (0, False)


@on_manual_time
async def test_what_never_ends_has_its_time_though_its_client_has_left() -> None:
    stage = Stage(**LIMITS)
    one, _ = stage.come()
    name = sent(stage, one, "comm_msg")
    stage.exchange.leave(one, comes_back=False)
    stage.status("busy", name)
    await elapse(5.0)
    assert (stage.kernel.aimed, stage.kernel.killed) == ([name], False)
    await elapse(2.0)
    assert stage.kernel.killed


@on_manual_time
async def test_what_is_done_and_never_answered_is_not_listened_for_longer() -> None:
    stage = Stage()
    one, _ = stage.come()
    name = sent(stage, one, "nonsense_request")
    stage.exchange.leave(one, comes_back=False)
    stage.status("busy", name)
    stage.status("idle", name)
    assert stage.session.tap is stage.exchange
    await elapse(DOUBT)
    assert stage.session.tap is None


@on_manual_time
async def test_who_comes_while_others_requests_are_open_is_told_what_is_said() -> None:
    stage = Stage(**LIMITS)
    one, _ = stage.come()
    name = sent(stage, one, "comm_msg")
    stage.exchange.leave(one, comes_back=False)
    _, wire = stage.come("b")
    stage.status("busy", name)
    stage.status("idle", name)
    assert [told[3] for told in wire.told] == ["busy", "idle"]
    assert stage.session.tap is stage.exchange


@on_manual_time
async def test_a_request_of_who_has_left_ends_no_later_kernel() -> None:
    stage = Stage(**LIMITS)
    one, _ = stage.come()
    sent(stage, one, "comm_msg")
    stage.exchange.leave(one, comes_back=False)
    next_kernel(stage)
    assert stage.session.tap is None
    await elapse(60.0)
    assert (stage.kernel.interrupts, stage.kernel.killed) == (0, False)


@on_manual_time
async def test_the_end_of_a_requests_time_ends_no_kernel_that_was_not_asked() -> None:
    for waited in (0.0, 5.0 + DOUBT):  # or the one that was asked has been interrupted already
        stage = Stage(**LIMITS)
        one, _ = stage.come()
        sent(stage, one, "comm_msg")
        await elapse(waited)
        stage.session.tap = None  # nobody tells of the loss
        next_kernel(stage)
        await elapse(60.0)
        assert (stage.kernel.interrupts, stage.kernel.killed) == (0, False)
        assert repr(stage.exchange).count("0 open")
