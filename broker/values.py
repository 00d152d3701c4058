"""The value of a call: a kernel's `broker_value` as an event. What it says is a stranger's."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from broker.tagged import unpacked
from kernels.messages import Message

KIND = "broker_value"
Event = dict[str, Any]


def value_event(
    execution_id: str, message: Message, most: int, rich: Callable[[Any], dict[str, Any]]
) -> Event | None:
    """Return the event, with a note in the value's place if it is over `most` bytes.

    None for what is no value. `rich` is what becomes of a MIME bundle; 0 for no bound.
    """
    if is_over(message, most):
        return left_out(execution_id, len(message.content_bytes))
    content = message.content
    event: Event = {"type": "value", "id": execution_id}
    if "value" in content:
        try:
            return event | {"value": unpacked(content["value"])}
        except ValueError:
            return None
    data, metadata = content.get("data"), content.get("metadata")
    if not isinstance(data, dict):
        return None
    return event | {"data": rich(data), "metadata": metadata if isinstance(metadata, dict) else {}}


def is_over(message: Message, most: int) -> bool:
    """Tell whether a value is left out for what it takes; `most` in bytes, 0 for no bound."""
    # A third more than it holds, as base64; and what stands beside it.
    return message.is_heavy or len(message.content_bytes) > (most * 4 // 3 + 4096 if most else inf)


def left_out(execution_id: str, size: int) -> Event:
    """Return the event of a value that is not told."""
    note = f"[value of {size:,} bytes left out]"
    return {"type": "value", "id": execution_id, "data": {"text/plain": note}, "metadata": {}}
