"""The routes of sessions: to run code in them, and all that they have."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from msgspec import Meta, Struct

from broker import answers, errors
from broker.principal import TENANT, Deed
from broker.requests import CallBody, ExecuteBody, FileBody, OpenBody, ProfileName, Seq
from broker.web import call, execute, files, native, notebook, operators, questions
from broker.web.route import ANY, BYTES, JSON, NDJSON, Answer, Operation, Parameter, Route, answer
from broker.web.terms import (
    BODY,
    BOUNDS,
    BUSY,
    FULL,
    OF,
    Flag,
    Line,
    Number,
    Positive,
    Sort,
    State,
)

Tenants = Annotated[str, Meta(pattern=rf"^({TENANT}|\*)$")]
Page = Annotated[int, Meta(ge=1, le=files.MAX_PAGE)]
FILES = (
    *(errors.SessionElsewhere, errors.StoreUnavailable, errors.AtCapacity, errors.UnknownSession),
    *(errors.NoWorkspace, errors.BadPath, errors.NoSuchFile, errors.FileConflict),
)
SENT = {
    200: Answer("The file.", {ANY: None}),
    206: Answer("The part of it that `Range` asks for.", {ANY: None}),
    304: Answer("It is what `If-None-Match` names.", {}),
    416: Answer("`Range` asks for what lies behind its end.", {JSON: answers.Refused}),
}
CHANGED = {
    200: Answer("It replaced what was there, or was there.", {JSON: answers.FileRow}),
    201: Answer("It is new.", {JSON: answers.FileRow}),
}
EXECUTED = {
    200: Answer(
        "What the code did; also if it failed. As NDJSON, the events while it runs, `done` last.",
        {JSON: answers.Executed, NDJSON: None},
    )
}
CALLED = {
    200: Answer(
        "What the call did; also if it failed. As NDJSON, the events while it runs, `done` last.",
        {JSON: answers.Called, NDJSON: None},
    )
}


def _runs(summary: str, told: dict[int, Answer], body: type[Struct]) -> Operation:
    errors_ = (*FULL, *BODY, errors.UnknownProfile)
    return Operation(summary, told, scope=Deed.RUN, query=BOUNDS, body={JSON: body}, errors=errors_)


def _visitable(operation: Operation) -> Operation:
    """Return what runs something in a session, which notes itself for the audit, as anybody's."""
    errors_ = (*operation.errors, errors.UnknownSession)
    return replace(operation, query=(OF, *operation.query), errors=errors_, visited="")


ROUTES: list[Route] = [
    Route(
        "/v1/sessions/{session}/ws",
        native.NativeSocket,
        {
            "get": Operation(
                "Attach to a session over a WebSocket; its messages are in `/schema.json`.",
                {
                    101: Answer("The connection is a WebSocket now.", {}),
                    426: Answer("This was no WebSocket handshake.", {JSON: answers.Refused}),
                },
                scope=Deed.RUN,
                audited="attached",
                query=(
                    OF,
                    Parameter("profile", "The profile of its kernels, if it is new.", ProfileName),
                    Parameter("after", "The last sequence number seen.", Seq),
                    Parameter("mode", "watch: see all, run nothing.", Literal["run", "watch"]),
                    Parameter("create", "Whether to make a session that is not there.", Flag),
                    *BOUNDS,
                ),
                errors=(*FULL, errors.UnknownSession, errors.UnknownProfile),
            )
        },
    ),
    Route(
        "/v1/sessions/{session}/execute",
        execute.ExecuteInSession,
        {"post": _visitable(_runs("Run code in a session and wait.", EXECUTED, ExecuteBody))},
    ),
    Route(
        "/v1/sessions/{session}/call",
        call.CallInSession,
        {"post": _visitable(_runs("Call a function in a session and wait.", CALLED, CallBody))},
    ),
    Route(
        "/v1/sessions/{session}/interrupt",
        operators.InterruptSession,
        {
            "post": Operation(
                "Interrupt what runs in a session.",
                answer("The id of the execution that was told to stop.", answers.Interrupted),
                scope=Deed.END,
                audited="interrupted",
                query=(Parameter("target", "Only if the execution of this id runs."), OF),
                errors=(*BUSY, errors.UnknownSession, errors.NotRunning),
            )
        },
    ),
    Route(
        "/v1/sessions/{session}/restart",
        operators.RestartSession,
        {
            "post": Operation(
                "Give a session a new kernel.",
                answer("The next generation.", answers.Restarted),
                scope=Deed.RUN,
                audited="restarted",
                query=(OF, Parameter("keep_files", "Whether the files of the old one stay.", Flag)),
                errors=(*FULL, errors.UnknownSession),
            )
        },
    ),
    Route(
        "/v1/sessions/{session}/files",
        files.FileList,
        {
            "get": Operation(
                "List the files of a session.",
                answer("Files by path.", answers.FileRows),
                scope=Deed.READ,
                query=(
                    OF,
                    Parameter("path", "The directory; the workspace itself by default."),
                    Parameter("recursive", "Whether with what is in its directories.", Flag),
                    Parameter("limit", "At most so many.", Page),
                    Parameter("after", "Only those with a later path."),
                ),
                errors=FILES,
            )
        },
    ),
    Route(
        "/v1/sessions/{session}/files/{+path}",
        files.OneFile,
        {
            "get": Operation(
                "Read a file, or a part of it.", SENT, scope=Deed.READ, query=(OF,), errors=FILES
            ),
            "head": Operation(
                "Ask about a file.", SENT, scope=Deed.READ, query=(OF,), errors=FILES
            ),
            "put": Operation(
                "Write a file; with `If-None-Match: *` only a new one.",
                CHANGED,
                scope=Deed.RUN,
                audited="file_written",
                query=(OF,),
                body={BYTES: None},
                errors=(*FILES, errors.FileExists, errors.WorkspaceFull),
            ),
            "post": Operation(
                "Rename a file or a directory, or make a directory.",
                CHANGED,
                scope=Deed.RUN,
                audited="file_moved",
                query=(OF,),
                body={JSON: FileBody},
                errors=(*FILES, *BODY, errors.FileExists, errors.WorkspaceFull),
            ),
            "delete": Operation(
                "Remove a file, or a directory.",
                answer("It is not there any more.", answers.Removed),
                scope=Deed.RUN,
                audited="file_removed",
                query=(OF, Parameter("recursive", "Whether with what is in it.", Flag)),
                errors=FILES,
            ),
        },
    ),
    questions.ROUTE,
    notebook.ROUTE,
    Route(
        "/v1/sessions/{session}",
        operators.OneSession,
        {
            "get": Operation(
                "Describe a session.",
                answer("The session.", answers.DescribedSession),
                scope=Deed.READ,
                query=(
                    Parameter("errors", "With those that only its transcript tells of.", Flag),
                    OF,
                ),
                errors=(*BUSY, errors.UnknownSession),
            ),
            "post": Operation(
                "Open a session, or join it, with an environment and a directory for what runs.",
                answer("The session.", answers.SessionRow),
                scope=Deed.RUN,
                visited="joined",
                query=(OF,),
                body={JSON: OpenBody},
                errors=(*FULL, *BODY, errors.UnknownProfile, errors.UnknownSession),
            ),
            "delete": Operation(
                "End a session and its kernel.",
                answer("Its last generation.", answers.Ended),
                scope=Deed.END,
                audited="killed",
                query=(Parameter("reason", "What its next client is told; one line.", Line), OF),
                errors=(*BUSY, errors.UnknownSession),
            ),
        },
    ),
    Route(
        "/v1/sessions",
        operators.Sessions,
        {
            "get": Operation(
                "List the sessions.",
                answer("Sessions by name.", answers.SessionRows),
                scope=Deed.READ,
                query=(
                    Parameter("state", "Those in this state; `all` with the ended ones.", State),
                    Parameter("idle", "Only those idle for so many seconds.", Number),
                    Parameter("node", "Only those of this node."),
                    Parameter("profile", "Only those of this profile."),
                    Parameter("sort", "What they are in the order of; `name` by default.", Sort),
                    Parameter("limit", "At most so many.", Positive),
                    Parameter("after", "Only those with a later name; in a list by name."),
                    Parameter(
                        "tenant",
                        "Whose, for the operator; `*` for all, one's own by default.",
                        Tenants,
                    ),
                ),
                errors=(errors.StoreUnavailable,),
            )
        },
    ),
    Route(
        "/v1/execute",
        execute.ExecuteOnce,
        {
            "post": _runs(
                "Run code in a fresh kernel that is gone afterwards, and wait.",
                EXECUTED,
                ExecuteBody,
            )
        },
    ),
    Route(
        "/v1/call",
        call.CallOnce,
        {
            "post": _runs(
                "Call a function in a fresh kernel that is gone afterwards, and wait.",
                CALLED,
                CallBody,
            )
        },
    ),
]
