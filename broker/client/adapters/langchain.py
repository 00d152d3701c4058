"""A session as a LangChain tool, for LangChain's and LangGraph's agents.

    tool = python_tool(broker.session("chat-42"))
    agent = create_agent(model, tools=[tool])

The content of its messages is text; the artifact is the whole `Result`, images included.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any, Literal

from langchain_core.tools import BaseTool, ToolException
from pydantic import ConfigDict

from broker.client.aio import AsyncSession
from broker.client.errors import BrokerError
from broker.client.result import Result
from broker.client.sync import Session

from . import words


class PythonTool(BaseTool):
    """The tool; both ways to call it work with a `Session`, the awaited one with an `AsyncSession`.

    A request that the broker does not take is told to the model, unless only you could mend it.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    name: str = words.NAME
    description: str = words.DESCRIPTION
    args_schema: Any = words.PARAMETERS
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"
    handle_tool_error: Any = True
    session: Session | AsyncSession
    most: int = words.MOST  # characters of an answer

    # What a model passes is checked here: LangChain checks nothing against a JSON Schema.

    def _run(self, **given: Any) -> tuple[str, Result]:
        session = words.of_kind(Session, self.session)
        try:
            code, timeout = words.arguments(given)
            result = session.execute(code, timeout=timeout)
        except BrokerError as error:
            raise ToolException(words.refusal(error, self.most)) from error
        return words.told(result, self.most), result

    async def _arun(self, **given: Any) -> tuple[str, Result]:
        if not isinstance(self.session, AsyncSession):
            return await asyncio.to_thread(functools.partial(self._run, **given))
        try:
            code, timeout = words.arguments(given)
            result = await self.session.execute(code, timeout=timeout)
        except BrokerError as error:
            raise ToolException(words.refusal(error, self.most)) from error
        return words.told(result, self.most), result


def python_tool(session: Session | AsyncSession, **options: Any) -> PythonTool:
    """Return the tool of a session; `options` are fields of `PythonTool`, such as `name`."""
    return PythonTool(session=session, **options)
