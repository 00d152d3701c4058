"""How much of what a kernel publishes goes to Jupyter's clients."""

from __future__ import annotations

from math import inf

from broker.execution import EVENT_COST
from broker.jupyter.request import Allowance, Request
from broker.jupyter.voice import Voice
from broker.session import Session
from kernels.messages import Message


class Room:
    """The bounds of one session's output, held to message by message."""

    def __init__(self, session: Session, voice: Voice) -> None:
        self._session = session
        self._voice = voice
        self._others = Allowance()  # of what is published about nobody's request here
        self._about = ""  # the kernel's request that ran when that began

    def affords(self, message: Message, request: Request | None, parent: bytes) -> bool:
        """Count what is published about one request, and tell whether there is room for it.

        What is about none of them counts together, until the next execution.
        """
        limits, about = self._session.limits.output, self._session.work.request_id
        if about != self._about:
            self._about, self._others = about, Allowance()
        spent = self._others if request is None else request.spent
        size, is_large = _size(message), self.is_large(message)
        header, _, metadata = message.parts
        beside = max(EVENT_COST, len(header) + len(metadata) + len(parent))
        spent.bytes += EVENT_COST if is_large else size + beside
        is_over = bool(limits.displays) and spent.bytes > limits.displays
        if is_over and not spent.is_noted:
            spent.is_noted = True
            text = f"[more than {limits.displays:,} bytes of output: the rest is left out]\n"
            self._voice.note(text, parent)
        elif is_large and not is_over:
            self._voice.note(f"[output of {size:,} bytes left out]\n", parent)
        return not (is_over or is_large)

    def is_large(self, message: Message) -> bool:
        """Tell whether one message is more than any output may be."""
        display = self._session.limits.output.display
        most = display * 4 // 3 + 4096 if display else inf  # as text, that of bytes
        return message.is_heavy or _size(message) > most


def _size(message: Message) -> int:
    return len(message.content_bytes) + sum(map(len, message.buffers))
