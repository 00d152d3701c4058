"""What kernels say that they are: their answers to `kernel_info_request`, heard before it matters.

A kernel that runs a cell may not answer for as long as that takes. What it has said before anybody
had it is true for all of its life. It is a stranger's word all the same: bounded, looked at before
it is kept, and told of no other kernel.
"""

from __future__ import annotations

import json
from typing import Any, Final

from kernels.errors import BadFrame
from kernels.messages import Message

MOST: Final = 16 << 10  # bytes; ipykernel's own has 1,700
MOST_TEXTS: Final = 128  # IPython's banner ends in one of some 90 tips


class Introductions:
    """What the kernels of one launcher say; where two say the same, it is kept once."""

    def __init__(self) -> None:
        self._texts: dict[bytes, bytes] = {}  # oldest first

    def __repr__(self) -> str:
        return f"<Introductions: {len(self._texts)} texts>"

    def keep(self, content: bytes) -> bytes:
        """Return the content of an answer as it is to be kept: nothing of one that is too long."""
        if len(content) > MOST:
            return b""
        kept = self._texts.setdefault(content, content)
        if len(self._texts) > MOST_TEXTS:
            del self._texts[next(iter(self._texts))]
        return kept


def heard(message: Message) -> bytes:
    """Return the content of an answer that can be told on; nothing of any other message."""
    if message.type != "kernel_info_reply" or len(message.content_bytes) > MOST:
        return b""
    try:
        known = message.content.get("status") == "ok"
    except BadFrame:
        return b""
    return message.content_bytes if known else b""


def written(info: Any) -> bytes:
    """Return what a kernel of ours says of itself, as the content of such an answer."""
    return json.dumps({"status": "ok", **info}).encode() if isinstance(info, dict) else b""
