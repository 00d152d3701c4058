"""What answers a cell that asks for a line of input."""

from __future__ import annotations

import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

from .result import Event
from .tools import END_OF_INPUT

# Gets the prompt, and whether a password is meant; returns the line, or None for the end of input.
OnInput = Callable[[str, bool], str | None]
AsyncOnInput = Callable[[str, bool], str | Awaitable[str | None] | None]


def answering(
    events: Generator[Event, None, None], on_input: OnInput | None, line: Any
) -> Generator[Event, None, None]:
    """Yield events, and answer over the line those that ask; without `on_input`, with the end."""
    for event in events:
        yield event
        if event.get("type") == "input_request":
            value: Any = None
            try:
                value = _asked(event, on_input)
            finally:
                line.ask("input_reply", lambda _: None, **_reply(event, value))


async def answering_async(
    events: AsyncGenerator[Event, None], on_input: AsyncOnInput | None, line: Any
) -> AsyncGenerator[Event, None]:
    """Do the same with a line of asyncio's; `on_input` may be a coroutine function."""
    async for event in events:
        yield event
        if event.get("type") == "input_request":
            value: Any = None
            try:
                value = _asked(event, on_input)
                value = await value if inspect.isawaitable(value) else value
            finally:
                if inspect.iscoroutine(value):  # cancelled before it had begun
                    value.close()
                    value = None
                await line.ask("input_reply", lambda _: None, **_reply(event, value))


def _asked(event: Event, on_input: Callable[[str, bool], Any] | None) -> Any:
    if on_input is None:
        return None
    return on_input(str(event.get("prompt", "")), bool(event.get("password")))


def _reply(event: Event, value: object) -> dict[str, Any]:
    text = value if isinstance(value, str) else END_OF_INPUT
    return {"about": event["id"], "value": text, "question": event.get("question")}
