"""Questions about a session's names and variables, asked of its kernel beside what it runs.

Our own kernels answer over the control channel, whatever they run; those of other kernelspecs over
the shell channel, while they run nothing. What a kernel answers is a stranger's: of bounded size
and checked form. An answer that comes late, or that nobody asked for, stands for nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from secrets import token_hex
from typing import Any, Protocol, TypeAlias

from broker.errors import BadMessage, KernelBusy, QueueFull
from broker.outputs import plain
from broker.requests import Complete, Inspect, Variables
from broker.roles import SessionKernel, SessionLimits
from kernels.messages import Message

PATIENCE = 2.0  # s from a question to its answer
MOST_BYTES = 4 << 20  # of an answer, before it is decoded
MAX_MATCHES = 1000
MAX_MATCH = 1000  # characters
MAX_TEXT = 64 << 10  # characters of one form of what is found out about a name
MAX_WORD = 256  # characters of a name, or of a type
MAX_PREVIEW = 200  # characters
MAX_DIMENSIONS = 32
FORMS = ("text/plain", "text/markdown", "text/html")

Fields: TypeAlias = dict[str, Any]
Question: TypeAlias = Complete | Inspect | Variables
REPLIES = ("question_reply", "complete_reply", "inspect_reply")


class Place(Protocol):
    """What questions are about: a session, as they see it."""

    kernel: SessionKernel | None
    limits: SessionLimits

    @property
    def is_opening(self) -> bool:
        """Tell whether it may have a kernel soon."""

    @property
    def occupied(self) -> bool:
        """Tell whether the kernel runs something."""


class Questions:
    """One session's open questions."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._open: dict[str, asyncio.Future[Message]] = {}
        self._asked = 0  # those that wait for a kernel, too
        self._bound = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Questions: {self._asked} open>"

    async def ask(self, question: Question) -> Fields:
        """Return the fields of the answer.

        Raises KernelBusy where there is none within PATIENCE, QueueFull, and BadMessage for what a
        kernel of another kernelspec cannot be asked.
        """
        if self._asked >= self._place.limits.questions:
            raise QueueFull(f"{self._asked} questions of this session are open already")
        self._asked += 1
        try:
            async with asyncio.timeout(PATIENCE):
                kernel = await self._kernel()
                answer = await self._answer(kernel, question)
        except TimeoutError:
            why = "has not answered in time" if self._place.kernel else "is not there yet"
            raise KernelBusy(f"the kernel {why}; ask again later") from None
        finally:
            self._asked -= 1
        if answer.is_heavy or len(answer.content_bytes) > MOST_BYTES:
            raise KernelBusy("the kernel's answer is too large")
        if answer.content.get("status") != "ok":
            raise KernelBusy("the kernel cannot answer now; ask again later")
        return CHECKS[type(question)](question, answer)

    def take(self, message: Message) -> bool:
        """Take in a message of the shell or the control channel; tell whether it answers one."""
        if message.type not in REPLIES:
            return False
        waiting = self._open.get(message.parent_id)
        if waiting is None or waiting.done():
            return False
        waiting.set_result(message)
        return True

    def begin(self) -> None:
        """Ask what has waited for the kernel that there is now."""
        self._bound.set()

    def lose(self) -> None:
        """Give up what the kernel has not answered: it is lost."""
        self._bound.clear()
        for waiting in self._open.values():
            if not waiting.done():
                waiting.set_exception(KernelBusy("the kernel ended before it answered"))

    async def _kernel(self) -> SessionKernel:
        if self._place.kernel is None and self._place.is_opening:
            await self._bound.wait()
        if (kernel := self._place.kernel) is None:
            raise KernelBusy("the session has no kernel; the next execution starts one")
        return kernel

    async def _answer(self, kernel: SessionKernel, question: Question) -> Message:
        if kernel.is_ours:
            return await self._send(kernel, "control", "question_request", _content(question))
        if isinstance(question, Variables):
            message = "the kernels of this profile cannot tell their variables"
            raise BadMessage(message, field="type")
        if self._place.occupied:
            raise KernelBusy("the kernel runs a cell, and answers nothing until it is done")
        kind = "complete" if isinstance(question, Complete) else "inspect"
        content: Fields = {"code": question.code, "cursor_pos": question.cursor}
        if kind == "inspect":
            content["detail_level"] = 0
        try:
            return await self._send(kernel, "shell", f"{kind}_request", content)
        except asyncio.CancelledError:
            if self._place.kernel is kernel and not self._place.occupied:
                kernel.interrupt()  # or what is executed next would wait for it
            raise

    async def _send(
        self, kernel: SessionKernel, channel: str, kind: str, content: Fields
    ) -> Message:
        # Not to be guessed: code that answers before it is asked would speak for the kernel.
        msg_id = f"{kernel.channels.next_id()}_{token_hex(8)}"
        waiting: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._open[msg_id] = waiting
        try:
            kernel.channels.send(channel, kind, content, msg_id=msg_id)
            return await waiting
        except BlockingIOError:
            raise KernelBusy("the kernel reads no more requests") from None
        finally:
            del self._open[msg_id]


def _content(question: Question) -> Fields:
    if isinstance(question, Variables):
        names = None if question.names is None else list(question.names)
        return {"kind": "variables", "names": names, "max": question.max}
    kind = "complete" if isinstance(question, Complete) else "inspect"
    return {"kind": kind, "code": question.code, "cursor": question.cursor}


# What answers are allowed to say


def _completions(question: Complete, answer: Message) -> Fields:
    content, size = answer.content, len(question.code)
    start, end = (_count(content.get(f"cursor_{end}")) for end in ("start", "end"))
    here = min(question.cursor, size)
    end = here if end is None else min(end, size)
    start = end if start is None else min(start, end)
    found = content.get("matches")
    matches = found if isinstance(found, list) else []
    types = content.get("types")
    if types is None:  # as IPython's kernel tells them
        told = answer.content.get("metadata")
        told = told.get("_jupyter_types_experimental") if isinstance(told, dict) else None
        told = told if isinstance(told, list) else []
        types = [one.get("type") if isinstance(one, dict) else "" for one in told]
    if not isinstance(types, list) or len(types) != len(matches):
        types = [""] * len(matches)
    pairs = [
        (match, _word(kind) or "")
        for match, kind in zip(matches, types, strict=True)
        if isinstance(match, str) and len(match) <= MAX_MATCH
    ][:MAX_MATCHES]
    fields: Fields = {
        "matches": [match for match, _ in pairs],
        "cursor_start": start,
        "cursor_end": end,
    }
    if any(kind for _, kind in pairs):
        fields["types"] = [kind for _, kind in pairs]
    return fields


def _inspection(question: Inspect, answer: Message) -> Fields:
    found, data = answer.content.get("found") is True, answer.content.get("data")
    told: Fields = {}
    for form in FORMS if found and isinstance(data, dict) else ():
        text = data.get(form) if isinstance(data, dict) else None
        if isinstance(text, str):
            told[form] = plain(text[:MAX_TEXT])
    return {"found": found, "data": told}


def _variables(question: Variables, answer: Message) -> Fields:
    content = answer.content
    rows, missing = content.get("variables"), content.get("missing")
    most = question.max if question.names is None else max(question.max, len(question.names))
    checked = [_row(row) for row in (rows if isinstance(rows, list) else [])[:most]]
    fields: Fields = {"variables": [row for row in checked if row]}
    if more := _count(content.get("more")):
        fields["more"] = more
    asked = set(question.names or ())
    if isinstance(missing, list):
        absent = [name for name in missing if isinstance(name, str) and name in asked]
        if absent:
            fields["missing"] = absent[: len(asked)]
    return fields


def _row(row: object) -> Fields | None:
    if not isinstance(row, dict):
        return None
    name, kind, preview = _word(row.get("name")), _word(row.get("type")), row.get("preview")
    if not name or kind is None or not isinstance(preview, str):
        return None
    checked: Fields = {"name": name, "type": kind, "preview": plain(preview[:MAX_PREVIEW])}
    if module := _word(row.get("module")):
        checked["module"] = module
    shape = row.get("shape")
    if isinstance(shape, list) and len(shape) <= MAX_DIMENSIONS:
        sizes = [_count(one) for one in shape]
        if None not in sizes:
            checked["shape"] = sizes
    for field in ("length", "size"):
        if (count := _count(row.get(field))) is not None:
            checked[field] = count
    return checked


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and len(value) <= MAX_WORD else None


def _count(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return None


CHECKS: Mapping[type[Question], Callable[[Any, Message], Fields]] = {
    Complete: _completions,
    Inspect: _inspection,
    Variables: _variables,
}
