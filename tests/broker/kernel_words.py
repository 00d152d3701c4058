"""A kernel's words about an execution, and the execution that takes them in."""

from __future__ import annotations

from typing import Any

import orjson

from broker.execution import Execution, OutputLimits
from broker.requests import Execute
from kernels.messages import Message


def message(kind: str, content: object, metadata: dict[str, Any] | None = None) -> Message:
    return Message({"msg_type": kind}, {}, metadata or {}, orjson.dumps(content), ())


def execution(limits: OutputLimits | None = None, **fields: Any) -> Execution:
    request = Execute(id="e", code="code", **fields)
    return Execution(request, None, 100.0, limits or OutputLimits())


def reply(
    run: Execution, status: object = "ok", metadata: dict[str, Any] | None = None, **content: Any
) -> None:
    list(run.take("shell", message("execute_reply", {"status": status, **content}, metadata)))


def idle(run: Execution) -> None:
    assert list(run.take("iopub", message("status", {"execution_state": "idle"}))) == []


DATA = {"text/plain": "42"}


KINDS = [
    "status",
    "execute_input",
    "stream",
    "display_data",
    "update_display_data",
    "execute_result",
    "clear_output",
    "error",
]
