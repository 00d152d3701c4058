"""What the client tells of a function, and how it keeps calls apart."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from typing import Annotated, Any, Literal, Optional

import pytest

from broker.client import AsyncBroker, BadRequest, Broker, SessionGone, Unauthorized
from broker.client.aio_files import AsyncFiles
from broker.client.tools import KEPT, Register, describe, failure, may_concern, named, schema_of
from broker.client.wire import JSON, MSGPACK, encode
from tests.broker.scripted_peer import TOKEN, Peer, running_peer


def weather(
    city: str, days: int = 1, *, unit: Literal["C", "F"] = "C", raw: bytes | None = None
) -> str:
    """Tell the weather.

    Of a city.
    """
    return city


def test_a_function_is_told_of_by_its_signature_and_docstring() -> None:
    assert describe("weather", weather) == {
        "name": "weather",
        "description": "Tell the weather.\n\nOf a city.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "days": {"type": "integer", "default": 1},
                "unit": {"enum": ["C", "F"], "default": "C"},
                "raw": {
                    "anyOf": [{"type": "string", "format": "binary"}, {"type": "null"}],
                    "default": None,
                },
            },
            "required": ["city"],
        },
    }


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (float, {"type": "number"}),
        (Optional[int], {"type": ["integer", "null"]}),  # noqa: UP045
        (list[str], {"type": "array", "items": {"type": "string"}}),
        (Sequence[int], {"type": "array", "items": {"type": "integer"}}),
        (tuple[int, str], {"type": "array"}),
        (dict[str, int], {"type": "object"}),
        (Mapping[str, int], {"type": "object"}),
        (Annotated[int, "a", []], {"type": "integer"}),
        (int | Any, {}),
        (Any, {}),
        (object, {}),
    ],
)
def test_a_hint_is_a_schema(hint: Any, schema: dict[str, Any]) -> None:
    assert schema_of(hint) == schema


def test_what_takes_any_arguments_is_told_of_without_a_schema() -> None:
    assert "parameters" not in describe("f", lambda *args: args)
    assert "parameters" not in describe("p", print)
    assert describe("f", lambda a, **more: a)["parameters"]["additionalProperties"] is True


def test_a_default_that_is_no_json_is_left_out() -> None:
    assert describe("f", lambda a=print: a)["parameters"]["properties"] == {"a": {}}


def test_two_functions_of_one_name_are_refused() -> None:
    assert named((weather,), {"other": weather}) == {"other": weather, "weather": weather}
    for wrong in ((weather, weather), (lambda: 1,)):
        with pytest.raises(BadRequest):
            named(wrong, {})


def test_an_error_is_its_name_and_message_alone() -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    error = failure("c", ValueError("x" * 9999))["error"]
    assert (error["name"], len(error["message"])) == ("ValueError", 4096)
    assert failure("c", Odd())["error"] == {"name": "Odd", "message": ""}


def test_a_call_is_taken_once_and_by_its_own_registration() -> None:
    register = Register()
    register.functions = {"f": weather}
    request = register.message()["id"]
    event = {"type": "tool_call", "call": "1", "name": "f", "tools": request}
    assert register.take({**event, "tools": "another's"}) is None
    assert register.take(event) is weather
    assert register.take(event) is None
    assert register.again(event) is None  # it is being called
    register.note("1", {"value": 5})
    again = {**event, "tools": register.message()["id"]}
    assert register.again(again) == {"value": 5}
    register.take({**again, "call": "slow"})
    for number in range(2 * KEPT):
        register.take({**again, "call": f"c{number}"})
        register.note(f"c{number}", {})
    assert len(register._taken) == KEPT
    assert register.take({**again, "call": "slow"}) is None  # however many came after it


@pytest.mark.parametrize("subprotocol", [JSON, MSGPACK])
def test_other_frames_are_not_looked_at(subprotocol: str) -> None:
    for kind in ("tool_call", "reply", "fault", "stream", "display", "done", "session"):
        frame = encode(subprotocol, {"type": kind, "id": "x", "text": "é tool_call" * 20})
        assert may_concern(frame) is (kind in ("tool_call", "reply", "fault"))


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running_peer() as scripted:
        yield scripted


def test_threads_that_register_tools_at_once_are_all_answered(peer: Peer) -> None:
    with Broker(peer.url, peer.token).session("a") as session, ThreadPoolExecutor(8) as pool:
        names = [f"tool{number}" for number in range(8)]
        found = pool.map(lambda name: session.tools.serve(**{name: abs}), names)
        assert [*found] == [[name] for name in names]


async def test_tasks_that_register_tools_at_once_share_a_connection(peer: Peer) -> None:
    async with AsyncBroker(peer.url, peer.token).session("a") as session:
        names = [f"tool{number}" for number in range(8)]
        found = await asyncio.gather(*(session.tools.serve(**{name: abs}) for name in names))
        assert found == [[name] for name in names]
        assert len(peer.sockets) == 2  # the one that runs code is the other


def test_a_server_that_found_no_broker_once_connects_when_it_is_asked_again(peer: Peer) -> None:
    with Broker(peer.url, peer.token).session("a") as session:
        tools = session.tools
        tools.serve(abs)
        pool = tools._pool
        peer.close(4404)
        assert tools._reader is not None
        tools._reader.join(20)
        for token in ("another", "another", TOKEN):
            peer.token = token
            if token != TOKEN:
                with pytest.raises(Unauthorized):
                    tools.serve(abs)
                assert isinstance(tools.error, SessionGone)
            else:
                assert tools.serve(abs) == ["abs"]
        assert tools.error is None
        assert tools._pool is pool


async def test_the_one_for_asyncio_connects_again_as_well(peer: Peer) -> None:
    async with AsyncBroker(peer.url, peer.token).session("a") as session:
        tools = session.tools
        await tools.serve(abs)
        peer.close(4404)
        assert tools._reader is not None
        await tools._reader
        peer.token = "another"
        for _ in range(2):
            with pytest.raises(Unauthorized):
                await tools.serve(abs)
            assert isinstance(tools.error, SessionGone)
        peer.token = TOKEN
        assert await tools.serve(abs) == ["abs"]
        assert tools.error is None


async def test_what_is_closed_while_it_connects_leaves_no_connection(peer: Peer) -> None:
    async with AsyncBroker(peer.url, peer.token).session("a") as session:
        peer.call(peer.gate.clear)
        serving = asyncio.create_task(session.tools.serve(abs))
        await asyncio.to_thread(peer.wait_for_knocks, 2)
        closing = asyncio.create_task(session.tools.close())
        await asyncio.sleep(0)
        peer.call(peer.gate.set)
        await asyncio.gather(serving, closing, return_exceptions=True)
        await session._line.close()
        await asyncio.to_thread(peer.wait_for_none)
        assert session.tools._socket is None


def test_a_thread_that_closes_while_another_connects_leaves_no_connection(peer: Peer) -> None:
    session = Broker(peer.url, peer.token).session("a")
    peer.call(peer.gate.clear)
    with ThreadPoolExecutor(2) as pool:
        serving = pool.submit(session.tools.serve, abs)
        peer.wait_for_knocks(1)
        closing = pool.submit(session.tools.close)
        assert session.tools._leaving.wait(20)
        peer.call(peer.gate.set)
        closing.result(20)
        serving.exception(20)
    peer.wait_for_none()
    assert session.tools._socket is None


class Pieces:
    """A file whose second piece comes when it is let go."""

    def __init__(self) -> None:
        self.waits, self.go = threading.Event(), threading.Event()
        self.closed = False

    def stream(self, path: str, **options: Any) -> Iterator[bytes]:
        try:
            yield b"first"
            self.waits.set()
            self.go.wait(20)
            yield b"second"
        finally:
            self.closed = True


async def test_a_cancelled_download_is_cancelled_and_closed() -> None:
    pieces = Pieces()

    async def download() -> None:
        async with aclosing(AsyncFiles(pieces).stream("x")) as coming:  # type: ignore[arg-type]
            async for _ in coming:
                pass

    task = asyncio.create_task(download())
    await asyncio.to_thread(pieces.waits.wait, 20)
    task.cancel()
    await asyncio.wait([task], timeout=0.1)  # a thread is still in it
    pieces.go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pieces.closed
