"""What a cell asks of those who run it: lines of input, calls of host tools; and their answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kernels.inside.tagged import unpacked
from kernels.launch import Launcher
from kernels.messages import Message
from kernels.spec import Limits
from tests.kernels.talk import LIGHT, Said, Talk, launching, talking

pytestmark = pytest.mark.asyncio(loop_scope="module")

WEATHER = {
    "name": "get_weather",
    "description": "Tell the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "default": 1},
            "unit": {"enum": ["C", "F"]},
        },
        "required": ["city"],
    },
}
FREE = {"name": "echo"}


class Asked:
    """Whoever runs the cells of a kernel, and what they ask."""

    def __init__(self, talk: Talk) -> None:
        self.talk = talk
        self.requests: list[Message] = []
        self.serve: Callable[[Message], None] = lambda message: None
        heard = talk.kernel.channels.receiver
        assert heard is not None

        def take(channel: str, message: Message) -> None:
            if channel == "stdin":
                self.requests.append(message)
                self.serve(message)
            heard(channel, message)
            talk._changed.set()

        talk.kernel.channels.receiver = take

    def start(self, code: str, **broker: Any) -> Said:
        return self.talk.start(code, allow_stdin=True, **({"broker": broker} if broker else {}))

    async def run(self, code: str, **broker: Any) -> Said:
        return await self.talk.end(self.start(code, **broker))

    async def until(self, count: int) -> Message:
        await self.talk.until(lambda: len(self.requests) >= count)
        return self.requests[-1]

    def reply(self, value: str, **fields: Any) -> None:
        self.talk.kernel.channels.send("stdin", "input_reply", {"value": value, **fields})

    def result(self, call: Message, **fields: Any) -> None:
        content = {"call": call.metadata["call"], **fields}
        self.talk.kernel.channels.send("stdin", "broker_tool_result", content)


@pytest_asyncio.fixture(loop_scope="module")
async def asked(launcher: Launcher) -> Any:
    async with talking(launcher) as talk:
        yield Asked(talk)


# Input


@pytest.mark.parametrize(
    ("code", "prompt", "password"),
    [
        ("input('name? ')", "name? ", False),
        ("import getpass; getpass.getpass('secret: ')", "secret: ", True),
        ("import threading\nsaid = []\nt = threading.Thread(target=lambda: "
         "said.append(input('name? ')))\nt.start(); t.join()\nsaid[0]", "name? ", False),
        ("import asyncio\nawait asyncio.sleep(0)\ninput('name? ')", "name? ", False),
        ("import asyncio\nawait asyncio.to_thread(input, 'name? ')", "name? ", False),
    ],
    ids=["input", "getpass", "thread", "await", "to_thread"],
)  # fmt: skip
async def test_a_cell_that_asks_gets_the_line(
    asked: Asked, code: str, prompt: str, password: bool
) -> None:
    said = asked.start(code)
    request = await asked.until(1)
    assert request.type == "input_request"
    assert request.content == {"prompt": prompt, "password": password}
    asked.reply("Ada")
    await asked.talk.end(said)
    assert said.value == "'Ada'"


async def test_what_was_printed_before_is_out_before_the_question(asked: Asked) -> None:
    said = asked.start("print('first', end='')\ninput()")
    await asked.until(1)
    await asked.talk.until(lambda: said.text() == "first")
    asked.reply("")
    await asked.talk.end(said)


async def test_a_loop_asks_once_for_each_line(asked: Asked) -> None:
    asked.serve = lambda message: asked.reply(f"{len(asked.requests)}")
    assert (await asked.run("[input() for _ in range(3)]")).value == "['1', '2', '3']"


async def test_threads_that_ask_at_once_are_answered_one_after_the_other(asked: Asked) -> None:
    asked.serve = lambda message: asked.reply(message.content["prompt"].upper())
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool:\n    said = list(pool.map(input, 'abcdefgh'))\nsaid"
    )
    assert (await asked.run(code)).value == str(list("ABCDEFGH"))


async def test_the_end_of_input_is_told(asked: Asked) -> None:
    asked.serve = lambda message: asked.reply("\x04")
    assert (await asked.run("input()")).value == "EOFError: "


async def test_a_refusal_is_told_with_its_reason(asked: Asked) -> None:
    asked.serve = lambda message: asked.reply("\x04", refused="nobody is there")
    said = await asked.run("input()")
    assert said.value == "StdinNotImplementedError: nobody is there"


async def test_where_nobody_answers_input_is_refused_at_once(asked: Asked) -> None:
    assert (await asked.talk.value("input()")).startswith("StdinNotImplementedError: ")
    value = await asked.talk.value("import getpass; getpass.getpass()")
    assert value.startswith("StdinNotImplementedError: ")
    assert asked.requests == []


async def test_an_interrupt_ends_the_wait_and_a_late_answer_is_nobodys(asked: Asked) -> None:
    said = asked.start("input()")
    await asked.until(1)
    await asked.talk.interrupt()
    await asked.talk.end(said)
    assert said.value == "KeyboardInterrupt: "
    asked.reply("too late", **asked.requests[0].metadata)
    asked.serve = lambda message: asked.reply("in time")
    assert (await asked.run("input()")).value == "'in time'"


@pytest.mark.parametrize("before", ["", "import asyncio\nawait asyncio.sleep(0)\n"])
async def test_a_second_interrupt_does_not_keep_the_first_from_being_told(
    asked: Asked, before: str
) -> None:
    await asked.run(
        "import os, signal\nshown = get_ipython().InteractiveTB\n"
        "first = shown.structured_traceback\n"
        "def slow(*args, **options):\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return first(*args, **options)\nshown.structured_traceback = slow"
    )
    said = await asked.run(before + "os.kill(os.getpid(), signal.SIGINT)\nfor _ in range(10**6): 0")
    assert said.value == "KeyboardInterrupt: "
    assert len(said.contents("error")) == 1


@pytest.mark.parametrize("content", [{}, {"value": 1}, {"value": None}, {"value": ["x"]}])
async def test_an_answer_that_is_none_is_left_out(asked: Asked, content: dict[str, Any]) -> None:
    said = asked.start("input()")
    await asked.until(1)
    asked.talk.kernel.channels.send("stdin", "input_reply", content)
    asked.reply("real")
    await asked.talk.end(said)
    assert said.value == "'real'"


@pytest.mark.parametrize("code", ["x = 1\nbreakpoint()\ndone = 1", "1/0"], ids=["break", "post"])
async def test_the_debugger_talks_through_input(asked: Asked, code: str) -> None:
    lines = iter(["p 6 * 7", "c" if "break" in code else "q"])
    asked.serve = lambda message: asked.reply(next(lines))
    if code == "1/0":
        await asked.run(code)
        code = "%debug"
    said = await asked.run(code)
    assert said.status == "ok", said.value
    assert "42" in said.text()
    assert next(lines, None) is None


async def test_a_child_that_asks_is_refused(asked: Asked) -> None:
    said = await asked.run(
        "import os\nr, w = os.pipe()\nif os.fork() == 0:\n"
        "    try:\n        input()\n    except BaseException as error:\n"
        "        os.write(w, type(error).__name__.encode())\n    os._exit(0)\nos.read(r, 99)"
    )
    assert said.value == "b'StdinNotImplementedError'"


# Host tools


async def test_a_tool_is_called_as_a_function_and_returns_its_value(asked: Asked) -> None:
    value = {"sunny": True, "raw": {"$bytes": "AAE="}, "n": [1, 2.5, None]}
    asked.serve = lambda message: asked.result(message, value=value)
    said = await asked.run("get_weather(city='Oslo')", tools=[WEATHER])
    assert said.value == "{'sunny': True, 'raw': b'\\x00\\x01', 'n': [1, 2.5, None]}"
    (call,) = asked.requests
    assert call.type == "broker_tool_call"
    assert call.metadata["name"] == "get_weather"
    assert call.content == {"args": [], "kwargs": {"city": "Oslo"}}


async def test_arguments_cross_as_plain_data(asked: Asked) -> None:
    asked.serve = lambda message: asked.result(message, value=message.content["args"][0])
    code = "x = {'b': b'\\xff', 'big': 2**70, 'nan': float('inf'), '$int': 5, 'd': {'$bytes': 1}}"
    said = await asked.run(f"{code}\necho(x) == x", tools=[FREE])
    assert said.value == "True"
    assert unpacked(asked.requests[0].content["args"][0])["b"] == b"\xff"


async def test_an_answer_that_cannot_be_read_ends_the_call(asked: Asked) -> None:
    said = asked.start("echo(1)", tools=[FREE])
    asked.result(await asked.until(1), error={"name": "Odd"})
    await asked.talk.end(said)
    assert said.value == "ToolError: BadAnswer: what echo answered cannot be read"


async def test_what_a_tool_fails_with_is_raised_in_the_cell(asked: Asked) -> None:
    error = {"name": "LookupError", "message": "no such city"}
    asked.serve = lambda message: asked.result(message, error=error)
    said = await asked.run("get_weather('Atlantis')", tools=[WEATHER])
    assert said.value == "ToolError: LookupError: no such city"
    code = (
        "try:\n    get_weather('x')\nexcept ToolError as error:\n    e = error\ne.name, e.message, "
        "isinstance(e, tools.ToolError)"
    )
    assert (await asked.run(code)).value == "('LookupError', 'no such city', True)"
    traceback = "".join(said.contents("error")[0]["traceback"])
    assert "asking.py" not in traceback


@pytest.mark.parametrize(
    ("call", "why"),
    [
        ("get_weather()", "get_weather() missing a required argument: 'city'"),
        ("get_weather(city=5)", "get_weather() city: expected string, got int"),
        ("get_weather('x', days='2')", "get_weather() days: expected integer, got str"),
        ("get_weather('x', days=True)", "get_weather() days: expected integer, got bool"),
        ("get_weather('x', unit='K')", "get_weather() unit: expected one of 'C', 'F'; got 'K'"),
        ("get_weather('x', 1, 'C', 4)", "get_weather() too many positional arguments"),
        ("get_weather('x', town='y')", "get_weather() got an unexpected keyword argument 'town'"),
        ("tools.echo({1: 2})", "a key that is no text: int"),
        ("tools.echo(object())", "object is not plain data"),
    ],
)
async def test_a_wrong_argument_is_told_where_it_is_given(
    asked: Asked, call: str, why: str
) -> None:
    assert (await asked.run(call, tools=[WEATHER, FREE])).value == f"TypeError: {why}"
    assert asked.requests == []


async def test_a_tool_tells_its_signature_and_what_it_does(asked: Asked) -> None:
    code = "import inspect; str(inspect.signature(get_weather)), get_weather.__doc__, tools"
    said = await asked.run(code, tools=[WEATHER])
    assert said.value == (
        "('(city, days=1, unit=...)',\n 'Tell the weather of a city.',\n "
        "<host tool get_weather(city, days=1, unit=...)>)"
    )


async def test_a_variable_of_the_same_name_is_left_alone(asked: Asked) -> None:
    asked.serve = lambda message: asked.result(message, value="served")
    await asked.run("get_weather = 'mine'")
    assert (await asked.run("get_weather", tools=[WEATHER])).value == "'mine'"
    assert (await asked.run("tools.get_weather('x')")).value == "'served'"
    assert (await asked.run("del get_weather")).status == "ok"
    assert (await asked.run("get_weather('x')")).value == "'served'"
    assert (await asked.run("print", tools=[{"name": "print"}])).value.startswith("<function print")


async def test_the_next_cell_sees_the_tools_of_now(asked: Asked) -> None:
    await asked.run("kept = get_weather", tools=[WEATHER])
    said = await asked.run("[name for name in ('get_weather', 'echo') if name in globals()]",
                           tools=[FREE])  # fmt: skip
    assert said.value == "['echo']"
    assert (await asked.run("tools.get_weather")).value == (
        "AttributeError: no host tool 'get_weather'; there are: echo"
    )
    await asked.run("", tools=[])
    assert (await asked.run("tools")).value == "NameError: name 'tools' is not defined"


async def test_calls_are_awaited_together(asked: Asked) -> None:
    held: list[Message] = []

    def serve(message: Message) -> None:
        held.append(message)
        if len(held) == 10:  # none is answered before all are there
            for each in reversed(held):
                asked.result(each, value=each.content["args"][0] * 2)

    asked.serve = serve
    code = "import asyncio\nawait asyncio.gather(*(echo.aio(n) for n in range(10)))"
    assert (await asked.run(code, tools=[FREE])).value == str([2 * n for n in range(10)])


async def test_calls_of_threads_go_on_beside_each_other(asked: Asked) -> None:
    held: list[Message] = []

    def serve(message: Message) -> None:
        held.append(message)
        if len(held) == 8:
            for each in held:
                asked.result(each, value=each.content["args"][0])

    asked.serve = serve
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool:\n    said = list(pool.map(echo, range(8)))\nsaid"
    )
    assert (await asked.run(code, tools=[FREE])).value == str(list(range(8)))


async def test_no_more_calls_are_out_at_once_than_the_bound(asked: Asked) -> None:
    code = "import asyncio\nsum(await asyncio.gather(*(echo.aio(n) for n in range(200))))"
    said = asked.start(code, tools=[FREE])
    await asked.until(64)
    served = 0
    while served < 200:
        await asked.until(served + 1)
        assert len(asked.requests) - served <= 64
        asked.result(asked.requests[served], value=1)
        served += 1
    await asked.talk.end(said)
    assert said.value == "200"


async def test_the_bound_on_open_calls_is_the_specs(directory: Path) -> None:
    spec = replace(LIGHT, limits=Limits(tool_calls=3))
    async with launching(directory, "none", spec) as launcher, talking(launcher) as talk:
        asked = Asked(talk)
        code = "import asyncio\nsum(await asyncio.gather(*(echo.aio(n) for n in range(5))))"
        said = asked.start(code, tools=[FREE])
        await asked.until(3)
        await talk.end(talk.ask("interrupt_request", {"request": "of nobody"}, "control"))
        assert len(asked.requests) == 3  # what was said before that answer has come
        for served in range(5):
            await asked.until(served + 1)
            asked.result(asked.requests[served], value=1)
        await talk.end(said)
        assert said.value == "5"


@pytest.mark.parametrize("code", ["echo(1)", "await echo.aio(1)"])
async def test_an_interrupt_ends_a_call_and_says_that_nobody_waits(asked: Asked, code: str) -> None:
    said = asked.start(code, tools=[FREE])
    call = await asked.until(1)
    await asked.talk.interrupt()
    await asked.talk.end(said)
    assert said.status == "error"
    assert said.value.startswith(("KeyboardInterrupt", "CancelledError"))
    cancel = await asked.until(2)
    assert (cancel.type, cancel.metadata) == ("broker_tool_cancel", call.metadata)
    asked.result(call, value=1)
    asked.serve = lambda message: asked.result(message, value="next")
    assert (await asked.run("echo(2)")).value == "'next'"


async def test_arguments_over_the_bound_are_refused_in_the_cell(asked: Asked) -> None:
    said = await asked.run("echo('x' * (1 << 20))", tools=[FREE])
    assert said.value.startswith("ToolError: TooLarge: the arguments of echo take 1,04")
    assert asked.requests == []


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": []},
        {"properties": {"class": {}, "a b": {}, "others": {}}, "required": ["a b", 5]},
        {"properties": {"x": 5, "y": {"type": 5}, "z": {"type": ["nothing"]}}},
        {"required": "x", "type": "string"},
        {"properties": {"x": {"enum": 5, "items": 5, "properties": 5}}},
    ],
)
async def test_a_strange_schema_costs_no_cell(asked: Asked, schema: dict[str, Any]) -> None:
    said = await asked.run("tools.odd is not None", tools=[{"name": "odd", "parameters": schema}])
    assert said.value == "True"


class Absent:
    """Whoever runs the cells, while it is away: its stdin channel is closed until it is back."""

    def __init__(self, asked: Asked) -> None:
        self._channels = asked.talk.kernel.channels
        self._prefix = asked.talk.kernel.directory / "k"
        self._channels._links["stdin"].close()

    def back(self) -> None:
        """Come again by the same name, and have what waits asked again."""
        self._channels._links["stdin"] = self._channels._link("stdin", self._prefix, 1 << 20)
        self._channels.ask_again()


async def test_what_waits_is_asked_again_when_whoever_runs_the_cell_comes_back(
    asked: Asked,
) -> None:
    code = "import asyncio\nawait asyncio.gather(echo.aio(1), asyncio.to_thread(input, 'name? '))"
    said = asked.start(code, tools=[FREE])
    await asked.until(2)
    Absent(asked).back()
    await asked.until(4)
    first, again = asked.requests[:2], asked.requests[2:]
    told = [{(m.type, str(m.metadata), m.content_bytes) for m in some} for some in (first, again)]
    assert told[0] == told[1]
    asked.result(next(m for m in again if m.type == "broker_tool_call"), value="served")
    asked.reply("Ada")
    await asked.talk.end(said)
    assert said.value == "['served', 'Ada']"


async def test_what_is_asked_while_nobody_is_there_waits_for_whoever_comes_back(
    asked: Asked,
) -> None:
    absent = Absent(asked)
    said = asked.start("print('up', flush=True)\ninput('name? '), echo(1)", tools=[FREE])
    await asked.talk.until(lambda: said.text() == "up\n")
    asked.serve = lambda message: (
        asked.reply("Ada") if message.type == "input_request" else asked.result(message, value=2)
    )
    absent.back()
    await asked.talk.end(said)
    assert said.value == "('Ada', 2)"


async def test_what_was_answered_is_not_asked_again(asked: Asked) -> None:
    asked.serve = lambda message: asked.reply("Ada")
    said = asked.start("input()\nprint('up', flush=True)\necho(1)", tools=[FREE])
    await asked.until(2)
    Absent(asked).back()
    last = await asked.until(3)
    assert (last.type, asked.requests[1].type) == ("broker_tool_call", "broker_tool_call")
    asked.result(last, value=1)
    await asked.talk.end(said)
    assert said.value == "1"


async def test_an_interrupt_ends_a_wait_for_whoever_has_gone(asked: Asked) -> None:
    said = asked.start("input()")
    await asked.until(1)
    absent = Absent(asked)
    await asked.talk.interrupt()
    await asked.talk.end(said)
    assert said.value == "KeyboardInterrupt: "
    absent.back()
    asked.serve = lambda message: asked.reply("in time")
    assert (await asked.run("input()")).value == "'in time'"
    assert len({message.metadata["asked"] for message in asked.requests}) == 2
