"""A kernel that forges questions, calls and answers on its own stdin channel.

It is refused, bounded, or ended with a reason; its session's clients get nothing unbounded, and the
broker and a neighbour's session do not notice.
"""

from __future__ import annotations

import pytest

from broker.dialogue import PROMPT
from broker.roles import SessionLimits
from tests.security.test_hostile_frames import attack, attacked, running
from tests.system.conftest import RunningBroker, short_dir
from tests.system.peer import Peer, attached, new_name

__all__ = ["attacked", "running", "short_dir"]

CALL = """
def asks(kind, content, metadata, parent=asked["msg_id"]):
    header = {"msg_type": kind, "msg_id": "x"}
    objects = [header, {"msg_id": parent}, metadata, content]
    return wire(raw_signed(*(json.dumps(one).encode() for one in objects)))

def call(number, name="echo", **fields):
    content = {"args": [], "kwargs": {}, **fields}
    return asks("broker_tool_call", content, {"call": number, "name": name})
"""

# What leaves the kernel as it is: nothing comes of it.
HARMLESS = {
    "answers of its own": "asks('broker_tool_result', {'call': '1', 'value': 1}, {'call': '1'})"
    " + asks('input_reply', {'value': 'x'}, {})",
    "calls without a number": "b''.join(asks('broker_tool_call', {}, m) for m in "
    "({}, {'call': 5}, {'call': ''}, {'call': 'x' * 99}, {'call': ['1'], 'name': 'echo'}))",
    "calls of strange names": "b''.join(call(str(n), name) for n, name in "
    "enumerate(['', 'nobody', 5, None, ['echo'], 'x' * 100_000, '__class__', 'echo\\0']))",
    "calls with strange arguments": "b''.join(call(str(n), args=args, kwargs=kwargs) for n, (args, "
    "kwargs) in enumerate([(5, {}), ([], []), (None, None), ({}, 'x'), ([{'$bytes': 5}], {}), "
    "([{'$int': 'x'}], {}), ([], {'a': {'$float': 1}})]))",
    "calls with deep arguments": "call('1', args=eval('[' * 90 + ']' * 90))",
    "calls with wide arguments": "call('1', args=[[]] * 300_000)",
    "calls with large arguments": "call('1', args=['x' * 3_000_000])",
    "cancels of what is not open": "asks('broker_tool_cancel', {}, {'call': '1'}) * 1000",
    "ten thousand calls of nobody's tools": "b''.join(call(str(n), 'no') for n in range(10_000))",
    "questions about other cells": "asks('input_request', {'prompt': 'x'}, {}, next_id(-1)) * 1000",
    "strange questions": "b''.join(asks('input_request', c, {'asked': a}) for c, a in "
    "(({}, 5), ({'prompt': 5}, None), ({'prompt': ['x'] * 1000, 'password': 'yes'}, {}), "
    "({'prompt': 'x' * 3_000_000}, 'x' * 100_000)))",
}


async def serve(peer: Peer) -> None:
    await peer.send({"type": "tools", "id": "t", "tools": [{"name": "echo"}]})
    await peer.until("reply", id="t")


@pytest.mark.parametrize("name", HARMLESS)
async def test_what_no_honest_kernel_asks_comes_to_nothing(
    attacked: RunningBroker, name: str
) -> None:
    async with attached(attacked, new_name()) as peer:
        await serve(peer)
        done = await attack(attacked, peer, f"{CALL}\nwrite('stdin', {HARMLESS[name]})")
        assert done["status"] == "ok"
        assert [event for event in peer.events if event["type"] == "tool_call"] == []
        for event in peer.events:
            assert len(str(event.get("prompt", ""))) < PROMPT + 100
        assert await peer.value("kept") == "20"


async def test_calls_beyond_the_bound_are_told_to_nobody(attacked: RunningBroker) -> None:
    async with attached(attacked, new_name()) as peer:
        await serve(peer)
        code = f"{CALL}\nwrite('stdin', b''.join(call(str(n)) for n in range(5000)))"
        assert (await attack(attacked, peer, code))["status"] == "ok"
        calls = [event for event in peer.events if event["type"] == "tool_call"]
        assert len(calls) == SessionLimits().tool_calls
        assert await peer.value("kept") == "20"


async def test_calls_that_are_taken_back_for_ever_have_a_bound(attacked: RunningBroker) -> None:
    async with attached(attacked, new_name()) as peer:
        await serve(peer)
        code = (
            f"{CALL}\nbody = 'x' * 400_000\nfor n in range(320):\n"
            "    write('stdin', call(str(n), args=[body])\n"
            "        + asks('broker_tool_cancel', {}, {'call': str(n)}))"
        )
        done = await attack(attacked, peer, code)
        assert done["status"] == "ok" or done["reason"] == "bad_frame"
        calls = [event for event in peer.events if event["type"] == "tool_call"]
        assert len(calls) < 240  # as the bound on an execution's outputs allows


async def test_a_flood_of_questions_has_a_bound(attacked: RunningBroker) -> None:
    async with attached(attacked, new_name()) as peer:
        code = (
            f"{CALL}\nwrite('stdin', asks('input_request', {{'prompt': 'x' * 9000}}, {{}}) * 5000)"
        )
        done = await attack(attacked, peer, code)
        assert done["status"] == "ok" or done["reason"] == "bad_frame"
