"""The table of routes: all there is to ask for over HTTP.

The application is made of it, and so is `/openapi.json`: what has no row here does not exist, and
a test fails for a method of a handler that its row does not describe.
"""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from tornado.web import Application

from broker import answers, errors
from broker.bounds import ASKED
from broker.grants import TokenBody
from broker.principal import TENANT, Deed
from broker.requests import CallBody, ExecuteBody, FileBody, OpenBody, ProfileName, Seq
from broker.web import (
    call,
    execute,
    files,
    native,
    nodes,
    notebook,
    openapi,
    operators,
    questions,
    tokens,
)
from broker.web.door import House, Missing, log_request
from broker.web.route import (
    ANY,
    BYTES,
    JSON,
    NDJSON,
    TEXT,
    Answer,
    Operation,
    Parameter,
    Route,
    answer,
)
from kernels.state import SessionState

Flag = Literal["true", "false", "1", "0"]
Number = Annotated[float, Meta(ge=0, lt=1e12)]
Positive = Annotated[int, Meta(ge=1, lt=10**12)]
Line = Annotated[str, Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$")]
TenantName = Annotated[str, Meta(pattern=f"^{TENANT}$")]
State = Literal["", "all", *(state.value for state in SessionState)]  # type: ignore[valid-type]

EVERYBODY = ""  # without a token
BUSY = (errors.SessionElsewhere, errors.Draining, errors.StoreUnavailable)
FULL = (
    *BUSY,
    errors.AtCapacity,
    errors.QuotaExceeded,
    errors.QueueFull,
    errors.ProfileBroken,
    errors.SessionLost,
)
BODY = (errors.BadFrame, errors.TooLarge)
BOUNDS = tuple(
    Parameter(name, "A bound for this session, lower than its profile's, as in the settings.")
    for name in ASKED
)
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


OF = Parameter("tenant", "Whose it is, for the operator; one's own by default.", TenantName)

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
        {"post": _runs("Run code in a session and wait.", EXECUTED, ExecuteBody)},
    ),
    Route(
        "/v1/sessions/{session}/call",
        call.CallInSession,
        {"post": _runs("Call a function in a session and wait.", CALLED, CallBody)},
    ),
    Route(
        "/v1/sessions/{session}/interrupt",
        operators.InterruptSession,
        {
            "post": Operation(
                "Interrupt what runs in a session.",
                answer("The id of the execution that was told to stop.", answers.Interrupted),
                scope=Deed.RUN,
                audited="interrupted",
                errors=(errors.UnknownSession, errors.NotRunning),
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
                query=(Parameter("keep_files", "Whether the files of the old one stay.", Flag),),
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
                    Parameter("path", "The directory; the workspace itself by default."),
                    Parameter("recursive", "Whether with what is in its directories.", bool),
                    Parameter("limit", "At most so many.", int),
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
            "get": Operation("Read a file, or a part of it.", SENT, scope=Deed.READ, errors=FILES),
            "head": Operation("Ask about a file.", SENT, scope=Deed.READ, errors=FILES),
            "put": Operation(
                "Write a file; with `If-None-Match: *` only a new one.",
                CHANGED,
                scope=Deed.RUN,
                audited="file_written",
                body={BYTES: None},
                errors=(*FILES, errors.FileExists, errors.WorkspaceFull),
            ),
            "post": Operation(
                "Rename a file or a directory, or make a directory.",
                CHANGED,
                scope=Deed.RUN,
                audited="file_moved",
                body={JSON: FileBody},
                errors=(*FILES, *BODY, errors.FileExists, errors.WorkspaceFull),
            ),
            "delete": Operation(
                "Remove a file, or a directory.",
                answer("It is not there any more.", answers.Removed),
                scope=Deed.RUN,
                audited="file_removed",
                query=(Parameter("recursive", "Whether with what is in it.", bool),),
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
                answer("The session.", answers.SessionRow),
                scope=Deed.READ,
                query=(OF,),
                errors=(*BUSY, errors.UnknownSession),
            ),
            "post": Operation(
                "Open a session, or join it, with an environment and a directory for what runs.",
                answer("The session.", answers.SessionRow),
                scope=Deed.RUN,
                body={JSON: OpenBody},
                errors=(*FULL, *BODY, errors.UnknownProfile),
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
                    Parameter("limit", "At most so many.", Positive),
                    Parameter("after", "Only those with a later name."),
                    OF,
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
        "/v1/tokens",
        tokens.AllTokens,
        {
            "get": Operation(
                "List the tokens of a tenant; for the operator, all.",
                answer("Tokens, without what opens anything.", answers.TokenRows),
                scope=Deed.ADMINISTER,
                errors=(errors.StoreUnavailable,),
            ),
            "post": Operation(
                "Make a token.",
                {201: Answer("The token, this once.", {JSON: answers.MadeToken})},
                scope=Deed.ADMINISTER,
                audited="token_created",
                body={JSON: TokenBody},
                errors=(*BODY, errors.StoreUnavailable, errors.QuotaExceeded),
            ),
        },
    ),
    Route(
        "/v1/tokens/{token_id}",
        tokens.OneToken,
        {
            "delete": Operation(
                "Revoke a token, and close what it opened.",
                answer("The token that was.", answers.RevokedToken),
                scope=Deed.ADMINISTER,
                audited="token_revoked",
                errors=(errors.StoreUnavailable, errors.UnknownToken),
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
    Route(
        "/v1/nodes",
        operators.Nodes,
        {
            "get": Operation(
                "List the live nodes.",
                answer("Nodes by name.", answers.NodeRows),
                scope=Deed.OPERATE,
                errors=(errors.StoreUnavailable,),
            )
        },
    ),
    nodes.ROUTE,
    Route(
        "/v1/pools",
        operators.Pools,
        {
            "get": Operation(
                "List this node's pools, their kernels, and its own processes.",
                answer("The pools.", answers.PoolRows),
                scope=Deed.OPERATE,
                query=(Parameter("memory", "Whether to measure each process.", Flag),),
            )
        },
    ),
    Route(
        "/healthz",
        operators.Health,
        {
            method: Operation(
                "Ask whether the process answers.",
                answer("It does.", answers.Alive),
                scope=EVERYBODY,
            )
            for method in ("get", "head")
        },
    ),
    Route(
        "/readyz",
        operators.Ready,
        {
            method: Operation(
                "Ask whether the node should get new sessions.",
                {
                    200: Answer("It should.", {JSON: answers.Readiness}),
                    503: Answer("It should not; the reasons.", {JSON: answers.Readiness}),
                },
                scope=EVERYBODY,
            )
            for method in ("get", "head")
        },
    ),
    Route(
        "/metrics",
        operators.MetricsPage,
        {
            "get": Operation(
                "Read the metrics, in Prometheus' text format.",
                {200: Answer("The metrics.", {TEXT: None})},
                scope=Deed.OPERATE,
            )
        },
    ),
    Route(
        "/openapi.json",
        openapi.Description,
        {
            "get": Operation(
                "Read this description.",
                answer("An OpenAPI 3.1 document.", dict[str, Any]),
                scope=EVERYBODY,
            )
        },
    ),
    Route(
        "/schema.json",
        openapi.Messages,
        {
            "get": Operation(
                "Read the schema of every message of the WebSocket.",
                answer("A JSON Schema of the dialect 2020-12.", dict[str, Any]),
                scope=EVERYBODY,
            )
        },
    ),
]

DEEDS = {
    (route.handler, method): operation.scope
    for route in ROUTES
    for method, operation in route.operations.items()
}

AUDITED = {
    (route.handler, method): operation.audited
    for route in ROUTES
    for method, operation in route.operations.items()
}


def application(house: House, **settings: Any) -> Application:
    """Return the application that serves the table."""
    shared = {"house": house}
    return Application(
        [(route.pattern(), route.handler, shared) for route in ROUTES],
        default_handler_class=Missing,
        default_handler_args=shared,
        log_function=log_request,
        deeds=DEEDS,
        audited=AUDITED,
        known_queries={route.handler: route.queries() for route in ROUTES},
        description=cache(lambda: openapi.document(ROUTES)),  # made when it is first asked for
        **settings,
    )
