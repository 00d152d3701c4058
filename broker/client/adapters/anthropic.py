"""A session as a tool of Anthropic's Messages API; the model sees the images.

tool = PythonTool(broker.session("chat-42"))
message = client.messages.create(…, tools=[tool.definition])
results = [tool.run(block) for block in message.content if block.type == "tool_use"]
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

from broker.client.aio import AsyncSession
from broker.client.errors import BrokerError
from broker.client.result import Result
from broker.client.sync import Session

from . import words
from .running import arun, part, run


@dataclass(frozen=True, slots=True)
class PythonTool:
    """The tool; with an `AsyncSession`, await `arun`."""

    session: Session | AsyncSession
    name: str = words.NAME
    description: str = words.DESCRIPTION
    most: int = words.MOST  # characters of an answer, beside its images

    @property
    def definition(self) -> dict[str, Any]:
        """Return the tool's definition."""
        return {
            "name": self.name,
            "description": self.description,
            "input_schema": words.PARAMETERS,
        }

    def run(self, block: object) -> dict[str, Any]:
        """Run a `tool_use` block, an object or a map; return the `tool_result` block."""
        try:
            words.check_name(part(block, "name"), self.name)
            return self._answer(block, run(self.session, part(block, "input")))
        except BrokerError as error:
            return _refused(block, error)

    async def arun(self, block: object) -> dict[str, Any]:
        """Do as `run`."""
        try:
            words.check_name(part(block, "name"), self.name)
            return self._answer(block, await arun(self.session, part(block, "input")))
        except BrokerError as error:
            return _refused(block, error)

    def _answer(self, block: object, result: Result) -> dict[str, Any]:
        content: list[dict[str, Any]] = [{"type": "text", "text": words.told(result, self.most)}]
        content += [_image(image) for image in words.shown_images(result)]
        return _tool_result(block, content, result.status != "ok")


def _refused(block: object, error: BrokerError) -> dict[str, Any]:
    return _tool_result(block, [{"type": "text", "text": words.refusal(error)}], True)


def _tool_result(block: object, content: list[dict[str, Any]], is_error: bool) -> dict[str, Any]:
    return {
        "type": "tool_result",
        "tool_use_id": part(block, "id"),
        "content": content,
        "is_error": is_error,
    }


def _image(image: bytes) -> dict[str, Any]:
    data = base64.b64encode(image).decode()
    return {
        "type": "image",
        "source": {"type": "base64", "media_type": "image/png", "data": data},
    }
