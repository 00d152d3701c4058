"""Everything the broker can refuse or fail at, by whose fault it is.

BrokerError
├── ClientError                the request is at fault; nothing was changed
│   ├── BadMessage             a message that does not fit its type; `field` names the place
│   ├── BadFrame               bytes that are no message at all
│   ├── TooLarge               over a bound; `field` names what
│   ├── BadSessionName         not 1-128 of A-Z a-z 0-9 . _ : @ -
│   ├── Unauthorized           no token, or a wrong one
│   ├── Forbidden              a token that may not do this
│   ├── UnknownSession         no such session (or another tenant's)
│   ├── UnknownNode            no such node
│   ├── UnknownProfile         no such profile, or none for this tenant
│   ├── UnknownToken           no such token to revoke (or another tenant's)
│   ├── NotRunning             nothing to interrupt
│   ├── BadPath                a path in a workspace that is not followed; the message says why
│   ├── NoSuchFile             nothing has that name in the workspace
│   ├── FileExists             something has that name already
│   ├── FileConflict           what has the name is of another kind than the request needs
│   ├── WorkspaceFull          the workspace is at its bound; the message names it
│   └── NoWorkspace            the session's files are out of this broker's reach
├── CapacityError              try again; `retry_after` seconds
│   ├── QueueFull              the session's queue is at its bound
│   ├── QuotaExceeded          the tenant has all that it may have; `field` names the quota
│   ├── AtCapacity             the node can hold no further kernel now
│   ├── Draining               the node takes no new sessions
│   ├── KernelBusy             the kernel cannot answer a question now
│   ├── SessionElsewhere       another node owns the session; `url` says where
│   └── StoreUnavailable       Redis does not answer, or a lease is in doubt
└── ServerError                ours
    ├── ProfileBroken          a profile's kernels cannot start; the message says why
    ├── SessionLost            the kernel ended while the request waited
    └── StateDirError          the state directory cannot be used

Codes for the wire are in `broker.web.door`; errors know nothing of HTTP.
"""

from __future__ import annotations


class BrokerError(Exception):
    """Any refusal or failure of the broker."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class ClientError(BrokerError):
    """The request is at fault; nothing was changed."""

    request: str | None = None  # the id of a message that was refused, as far as it was read


class BadMessage(ClientError):
    """A message that does not fit its type."""


class BadFrame(ClientError):
    """Bytes that are no message at all."""


class TooLarge(ClientError):
    """Something is over its bound."""


class BadSessionName(ClientError):
    """A session name outside the alphabet."""


class Unauthorized(ClientError):
    """No token, or a wrong one."""


class Forbidden(ClientError):
    """The token may not do this."""


class UnknownSession(ClientError):
    """No such session for this tenant."""


class UnknownNode(ClientError):
    """No such node."""


class UnknownProfile(ClientError):
    """No such profile."""


class UnknownToken(ClientError):
    """No such token."""


class NotRunning(ClientError):
    """There is nothing to interrupt."""


class BadPath(ClientError):
    """A path in a workspace that is not followed."""


class NoSuchFile(ClientError):
    """Nothing in the workspace has that name."""


class FileExists(ClientError):
    """Something in the workspace has that name already."""


class FileConflict(ClientError):
    """What has the name is of another kind than the request needs."""


class WorkspaceFull(ClientError):
    """The session's workspace is at its bound."""


class NoWorkspace(ClientError):
    """The session's files are out of this broker's reach."""


class CapacityError(BrokerError):
    """Try again after `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float = 1.0, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.retry_after = retry_after


class QueueFull(CapacityError):
    """The session's queue is at its bound."""


class QuotaExceeded(CapacityError):
    """The tenant has as much as it may have; `field` names the quota."""


class AtCapacity(CapacityError):
    """The node can hold no further kernel now."""


class Draining(CapacityError):
    """The node takes no new sessions."""


class KernelBusy(CapacityError):
    """The kernel cannot answer a question now."""


class SessionElsewhere(CapacityError):
    """Another node owns the session; `url` is that node's address, or empty if it is unknown."""

    def __init__(self, message: str, *, node: str, url: str = "", retry_after: float = 1.0) -> None:
        super().__init__(message, retry_after=retry_after)
        self.node = node
        self.url = url


class StoreUnavailable(CapacityError):
    """Redis does not answer, or this node's lease is in doubt."""


class ServerError(BrokerError):
    """The fault is the broker's."""


class ProfileBroken(ServerError):
    """A profile's kernels cannot start; the next attempt is in `retry_after` seconds."""

    def __init__(self, message: str, *, retry_after: float = 1.0) -> None:
        super().__init__(message, field="profile")
        self.retry_after = retry_after


class SessionLost(ServerError):
    """The session's kernel ended while the request waited."""


class StateDirError(ServerError):
    """The state directory cannot be used."""
