"""Notebooks with their kernels, which Jupyter calls sessions. Each session of ours is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from broker.errors import UnknownProfile, UnknownSession
from broker.faults import bad_field, clip
from broker.jupyter import names
from broker.session import Session
from broker.web.jupyter import models
from broker.web.jupyter.bodies import KernelBody, KernelOf, NotebookBody, notebook_body
from broker.web.jupyter.door import JupyterFace, id_of, live, located
from broker.web.jupyter.kernels import delete, no_content
from broker.web.jupyter.kernelspecs import kernel_model, kernel_models
from broker.web.jupyter.models import Json
from broker.web.jupyter.opening import opened
from broker.web.jupyter.titles import Notebook

NO_KERNEL = 501  # as jupyter_server answers where a kernelspec is not there


class Notebooks(JupyterFace):
    """`GET` and `POST /api/sessions`."""

    async def get(self) -> None:
        """List them."""
        found = [*_all(self)]
        kernels = kernel_models(self, (session for _, session in found))
        pairs = zip(found, kernels, strict=True)
        self.answer([models.notebook_model(one, kernel) for (one, _), kernel in pairs])

    async def post(self) -> None:
        """Give a notebook a kernel; one that has a kernel keeps it."""
        body = notebook_body(self.request.body, self.house.bounds)
        path, kind = body.notebook_path(), body.type or ("notebook" if body.notebook else None)
        if not path:
            raise bad_field("path", "missing; a notebook has one")
        if kind is None:
            raise bad_field("type", "missing; expected notebook, console or file")
        found = next((one for one in _all(self) if one[0].path == path), None)
        if found is None:
            session = await _kernel(self, body.kernel or KernelOf())
            if session is None:
                return
            id_ = _new_id(self, id_of(session), path)
            found = Notebook(id_, id_of(session), path, body.name or "", kind), session
            self.titles.of(self.principal.tenant).put(found[0])
        self.concerns = found[1].name
        self.set_header("Location", f"sessions/{found[0].id}")
        self.answer(_model(self, *found), 201)


class OneNotebook(JupyterFace):
    """`GET`, `PATCH` and `DELETE /api/sessions/{notebook_id}`."""

    async def get(self, notebook_id: str) -> None:
        """Describe it."""
        self.answer(_model(self, *_find(self, notebook_id)))

    async def patch(self, notebook_id: str) -> None:
        """Move it, or give it another kernel; the one before it ends as if it was deleted."""
        before, session = _find(self, notebook_id)
        body = notebook_body(self.request.body, self.house.bounds)
        self.concerns = session.name
        now = replace(
            before,
            path=body.notebook_path() or before.path,
            name=before.name if body.name is None else body.name,
            type=body.type or before.type,
        )
        other = await self._other(body, session)
        if other is None:
            return
        now = replace(now, kernel=id_of(other))
        self.titles.of(self.principal.tenant).put(now)
        if other is not session:
            await delete(self, session)
            self.concerns = other.name
        self.changed = other is not session  # what a notebook is called is no deed
        self.answer(_model(self, now, other))

    async def _other(self, body: NotebookBody, session: Session) -> Session | None:
        """Return the kernel it is to have from now on; None if that was refused."""
        kernel = body.kernel
        if kernel is None or (kernel.id is None and not kernel.name):
            return session
        if kernel.id is not None and names.canonical(kernel.id) == id_of(session):
            return session
        return await _kernel(self, kernel)

    async def delete(self, notebook_id: str) -> None:
        """Forget it, and end its kernel, if that is the client's to end."""
        found, session = _find(self, notebook_id)
        self.titles.of(self.principal.tenant).drop(found.id)
        await delete(self, session)
        no_content(self)


async def _kernel(face: JupyterFace, kernel: KernelOf) -> Session | None:
    """Return the session that is to be a notebook's kernel; None if that was refused."""
    if kernel.id is not None:
        return await located(face, kernel.id)
    try:
        return await opened(face, KernelBody(name=kernel.name))
    except UnknownProfile as error:
        short = f"{clip(kernel.name or '')!r} not found"
        body = {"message": error.message, "short_message": short, "reason": None}
        face.changed = False
        face.answer(body, NO_KERNEL)
        return None


def _all(face: JupyterFace) -> Iterator[tuple[Notebook, Session]]:
    """Yield every notebook whose kernel is live: as clients have called it, else by its session."""
    sessions = {id_of(session): session for session in live(face)}
    ids, kernels = set(), set()
    for notebook in face.titles.of(face.principal.tenant).notebooks():
        if notebook.kernel in sessions:
            ids.add(notebook.id)
            kernels.add(notebook.kernel)
            yield notebook, sessions[notebook.kernel]
    for kernel_id, session in sessions.items():
        if kernel_id not in kernels and kernel_id not in ids:
            yield models.own_notebook(session, kernel_id), session


def _find(face: JupyterFace, notebook_id: str) -> tuple[Notebook, Session]:
    wanted = names.canonical(notebook_id)
    for notebook, session in _all(face):
        if notebook.id == wanted:
            return notebook, session
    raise UnknownSession(f"Session not found: session_id={clip(notebook_id)!r}")


def _new_id(face: JupyterFace, kernel_id: str, path: str) -> str:
    """Return the kernel's id, or where another notebook has that already, one of its own."""
    known = face.titles.of(face.principal.tenant).get(kernel_id)
    if known is None or known.path == path:
        return kernel_id
    return names.notebook_id(kernel_id, path)


def _model(face: JupyterFace, notebook: Notebook, session: Session) -> Json:
    return models.notebook_model(notebook, kernel_model(face, session))
