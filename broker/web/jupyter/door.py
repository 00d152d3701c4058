"""The door of the Jupyter face: who is asking, which session they mean, and how it says no."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from http.client import responses
from typing import Any, Protocol

from tornado import web

from broker.errors import StoreUnavailable, UnknownSession
from broker.face_settings import Jupyter
from broker.faults import clip
from broker.jupyter import names
from broker.jupyter.elsewhere import Elsewhere
from broker.jupyter.register import Register
from broker.principal import Deed, Principal
from broker.session import Session
from broker.web.door import Face, House, code_of, deed_of, described, methods_of, recognise
from broker.web.jupyter.titles import Titles


class Guest(Protocol):
    """A handler that `admit` has let in."""

    house: House
    principal: Principal

    @property
    def settings(self) -> dict[str, Any]:
        """Return those of the application."""


class JupyterFace(Face):
    """A handler that answers errors as Jupyter does, and takes any query.

    `mount` is what stands before its route in the path.
    """

    def initialize(self, house: House, mount: str = "") -> None:
        """Take what the handlers share."""
        super().initialize(house)
        self.mount = mount
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def titles(self) -> Titles:
        """Return what clients call kernels."""
        titles: Titles = self.settings["titles"]
        return titles

    @property
    def rules(self) -> Jupyter:
        """Return the settings of this face."""
        rules: Jupyter = self.settings["jupyter"]
        return rules

    async def prepare(self) -> None:
        """Let in whom the token lets in."""
        if not self.public:
            await admit(self)

    def on_connection_close(self) -> None:
        """Note that nobody waits for the answer any more."""
        if not self.gone.done():
            self.gone.set_result(None)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer an exception as Jupyter's servers do."""
        error = kwargs.get("exc_info", (None, None, None))[1]
        self.set_header("Content-Type", "application/json")
        if isinstance(error, web.HTTPError) or error is None:
            if status_code == HTTPStatus.METHOD_NOT_ALLOWED:
                self.set_header("Allow", ", ".join(methods_of(type(self))))
            self.finish(json.dumps({"message": responses.get(status_code), "reason": None}))
            return
        code, body = code_of(error), described(error)
        self.set_status(code.http)
        if "retry_after" in body:
            self.set_header("Retry-After", str(math.ceil(body["retry_after"])))
        if code.http == HTTPStatus.UNAUTHORIZED:
            self.set_header("WWW-Authenticate", "Bearer")
        where = f": use it at {body['url']}" if body.get("url") else ""
        self.finish(json.dumps({"message": body["message"] + where, "reason": body["code"]}))


class Absent(JupyterFace):
    """Everything under the prefix that is no route, `/` and `/tree` among it.

    VS Code asks for these: with any other answer than 404 it asks for a password.
    """

    public = True

    async def prepare(self) -> None:
        """Say so."""
        raise web.HTTPError(404)


async def admit(handler: web.RequestHandler, deed: Deed | None = None) -> Principal:
    """Return who is asking, if they may do this at all. Raises Unauthorized, Forbidden.

    Whether they may with a session says `find`. The deed stands in the table of routes, if the
    handler does not say.
    """
    principal = await recognise(handler)
    principal.require(deed_of(handler, deed), principal.session)
    return principal


def find(handler: Guest, kernel_id: str) -> Session:
    """Return the live session that is this kernel. Raises UnknownSession, for others' as well."""
    register: Register = handler.settings["register"]
    if (wanted := names.canonical(kernel_id)) is not None:
        session = register.find(handler.principal.tenant, wanted)
        if session is not None and is_open_to(handler.principal, session):
            return session
    raise UnknownSession(f"Kernel does not exist: {clip(kernel_id)}")


async def located(handler: Guest, kernel_id: str) -> Session:
    """Return the live session that is this kernel.

    Raises SessionElsewhere where another node serves it, and UnknownSession.
    """
    try:
        return find(handler, kernel_id)
    except UnknownSession:
        if (wanted := names.canonical(kernel_id)) is not None:
            with suppress(StoreUnavailable):  # then nobody knows
                await _refuse_elsewhere(handler, wanted)
        raise


async def _refuse_elsewhere(handler: Guest, kernel_id: str) -> None:
    """Raise SessionElsewhere if another node serves the session, and the token sees it."""
    tenant, only = handler.principal.tenant, handler.principal.session
    refuse = handler.house.service.claims.refuse_elsewhere
    if only is not None:
        if names.derived(tenant, only) == kernel_id:
            await refuse(tenant, only)
        return
    await refuse(tenant, names.name_of(kernel_id))
    elsewhere: Elsewhere = handler.settings["elsewhere"]
    if (name := await elsewhere.name_of(tenant, kernel_id)) is not None:
        await refuse(tenant, name)


def live(handler: Guest) -> Iterator[Session]:
    """Yield the sessions that whoever asks may see, and that last, oldest first."""
    for session in handler.house.service.sessions.values():
        if is_open_to(handler.principal, session):
            yield session


def is_open_to(principal: Principal, session: Session) -> bool:
    """Tell whether a token sees a session: of its tenant, its own, and no one-shot."""
    own = session.tenant == principal.tenant and principal.session in (None, session.name)
    return own and not session.passing


def id_of(session: Session) -> str:
    """Return a session's id as a kernel."""
    return names.kernel_id(session.tenant, session.name)
