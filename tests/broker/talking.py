"""A session whose cell asks, and calls."""

from __future__ import annotations

from typing import Any

from broker.requests import Tool, ToolResult, Tools
from tests.broker.session_fakes import FakeClient, Scene

MOST_CALLS, TOOL_GRACE = 5, 4.0


CITY = Tool(name="weather", parameters={"type": "object", "properties": {"city": {}}})


class Talking(Scene):
    """A session whose kernel runs a cell, and asks."""

    def __init__(self, *, answers: bool = True, **limits: Any) -> None:
        bounds = {"tool_calls": MOST_CALLS, "tool_grace": TOOL_GRACE}
        super().__init__(**{**bounds, **limits})
        self.submit("a", answers=answers)
        self.kernel.begin()
        self.dialogue = self.session.work.dialogue
        self.replies = self.kernel.channels.answers

    def ask(
        self,
        prompt: object = "name? ",
        number: str = "7",
        parent: str | None = None,
        **fields: Any,
    ) -> bool | None:
        content = {"prompt": prompt, "password": False, **fields}
        return self.kernel.say("stdin", "input_request", content, parent, {"asked": number})

    def offer(self, *tools: Tool, client: FakeClient | None = None, name: str = "t") -> Any:
        request = Tools(id=name, tools=[*tools])
        return self.dialogue.register(client or self.client, request)

    def call(self, number: str = "1", name: object = "weather", **fields: Any) -> bool | None:
        content = {"args": [], "kwargs": {"city": "Oslo"}, **fields}
        metadata = {"call": number, "name": name}
        return self.kernel.say("stdin", "broker_tool_call", content, metadata=metadata)

    def cancel(self, number: str = "1") -> None:
        metadata = {"call": number}
        self.kernel.say("stdin", "broker_tool_cancel", {}, metadata=metadata)

    @property
    def calls(self) -> list[dict[str, Any]]:
        return [event for event in self.client.events if event["type"] == "tool_call"]

    @property
    def errors(self) -> list[tuple[str, str]]:
        return [(one["call"], one["error"]["name"]) for _, one in self.replies if "error" in one]

    def result(self, client: FakeClient | None = None, **fields: Any) -> None:
        call = fields.pop("call", self.calls[-1]["call"] if self.calls else "")
        self.dialogue.result(client or self.client, ToolResult(call=call, **fields))
