"""The Python clients answer what cells ask: lines of input, calls of functions."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from broker.client import AsyncBroker, BadRequest, Broker, ExecutionFailed
from tests.system.conftest import RunningBroker
from tests.system.peer import new_name


def slow_double(n: int) -> int:
    """Double a number, in 20 ms."""
    time.sleep(0.02)
    return 2 * n


def test_input_is_asked_of_a_callable(broker: RunningBroker) -> None:
    asked: list[tuple[str, bool]] = []

    def on_input(prompt: str, password: bool) -> str | None:
        asked.append((prompt, password))
        return None if prompt == "end" else prompt.upper()

    with Broker(broker.url, broker.token).session(new_name()) as session:
        code = "import getpass\ninput('a'), getpass.getpass('b')"
        assert session.execute(code, on_input=on_input).value == "('A', 'B')"
        assert asked == [("a", False), ("b", True)]
        result = session.execute("input('end')", on_input=on_input)
        assert result.error is not None
        assert result.error.name == "EOFError"


def test_without_a_callable_input_is_at_its_end(broker: RunningBroker) -> None:
    with Broker(broker.url, broker.token).session(new_name()) as session:
        result = session.execute("input()")
        assert result.error is not None
        assert result.error.name == "EOFError"


def test_a_batch_and_a_call_have_no_input(broker: RunningBroker) -> None:
    with Broker(broker.url, broker.token).session(new_name()) as session:
        assert session.batch(["input()"])[0].error.name == "EOFError"
        with pytest.raises(ExecutionFailed, match="StdinNotImplementedError"):
            session.call("lambda: input()")


def test_a_callable_that_raises_ends_the_input_and_is_raised(broker: RunningBroker) -> None:
    def on_input(prompt: str, password: bool) -> str:
        raise LookupError("nobody is there")

    with Broker(broker.url, broker.token).session(new_name()) as session:
        with pytest.raises(LookupError):
            session.execute("input()", on_input=on_input, stop_on_error=False)
        assert session.execute("1").value == "1"


def test_functions_are_called_from_the_cell(broker: RunningBroker) -> None:
    def fail(what: str) -> None:
        raise PermissionError(what)

    def nested(value: Any) -> Any:
        return {"again": value, "raw": bytes(value["raw"]) + b"\xff"}

    with Broker(broker.url, broker.token).session(new_name()) as session:
        assert session.tools.serve(slow_double, fail, nested) == ["slow_double", "fail", "nested"]
        assert session.execute("slow_double(21)").value == "42"
        assert session.execute("tools.slow_double(n=4)").value == "8"
        result = session.execute("fail('no')")
        assert str(result.error) == "ToolError: PermissionError: no"
        value = session.execute("nested({'raw': b'\\x00', 'deep': [[None, 1.5]]})").value
        assert value == (
            "{'again': {'raw': b'\\x00', 'deep': [[None, 1.5]]}, 'raw': b'\\x00\\xff'}"
        )
        result = session.execute("slow_double('x')")
        assert str(result.error) == "TypeError: slow_double() n: expected integer, got str"
        assert session.tools.serve(double=slow_double) == ["double"]
        assert session.execute("double(1), 'slow_double' in globals()").value == "(2, False)"
        with pytest.raises(BadRequest):
            session.tools.serve(**{"class": slow_double})
        session.tools.serve()
        result = session.execute("double(1)")
        assert result.error is not None
        assert result.error.name == "NameError"


def test_what_is_no_plain_data_is_an_error_in_the_cell(broker: RunningBroker) -> None:
    with Broker(broker.url, broker.token).session(new_name()) as session:
        session.tools.serve(odd=object, large=lambda: "x" * (5 << 20))
        assert str(session.execute("odd()").error).startswith("ToolError: TypeError: ")
        assert str(session.execute("large()").error).startswith("ToolError: BadRequest: ")


def test_twenty_calls_in_one_cell_cost_little_beside_the_tool(
    broker: RunningBroker, record_property: Any
) -> None:
    with Broker(broker.url, broker.token).session(new_name()) as session:
        session.tools.serve(slow_double)
        session.execute("slow_double(1)")
        began = time.monotonic()
        result = session.execute("[slow_double(n) for n in range(20)]")
        one_by_one = time.monotonic() - began
        began = time.monotonic()
        session.execute(
            "import asyncio\nawait asyncio.gather(*(slow_double.aio(n) for n in range(20)))"
        )
        at_once = time.monotonic() - began
    assert result.value == str([2 * n for n in range(20)])
    record_property("seconds", {"one by one": one_by_one, "at once": at_once})
    assert 0.4 <= one_by_one < 2
    assert at_once < 0.4


def test_calls_of_several_threads_are_served_at_once(broker: RunningBroker) -> None:
    together = threading.Barrier(4, timeout=20)

    def meet(n: int) -> int:
        together.wait()
        return n

    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n    met = list(pool.map(meet, range(4)))\nmet"
    )
    with Broker(broker.url, broker.token).session(new_name()) as session:
        session.tools.serve(meet)
        assert session.execute(code).value == "[0, 1, 2, 3]"


@pytest.mark.asyncio
async def test_the_asyncio_client_answers_with_tasks(broker: RunningBroker) -> None:
    async def line(prompt: str, password: bool) -> str:
        await asyncio.sleep(0)
        return prompt * 2

    together = asyncio.Barrier(5)

    async def meet(n: int) -> int:
        async with asyncio.timeout(20):
            await together.wait()
        return n

    async with AsyncBroker(broker.url, broker.token).session(new_name()) as session:
        assert (await session.execute("input('a')", on_input=line)).value == "'aa'"
        assert (await session.execute("input('a')", on_input=lambda p, _: p)).value == "'a'"
        assert await session.tools.serve(meet, slow_double) == ["meet", "slow_double"]
        code = "import asyncio\nawait asyncio.gather(*(meet.aio(n) for n in range(5)))"
        assert (await session.execute(code)).value == "[0, 1, 2, 3, 4]"
        assert (await session.execute("slow_double(3)")).value == "6"
        with pytest.raises(BadRequest):
            await session.tools.serve(**{"class": meet})


def test_a_server_that_lost_its_connection_serves_on(broker: RunningBroker) -> None:
    begun, go_on, calls = threading.Event(), threading.Event(), []

    def wait(n: int) -> int:
        calls.append(n)
        begun.set()
        go_on.wait(20)
        return n

    with Broker(broker.url, broker.token).session(new_name()) as session:
        session.tools.serve(wait)
        done: list[Any] = []
        running = threading.Thread(target=lambda: done.append(session.execute("wait(5)")))
        running.start()
        assert begun.wait(20)
        server = session.tools
        old = server._socket
        assert old is not None
        old.socket.shutdown(2)  # as a network does
        while server._socket is old:
            pass
        go_on.set()
        running.join(20)
        assert done[0].value == "5"
        assert calls == [5]
