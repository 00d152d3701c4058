"""Calls for those who need no socket: an execution that is answered with a value, too."""

from __future__ import annotations

from typing import Any

from broker.protocol import call_body
from broker.session import Session
from broker.web.execute import Event, ExecuteInSession, ExecuteOnce, summary


class CallOnce(ExecuteOnce):
    """`POST /v1/call`: call a function in a fresh kernel that is gone afterwards."""

    _read = staticmethod(call_body)

    def _summary(self, session: Session, events: list[Event]) -> dict[str, Any]:
        return _with_value(summary(session, events))


class CallInSession(ExecuteInSession):
    """`POST /v1/sessions/{session}/call`."""

    _read = staticmethod(call_body)

    def _summary(self, session: Session, events: list[Event]) -> dict[str, Any]:
        return _with_value(summary(session, events))


def _with_value(answer: dict[str, Any]) -> dict[str, Any]:
    """Return the answer with what the call returned: as data, or how it is shown, or neither."""
    found: Event = next((one for one in answer["outputs"] if one["type"] == "value"), {})
    return answer | {"value": found.get("value"), "data": found.get("data")}
