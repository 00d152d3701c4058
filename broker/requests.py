"""The requests of the native protocol: their types, and the bounds of their fields.

What arrives is plain data, decoded by `broker.protocol`; `broker.parsing` makes these of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, get_args

import msgspec
from msgspec.structs import replace

MAX_TIMEOUT = 7 * 86400.0  # seconds; more is a mistake of units, and infinity is no deadline
MAX_SEQ = 2**63 - 1
MAX_CELLS = 100
MAX_TOOLS = 256
MAX_INPUTS = 256
MAX_VARIABLES = 1000
MAX_NAME = 256  # characters of a variable's
MAX_ENV_VALUE = 32 << 10  # characters

RequestId = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
ProfileName = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Timeout = Annotated[float, msgspec.Meta(gt=0, le=MAX_TIMEOUT)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
Cursor = Annotated[int, msgspec.Meta(ge=0, le=MAX_SEQ)]
VariableName = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_NAME)]
# Which of these names can be a variable, the kernel says: it knows all of Python's letters.
Inputs = Annotated[dict[VariableName, Any], msgspec.Meta(max_length=MAX_INPUTS)]
EnvName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,255}$")]
EnvValue = Annotated[str, msgspec.Meta(max_length=MAX_ENV_VALUE)]
Environment = Annotated[dict[EnvName, EnvValue], msgspec.Meta(max_length=MAX_INPUTS)]
Directory = Annotated[str, msgspec.Meta(min_length=1, max_length=4095)]
ORIGIN = re.compile(r"[a-z0-9-]{1,32}")
VISITOR = "operator"  # the origin of what another tenant's visitor runs: no request says so itself


def origin_of(metadata: Mapping[str, Any]) -> str:
    """Return where a request says that it comes from, such as `attach`; empty if it does not."""
    told = metadata.get("origin")
    return told if isinstance(told, str) and ORIGIN.fullmatch(told) else ""


def marked(request: Execute, origin: str) -> Execute:
    """Return the request with where it comes from, whatever it says of that itself.

    Without an `origin` its own word stands, unless that is the visitor's.
    """
    if not origin and request.metadata.get("origin") != VISITOR:
        return request
    rest = {name: value for name, value in request.metadata.items() if name != "origin"}
    return replace(request, metadata=rest | {"origin": origin} if origin else rest)


class Message(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A map of known fields, and no others."""


class Execute(Message, frozen=True, kw_only=True, tag="execute"):
    """Run code; `timeout` in seconds, None for the session's own.

    `inputs` are set as variables before it runs, as data. `env` and `cwd` hold while it runs.
    """

    id: RequestId
    code: str
    timeout: Timeout | None = None
    stop_on_error: bool = True
    store_history: bool = True
    silent: bool = False
    inputs: Inputs = {}
    env: Environment = {}
    cwd: Directory | None = None
    metadata: dict[str, Any] = {}


class ExecuteRequest(Execute, frozen=True, kw_only=True, tag="execute"):
    """An execute as Jupyter's clients ask for it: with expressions, told of in the reply alone."""

    user_expressions: dict[str, Any] = {}


class Cell(Message, frozen=True, kw_only=True):
    """One cell of a batch."""

    code: str
    timeout: Timeout | None = None


class Batch(Message, frozen=True, kw_only=True, tag="batch"):
    """Run cells one after the other; the first that fails ends it unless told otherwise."""

    id: RequestId
    cells: Annotated[list[Cell], msgspec.Meta(min_length=1, max_length=MAX_CELLS)]
    stop_on_error: bool = True


class Call(Message, frozen=True, kw_only=True, tag="call"):
    """Call a function, and return what it returns as plain data.

    `function` is the source of a `lambda` or a `def`, or the name of a function in the session.
    """

    id: RequestId
    function: Annotated[str, msgspec.Meta(min_length=1)]
    args: list[Any] = []
    kwargs: Inputs = {}
    timeout: Timeout | None = None
    env: Environment = {}
    cwd: Directory | None = None


class Interrupt(Message, frozen=True, kw_only=True, tag="interrupt"):
    """Interrupt the execution `target`, or the one that runs."""

    id: RequestId
    target: RequestId | None = None


class Cancel(Message, frozen=True, kw_only=True, tag="cancel"):
    """Take the execution `target` out of the queue."""

    id: RequestId
    target: RequestId


class InputReply(Message, frozen=True, kw_only=True, tag="input_reply"):
    """Answer the `input_request` that waits; None is the end of input."""

    value: str | None
    # The event's `question`; where another one waits by now, the answer is refused.
    question: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    id: RequestId | None = None  # for a fault to name; nothing else answers it


class ToolFailure(Message, frozen=True, kw_only=True):
    """What a host tool failed with."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    message: str = ""


class ToolResult(Message, frozen=True, kw_only=True, tag="tool_result"):
    """Answer the `tool_call` of that number, with a value or an error."""

    call: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    value: Any = None
    error: ToolFailure | None = None
    id: RequestId | None = None


class Tool(Message, frozen=True, kw_only=True):
    """A host tool; `parameters` is the JSON Schema of its arguments, an object."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
    description: Annotated[str, msgspec.Meta(max_length=4096)] = ""
    parameters: dict[str, Any] = {}


class Tools(Message, frozen=True, kw_only=True, tag="tools"):
    """Name the host tools that this client serves from now on, instead of those before."""

    id: RequestId
    tools: Annotated[list[Tool], msgspec.Meta(max_length=MAX_TOOLS)]


class Complete(Message, frozen=True, kw_only=True, tag="complete"):
    """Ask how the code may go on at the cursor, which is a number of characters."""

    id: RequestId
    code: str
    cursor: Cursor


class Inspect(Message, frozen=True, kw_only=True, tag="inspect"):
    """Ask what stands at the cursor, which is a number of characters."""

    id: RequestId
    code: str
    cursor: Cursor


class Variables(Message, frozen=True, kw_only=True, tag="variables"):
    """Ask for the session's variables, or some of them by name."""

    id: RequestId
    names: Annotated[list[VariableName], msgspec.Meta(max_length=MAX_VARIABLES)] | None = None
    max: Annotated[int, msgspec.Meta(ge=1, le=MAX_VARIABLES)] = 200


class History(Message, frozen=True, kw_only=True, tag="history"):
    """Ask for the cells that have run last, the newest last."""

    id: RequestId
    max: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 100


class Configure(Message, frozen=True, kw_only=True, tag="configure"):
    """Set environment variables and the working directory for all that runs from now on.

    A variable set to None is removed; the directory `.` is the workspace itself again. They hold
    for the session's later kernels, too. Where there is no such directory, the first execution
    says so and runs nothing, and the former one stays.
    With `again`, what the session still has so is left as code may have changed it since.
    """

    id: RequestId
    env: Annotated[dict[EnvName, EnvValue | None], msgspec.Meta(max_length=MAX_INPUTS)] = {}
    cwd: Directory | None = None
    again: bool = False


class Restart(Message, frozen=True, kw_only=True, tag="restart"):
    """Replace the session's kernel by a new one."""

    id: RequestId
    keep_files: bool = True


class Close(Message, frozen=True, kw_only=True, tag="close"):
    """End the session and its kernel."""

    id: RequestId


class Ack(Message, frozen=True, kw_only=True, tag="ack"):
    """Tell that every event up to `seq` has arrived."""

    seq: Seq
    id: RequestId | None = None  # nothing answers an ack


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    """Ask for a `pong`."""

    id: RequestId


Request = (
    Execute
    | Batch
    | Call
    | Interrupt
    | Cancel
    | InputReply
    | ToolResult
    | Tools
    | Complete
    | Inspect
    | Variables
    | History
    | Configure
    | Restart
    | Close
    | Ack
    | Ping
)
REQUESTS: dict[str, type[Request]] = {
    str(one.__struct_config__.tag): one for one in get_args(Request)
}
# What may hold binary values, anywhere inside: plain data on its way to a kernel.
PLAIN_DATA = frozenset({"inputs", "args", "kwargs", "value"})


class ExecuteBody(Message, frozen=True, kw_only=True):
    """What is posted to run code and wait for it: an execute without `id` and `type`."""

    code: str
    timeout: Timeout | None = None
    stop_on_error: bool = True
    store_history: bool = True
    silent: bool = False
    inputs: Inputs = {}
    env: Environment = {}
    cwd: Directory | None = None
    metadata: dict[str, Any] = {}
    profile: ProfileName | None = None

    def request(self, request_id: str) -> Execute:
        """Return the same execution as a request of that id."""
        given = {name: getattr(self, name) for name in self.__struct_fields__ if name != "profile"}
        return Execute(id=request_id, **given)


class FileBody(Message, frozen=True, kw_only=True):
    """What is posted to a path of a workspace: rename it, or make a directory of it."""

    move_to: Directory | None = None
    directory: bool = False
    replace: bool = False


class CallBody(Message, frozen=True, kw_only=True):
    """What is posted to call a function: a call without `id` and `type`."""

    function: Annotated[str, msgspec.Meta(min_length=1)]
    args: list[Any] = []
    kwargs: Inputs = {}
    timeout: Timeout | None = None
    env: Environment = {}
    cwd: Directory | None = None
    profile: ProfileName | None = None

    def request(self, request_id: str) -> Call:
        """Return the same call as a request of that id."""
        given = {name: getattr(self, name) for name in self.__struct_fields__ if name != "profile"}
        return Call(id=request_id, **given)


class OpenBody(Message, frozen=True, kw_only=True):
    """What is posted to open a session, or to join it; each of `limits` as in a query.

    An environment cannot stand in a URL: those are logged, and this is not.
    """

    profile: ProfileName | None = None
    env: Annotated[dict[EnvName, EnvValue | None], msgspec.Meta(max_length=MAX_INPUTS)] = {}
    cwd: Directory | None = None
    limits: dict[str, str | int | float] = {}

    def configure(self, request_id: str) -> Configure:
        """Return what it sets as a request of that id."""
        return Configure(id=request_id, env=self.env, cwd=self.cwd)
