"""What goes into the store and comes out of it; times are Unix seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeVar

from broker.errors import StoreUnavailable

T = TypeVar("T", bound="SessionRecord | NodeRecord | TokenRecord")


class Renewal(StrEnum):
    """What a renewal found."""

    OK = "ok"
    REWRITTEN = "rewritten"  # the claim was gone and has been written again
    LOST = "lost"  # the session is another generation's: this one's kernel is to go


@dataclass(frozen=True, slots=True)
class Claim:
    """The answer to a claim.

    `history` is what `SessionRecord` has.

    `held`: `node` and `generation` are the owner's, which may be this node itself. `claimed`:
    `previous` is the last generation's kernel and `reason` why that generation ended; both are
    empty for a new session.
    """

    status: str
    generation: int
    node: str
    previous: str
    reason: str
    created: float
    history: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Lease:
    """What an owner knows of a session it serves: enough to write its whole record again."""

    tenant: str
    session: str
    generation: int
    kernel: str
    profile: str
    state: str
    created: float
    last_used: float
    expires: float


@dataclass(frozen=True, slots=True)
class Touch:
    """A use of a session: the end of an execution, or a change of state."""

    tenant: str
    session: str
    generation: int
    state: str
    last_used: float
    expires: float


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as the store has it; `leased` is false once its owner has stopped renewing.

    `began` is when its generation did, 0 if nobody knows; `history` has the generations before it,
    and it once it is closed, as `broker.past` reads them.
    """

    tenant: str
    session: str
    node: str
    kernel: str
    generation: int
    profile: str
    state: str
    previous: str
    reason: str
    created: float
    last_used: float
    expires: float
    leased: bool
    began: float = field(default=0.0, compare=False)
    history: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A node as it describes itself."""

    node: str
    url: str
    version: str
    capacity: int
    warm: int
    bound: int
    draining: bool
    started: float
    isolation: str = ""  # of its default profile
    mode: str = ""
    memory: int = -1  # bytes that its kernels use, -1 where nobody counts them
    cpu_seconds: float = -1.0  # that its kernels have used, those that have ended too, or -1
    counted: float = 0.0  # when


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """An access token, but for the token itself; `expires` is 0 for one that does not."""

    digest: str
    tenant: str
    scopes: str  # with spaces between
    session: str  # the only one it opens, or empty
    name: str  # for people
    created: float
    expires: float
    by: str  # the id of the token that made it


CONVERT: dict[str, Callable[[Any], object]] = {
    "str": str,
    "int": int,
    "float": float,
    "bool": lambda value: bool(int(value)),
}


def parsed(kind: type[T], key: str, values: Mapping[str, object]) -> T:
    """Return the record that a hash holds; raises StoreUnavailable naming the key and the field."""
    converted: dict[str, Any] = {}
    for one in fields(kind):
        if one.default is not MISSING and one.name not in values:
            continue  # written by a node of an earlier version
        try:
            converted[one.name] = CONVERT[str(one.type)](values[one.name])
        except (KeyError, ValueError) as error:
            message = f"the store's record {key} is not readable: {one.name} is "
            message += "missing" if isinstance(error, KeyError) else repr(values[one.name])
            raise StoreUnavailable(message) from error
    return kind(**converted)
