"""Functions of ours that code in a session may call: what is told of them, and how they answer.

Performs no I/O. What a function is called with comes out of a sandbox: treat it as a stranger's.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from collections import abc
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from .errors import BadRequest
from .result import Event

Function = Callable[..., Any]
MOST_TEXT = 4096  # characters of a description, or of an error's message
KEPT = 512  # calls whose answers are kept: twice as many as can be open
END_OF_INPUT = "\x04"

_SIMPLE: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    bytes: {"type": "string", "format": "binary"},
    dict: {"type": "object"},
    list: {"type": "array"},
    tuple: {"type": "array"},
    abc.Sequence: {"type": "array"},
    abc.Iterable: {"type": "array"},
    abc.Mapping: {"type": "object"},
    type(None): {"type": "null"},
}


def named(functions: tuple[Function, ...], names: Mapping[str, Function]) -> dict[str, Function]:
    """Return functions by the names they are called by. Raises BadRequest for two of one name."""
    found = dict(names)
    for function in functions:
        name = getattr(function, "__name__", "")
        if not name.isidentifier() or name in found:
            raise BadRequest(f"tools: name {function!r} by a keyword", field="tools")
        found[name] = function
    return found


def describe(name: str, function: Function) -> dict[str, Any]:
    """Return a tool's name, description and parameters, out of the function's signature."""
    described = {"name": name, "description": (inspect.getdoc(function) or "")[:MOST_TEXT]}
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return described  # any arguments will do
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # a name that cannot be found: any values will do
        hints = {}
    free = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.POSITIONAL_ONLY)
    if any(one.kind in free for one in signature.parameters.values()):
        return described
    schema: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            schema["additionalProperties"] = True
            continue
        one = schema["properties"][parameter.name] = schema_of(hints.get(parameter.name, Any))
        if parameter.default is inspect.Parameter.empty:
            schema["required"].append(parameter.name)
        elif _is_plain(parameter.default):
            one["default"] = parameter.default
    return {**described, "parameters": schema}


def schema_of(hint: Any) -> dict[str, Any]:
    """Return the JSON Schema of a type hint; an empty one, which fits all, where there is none."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is typing.Annotated:
        return schema_of(inner[0])
    if origin in (Union, types.UnionType):
        return _schema_of_any([schema_of(one) for one in inner])
    if origin is Literal:
        return {"enum": list(inner)}
    made = next((dict(one) for kind, one in _SIMPLE.items() if kind in (hint, origin)), {})
    items = [one for one in inner if one is not ...]
    if made == _SIMPLE[list] and len(items) == 1:
        made["items"] = schema_of(items[0])
    return made


def _schema_of_any(choices: list[dict[str, Any]]) -> dict[str, Any]:
    if all(choice.keys() == {"type"} for choice in choices):
        return {"type": [choice["type"] for choice in choices]}
    return {"anyOf": choices} if all(choices) else {}


def _is_plain(value: object) -> bool:
    try:
        return len(json.dumps(value, allow_nan=False)) <= MOST_TEXT
    except (TypeError, ValueError):
        return False


def result(call: str, value: Any) -> Event:
    """Return the answer to a call."""
    return {"type": "tool_result", "id": call, "call": call, "value": value}


def failure(call: str, error: BaseException) -> Event:
    """Return the answer to a call that failed: the error's name and message, and no more."""
    try:
        message = str(error)[:MOST_TEXT]
    except Exception:
        message = ""
    told = {"name": type(error).__name__[:200], "message": message}
    return {"type": "tool_result", "id": call, "call": call, "error": told}


class Register:
    """The functions that one connection serves, and which calls of them it has taken."""

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self.request = ""  # the id of the request that registered them, on this connection
        self._count = 0
        self._taken: dict[str, Event | None] = {}  # calls and their answers, oldest first

    def message(self) -> Event:
        """Return the request that registers them; its id is new."""
        self._count += 1
        self.request = f"tools-{id(self):x}-{self._count}"
        tools = [describe(name, function) for name, function in self.functions.items()]
        return {"type": "tools", "id": self.request, "tools": tools}

    def take(self, event: Event) -> Function | None:
        """Return the function to call for an event; None if it is none, not ours, or not new."""
        call = str(event.get("call"))
        if not self._is_ours(event) or call in self._taken:
            return None
        self._taken[call] = None
        if len(self._taken) > KEPT:  # one that is under way has no answer yet, and stays
            answered = (name for name, answer in self._taken.items() if answer is not None)
            if (oldest := next(answered, None)) is not None:
                del self._taken[oldest]
        return self.functions.get(str(event.get("name")))

    def note(self, call: str, answer: Event) -> None:
        """Keep the answer to a call, for as long as it may be asked for again."""
        if call in self._taken:
            self._taken[call] = answer

    def again(self, event: Event) -> Event | None:
        """Return the answer to a call that was answered already, if this event asks for it."""
        return self._taken.get(str(event.get("call"))) if self._is_ours(event) else None

    def _is_ours(self, event: Event) -> bool:
        return event.get("type") == "tool_call" and event.get("tools") == self.request


def may_concern(frame: bytes | str) -> bool:
    """Tell whether a frame may be for whoever serves tools; others need not be decoded.

    Each event begins with its type.
    """
    begin = frame[:20] if isinstance(frame, str) else frame[:20].decode(errors="replace")
    return any(word in begin for word in ("tool_call", "reply", "fault"))
