"""Sessions as kernels: listed, made, interrupted, restarted, ended."""

from __future__ import annotations

from contextlib import suppress

from broker.errors import NotRunning, UnknownSession
from broker.jupyter import names
from broker.jupyter.exchange import Exchange
from broker.session import Session
from broker.web.jupyter.bodies import kernel_body
from broker.web.jupyter.door import JupyterFace, id_of, live, located
from broker.web.jupyter.kernelspecs import kernel_model, kernel_models
from broker.web.jupyter.opening import opened

ENDED = "closed"  # why a session ended whose kernel was deleted: its client has closed it


class Kernels(JupyterFace):
    """`GET` and `POST /api/kernels`."""

    async def get(self) -> None:
        """List them; what has ended is there no more, by which clients know."""
        self.answer([*kernel_models(self, live(self))])

    async def post(self) -> None:
        """Make one, or join the session that is meant; answer when it is there."""
        session = await opened(self, kernel_body(self.request.body, self.house.bounds))
        # Relative: it holds behind a proxy, and repeats no token that stood in the path.
        self.set_header("Location", f"kernels/{id_of(session)}")
        self.answer(kernel_model(self, session), 201)


class OneKernel(JupyterFace):
    """`GET` and `DELETE /api/kernels/{kernel_id}`."""

    async def get(self, kernel_id: str) -> None:
        """Describe it."""
        self.answer(kernel_model(self, await located(self, kernel_id)))

    async def delete(self, kernel_id: str) -> None:
        """End it, if it is the client's to end."""
        await delete(self, await located(self, kernel_id))
        no_content(self)


class InterruptKernel(JupyterFace):
    """`POST /api/kernels/{kernel_id}/interrupt`."""

    async def post(self, kernel_id: str) -> None:
        """Interrupt what runs, if anything does; the body is of no account."""
        session = await located(self, kernel_id)
        self.concerns = session.name
        if isinstance(session.tap, Exchange):
            session.tap.interrupt()
        else:
            with suppress(NotRunning):
                session.work.interrupt()
        no_content(self)


class RestartKernel(JupyterFace):
    """`POST /api/kernels/{kernel_id}/restart`."""

    async def post(self, kernel_id: str) -> None:
        """Give the session a new kernel, and answer when it is there."""
        session = await located(self, kernel_id)
        self.concerns = session.name
        await self.service.restart(session)
        self.answer(kernel_model(self, session))


async def delete(face: JupyterFace, session: Session) -> None:
    """End a session for a client of Jupyter, if it is such a client's own.

    Jupyter's servers end all their kernels when they are stopped. A chat that somebody looked into
    from there goes on.
    """
    face.concerns = session.name
    if face.rules.delete_ends == "all" or names.is_unnamed(session.name):
        with suppress(UnknownSession):  # it ended by itself meanwhile
            await face.service.end(session.key, ENDED)
    else:
        face.changed = False


def no_content(face: JupyterFace) -> None:
    """Answer that it is done."""
    face.set_status(204)
    face.finish()
