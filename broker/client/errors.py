"""What a request to the broker can end with, apart from a result.

BrokerError                `code` and `message` of the broker; `field`, `retry_after` where known
├── Refused                the request is at fault; nothing was changed
│   ├── BadRequest         a message or a name that breaks a rule; `field` names the place
│   ├── Unauthorized       no token, or a wrong one
│   ├── Forbidden          a token that may not do this
│   ├── UnknownSession     no such session
│   ├── UnknownToken       no such token to revoke
│   ├── NotRunning         nothing to interrupt
│   ├── BadPath            a path that is not followed, such as through a symbolic link
│   ├── NoSuchFile         nothing has that name in the workspace
│   ├── FileExists         something has that name already
│   ├── FileConflict       what has the name is of another kind, such as a directory
│   ├── WorkspaceFull      the workspace is at its bound; the message names it
│   └── NoWorkspace        the session's files are out of the broker's reach
├── TryAgain               later, or elsewhere: after `retry_after` seconds
│   ├── SessionElsewhere   another node serves the session: `url` is its address
│   ├── AtCapacity         no kernel is free
│   │   └── QuotaExceeded  the tenant has as much as it may have; `field` names the quota
│   ├── ProfileBroken      the profile's kernels cannot start
│   ├── QueueFull          the session has too many executions waiting
│   ├── Draining           the node takes no new work
│   └── StoreUnavailable   the broker cannot reach its store
├── ServerFault            the broker failed
├── ConnectionLost         the broker went away while a request was open
│   ├── NoServer           nothing answers at the address, or no address is known
│   ├── SlowClient         this client read too slowly and was let go
│   ├── SessionMoved       another node took the session over: `url` is its address, if known
│   └── OutputLost         events of an execution are gone: `missed` says which
├── StateLost              the variables are gone: `generation`, `reason`, `lost` names
├── SessionGone            the session was ended while a request was open
└── ExecutionFailed        raised by `Result.raise_for_status()` alone; `result` has everything
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .result import Result


class BrokerError(Exception):
    """Any refusal or failure."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        field: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.field = field
        self.retry_after = retry_after


class Refused(BrokerError):
    """The request is at fault; nothing was changed."""


class BadRequest(Refused):
    """A message or a name that breaks a rule."""


class Unauthorized(Refused):
    """No token, or a wrong one."""


class Forbidden(Refused):
    """The token may not do this."""


class UnknownSession(Refused):
    """No such session."""


class UnknownToken(Refused):
    """No such token to revoke."""


class NotRunning(Refused):
    """There is nothing to interrupt."""


class BadPath(Refused):
    """A path in the workspace that is not followed; the message says why."""


class NoSuchFile(Refused):
    """Nothing in the workspace has that name."""


class FileExists(Refused):
    """Something in the workspace has that name already."""


class FileConflict(Refused):
    """What has the name is of another kind than the request needs."""


class WorkspaceFull(Refused):
    """The session's workspace is at its bound."""


class NoWorkspace(Refused):
    """The session's files are out of the broker's reach."""


class TryAgain(BrokerError):
    """The broker cannot take the request now."""


class AtCapacity(TryAgain):
    """No kernel is free, or a quota is used up."""


class QuotaExceeded(AtCapacity):
    """The tenant has as much as it may have; `field` names the quota."""


class ProfileBroken(TryAgain):
    """The profile's kernels cannot start; the message says why."""


class QueueFull(TryAgain):
    """The session has too many executions waiting."""


class Draining(TryAgain):
    """The node takes no new work."""


class StoreUnavailable(TryAgain):
    """The broker cannot reach its store."""


class SessionElsewhere(TryAgain):
    """Another node serves the session; `url` is its address, or empty if it is unknown."""

    node = ""
    url = ""


class KernelBusy(TryAgain):
    """The session's kernel cannot answer a question now."""


class ServerFault(BrokerError):
    """The broker failed."""


class ConnectionLost(BrokerError):
    """The broker went away while a request was open; whether it ran is not known."""


class NoServer(ConnectionLost):
    """Nothing answers at the address, or no address is known."""


class SlowClient(ConnectionLost):
    """This client read too slowly and was let go."""


class SessionMoved(ConnectionLost):
    """Another node took the session over; `url` is its address, or empty if it is unknown."""

    url = ""


class OutputLost(ConnectionLost):
    """Events of an execution were gone when the connection had been made anew.

    `missed` is the first and the last sequence number that this client never saw, or None where
    not even that is known. With a `result` the execution has ended, and the result holds what did
    come; without, what became of the execution is not known either.
    """

    def __init__(self, missed: tuple[int, int] | None) -> None:
        which = f"events {missed[0]} to {missed[1]}" if missed else "events"
        super().__init__(f"{which} of the session are gone, this execution's perhaps among them")
        self.missed = missed
        self.result: Result | None = None


class StateLost(BrokerError):
    """The session's variables are gone: its kernel ended, or it moved to another node.

    `generation` is the kernel it has now, or gets next; `reason` why the one before it ended,
    `lost` the names that are gone as far as the broker knows them. With a `result` the execution
    has ended, in the new generation or with the old one; without, it was in flight, and whether it
    ran is not known.
    """

    def __init__(
        self,
        generation: int,
        reason: str = "",
        lost: Sequence[str] = (),
        result: Result | None = None,
    ) -> None:
        told = f": {reason}" if reason else ""
        super().__init__(f"the variables are gone with generation {generation - 1}{told}")
        self.generation = generation
        self.reason = reason
        self.lost = tuple(lost)
        self.result = result


class SessionGone(BrokerError):
    """The session was ended while a request was open."""


class ExecutionFailed(BrokerError):
    """An execution ended with another status than `ok`."""

    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message, code=result.status)
        self.result = result


BY_CODE: dict[str, type[BrokerError]] = {
    "bad_frame": BadRequest,
    "bad_message": BadRequest,
    "too_large": BadRequest,
    "unknown_method": BadRequest,
    "unknown_route": BadRequest,
    "unauthorized": Unauthorized,
    "forbidden": Forbidden,
    "unknown_session": UnknownSession,
    "unknown_token": UnknownToken,
    "unknown_node": BadRequest,
    "not_running": NotRunning,
    "bad_path": BadPath,
    "no_such_file": NoSuchFile,
    "file_exists": FileExists,
    "file_conflict": FileConflict,
    "no_workspace": NoWorkspace,
    "capacity": AtCapacity,
    "quota": QuotaExceeded,
    "busy": SessionElsewhere,
    "queue_full": QueueFull,
    "draining": Draining,
    "store_unavailable": StoreUnavailable,
    "internal": ServerFault,
}

BY_STATUS: dict[int, type[BrokerError]] = {
    400: BadRequest,
    401: Unauthorized,
    403: Forbidden,
    404: UnknownSession,
    413: BadRequest,
    421: SessionElsewhere,
    429: TryAgain,
    503: TryAgain,
    507: WorkspaceFull,
}

# Why the broker closes a socket.
BY_CLOSE_CODE: dict[int, tuple[type[BrokerError], str]] = {
    1001: (Draining, "the node is draining; connect again"),
    1013: (TryAgain, "the broker asks to try later"),
    4400: (BadRequest, "too many bad frames"),
    4401: (Unauthorized, "the token is no longer valid"),
    4404: (SessionGone, "the session was ended"),
    4406: (BadRequest, "the broker speaks no protocol of this client"),
    4408: (SlowClient, "this client read too slowly"),
    4409: (SessionMoved, "the session moved to another node; connect again"),
}


def from_fault(fault: Mapping[str, Any], status: int = 0) -> BrokerError:
    """Return the error that a `fault` event or the `error` of an HTTP answer means."""
    code = str(fault.get("code", ""))
    kind = BY_CODE.get(code) or BY_STATUS.get(status) or ServerFault
    if kind is AtCapacity and fault.get("field") == "profile":
        kind = ProfileBroken
    if kind is SessionElsewhere and status != 421 and "node" not in fault:
        kind = KernelBusy
    if code == "quota" and fault.get("field") == "workspace":
        kind = WorkspaceFull
    message = str(fault.get("message") or code or f"HTTP {status}")
    node, url = str(fault.get("node") or ""), str(fault.get("url") or "")
    error = kind(
        f"{message}: use it at {url}" if url else message,
        code=code,
        field=fault.get("field"),
        retry_after=fault.get("retry_after"),
    )
    if isinstance(error, SessionElsewhere):
        error.node, error.url = node, url
    return error


def from_close(code: int | None, reason: str) -> BrokerError:
    """Return the error that the end of a socket means for a request that was still open."""
    kind, meaning = BY_CLOSE_CODE.get(code or 1006, (ConnectionLost, "the connection was lost"))
    error = kind(f"{meaning}: {reason}" if reason else meaning, code=str(code or 1006))
    if isinstance(error, SessionMoved) and (address := re.search(r"https?://[^\s\"'<>]+", reason)):
        error.url = address[0]
    return error
