"""A kernel for whoever asks for one: which session it is, and when it is there."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass
from typing import Any

from broker.claims import OUT_OF_REACH
from broker.errors import (
    BrokerError,
    Draining,
    SessionLost,
    StoreUnavailable,
    UnknownProfile,
    UnknownSession,
)
from broker.faults import bad_field, clip
from broker.jupyter import names
from broker.orders import surrounded
from broker.principal import Deed
from broker.protocol import OpenQuery, check_session_name
from broker.roles import Envelope
from broker.service import Binding
from broker.session import Session
from broker.surroundings import NONE
from broker.web.jupyter import models
from broker.web.jupyter.bodies import KernelBody
from broker.web.jupyter.door import JupyterFace, find, id_of, located
from broker.web.jupyter.kernelspecs import profiles


@dataclass(frozen=True, slots=True)
class Plan:
    """What a body asks for: a session, for a new one its profile, and what its kernel is called."""

    session: str
    profile: str | None
    spec: str


class Waiter:
    """A client that waits for a kernel, and follows nothing."""

    watches = False

    def deliver(self, envelope: Envelope) -> None:
        """Take no notice."""

    def dispatch(self) -> None:
        """Do nothing."""

    def fault(self, request_id: str, error: BrokerError) -> None:
        """Do nothing: it has asked for nothing that could be refused."""

    def end(self, code: int, reason: str) -> None:
        """Do nothing: whoever binds the kernel hears of it."""


async def opened(face: JupyterFace, body: KernelBody) -> Session:
    """Return the session that a body asks for, with a kernel.

    Raises what a session is refused for, and SessionLost if its caller has gone meanwhile.
    """
    plan, service, tenant = await planned(face, body), face.service, face.principal.tenant
    face.principal.require(Deed.RUN, plan.session)
    configure = body.configure(face.house.bounds)
    if configure is not None and (tenant, plan.session) not in service.sessions:
        default, there = service.default_profile, service.pools.profiles
        profile = service.quotas.profile(tenant, plan.profile, default, there)
        surrounded(NONE, configure, service.session_limits[profile])  # else it opens nothing
    session = await service.open(tenant, plan.session, OpenQuery(profile=plan.profile))
    face.concerns = session.name
    if session.kernel is None:
        waiter = Waiter()
        session.attach(waiter)  # nobody fetches a kernel for a session without clients
        try:
            await _bound(service.need_kernel(session), face.gone)
        finally:
            session.detach(waiter)
    if session.kernel is None:
        raise StoreUnavailable(OUT_OF_REACH)
    if configure is not None:
        session.work.configure(configure)
    face.titles.of(tenant).call(id_of(session), plan.spec)
    return session


async def planned(face: JupyterFace, body: KernelBody) -> Plan:
    """Return what a body asks for.

    Raises UnknownProfile, BadMessage, BadSessionName, SessionElsewhere.
    """
    asked = body.name or ""
    if asked.startswith(models.LIVE):
        try:
            session = find(face, asked.removeprefix(models.LIVE))
        except UnknownSession:
            raise UnknownProfile(
                f"no kernel {clip(asked)!r}: that session has ended", field="name"
            ) from None
        return Plan(session.name, None, asked)
    known = profiles(face)
    if asked in models.ALIASES and (asked == models.PYTHON or asked not in known):
        profile, spec = None, models.PYTHON
    elif asked in known:
        profile, spec = asked, asked
    else:
        told = ", ".join(known)
        raise UnknownProfile(f"no kernel {clip(asked)!r}; known: {told}", field="name")
    return Plan(await _session_name(face, body), profile, spec)


async def _session_name(face: JupyterFace, body: KernelBody) -> str:
    if (name := body.session_name()) is not None:
        return check_session_name(name)
    if body.kernel_id is not None:
        return await _of_id(face, body.kernel_id)
    # A token for one session alone means that one.
    return face.principal.session or names.name_of(str(uuid.uuid4()))


async def _of_id(face: JupyterFace, kernel_id: str) -> str:
    wanted = names.canonical(kernel_id)
    if wanted is None:
        raise bad_field("kernel_id", f"expected a UUID, got {clip(kernel_id)!r}")
    try:
        return (await located(face, wanted)).name  # whatever it is called
    except UnknownSession:
        return names.name_of(wanted)


async def _bound(binding: Binding | None, gone: asyncio.Future[None]) -> None:
    """Wait until a kernel is bound. Raises what that is refused for."""
    if binding is None:
        return
    either: set[asyncio.Future[Any]] = {binding, gone}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if not binding.done():
        raise SessionLost("whoever asked for it has gone")
    if binding.cancelled():
        raise Draining("this node is about to stop")
    if (refusal := binding.result()) is not None:
        raise refusal
