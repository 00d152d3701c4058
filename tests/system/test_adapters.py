"""The Python tool of agent frameworks: each with the framework it is for, on a real broker."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from anthropic.types import ToolParam, ToolResultBlockParam, ToolUseBlock
from langchain_core.messages import ToolMessage
from langchain_core.utils.function_calling import convert_to_openai_tool
from openai.types.chat import (
    ChatCompletionFunctionToolParam,
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionToolMessageParam,
)
from openai.types.responses import FunctionToolParam, ResponseFunctionToolCall
from openai.types.responses.response_input_param import FunctionCallOutput
from pydantic import TypeAdapter
from smolagents import CodeAgent, Model, Tool
from smolagents.models import ChatMessage, MessageRole

from broker.client import AsyncBroker, Broker, Result, Session
from broker.client.adapters import anthropic, openai
from broker.client.adapters.langchain import python_tool
from broker.client.adapters.smolagents import SessionExecutor
from broker.client.errors import NoServer
from tests.system.conftest import RunningBroker
from tests.system.peer import new_name

PLOT = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"


@pytest.fixture
def session(broker: RunningBroker) -> Iterator[Session]:
    with Broker(broker.url, broker.token).session(new_name()) as session:
        yield session


def checked(kind: Any, value: Any) -> Any:
    """Return the value, which the library's own type takes with every field it has."""
    found = TypeAdapter(kind).validate_python(value)
    assert TypeAdapter(kind).dump_python(found) == value
    return value


# OpenAI


def chat_call(code: str) -> ChatCompletionMessageFunctionToolCall:
    return ChatCompletionMessageFunctionToolCall.model_validate(
        {
            "id": "call_1",
            "type": "function",
            "function": {"name": "python", "arguments": json.dumps({"code": code})},
        }
    )


def test_openais_types_take_the_definitions_and_the_answers(session: Session) -> None:
    tool = openai.PythonTool(session)
    checked(ChatCompletionFunctionToolParam, tool.chat)
    checked(FunctionToolParam, tool.responses)

    assert tool.run(chat_call("x = 20")) == "status: ok"
    answer = checked(ChatCompletionToolMessageParam, tool.answer(chat_call("x + 1")))
    assert answer["tool_call_id"] == "call_1"
    assert answer["content"] == "status: ok\nresult:\n21"

    call = ResponseFunctionToolCall(
        call_id="call_2", name="python", arguments='{"code": "x + 2"}', type="function_call"
    )
    for form in (call, call.model_dump()):
        answer = checked(FunctionCallOutput, tool.answer(form))
        assert answer["call_id"] == "call_2"
        assert answer["output"] == "status: ok\nresult:\n22"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ('{"code": "1', "JSON"),
        ("[]", "code"),
        ('{"code": 1}', "code"),
        ('{"code": "1", "timeout": "2"}', "timeout"),
        ('{"code": "1", "timeout": -1}', "timeout"),
    ],
)
def test_what_a_model_gets_wrong_it_is_told(session: Session, arguments: str, word: str) -> None:
    call = {"id": "1", "function": {"name": "python", "arguments": arguments}}
    told = openai.PythonTool(session).run(call)
    assert told.startswith("status: not run\nnote: ")
    assert word in told


def test_a_call_of_another_tool_is_told_so_and_runs_nothing() -> None:
    nowhere = Broker("http://127.0.0.1:9", "t" * 16).session("a")
    chat = {"id": "1", "function": {"name": "shell", "arguments": '{"code": "1"}'}}
    response = {"call_id": "1", "name": "shell", "arguments": '{"code": "1"}'}
    block = {"type": "tool_use", "id": "1", "name": "shell", "input": {"code": "1"}}
    told = [openai.PythonTool(nowhere).run(call) for call in (chat, response)]
    told.append(anthropic.PythonTool(nowhere).run(block)["content"][0]["text"])
    for each in told:
        assert each.startswith("status: not run\nnote: there is no tool 'shell'")


def test_what_a_model_cannot_mend_is_raised(broker: RunningBroker) -> None:
    nowhere = Broker("http://127.0.0.1:9", "t" * 16).session("a")
    with pytest.raises(NoServer):
        openai.PythonTool(nowhere).run(chat_call("1"))


async def test_the_awaited_twin_runs_the_same(broker: RunningBroker) -> None:
    async with AsyncBroker(broker.url, broker.token).session(new_name()) as session:
        tool = openai.PythonTool(session)
        assert (await tool.aanswer(chat_call("6 * 7")))["content"] == "status: ok\nresult:\n42"
        with pytest.raises(TypeError, match="Session"):
            tool.run(chat_call("1"))


# Anthropic


def test_anthropics_types_take_the_definition_and_the_result(session: Session) -> None:
    tool = anthropic.PythonTool(session)
    checked(ToolParam, tool.definition)
    block = ToolUseBlock(id="toolu_1", name="python", input={"code": PLOT}, type="tool_use")
    for form in (block, block.model_dump()):
        answer = tool.run(form)
        TypeAdapter(ToolResultBlockParam).validate_python(answer)
        text, image = answer["content"]
        assert not answer["is_error"]
        assert answer["tool_use_id"] == "toolu_1"
        assert text["text"].startswith("status: ok\n")
        assert "[image 1: PNG, " in text["text"]
        assert base64.b64decode(image["source"]["data"]).startswith(b"\x89PNG")


def test_code_that_fails_is_an_error_with_its_line(session: Session) -> None:
    block = {"type": "tool_use", "id": "1", "name": "python", "input": {"code": "a = 1\na / 0"}}
    answer = anthropic.PythonTool(session).run(block)
    assert answer["is_error"]
    (content,) = answer["content"]
    assert content["text"].startswith("status: error\nerror:\n")
    assert "----> 2 a / 0" in content["text"]
    assert content["text"].endswith("ZeroDivisionError: division by zero")


async def test_a_refused_call_is_an_error_too(broker: RunningBroker) -> None:
    async with AsyncBroker(broker.url, broker.token).session(new_name()) as session:
        answer = await anthropic.PythonTool(session).arun({"id": "1", "input": {}})
        assert answer["is_error"]


# LangChain


def test_a_langchain_tool_answers_with_text_and_keeps_the_result(session: Session) -> None:
    tool = python_tool(session)
    spec = convert_to_openai_tool(tool)["function"]
    assert spec["name"] == "python"
    assert spec["parameters"]["required"] == ["code"]
    call = {"type": "tool_call", "id": "1", "name": "python", "args": {"code": "print(6)\n7"}}
    message = tool.invoke(call)
    assert isinstance(message, ToolMessage)
    assert message.content == "status: ok\nstdout:\n6\nresult:\n7"
    assert isinstance(message.artifact, Result)
    assert message.artifact.value == "7"


async def test_a_langchain_tool_is_awaited_with_either_session(broker: RunningBroker) -> None:
    name = new_name()
    with Broker(broker.url, broker.token).session(name) as session:
        assert await python_tool(session).ainvoke({"code": "x = 1; x"}) == "status: ok\nresult:\n1"
    async with AsyncBroker(broker.url, broker.token).session(name) as session:
        assert await python_tool(session).ainvoke({"code": "x + 1"}) == "status: ok\nresult:\n2"


def test_a_langchain_agent_is_told_of_a_refusal(session: Session) -> None:
    call = {
        "type": "tool_call",
        "id": "1",
        "name": "python",
        "args": {"code": "1", "timeout": -1.0},
    }
    message = python_tool(session).invoke(call)
    assert message.status == "error"
    assert message.content.startswith("status: not run\nnote: timeout")


@pytest.mark.parametrize(
    ("args", "word"),
    [({}, "code"), ({"code": 7}, "code"), ({"code": "1", "timeout": "2"}, "timeout")],
)
async def test_a_langchain_agent_is_told_of_arguments_that_are_none(args: Any, word: str) -> None:
    tool = python_tool(Broker("http://127.0.0.1:9", "t" * 16).session("a"))
    call = {"type": "tool_call", "id": "1", "name": "python", "args": args}
    for message in (tool.invoke(call), await tool.ainvoke(call)):
        assert message.status == "error"
        assert message.content.startswith("status: not run\nnote: ")
        assert word in message.content


# smolagents


class Doubler(Tool):
    name = "double"
    description = "Doubles a number."
    inputs = {"number": {"type": "integer", "description": "It."}}  # noqa: RUF012
    output_type = "integer"

    def forward(self, number: int) -> int:
        return number * 2


class Scripted(Model):
    """A model that says what it was told to say."""

    def __init__(self, *steps: str) -> None:
        super().__init__()
        self.steps = list(steps)
        self.heard: list[Any] = []

    def generate(self, messages: Any, **_: Any) -> ChatMessage:
        self.heard.append(messages)
        text = f"Thought: so.\n<code>\n{self.steps.pop(0)}\n</code>"
        return ChatMessage(role=MessageRole.ASSISTANT, content=text)


def agent(session: Session, *steps: str) -> CodeAgent:
    return CodeAgent(
        tools=[Doubler()],
        model=Scripted(*steps),
        executor=SessionExecutor(session),
        verbosity_level=0,
    )


def test_a_code_agent_runs_its_steps_in_the_session(session: Session) -> None:
    one = agent(
        session,
        "y = double(number=4)\nprint('eight', y)\ny",
        "final_answer({'twice': y * factor, 'as': (1, 2)})",
        "final_answer('x' * 200_000)",
    )
    assert one.run("go", additional_args={"factor": 3}) == {"twice": 24, "as": (1, 2)}
    assert "eight 8" in str(one.model.heard[1])
    assert one.run("again") == "x" * 200_000
    assert session.execute("y").value == "8"


def test_an_error_of_a_step_comes_with_its_line(session: Session) -> None:
    one = agent(session, "print('before')\nunknown", "final_answer(1)")
    assert one.run("go") == 1
    heard = str(one.model.heard[1])
    assert "before" in heard
    assert "NameError: name 'unknown' is not defined" in heard


def test_tools_are_there_again_after_a_kernel_was_lost(session: Session) -> None:
    one = agent(
        session, "import os, sys; sys.stdout.flush(); os._exit(3)", "final_answer(double(number=2))"
    )
    assert one.run("go") == 4
    assert "variables are gone" in str(one.model.heard[1])


def test_variables_are_sent_as_data(session: Session) -> None:
    hostile = "'''\"\"\"\\\n{x}; raise SystemExit"
    SessionExecutor(session).send_variables({"text": hostile, "pairs": {1: (2, 3)}, "s": {4}})
    assert session.execute("[text, pairs, s]").value == repr([hostile, {1: (2, 3)}, {4}])
