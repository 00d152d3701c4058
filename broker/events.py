"""The events of the native protocol as types: for the schema of them, and to check them by.

The broker builds events as plain maps; nothing of the hot path comes through here. Fields that are
not always there are left out, never null, except where null has a meaning of its own. Binary values
are bytes in msgpack, `{"base64": "…"}` in JSON frames, and base64 text in HTTP answers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from broker.requests import ORIGIN, RequestId

Seq = Annotated[int, Meta(ge=0, description="1, 2, 3 … per session, across generations.")]
Id = Annotated[RequestId, Meta(description="The request that it belongs to.")]
# Threads that outlive their execution print on; what they print is nobody's.
MaybeId = Annotated[RequestId, Meta(description="The execution that it belongs to, if any.")]
Cell = Annotated[int, Meta(ge=0, description="Which cell of a batch, from 0.")]
Count = Annotated[int, Meta(description="Jupyter's counter: the number in `Out[…]`.")]
Seconds = Annotated[float, Meta(ge=0, description="Seconds.")]
Bytes = Annotated[int, Meta(ge=0, description="Bytes.")]
Time = Annotated[float, Meta(ge=0, description="Unix time, seconds; 0 for never.")]
Bundle = Annotated[dict[str, Any], Meta(description="Values by MIME type.")]
Metadata = dict[str, Any]


class InputRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="input_request"):
    """The code waits for a line; answer with `input_reply`."""

    id: Id
    prompt: str
    password: bool
    question: Annotated[
        str | UnsetType,
        Meta(description="Names it, in its execution: one that is asked again is the same one."),
    ] = UNSET
    seq: Seq | UnsetType = UNSET
    cell: Cell | UnsetType = UNSET


class OpenCall(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="tool_call"):
    """A call of a host tool that waits for its `tool_result`."""

    call: str
    name: str
    id: MaybeId | UnsetType = UNSET


class Session(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="session"):
    """What the session is, and what became of its variables: first on attaching, then on change."""

    session: str
    generation: Annotated[int, Meta(ge=0, description="Counts the kernels it has had.")]
    state: Annotated[
        Literal["fresh", "warm", "restored", "lost"],
        Meta(
            description="fresh: the first kernel; warm: the variables are there; restored: brought"
            " back into a new kernel, but those in `lost`; lost: gone, for the `reason`."
        ),
    ]
    profile: str
    limits: Annotated[dict[str, float | None], Meta(description="The bounds of the session.")]
    expires_at: Time
    seq: Seq
    reason: Annotated[str, Meta(description="Why the last kernel ended.")] | UnsetType = UNSET
    lost: Annotated[list[str], Meta(description="Names not restored.")] | UnsetType = UNSET
    missed: (
        Annotated[
            list[int],
            Meta(min_length=2, max_length=2, description="First and last number that are gone."),
        ]
        | UnsetType
    ) = UNSET
    waiting: (
        Annotated[
            list[InputRequest | OpenCall],
            Meta(description="On attaching: what the running code waits for an answer to."),
        ]
        | UnsetType
    ) = UNSET
    open: (
        Annotated[list[RequestId], Meta(description="At attach: what runs and waits, in order.")]
        | UnsetType
    ) = UNSET


class Queued(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="queued"):
    """The execution waits for others of its session; or the session for a kernel of a full node."""

    position: Annotated[int, Meta(ge=0, description="How many are to end, or to go, before it.")]
    seq: Seq
    id: Id | UnsetType = UNSET


class Started(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="started"):
    """The kernel has begun with the code."""

    id: Id
    execution_count: Count | None
    code: str
    seq: Seq
    cell: Cell | UnsetType = UNSET
    origin: (
        Annotated[
            str,
            Meta(
                pattern=f"^{ORIGIN.pattern}$",
                description="Where it was asked for, as the request's `metadata` has it.",
            ),
        ]
        | UnsetType
    ) = UNSET


class Stream(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="stream"):
    """Text that was written, in the order in which it was."""

    name: Literal["stdout", "stderr"]
    text: str
    seq: Seq
    id: MaybeId | UnsetType = UNSET
    cell: Cell | UnsetType = UNSET


class Display(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="display"):
    """A rich output; with `update`, in the place of the one with that `display_id`."""

    data: Bundle
    metadata: Metadata
    seq: Seq
    id: MaybeId | UnsetType = UNSET
    display_id: str | UnsetType = UNSET
    update: bool | UnsetType = UNSET
    cell: Cell | UnsetType = UNSET


class Result(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="result"):
    """The value of the last expression."""

    data: Bundle
    metadata: Metadata
    execution_count: Count | None
    seq: Seq
    id: MaybeId | UnsetType = UNSET
    cell: Cell | UnsetType = UNSET


class Value(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="value"):
    """What a `call` returned: `value` as plain data, or `data` where it has no plain form."""

    id: Id
    seq: Seq
    value: Any = UNSET
    data: Bundle | UnsetType = UNSET
    metadata: Metadata | UnsetType = UNSET


class Clear(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="clear"):
    """The outputs so far are to go: at once, or with `wait` when the next one comes."""

    wait: bool
    seq: Seq
    id: MaybeId | UnsetType = UNSET
    cell: Cell | UnsetType = UNSET


class Error(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="error"):
    """The exception that ended the code; lines without colour codes."""

    name: str
    message: str
    short: Annotated[str, Meta(description="Both in one line, with the line of the cell.")]
    traceback: list[str]
    seq: Seq
    id: MaybeId | UnsetType = UNSET
    cell: Cell | UnsetType = UNSET


class ToolCall(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="tool_call"):
    """The code calls a host tool and waits; whoever registered it answers with `tool_result`."""

    call: str
    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    tools: Annotated[
        RequestId, Meta(description="The `tools` request whose sender serves the call.")
    ]
    seq: Seq
    id: MaybeId | UnsetType = UNSET
    cell: Cell | UnsetType = UNSET


class Truncated(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How much of the outputs was sent, and the file that has it all."""

    shown: Bytes
    total: Bytes
    file: str | UnsetType = UNSET


class File(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A file of the workspace that the execution made, wrote or removed."""

    path: str
    size: Bytes | None  # of one that is gone, None
    change: Literal["created", "modified", "deleted"]


class Done(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="done"):
    """The end of an execution; there is exactly one, after all outputs.

    A batch has one for each of its cells, with `cell`, and then one of its own, with `cells`.
    """

    id: Id
    status: Literal["ok", "error", "timeout", "interrupted", "cancelled", "aborted", "lost"]
    execution_count: Count | None
    generation: int
    state: Annotated[
        Literal["fresh", "warm", "lost"],
        Meta(
            description="Of the variables when it began. fresh: there had been none; warm: they"
            " were there; lost: they had gone with an earlier kernel."
        ),
    ]
    duration: Seconds
    queued: Seconds
    cpu: Annotated[float, Meta(description="CPU seconds.")] | None
    memory_peak: Bytes | None
    output_bytes: Bytes
    expires_at: Time
    seq: Seq
    reason: str | UnsetType = UNSET
    truncated: Truncated | UnsetType = UNSET
    files: list[File] | UnsetType = UNSET
    files_more: Annotated[int, Meta(ge=1, description="Changed, and not listed.")] | UnsetType = (
        UNSET
    )
    files_cut: Annotated[bool, Meta(description="Not all was looked at.")] | UnsetType = UNSET
    cell: Cell | UnsetType = UNSET
    cells: Annotated[int, Meta(ge=0, description="How many of them ran.")] | UnsetType = UNSET


class Reply(msgspec.Struct, kw_only=True, tag="reply"):
    """The answer to a request; its further fields are those of the request's row."""

    id: Id


class Pong(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="pong"):
    """The answer to a `ping`."""

    id: Id


class Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag="fault"):
    """The request was not taken, and nothing changed."""

    code: str
    message: str
    id: MaybeId | UnsetType = UNSET
    field: Annotated[str, Meta(description="What was wrong with it.")] | UnsetType = UNSET
    retry_after: Seconds | UnsetType = UNSET
    node: Annotated[str, Meta(description="Who serves the session.")] | UnsetType = UNSET
    url: Annotated[str, Meta(description="Its address, or empty.")] | UnsetType = UNSET


EVENTS: tuple[type[msgspec.Struct], ...] = (
    Session,
    Queued,
    Started,
    Stream,
    Display,
    Result,
    Value,
    Clear,
    Error,
    InputRequest,
    ToolCall,
    Done,
    Reply,
    Pong,
    Fault,
)
BY_TYPE = {str(kind.__struct_config__.tag): kind for kind in EVENTS}
