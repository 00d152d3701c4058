"""What the HTTP routes answer with, as types: for the description of them, and to check them by.

Nothing is built from these: handlers answer with plain maps. Times are Unix seconds, sizes bytes.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from broker import events
from broker.events import Bundle, Bytes, Seconds, Time

Output = (
    events.Stream
    | events.Display
    | events.Result
    | events.Value
    | events.Clear
    | events.Error
    | events.InputRequest
    | events.ToolCall
)


class Answer(msgspec.Struct, forbid_unknown_fields=True):
    """An answer's body."""


class Refusal(Answer):
    """Why a request was not served; `field` is what was wrong with it."""

    code: str
    message: str
    field: str | msgspec.UnsetType = msgspec.UNSET
    retry_after: Seconds | msgspec.UnsetType = msgspec.UNSET
    node: str | msgspec.UnsetType = msgspec.UNSET
    url: str | msgspec.UnsetType = msgspec.UNSET


class Refused(Answer):
    """The body of every answer that is an error."""

    error: Refusal


class Failure(Answer):
    """The exception that ended the code."""

    name: str
    message: str
    short: str
    traceback: list[str]


class Executed(Answer):
    """A waited-for execution: its streams joined, and its events in order."""

    session: str
    generation: int
    state: str
    status: str
    execution_count: int | None
    stdout: str
    stderr: str
    result: Bundle | None
    displays: list[Bundle]
    error: Failure | None
    outputs: list[Output]
    done: events.Done


class Called(Executed):
    """A waited-for call: `value` is null for what has no plain form, and `data` how it is shown."""

    value: Any
    data: Bundle | None


class Usage(Answer):
    """What a kernel's whole tree has used so far; null for what nobody counts."""

    cpu_seconds: Seconds | None
    memory: Bytes | None
    memory_peak: Bytes | None
    processes: int | None


class RunningCell(Answer):
    """The execution that runs, and for how long it has."""

    id: str
    seconds: Seconds


class SessionRow(Answer):
    """One session; what only its own node knows is null elsewhere."""

    session: str
    tenant: str
    node: str
    kernel: str
    generation: int
    profile: str
    state: str
    reason: str
    created: Time
    last_used: Time
    expires: Time
    executions: int | None
    queued: int | None
    clients: int | None
    pid: int | None
    idle: Seconds
    last_error: str | None
    cell: RunningCell | None
    usage: Usage | None


class SessionRows(Answer):
    """Sessions, and which node answers; `next` is the name to list on after, null at the end.

    `total` counts what the filters let through.
    """

    sessions: list[SessionRow]
    next: str | None
    total: int
    node: str


class PastGeneration(Answer):
    """One kernel's time; `began` is null where nobody knows, `ended` while it lives."""

    generation: int
    began: Time | None
    ended: Time | None
    reason: str


class PastError(Answer):
    """How an execution failed, in one line."""

    id: str
    error: str
    at: Time


class Attached(Answer):
    """How many clients may run code, and how many only watch."""

    run: int
    watch: int


class DescribedSession(SessionRow, kw_only=True):
    """All there is to tell of one session; what only its own node knows is null elsewhere.

    `code` is the first line of what runs, null where nothing does or that is not known.
    """

    code: str | None
    limits: dict[str, float] | None
    workspace_bytes: Bytes | None
    history: list[PastGeneration]
    errors: list[PastError] | None
    attached: Attached | None


class VariableRow(Answer):
    """One variable; `size` in bytes, `length` in items, and a line of what it holds."""

    name: str
    type: str
    preview: str
    module: str | msgspec.UnsetType = msgspec.UNSET
    shape: list[int] | msgspec.UnsetType = msgspec.UNSET
    length: int | msgspec.UnsetType = msgspec.UNSET
    size: Bytes | msgspec.UnsetType = msgspec.UNSET


class VariableRows(Answer):
    """A session's variables; how many `more` there are, and which of those named are `missing`."""

    session: str
    variables: list[VariableRow]
    more: int | msgspec.UnsetType = msgspec.UNSET
    missing: list[str] | msgspec.UnsetType = msgspec.UNSET


class Notebook(msgspec.Struct):
    """A notebook of nbformat 4.5."""

    nbformat: Literal[4]
    nbformat_minor: Literal[5]
    metadata: dict[str, Any]
    cells: list[dict[str, Any]]


class Drained(Answer):
    """Whether a node takes no new sessions, how many it still serves, and how many are busy."""

    node: str
    draining: bool
    sessions: int
    busy: int


class Ended(Answer):
    """A session that has ended, and why."""

    session: str
    generation: int
    reason: str


class Interrupted(Answer):
    """The executions that were told to stop."""

    interrupted: str | None


class Restarted(Answer):
    """A session's next generation."""

    session: str
    generation: int


class Me(Answer):
    """Who a token speaks for; `session` is the only one it opens, `operator` the node's."""

    tenant: str
    scopes: list[str]
    session: str | None
    expires: Time | None
    operator: bool


class TokenRow(Answer):
    """One access token, without what opens anything; `by` is the id of the one that made it."""

    id: str
    tenant: str
    scopes: list[str]
    session: str | None
    name: str
    created: Time
    expires: Time | None
    by: str


class TokenRows(Answer):
    """Tokens, the oldest first."""

    tokens: list[TokenRow]


class MadeToken(TokenRow, kw_only=True):
    """A new token, and its text: this once."""

    token: str


class RevokedToken(TokenRow, kw_only=True):
    """A token that opens nothing any more."""

    revoked: bool


class NodeRow(Answer):
    """One node as it describes itself; `capacity` in kernels.

    `memory` and `cpu_seconds` are those of its kernels, null where nobody counts them, at the time
    `counted`. Processor time is never taken back: two looks tell how many cores are busy.
    """

    node: str
    url: str
    version: str
    capacity: int
    warm: int
    bound: int
    draining: bool
    started: Time
    isolation: str
    mode: str
    memory: Bytes | None
    cpu_seconds: Seconds | None
    counted: Time


class NodeRows(Answer):
    """The live nodes."""

    nodes: list[NodeRow]


class Process(Answer):
    """A process; what is measured is there where `memory` was asked for, null if it has gone."""

    pid: int
    profile: str | msgspec.UnsetType = msgspec.UNSET
    rss: Bytes | msgspec.UnsetType | None = msgspec.UNSET
    pss: Bytes | msgspec.UnsetType | None = msgspec.UNSET
    uss: Bytes | msgspec.UnsetType | None = msgspec.UNSET
    cpu_seconds: Seconds | msgspec.UnsetType | None = msgspec.UNSET


class KernelRow(Answer):
    """One kernel of a pool; `session` only for the tenant's own."""

    kernel: str
    state: str
    session: str | None
    generation: int | None
    pid: int | None
    age: Seconds
    rss: Bytes | msgspec.UnsetType | None = msgspec.UNSET
    pss: Bytes | msgspec.UnsetType | None = msgspec.UNSET
    uss: Bytes | msgspec.UnsetType | None = msgspec.UNSET
    cpu_seconds: Seconds | msgspec.UnsetType | None = msgspec.UNSET


class PoolRow(Answer):
    """A profile's kernels on this node."""

    profile: str
    node: str
    target: int
    cap: int
    warm: int
    starting: int
    bound: int
    stopping: int
    waiting: int
    state: str
    error: str
    retry_in: Seconds | None
    isolation: str
    mode: str
    kernels: list[KernelRow]


class StoreRow(Answer):
    """Where the mapping is kept."""

    url: str
    embedded: bool
    restarts: int


class PoolRows(Answer):
    """This node's pools, its own processes, and its store."""

    broker: Process
    zygotes: list[Process]
    store: StoreRow
    pools: list[PoolRow]


class Alive(Answer):
    """The process answers."""

    alive: bool


class Readiness(Answer):
    """Whether the node should get new sessions, and why not."""

    ready: bool
    reasons: list[str]


class FileRow(Answer):
    """A file, or whatever else has a name in a workspace; only files have a size.

    A name that is no UTF-8 comes `encoded` too: percent-encoded, as the URL takes it.
    """

    path: str
    type: Literal["file", "directory", "symlink", "other"]
    size: Bytes
    mtime: Time
    encoded: str | msgspec.UnsetType = msgspec.UNSET


class FileRows(Answer):
    """Files by path; `next` is the `after` of the next page."""

    files: list[FileRow]
    next: str | None


class Removed(Answer):
    """What is not there any more."""

    path: str
    removed: bool
