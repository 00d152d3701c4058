"""What the broker says to Jupyter's clients in a kernel's place."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from broker.jupyter.frames import EMPTY, Packet, made
from broker.jupyter.request import Request, Said, State
from broker.jupyter.translation import stderr

Json = dict[str, Any]
EXECUTE = "execute_request"
ERROR = ("ename", "evalue", "traceback")


class Voice:
    """Speaks about one session; `tell_all` gives a message to all of its clients.

    What it says leaves with the next `dispatch` of who it is said to.
    """

    def __init__(self, tell_all: Callable[[Packet], None]) -> None:
        self._tell_all = tell_all

    def note(self, text: str, parent: bytes = EMPTY) -> None:
        """Tell everybody something, as a line of the cell's standard error."""
        self._tell_all(utterance("iopub", "stream", stderr(text), parent))

    def state(self, state: str) -> None:
        """Tell everybody the kernel's state, for no request's sake."""
        self._tell_all(utterance("iopub", "status", {"execution_state": state}))

    def status(self, request: Request, state: str) -> None:
        """Tell who has asked that the request is served, or that it is done."""
        self._send(request, "iopub", "status", {"execution_state": state})

    def serve(self, request: Request, content: Mapping[str, Any] | bytes) -> None:
        """Answer a request that the kernel need not be asked."""
        self.status(request, "busy")
        self.status(request, "idle")
        self.reply(request, content)

    def reply(self, request: Request, content: Mapping[str, Any] | bytes) -> None:
        """Answer a request; content may be packed already."""
        asked = request.asked
        self._send(request, asked.channel, f"{asked.type.removesuffix('_request')}_reply", content)

    def ask(self, request: Request, prompt: str, *, password: bool) -> None:
        """Ask who has sent the cell for a line of input."""
        content = {"prompt": prompt, "password": password}
        self._send(request, "stdin", "input_request", content)

    def cut_off(self, request: Request, content: Json) -> None:
        """Answer a request in full, as far as the kernel has not; its reply follows the rest."""
        answered, is_idle = request.is_answered, request.is_idle
        if request.state is State.SENT:
            self.status(request, "busy")
        if request.asked.type == EXECUTE and not answered:
            if content["status"] == "error":
                error = {name: content[name] for name in ERROR}
                self._tell_all(utterance("iopub", "error", error, request.asked.header_bytes))
            content = {**content, "execution_count": None, "user_expressions": {}, "payload": []}
        if not is_idle:
            self.status(request, "idle")
        if not answered and request.asked.type.endswith("_request"):
            self.reply(request, content)
        request.hear(Said.CUT_OFF)

    def _send(
        self, request: Request, channel: str, kind: str, content: Mapping[str, Any] | bytes
    ) -> None:
        request.follower.send(utterance(channel, kind, content, request.asked.header_bytes))


def utterance(
    channel: str, kind: str, content: Mapping[str, Any] | bytes, parent: bytes = EMPTY
) -> Packet:
    """Return a message of ours, said now."""
    now = datetime.now(UTC).isoformat()
    return made(channel, kind, content, msg_id=uuid.uuid4().hex, date=now, parent=parent)
