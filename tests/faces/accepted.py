"""What the broker tells otherwise than a stock Jupyter server, and why: all that is accepted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from websockets.frames import CloseCode

from tests.faces.script import STATES

Message = dict[str, Any]
Transcripts = dict[str, Any]
Told = tuple[str, Any, Any]  # what was asked beside the sockets, the status, the sense


def _same(one: Any) -> Any:
    return one


def _as_it_is(theirs: Told, ours: Told) -> Told:
    return ours


@dataclass(frozen=True)
class Accepted:
    """One difference: how a message, or what was told beside the sockets, looks without it.

    `beside` is for what is accepted beside certain answers of theirs alone: it returns ours.
    """

    what: str
    reason: str
    message: Callable[[Message], Message] = _same
    rest: Callable[[Told], Told] = _same
    beside: Callable[[Told, Told], Told] = _as_it_is


def _content(message: Message, **changed: Any) -> Message:
    return message | {"content": message["content"] | changed}


def _without_version(message: Message) -> Message:
    return message | {"version": ""}


def _without_measures(message: Message) -> Message:
    kept = {k: v for k, v in message["metadata"].items() if k not in ("cpu", "memory_peak")}
    return message | {"metadata": kept}


def _without_line(message: Message) -> Message:
    return _content(message, line=0) if message["type"] == "error" else message


def _without_file(message: Message) -> Message:
    if "evalue" not in message["content"]:
        return message
    return _content(message, evalue=re.sub(r" \(\d+\.py, .*\)$", "", message["content"]["evalue"]))


def _without_kernel_frames(message: Message) -> Message:
    if "traceback" not in message["content"]:
        return message
    frames = message["content"]["traceback"]
    return _content(message, traceback=[one for one in frames if "ipykernel/kernelbase" not in one])


def _without_fields_of_aborted(message: Message) -> Message:
    if message["content"].get("status") != "aborted":
        return message
    return message | {"content": {"status": "aborted"}, "metadata": {}}


def _without_states_of_interrupts(message: Message) -> Message:
    is_state = message["type"] == "status"
    is_about_it = message["parent"].get("msg_type") == "interrupt_request"
    return {} if is_state and is_about_it else message


def _without_jedi(message: Message) -> Message:
    if message["type"] != "complete_reply":
        return message
    content = message["content"]
    matches = [one.removeprefix(".") for one in content["matches"]]
    start = content["cursor_start"] + (matches != content["matches"])
    return _content(message, matches=matches, cursor_start=start, metadata={})


def _without_state(told: Told) -> Told:
    what, status, sense = told
    if isinstance(sense, dict) and sense.get("execution_state") in ("starting", "idle"):
        sense = sense | {"execution_state": "idle"}
    return what, status, sense


def _without_own_version(told: Told) -> Told:
    what, status, sense = told
    if what == "GET /api":
        sense = {name: value for name, value in sense.items() if name != "broker_version"}
    return what, status, sense


def _without_whose_fault(theirs: Told, ours: Told) -> Told:
    what, status, sense = ours
    is_ours = status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND)
    is_theirs = theirs[1] == HTTPStatus.INTERNAL_SERVER_ERROR
    return (what, theirs[1], sense) if is_theirs and is_ours else ours


def _without_idle_after_start(told: Told) -> Told:
    what, status, sense = told
    if what == STATES:
        sense = [state for state in sense if state != "idle"]
    return what, status, sense


def _without_protocol_version(told: Told) -> Told:
    what, status, sense = told
    if what == "GET /api/kernelspecs":
        spec = [name for name in sense["spec"] if name != "kernel_protocol_version"]
        sense = sense | {"spec": spec}
    return what, status, sense


def _without_close_code(told: Told) -> Told:
    what, status, sense = told
    return (what, 0, sense) if status in (4410, CloseCode.NO_STATUS_RCVD) else told


# fmt: off
ACCEPTED = (
    Accepted(
        "the `version` in the headers of what the server itself says",
        "it is that of the protocol it speaks; clients go by the kernel's information",
        message=_without_version,
    ),
    Accepted(
        "`cpu` and `memory_peak` in the metadata of replies",
        "what an execution has used; metadata is open for more",
        message=_without_measures,
    ),
    Accepted(
        "`line` in errors",
        "the line of the cell that failed, for programs that read no traceback",
        message=_without_line,
    ),
    Accepted(
        "no file in the words of a syntax error",
        "it is made up for the cell, and another one in each run",
        message=_without_file,
    ),
    Accepted(
        "no frames of the kernel in tracebacks",
        "they are none of the code's",
        message=_without_kernel_frames,
    ),
    Accepted(
        "what else stands in the reply to an aborted execution",
        "it never reached the kernel: the broker's queue answers, as it does for others",
        message=_without_fields_of_aborted,
    ),
    Accepted(
        "no busy and idle of an interrupt that is asked for over the channel",
        "the broker interrupts, as over REST, also where the kernel reads nothing any more",
        message=_without_states_of_interrupts,
    ),
    Accepted(
        "completions without signatures, and attributes with their dot",
        "the live objects are looked at; no source is analysed, which may take seconds",
        message=_without_jedi,
    ),
    Accepted(
        "a new kernel is idle, and not starting",
        "it was warm before",
        rest=_without_state,
    ),
    Accepted(
        "`broker_version` in `/api`",
        "beside Jupyter's version, which clients compare",
        rest=_without_own_version,
    ),
    Accepted(
        "400 and 404 for what is not there, where a Jupyter server says 500",
        "it is the client's mistake",
        beside=_without_whose_fault,
    ),
    Accepted(
        "that a kernel is idle is told once it has started",
        "a Jupyter server asks it for its information then, and that tells",
        rest=_without_idle_after_start,
    ),
    Accepted(
        "no `kernel_protocol_version` in kernelspecs",
        "the kernel's information has it",
        rest=_without_protocol_version,
    ),
    Accepted(
        "4410 where a second socket takes the place of the first, which otherwise has no code",
        "so that a client can tell it from a lost connection",
        rest=_without_close_code,
    ),
)
# fmt: on


def accepted(theirs: Transcripts, ours: Transcripts) -> tuple[Transcripts, Transcripts]:
    """Return what both told without the accepted differences."""
    kept = _kept(theirs), _kept(ours)
    pairs = zip(kept[0]["rest"], kept[1]["rest"], strict=False)  # what one lacks is a difference
    paired = [_beside(*pair) for pair in pairs]
    kept[1]["rest"][: len(paired)] = paired
    return kept


def _kept(told: Transcripts) -> Transcripts:
    kept: Transcripts = {"rest": [_plain_told(one) for one in told["rest"]]}
    for name in told.keys() - {"rest"}:
        kept[name] = {
            channel: [plain for message in messages if (plain := _plain(message))]
            for channel, messages in told[name].items()
        }
    return kept


def _plain(message: Message) -> Message:
    for difference in ACCEPTED:
        if message:
            message = difference.message(message)
    return message


def _plain_told(told: Told) -> Told:
    for difference in ACCEPTED:
        told = difference.rest(told)
    return told


def _beside(theirs: Told, ours: Told) -> Told:
    for difference in ACCEPTED:
        ours = difference.beside(theirs, ours)
    return ours
