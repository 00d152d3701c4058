"""Sessions as rows: those of this node as they are, those of others as the store has them."""

from __future__ import annotations

from typing import Any

from broker.errors import UnknownSession
from broker.service import Key, Service
from broker.session import Session
from broker.store import SessionRecord

Row = dict[str, Any]


async def rows(service: Service, tenant: str | None) -> list[Row]:
    """Return every known session of a tenant, by name; ended ones while they are remembered."""
    found = {
        (record.tenant, record.session): _of_record(record)
        async for record in service.store.sessions(tenant)
    }
    for key, session in service.sessions.items():
        if tenant in (None, session.tenant):
            found[key] = _of_session(session, service.store.node)
    return [found[key] for key in sorted(found)]


async def row(service: Service, key: Key) -> Row:
    """Return one session's row. Raises UnknownSession."""
    if key in service.sessions:
        return _of_session(service.sessions[key], service.store.node)
    record = await service.store.get(*key)
    if record is None:
        raise UnknownSession(f"no session {key[1]!r}")
    return _of_record(record)


def _of_session(session: Session, node: str) -> Row:
    kernel = session.kernel
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
        "executions": session.work.count,
        "queued": session.work.queued,
        "clients": len(session.audience.clients),
        "pid": kernel.pid if kernel else None,
    }


def _of_record(record: SessionRecord) -> Row:
    names = ("session", "tenant", "node", "kernel", "generation", "profile", "state", "reason")
    known = {name: getattr(record, name) for name in (*names, "created", "last_used", "expires")}
    return known | dict.fromkeys(("executions", "queued", "clients", "pid"))
