"""A session's files for those who ask over HTTP, whether or not a kernel is there just now."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import closing, contextmanager

from broker.claims import Claims
from broker.errors import (
    AtCapacity,
    BadPath,
    BrokerError,
    FileConflict,
    FileExists,
    NoSuchFile,
    NoWorkspace,
    UnknownSession,
    WorkspaceFull,
)
from broker.roles import Workspace
from broker.service import Key, Service
from broker.session import Session
from kernels.errors import NoRoom, UnsafePath, shown_path
from kernels.files import Files
from kernels.state import SessionState

REFUSALS: dict[str, type[BrokerError]] = {
    "missing": NoSuchFile,
    "exists": FileExists,
    "is a directory": FileConflict,
    "not a directory": FileConflict,
    "not empty": FileConflict,
    "into itself": FileConflict,
    "busy": FileConflict,
}


logger = logging.getLogger(__name__)


class Holding:
    """A session's files in the hands of one request. Whoever has it closes it."""

    def __init__(self, session: Session, workspace: Workspace) -> None:
        self.session = session
        self._workspace = workspace
        # A descriptor of its own: the session may end meanwhile, and its number be another file's.
        self.files = Files(workspace.descriptor)

    def check(self) -> None:
        """Raise UnknownSession when the session, or its files, have gone meanwhile."""
        if self.session.workspace is not self._workspace:
            raise UnknownSession(f"the files of session {self.session.name!r} are gone")

    def settle(self, path: str, moved_to: str | None = None) -> None:
        """Have this change, which is the client's own, told of no execution."""
        changes, descriptor = self._workspace.changes, self._workspace.descriptor
        if changes is None or descriptor < 0:
            return
        if moved_to is None:
            changes.settle(descriptor, path)
        else:
            changes.moved(path, moved_to)

    def close(self) -> None:
        """Let go of the files. Safe to call again."""
        self.files.close()


async def hold(service: Service, key: Key, *, may_start: bool) -> Holding:
    """Return the files of a session of this node; one that has no kernel yet gets one, if it may.

    Raises UnknownSession, SessionElsewhere, StoreUnavailable, AtCapacity, NoWorkspace.
    """
    session = service.sessions.get(key)
    if session is None:
        await Claims(service.store, service.limits.record_ttl).refuse_elsewhere(*key)
        raise UnknownSession(f"no session {key[1]!r} on this node")
    if session.workspace is None:
        if may_start:
            service.need_kernel(session)
        await asyncio.sleep(0)  # so that the binding is before us in the gate's line
        async with session.gate:
            pass
    if session.state is SessionState.CLOSED:
        raise UnknownSession(f"session {key[1]!r} has ended")
    workspace = session.workspace
    if workspace is None and not may_start:
        raise NoWorkspace(f"session {key[1]!r} has no kernel, and so no files, yet")
    if workspace is None and session.kernel is None:
        raise AtCapacity(f"no kernel, and so no files, can be had for session {key[1]!r} now")
    if workspace is None or workspace.descriptor < 0:
        raise NoWorkspace(
            f"kernels of profile {session.profile!r} keep their files where the broker has no way"
        )
    holding = Holding(session, workspace)
    if not holding.files.is_reachable:
        holding.close()
        raise NoWorkspace(
            "this node's kernels have user ids that the broker cannot act for (mode user-range)"
        )
    return holding


async def sweep(service: Service) -> None:
    """Remove what a killed broker had begun to write or to remove, of the sessions it has left.

    One session after the other, in a thread; what is begun meanwhile stays.
    """
    for session in [*service.sessions.values()]:
        if session.workspace is None or session.workspace.descriptor < 0:
            continue
        try:
            count = await asyncio.to_thread(_swept, Files(session.workspace.descriptor))
        except (OSError, UnsafePath, NoRoom) as error:
            logger.warning("session=%s/%s is not swept: %s", *session.key, error)
            continue
        if count:
            logger.info("session=%s/%s swept: %d unfinished files", *session.key, count)


def _swept(files: Files) -> int:
    with closing(files):  # the thread's own: it goes on when nobody waits for it any more
        return files.sweep() if files.is_reachable else 0


@contextmanager
def told(move_to: str | None = None) -> Iterator[None]:
    """Tell what the files refuse as the client's fault, in words of its own."""
    try:
        yield
    except UnsafePath as error:
        kind = REFUSALS.get(error.reason, BadPath)
        field = "move_to" if error.path == move_to else "path"
        shown = shown_path(error.path).encode(errors="replace").decode()
        raise kind(f"{field}: {shown!r}: {error.reason}", field=field) from error
    except NoRoom as error:
        raise WorkspaceFull(str(error), field="workspace") from error
