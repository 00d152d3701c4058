"""A session as a function tool of OpenAI's APIs, and of those that speak like them.

tool = PythonTool(broker.session("chat-42"))
client.chat.completions.create(…, tools=[tool.chat])      # or responses.create, tool.responses
messages.append(tool.answer(call))                        # for each call of the model
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from broker.client.aio import AsyncSession
from broker.client.errors import BrokerError
from broker.client.sync import Session

from . import words
from .running import arun, part, run


@dataclass(frozen=True, slots=True)
class PythonTool:
    """The tool; with an `AsyncSession`, await the methods that begin with `a`."""

    session: Session | AsyncSession
    name: str = words.NAME
    description: str = words.DESCRIPTION
    most: int = words.MOST  # characters of an answer

    @property
    def chat(self) -> dict[str, Any]:
        """Return the definition for Chat Completions."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": words.PARAMETERS,
            },
        }

    @property
    def responses(self) -> dict[str, Any]:
        """Return the definition for the Responses API."""
        # Not strict: that would make every parameter a required one.
        return {"type": "function", "strict": False, **self.chat["function"]}

    def run(self, call: object) -> str:
        """Run what the model calls for, an object or a map of either API; return its answer."""
        try:
            return words.told(run(self.session, self._arguments(call)), self.most)
        except BrokerError as error:
            return words.refusal(error, self.most)

    async def arun(self, call: object) -> str:
        """Do as `run`."""
        try:
            return words.told(await arun(self.session, self._arguments(call)), self.most)
        except BrokerError as error:
            return words.refusal(error, self.most)

    def answer(self, call: object) -> dict[str, Any]:
        """Run a call and return the message, or the input item, that answers it."""
        return _answer(call, self.run(call))

    async def aanswer(self, call: object) -> dict[str, Any]:
        """Do as `answer`."""
        return _answer(call, await self.arun(call))

    def _arguments(self, call: object) -> object:
        function = part(call, "function")  # of Chat Completions
        called = call if function is None else function
        words.check_name(part(called, "name"), self.name)
        return part(called, "arguments")


def _answer(call: object, text: str) -> dict[str, Any]:
    if (call_id := part(call, "call_id")) is not None:
        return {"type": "function_call_output", "call_id": call_id, "output": text}
    return {"role": "tool", "tool_call_id": part(call, "id"), "content": text}
