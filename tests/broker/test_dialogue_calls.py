"""Host tools that a cell calls: who serves them, and what becomes of a call."""

from __future__ import annotations

from typing import Any

import pytest

from broker.dialogue import MOST_ARGUMENTS, MOST_RESULT
from broker.errors import BadMessage, BrokerError, Forbidden, NotRunning, QueueFull, TooLarge
from broker.execution import OutputLimits
from broker.requests import Tool, ToolFailure, Tools
from broker.tools import check
from tests.broker.pool_fakes import elapse, on_manual_time
from tests.broker.session_fakes import FakeClient, FakeKernel, Scene
from tests.broker.talking import CITY, MOST_CALLS, TOOL_GRACE, Talking

# Host tools


@on_manual_time
async def test_a_call_goes_to_its_server_and_the_value_comes_back() -> None:
    scene = Talking()
    assert scene.offer(CITY) == {"tools": ["weather"]}
    scene.call(args=[{"$bytes": "AAE="}, {"$int": "0xffffffffffffffffff"}])
    (call,) = scene.calls
    assert call["args"] == [b"\x00\x01", 2**72 - 1]
    assert (call["id"], call["name"], call["kwargs"]) == ("a", "weather", {"city": "Oslo"})
    assert call["tools"] == "t"
    scene.result(value={"raw": b"\xff", "$x": float("inf")})
    assert scene.replies == [
        ("broker_tool_result",
         {"call": "1", "value": {"raw": {"$bytes": "/w=="}, "$$x": {"$float": "inf"}}})
    ]  # fmt: skip
    with pytest.raises(NotRunning):
        scene.result(value=2)


@on_manual_time
async def test_what_a_tool_fails_with_is_name_and_message() -> None:
    scene = Talking()
    scene.offer(CITY)
    scene.call()
    scene.result(error=ToolFailure(name="LookupError", message="no such city"))
    error = {"name": "LookupError", "message": "no such city"}
    assert scene.replies[0][1] == {"call": "1", "error": error}


@on_manual_time
async def test_only_the_client_that_serves_a_tool_may_answer() -> None:
    scene, other = Talking(), FakeClient()
    scene.session.attach(other)
    scene.offer(CITY)
    scene.call()
    with pytest.raises(Forbidden):
        scene.result(client=other, value=1)
    assert scene.replies == []
    scene.result(value=2)


@on_manual_time
async def test_the_last_registration_of_a_name_serves_it() -> None:
    scene, other = Talking(), FakeClient()
    scene.session.attach(other)
    scene.offer(CITY)
    scene.offer(CITY, client=other, name="theirs")
    scene.call()
    assert scene.calls[0]["tools"] == "theirs"
    with pytest.raises(Forbidden):
        scene.result(value=1)
    scene.result(client=other, value=1)


@pytest.mark.asyncio
@pytest.mark.parametrize("name", ["weather", "", 5, None, "x" * 100])
async def test_what_nobody_serves_fails_at_once(name: object) -> None:
    scene = Talking()
    scene.offer(Tool(name="other"))
    scene.call(name=name)
    assert scene.errors == [("1", "NotServed")]
    assert scene.calls == []


@on_manual_time
async def test_a_tool_taken_back_is_not_served() -> None:
    scene = Talking()
    scene.offer(CITY)
    scene.offer()
    scene.call()
    assert scene.errors == [("1", "NotServed")]


@on_manual_time
async def test_between_cells_nothing_can_be_called() -> None:
    scene = Talking()
    scene.offer(CITY)
    scene.kernel.end()
    scene.call()
    assert scene.errors == [("1", "NotRunning")]


@on_manual_time
async def test_the_end_of_the_cell_ends_its_calls() -> None:
    scene = Talking()
    scene.offer(CITY)
    scene.call()
    scene.kernel.end()
    assert scene.errors == [("1", "Cancelled")]
    with pytest.raises(NotRunning):
        scene.result(value=1)


@on_manual_time
@pytest.mark.row("open calls of host tools")
async def test_open_calls_have_a_bound() -> None:
    scene = Talking()
    scene.offer(CITY)
    for number in range(MOST_CALLS + 1):
        scene.call(str(number))
    assert scene.errors == [(str(MOST_CALLS), "TooManyCalls")]
    scene.result(value=1)
    scene.call("again")
    assert len(scene.calls) == MOST_CALLS + 1


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"args": ["x" * MOST_ARGUMENTS]}, "TooLarge"),
        ({"args": [[]] * 250_000}, "TooLarge"),
        ({"args": 5}, "BadArguments"),
        ({"kwargs": None}, "BadArguments"),
        ({"kwargs": []}, "BadArguments"),
        ({"args": [{"$bytes": "?"}]}, "BadArguments"),
        ({"args": [{"$int": "x"}]}, "BadArguments"),
        ({"args": [{"$no": 1}]}, "BadArguments"),
    ],
)
async def test_arguments_of_a_hostile_kernel_are_refused(fields: Any, name: str) -> None:
    scene = Talking()
    scene.offer(CITY)
    scene.call(**fields)
    assert scene.errors == [("1", name)]
    assert scene.calls == []
    assert not scene.kernel.killed


@on_manual_time
async def test_arguments_that_nest_too_deep_are_refused() -> None:
    scene, deep = Talking(), []
    scene.offer(CITY)
    for _ in range(200):
        deep = [deep]
    scene.call(args=deep)
    assert scene.errors == [("1", "BadArguments")]


@pytest.mark.asyncio
@pytest.mark.parametrize("number", [5, None, "", "x" * 65, ["1"]])
async def test_a_call_without_a_number_is_nothing(number: Any) -> None:
    scene = Talking()
    scene.offer(CITY)
    scene.call(number)
    scene.cancel(number)
    assert (scene.calls, scene.replies) == ([], [])


@on_manual_time
async def test_what_is_refused_stands_for_nothing() -> None:
    """The kernel pays for each, as for every message that comes to nothing."""
    scene = Talking(answers=False)
    scene.offer(CITY)
    assert scene.call(str(0)) is not False
    assert scene.call("bad", args=7) is False
    assert scene.call("large", args=["x" * MOST_ARGUMENTS]) is False
    assert scene.call("unknown", name="nobody's") is False
    assert scene.ask() is False
    for number in range(1, MOST_CALLS):
        assert scene.call(str(number)) is not False
    assert scene.call(str(MOST_CALLS)) is False
    assert len(scene.errors) == 4


@on_manual_time
async def test_a_number_twice_is_one_call() -> None:
    scene = Talking()
    scene.offer(CITY)
    scene.call()
    scene.call()
    assert len(scene.calls) == 1


@on_manual_time
async def test_a_call_that_was_taken_back_has_no_answer() -> None:
    scene = Talking()
    scene.offer(CITY)
    scene.call()
    scene.cancel()
    with pytest.raises(NotRunning):
        scene.result(value=1)
    assert scene.replies == []


@on_manual_time
async def test_calls_that_are_taken_back_have_a_bound() -> None:
    scene = Talking(output=OutputLimits(displays=20_000), replay_events=100_000)
    scene.offer(CITY)
    for number in range(1000):
        scene.call(str(number))
        scene.cancel(str(number))
    assert len(scene.calls) < 100


@on_manual_time
async def test_a_kernel_that_asks_and_reads_no_refusals_is_ended() -> None:
    scene = Talking()
    scene.kernel.channels.full = True
    scene.call()
    assert scene.kernel.killed


@on_manual_time
@pytest.mark.row("arguments of a call, and its result")
async def test_a_result_over_the_bound_is_the_servers_fault_and_leaves_the_call_open() -> None:
    scene = Talking()
    scene.offer(CITY)
    scene.call()
    with pytest.raises(TooLarge):
        scene.result(value="x" * MOST_RESULT)
    scene.kernel.channels.full = True
    with pytest.raises(QueueFull):
        scene.result(value=1)
    scene.kernel.channels.full = False
    scene.result(value=1)
    assert len(scene.replies) == 1


@on_manual_time
async def test_who_serves_may_come_back_within_the_grace() -> None:
    scene, back = Talking(), FakeClient()
    scene.offer(CITY)
    scene.call()
    scene.session.detach(scene.client)
    scene.session.attach(back)
    await elapse(TOOL_GRACE / 2)
    scene.call("2")  # in the gap
    assert scene.replies == []
    scene.offer(CITY, client=back, name="again")
    calls = [event for event in back.events if event["type"] == "tool_call"]
    assert [call["tools"] for call in calls] == ["again", "again"]
    for call in calls:
        scene.result(client=back, call=call["call"], value=1)
    await elapse(TOOL_GRACE)
    scene.call("3")
    assert scene.errors == []


@on_manual_time
async def test_nobody_waits_for_who_leaves_when_the_session_has_ended() -> None:
    scene = Talking()
    scene.offer(CITY)
    scene.call()
    scene.session.close(4404, "killed")
    scene.session.detach(scene.client)
    assert not scene.dialogue._away


@on_manual_time
async def test_the_calls_of_a_client_that_stays_away_fail_after_the_grace() -> None:
    scene = Talking()
    scene.offer(CITY)
    scene.call()
    scene.session.detach(scene.client)
    await elapse(TOOL_GRACE / 2)
    scene.call("2")
    assert scene.errors == []
    await elapse(TOOL_GRACE)
    assert scene.errors == [("1", "NotServed"), ("2", "NotServed")]
    scene.call("3")
    assert scene.errors[-1] == ("3", "NotServed")


@on_manual_time
async def test_a_kernel_is_told_of_tools_when_they_have_changed() -> None:
    scene, told = Scene(), [{"name": "weather", "description": "", "parameters": CITY.parameters}]
    dialogue = scene.session.work.dialogue

    def run(name: str) -> Any:
        scene.submit(name)
        scene.kernel.begin()
        scene.kernel.end()
        return scene.kernel.channels.briefs[-1]

    assert run("a") is None
    dialogue.register(scene.client, Tools(id="t", tools=[CITY]))
    assert run("b") == {"tools": told}
    dialogue.register(scene.client, Tools(id="t2", tools=[CITY]))
    assert run("c") is None
    dialogue.register(scene.client, Tools(id="t3", tools=[]))
    assert run("d") == {"tools": []}
    assert run("e") is None


@on_manual_time
async def test_a_new_kernel_is_told_anew_and_an_adopted_one_that_there_are_none() -> None:
    scene = Scene()
    scene.session.work.dialogue.register(scene.client, Tools(id="t", tools=[CITY]))
    scene.submit("a")
    scene.session.drop_kernel("oom")
    second = FakeKernel("k2")
    scene.session.bind(second, 2, "lost", "oom")
    scene.submit("b")
    assert second.channels.briefs[0]["tools"][0]["name"] == "weather"

    adopted = Scene(bound=False)
    adopted.session.bind(adopted.kernel, 3, "warm", "")
    adopted.kernel.say("shell", "kernel_info_reply", {}, "info")
    adopted.submit("a")
    assert adopted.kernel.channels.briefs == [{"tools": []}]


@on_manual_time
async def test_kernels_that_cannot_call_are_told_nothing_and_the_client_is() -> None:
    scene = Scene()
    scene.kernel.is_ours = False
    with pytest.raises(BadMessage):
        scene.session.work.dialogue.register(scene.client, Tools(id="t", tools=[CITY]))
    scene.submit("a")
    assert scene.kernel.channels.briefs == [None]


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("tools", "error"),
    [
        ([Tool(name="tools")], BadMessage),
        ([Tool(name="ToolError")], BadMessage),
        ([Tool(name="class")], BadMessage),
        ([Tool(name="__x")], BadMessage),
        ([CITY, CITY], BadMessage),
        ([Tool(name="f", parameters={"type": "string"})], BadMessage),
        ([Tool(name="f", parameters={"properties": []})], BadMessage),
        ([Tool(name="f", parameters={"properties": {"x": 5}})], BadMessage),
        ([Tool(name="f", parameters={"required": [5]})], BadMessage),
        ([Tool(name="f", parameters={"x": "y" * (2 << 20)})], TooLarge),
    ],
)
async def test_tools_that_make_no_sense_are_refused_and_change_nothing(
    tools: list[Tool], error: type[BrokerError]
) -> None:
    scene = Talking()
    scene.offer(CITY)
    with pytest.raises(error) as raised:
        scene.offer(*tools)
    assert raised.value.field == "tools"
    scene.call()
    assert len(scene.calls) == 1


@on_manual_time
async def test_a_session_has_a_bound_on_its_tools() -> None:
    scene, other = Talking(), FakeClient()
    scene.offer(*(Tool(name=f"f{number}") for number in range(256)))
    with pytest.raises(TooLarge):
        scene.offer(CITY, client=other)


def test_an_ordinary_tool_passes() -> None:
    check(CITY)
