"""What Jupyter's clients ask as what sessions run, and refusals as Jupyter words them. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from broker.errors import BrokerError
from broker.execution import STATUS
from broker.faults import bad_field
from broker.jupyter.frames import Asked
from broker.requests import ExecuteRequest
from kernels.messages import Message

MOST_ID = 64  # characters of an execution's id
MOST_EXPRESSIONS = 256  # of one request
ORIGIN = {"origin": "jupyter"}
# Requests to the debugger that run code, and where that stands in their arguments (DAP).
EVALUATES = {"evaluate": "expression", "setExpression": "value", "setVariable": "value"}

Json = dict[str, Any]


def execution_of(asked: Asked, taken: Collection[str], spare: str) -> ExecuteRequest:
    """Return what a session is to run for an `execute_request`. Raises BadMessage.

    Its id is the message's own, or the `spare` one where that is too long, or among those `taken`.
    """
    content = asked.content
    code, expressions = content.get("code"), content.get("user_expressions") or {}
    if not isinstance(code, str):
        raise bad_field("code", "expected text")
    if not isinstance(expressions, dict) or len(expressions) > MOST_EXPRESSIONS:
        raise bad_field("user_expressions", f"expected an object of at most {MOST_EXPRESSIONS}")
    msg_id = asked.msg_id
    if len(msg_id) > MOST_ID or msg_id in taken:
        msg_id = spare
    silent = content.get("silent") is True
    return ExecuteRequest(
        id=msg_id,
        code=code,
        silent=silent,
        store_history=content.get("store_history", not silent) is not False,
        stop_on_error=content.get("stop_on_error", True) is not False,
        metadata={**asked.metadata, **ORIGIN},
        user_expressions=expressions,
    )


def evaluated(content: Json) -> str:
    """Return the code that a request to the debugger runs, or ""."""
    given = content.get("arguments")
    code = (
        given.get(EVALUATES.get(str(content.get("command")), "")) if isinstance(given, dict) else ""
    )
    return code if isinstance(code, str) else ""


def refusal(error: BrokerError) -> Json:
    """Return a refusal as the content of a reply."""
    return failure(type(error).__name__, error.message)


def failure(name: str, message: str) -> Json:
    """Return a failure as the content of a reply."""
    return {
        "status": "error",
        "ename": name,
        "evalue": message,
        "traceback": [f"{name}: {message}"],
    }


def state_of(message: Message) -> str:
    """Return the state that a kernel's status message tells; "" where it tells too much."""
    is_long = len(message.content_bytes) > STATUS
    return "" if is_long else str(message.content.get("execution_state"))


def ended(done: Json) -> Json:
    """Return the end of an execution as the content of a reply, where its kernel gave none."""
    status, reason = done["status"], done.get("reason", "")
    if status in ("aborted", "cancelled"):
        return {"status": "aborted"}
    return failure("TimeoutError" if status == "timeout" else "KernelLost", f"{status}: {reason}")


def stderr(text: str) -> Json:
    """Return the content of a stream message that we say something by."""
    return {"name": "stderr", "text": text}
