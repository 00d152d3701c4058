"""Profiles as kernelspecs, and live sessions, for one to be picked where kernels are chosen."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tornado import web

from broker.session import Session
from broker.web.jupyter import models
from broker.web.jupyter.door import Guest, JupyterFace, find, id_of, live
from broker.web.jupyter.models import Json

MOST_LIVE = 200  # live sessions that are listed: those used last
SVG = "image/svg+xml"
LOGO = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">
<rect width="64" height="64" rx="12" fill="#1f6feb"/>
<circle cx="32" cy="32" r="17" fill="none" stroke="#fff" stroke-width="5"/>
<circle cx="32" cy="32" r="6" fill="#fff"/>
</svg>
"""


class KernelSpecs(JupyterFace):
    """`GET /api/kernelspecs`."""

    async def get(self) -> None:
        """List them, and name the default."""
        found = {
            name: models.spec_model(name, *shown, self.mount)
            for name, shown in (profiles(self) | sessions(self)).items()
        }
        self.answer({"default": models.PYTHON, "kernelspecs": found})


class OneKernelSpec(JupyterFace):
    """`GET /api/kernelspecs/{spec}`."""

    async def get(self, spec: str) -> None:
        """Describe it."""
        self.answer(models.spec_model(spec, *described(self, spec), self.mount))


class Resource(JupyterFace):
    """`GET /kernelspecs/{spec}/{file}`."""

    async def get(self, spec: str, file: str) -> None:
        """Send the logo: the one file there is."""
        described(self, spec)
        if file != f"{models.LOGO}.svg":
            raise web.HTTPError(404)
        self.set_header("Content-Type", SVG)
        self.set_header("Content-Security-Policy", "default-src 'none'; sandbox")
        self.finish(LOGO)


def profiles(face: Guest) -> dict[str, tuple[str, str]]:
    """Return the kernelspecs of the tenant's profiles: how each is shown, and its language."""
    service, tenant = face.house.service, face.principal.tenant
    there = service.quotas.profiles(tenant, service.pools.profiles)
    return models.profile_specs(there, default_profile(face), face.house.languages)


def sessions(face: Guest) -> dict[str, tuple[str, str]]:
    """Return the kernelspecs that stand for live sessions, those used last first."""
    by_use = sorted(live(face), key=lambda one: one.work.last_used, reverse=True)
    return {f"{models.LIVE}{id_of(one)}": _shown(face, one) for one in by_use[:MOST_LIVE]}


def described(face: Guest, spec: str) -> tuple[str, str]:
    """Return how one kernelspec is shown, and its language; 404 for one that is not there."""
    known = profiles(face)
    if spec in known or spec in models.ALIASES:
        return known.get(spec, known[models.PYTHON])
    if spec.startswith(models.LIVE):
        return _shown(face, find(face, spec.removeprefix(models.LIVE)))
    raise web.HTTPError(404)


def default_profile(face: Guest) -> str:
    """Return the profile of the tenant's sessions that name none."""
    service, tenant = face.house.service, face.principal.tenant
    allowed = service.quotas.of(tenant).profiles
    known = service.quotas.profiles(tenant, service.pools.profiles)
    return known[0] if allowed and known else service.default_profile


def kernel_models(face: JupyterFace, some: Iterable[Session]) -> Iterator[Json]:
    """Yield sessions of the tenant's as kernels; lists of a thousand are polled, and must be cheap.

    The kernelspec of each is the one that a client has asked for, or its profile's.
    """
    default, shelf = default_profile(face), face.titles.of(face.principal.tenant)
    for session in some:
        kernel_id = id_of(session)
        own = models.PYTHON if session.profile == default else session.profile
        yield models.kernel_model(session, kernel_id, shelf.spec(kernel_id) or own)


def kernel_model(face: JupyterFace, session: Session) -> Json:
    """Return a session as a kernel."""
    return next(kernel_models(face, [session]))


def _shown(face: Guest, session: Session) -> tuple[str, str]:
    language = models.language_of(session.profile, face.house.languages)
    return f"{session.name} (live session)", language
