"""Sessions as rows: those of this node as they are, those of others as the store has them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from broker.errors import UnknownSession
from broker.past import Generation, read_generations
from broker.service import Key, Service
from broker.session import Session
from broker.store import SessionRecord
from kernels.spec import Usage
from kernels.state import SessionState

Row = dict[str, Any]
AT_ONCE = 50  # rows between two turns of others: a row with its use takes some 50 µs
OWN = ("executions", "queued", "clients", "pid", "last_error", "cell", "usage")  # known here alone
ENDED = ("closed", "all")  # states that only the store knows every session of


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sessions: `tenant` None for all, `state` empty for those that have not ended."""

    tenant: str | None
    session: str | None = None  # the only one
    state: str = ""
    idle: float = 0.0  # s, at least; a busy one is not idle
    node: str | None = None
    profile: str | None = None

    def has(self, row: Row) -> bool:
        """Tell whether the session is one of them."""
        live = row["state"] != SessionState.CLOSED
        return (
            (row["state"] == self.state or self.state == "all" or (not self.state and live))
            and (not self.idle or (row["state"] != SessionState.BUSY and row["idle"] >= self.idle))
            and self.session in (None, row["session"])
            and self.node in (None, row["node"])
            and self.profile in (None, row["profile"])
        )


def _least(path: str, *more: str) -> Callable[[Row], float]:
    """Return what sorts by a number within a row, the largest first, rows without it last."""

    def key(row: Row) -> float:
        value: Any = row[path]
        for name in more:
            value = value and value[name]
        return 1.0 if value is None else -float(value)

    return key


# By name, what rows are sorted by; where that is alike, by tenant and name.
SORTS: Mapping[str, Callable[[Row], Any]] = {
    "name": lambda row: 0,
    "tenant": lambda row: 0,
    "state": lambda row: row["state"],
    "used": _least("last_used"),
    "idle": _least("idle"),
    "cell": _least("cell", "seconds"),
    "cpu": _least("usage", "cpu_seconds"),
    "memory": _least("usage", "memory"),
}


async def rows(service: Service, wanted: Wanted, sort: str = "name") -> list[Row]:
    """Return the rows of sessions, without what those have used but where `sort` is about that.

    Ended ones are there while they are remembered. Of this node's own that have not ended, the
    store need not be asked.
    """
    found: dict[Key, Row] = {}
    node = service.store.node
    if wanted.node != node or wanted.state in ENDED:
        async for record in service.store.sessions(wanted.tenant):
            found[(record.tenant, record.session)] = _of_record(record)
    turns = 0
    for key, session in tuple(service.sessions.items()):
        if wanted.tenant in (None, session.tenant):
            found[key] = _of_session(session, node)
            turns += 1
            if turns % AT_ONCE == 0:
                await asyncio.sleep(0)
    chosen = [found[key] for key in sorted(found) if wanted.has(found[key])]
    if sort in ("cpu", "memory"):
        await use(service, chosen)
    chosen.sort(key=SORTS[sort])
    return chosen


async def use(service: Service, some: Iterable[Row]) -> None:
    """Add what each session has used, where that is known without measuring."""
    for number, row in enumerate(some, 1):
        session = service.sessions.get((row["tenant"], row["session"]))
        kernel = session.kernel if session is not None else None
        if row["usage"] is None and kernel is not None and kernel.is_metered:
            row["usage"] = _usage(kernel.usage())
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)


async def row(service: Service, key: Key) -> Row:
    """Return one session's row. Raises UnknownSession."""
    session = service.sessions.get(key)
    if session is None:
        return _of_record(await _record(service, key))
    found = _of_session(session, service.store.node)
    await use(service, [found])
    return found


async def described(service: Service, key: Key) -> Row:
    """Return all there is to tell of one session. Raises UnknownSession."""
    session = service.sessions.get(key)
    if session is None:
        record = await _record(service, key)
        unknown = dict.fromkeys(("code", "limits", "workspace_bytes", "errors", "attached"))
        return _of_record(record) | unknown | {"history": _history(_past(record))}
    clients, kernel = session.audience.clients, session.kernel
    watching = sum(client.watches for client in clients)
    found = _of_session(session, service.store.node) | {
        "code": session.work.line,
        "limits": session.limits.told(),
        "workspace_bytes": _workspace(session),
        "history": _history(session.past.generations),
        "errors": [one._asdict() for one in session.past.errors],
        "attached": {"run": len(clients) - watching, "watch": watching},
    }
    if kernel is not None:
        # Without a cgroup, all processes have to be looked through.
        measured = kernel.usage() if kernel.is_metered else await asyncio.to_thread(kernel.usage)
        found["usage"] = _usage(measured)
    return found


async def _record(service: Service, key: Key) -> SessionRecord:
    record = await service.store.get(*key)
    if record is None:
        raise UnknownSession(f"no session {key[1]!r}")
    return record


def _of_session(session: Session, node: str) -> Row:
    kernel, cell = session.kernel, session.work.cell
    return {
        "session": session.name,
        "tenant": session.tenant,
        "node": node,
        "kernel": kernel.kernel_id if kernel else "",
        "generation": session.generation,
        "profile": session.profile,
        "state": str(session.state),
        "reason": session.lost_reason,
        "created": session.created,
        "last_used": session.work.last_used,
        "expires": session.expires,
        "idle": _idle(str(session.state), session.work.last_used),
        "executions": session.work.count,
        "queued": session.work.queued,
        "clients": len(session.audience.clients),
        "pid": kernel.pid if kernel else None,
        "last_error": session.past.last_error,
        "cell": None if cell is None else {"id": cell[0], "seconds": round(cell[1], 3)},
        "usage": None,
    }


def _of_record(record: SessionRecord) -> Row:
    names = ("session", "tenant", "node", "kernel", "generation", "profile", "state", "reason")
    known = {name: getattr(record, name) for name in (*names, "created", "last_used", "expires")}
    return known | {"idle": _idle(record.state, record.last_used)} | dict.fromkeys(OWN)


def _idle(state: str, last_used: float) -> float:
    busy = state == SessionState.BUSY
    return 0.0 if busy else round(max(0.0, time.time() - last_used), 3)


def _usage(usage: Usage) -> Row | None:
    return usage._asdict() if any(one is not None for one in usage) else None


def _workspace(session: Session) -> int | None:
    """Return the bytes that a session's files take, if its workspace is a file system by itself."""
    workspace, bound = session.workspace, session.limits.workspace_bytes
    if workspace is None or workspace.descriptor < 0 or not bound:
        return None
    try:
        found = os.fstatvfs(workspace.descriptor)
    except OSError:
        return None
    # Rounded up to whole pages; any other size is that of the host's own.
    if not bound <= found.f_blocks * found.f_frsize < bound + (1 << 20):
        return None
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def _past(record: SessionRecord) -> list[Generation]:
    found = read_generations(record.history)
    if record.state != SessionState.CLOSED and record.kernel:
        found.append(Generation(record.generation, record.began or None))
    return found


def _history(generations: Iterable[Generation]) -> list[Row]:
    return [one._asdict() for one in generations]
