"""The Python client: run code in a session, and get back what it printed, showed and returned.

    from broker.client import Broker

    with Broker().session("chat-42") as session:
        session.execute("x = 20")
        print(session.execute("x * 2 + 2").value)

Needs `websockets` and `msgpack`, and nothing of the server.
"""

from typing import TYPE_CHECKING

from .broker import Broker
from .calls import BatchResult, Shown
from .errors import (
    AtCapacity,
    BadPath,
    BadRequest,
    BrokerError,
    ConnectionLost,
    Draining,
    ExecutionFailed,
    FileConflict,
    FileExists,
    Forbidden,
    KernelBusy,
    NoServer,
    NoSuchFile,
    NotRunning,
    NoWorkspace,
    OutputLost,
    ProfileBroken,
    QueueFull,
    QuotaExceeded,
    Refused,
    ServerFault,
    SessionElsewhere,
    SessionGone,
    SessionMoved,
    SlowClient,
    StateLost,
    StoreUnavailable,
    TryAgain,
    Unauthorized,
    UnknownSession,
    UnknownToken,
    WorkspaceFull,
)
from .files import FileInfo, Files
from .find import Place, find, find_state_dir, user_state_dir
from .result import Event, FileChange, RemoteError, Result
from .sync import Session

if TYPE_CHECKING:
    from .aio import AsyncSession
    from .aio_broker import AsyncBroker

__all__ = [
    "AsyncBroker",
    "AsyncSession",
    "AtCapacity",
    "BadPath",
    "BadRequest",
    "BatchResult",
    "Broker",
    "BrokerError",
    "ConnectionLost",
    "Draining",
    "Event",
    "ExecutionFailed",
    "FileChange",
    "FileConflict",
    "FileExists",
    "FileInfo",
    "Files",
    "Forbidden",
    "KernelBusy",
    "NoServer",
    "NoSuchFile",
    "NoWorkspace",
    "NotRunning",
    "OutputLost",
    "Place",
    "ProfileBroken",
    "QueueFull",
    "QuotaExceeded",
    "Refused",
    "RemoteError",
    "Result",
    "ServerFault",
    "Session",
    "SessionElsewhere",
    "SessionGone",
    "SessionMoved",
    "Shown",
    "SlowClient",
    "StateLost",
    "StoreUnavailable",
    "TryAgain",
    "Unauthorized",
    "UnknownSession",
    "UnknownToken",
    "WorkspaceFull",
    "find",
    "find_state_dir",
    "user_state_dir",
]


def __getattr__(name: str) -> object:
    """Import the asyncio twin for those who use it; asyncio costs more than all the rest."""
    if name in ("AsyncBroker", "AsyncSession"):
        from . import aio, aio_broker

        return getattr(aio_broker if name == "AsyncBroker" else aio, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
