"""What a cell has asked when its broker is killed is asked again by the next one."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from broker.client import Broker
from tests.system.conftest import RunningBroker, StartBroker, kill
from tests.system.peer import Peer, attached, new_name

LEAN = "orphan_ttl = '60s'\n[profiles.python]\npreload = []\nwarm = 1\n"
TWICE = {"name": "twice"}


def port_of(broker: RunningBroker) -> str:
    return broker.url.rpartition(":")[2]


async def result_of(peer: Peer) -> str:
    return str((await peer.until("result", id="cell"))["data"]["text/plain"])


@pytest.mark.parametrize(
    ("code", "prompt", "password"),
    [
        ("print('before', end='')\n'hello ' + input('name? ')", "name? ", False),
        ("import getpass\n'hello ' + getpass.getpass('secret: ')", "secret: ", True),
    ],
    ids=["input", "getpass"],
)
async def test_a_question_that_waits_is_asked_again_and_its_answer_reaches_the_cell(
    start_broker: StartBroker, place: tuple[Path, str, str], code: str, prompt: str, password: bool
) -> None:
    name = new_name()
    with start_broker(*place) as broker:
        async with attached(broker, name) as peer:
            await peer.send({"type": "execute", "id": "cell", "code": code})
            first = await peer.until("input_request", id="cell")
            kill(broker)
    with start_broker(*place) as again:
        async with attached(again, name, after=first["seq"]) as peer:
            assert "missed" not in await peer.next()
            asked = await peer.until("input_request", id="cell")
            assert (asked["prompt"], asked["password"]) == (prompt, password)
            assert (asked["seq"] > first["seq"], asked["question"]) == (True, first["question"])
            async with attached(again, name) as late:
                waiting = (await late.next())["waiting"]
                assert [(one["type"], one["prompt"]) for one in waiting] == [
                    ("input_request", prompt)
                ]
            await peer.send({"type": "input_reply", "value": "Ada"})
            assert await result_of(peer) == "'hello Ada'"
            assert (await peer.until("done", id="cell"))["status"] == "ok"
            numbers = [event["seq"] for event in peer.events[1:]]
            assert numbers == [*range(first["seq"] + 1, first["seq"] + 1 + len(numbers))]
        assert "Traceback" not in again.log


async def test_a_call_that_waits_is_made_again_to_who_comes_to_serve_it(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    serve = {"type": "tools", "id": "t", "tools": [TWICE]}
    with start_broker(*place) as broker:
        async with attached(broker, name) as peer:
            await peer.send(serve)
            await peer.send({"type": "execute", "id": "cell", "code": "twice(21)"})
            first = await peer.until("tool_call", id="cell")
            kill(broker)
    with start_broker(*place) as again:
        async with attached(again, name, after=first["seq"]) as peer:
            await peer.send(serve)
            call = await peer.until("tool_call", id="cell")
            # By the same id, so that who has served it already does not do so twice.
            assert {**call, "seq": 0} == {**first, "seq": 0}
            await peer.send({"type": "tool_result", "call": call["call"], "value": 42})
            assert await result_of(peer) == "42"
        assert "Traceback" not in again.log


async def test_a_call_that_nobody_comes_to_serve_ends_with_an_error_that_says_so(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    with start_broker(*place) as broker:
        async with attached(broker, name) as peer:
            await peer.send({"type": "tools", "id": "t", "tools": [TWICE]})
            await peer.send({"type": "execute", "id": "cell", "code": "twice(21)"})
            first = await peer.until("tool_call", id="cell")
            kill(broker)
    with start_broker(*place) as again:
        async with attached(again, name, after=first["seq"]) as peer:
            error = await peer.until("error", id="cell")
            assert error["name"] == "ToolError"
            assert error["message"].startswith("NotServed: nobody has come back to serve twice")


def test_a_client_is_asked_once_and_a_function_of_its_called_once_through_a_killed_broker(
    start_broker: StartBroker, place: tuple[Path, str, str]
) -> None:
    name = new_name()
    prompts: list[str] = []
    calls: list[int] = []
    asked, killed = threading.Event(), threading.Event()
    outcome: list[Any] = []

    def on_input(prompt: str, _: bool) -> str:
        prompts.append(prompt)
        if len(prompts) == 1:
            asked.set()
            killed.wait(60)
        return f"answer to {prompt}"

    def slow(n: int) -> int:
        calls.append(n)
        asked.set()
        killed.wait(60)
        return 2 * n

    def follow(url: str, token: str, code: str) -> None:
        with Broker(url, token).session(name) as session:
            session.tools.serve(slow)
            outcome.append(session.execute(code, on_input=on_input).value)

    def through(broker: RunningBroker, code: str) -> None:
        """Have the broker of a cell killed while it waits, and another in its place."""
        asked.clear()
        killed.clear()
        runner = threading.Thread(target=follow, args=(broker.url, broker.token, code))
        runner.start()
        assert asked.wait(60)
        kill(broker)
        with start_broker(*place, "--port", port_of(broker)):
            killed.set()
            runner.join(60)
            assert not runner.is_alive()

    with start_broker(*place) as broker:
        through(broker, "[input(prompt) for prompt in 'ab']")
    with start_broker(*place) as broker:
        through(broker, "slow(21)")
    assert prompts == ["a", "b"]
    assert calls == [21]
    assert outcome == [str([f"answer to {prompt}" for prompt in "ab"]), "42"]
