"""What came over sockets, without what differs from run to run: ids, dates, addresses, sizes."""

from __future__ import annotations

import difflib
import pprint
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tests.jupyter.messages import Message
from tests.jupyter.sockets import Socket

Transcript = dict[str, dict[str, list[Any]]]

_DATE = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)?")
_ID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}(_\d+)*")
_ADDRESS = re.compile(r"0x[0-9a-f]+")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_CELL = re.compile(r"/\S*/ipykernel_\d+/\d+\.py")
_TIP = re.compile(r"\nTip: .*", re.DOTALL)  # another one each time


def normal(value: Any) -> Any:
    """Return plain data with dates, ids and addresses blotted out."""
    if isinstance(value, Mapping):
        return {normal(key): normal(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [normal(each) for each in value]
    if isinstance(value, str):
        for pattern, word in (
            (_DATE, "<date>"),
            (_ID, "<id>"),
            (_ADDRESS, "<address>"),
            (_COLOUR, ""),
            (_CELL, "<cell>"),
            (_TIP, ""),
        ):
            value = pattern.sub(word, value)
    return value


def difference(theirs: Any, ours: Any) -> str:
    """Return where two transcripts differ, as people read it; empty where they do not."""
    before, after = (
        pprint.pformat(one, width=100, sort_dicts=True).splitlines() for one in (theirs, ours)
    )
    return "\n".join(difflib.unified_diff(before, after, "theirs", "ours", lineterm="", n=6))


def transcript(sockets: Mapping[str, Socket], names: Mapping[str, str]) -> Transcript:
    """Return, for each socket and channel, what came about the requests that have names.

    The order within a channel is kept for each request, as between requests where the kernel
    gives it. What came about others' requests and about none is no part of it.
    """
    return {
        name: {
            channel: _joined(_told(socket.came, channel, names))
            for channel in ("shell", "control", "stdin", "iopub")
        }
        for name, socket in sockets.items()
    }


def _told(came: Iterable[Message], channel: str, names: Mapping[str, str]) -> Iterable[Any]:
    for message in came:
        about = names.get(message["parent_header"].get("msg_id", ""))
        if message["channel"] == channel and about is not None:
            yield _plain(message, about)


def _plain(message: Message, about: str) -> dict[str, Any]:
    """Return a message's sense; its header must have what the protocol says."""
    header = message["header"]
    assert set(header) >= {"msg_id", "msg_type", "session", "username", "date", "version"}, header
    return {
        "type": header["msg_type"],
        "version": header["version"],
        "about": about,
        "parent": normal({k: v for k, v in message["parent_header"].items() if k != "date"}),
        "metadata": normal(message["metadata"]),
        "content": normal(message["content"]),
        "buffers": [bytes(each) for each in message["buffers"]],
    }


def _joined(messages: Iterable[Any]) -> list[Any]:
    """Join text that came in pieces: how it is cut depends on time."""
    kept: list[Any] = []
    for message in messages:
        before = kept[-1] if kept else None
        if (
            before is not None
            and message["type"] == before["type"] == "stream"
            and message["about"] == before["about"]
            and message["content"]["name"] == before["content"]["name"]
        ):
            before["content"]["text"] += message["content"]["text"]
        else:
            kept.append(message)
    return kept
