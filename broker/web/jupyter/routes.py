"""The routes of the Jupyter face, under the prefix and, if so set, at the root.

They are another project's API, and not part of `/openapi.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.principal import Deed
from broker.web.jupyter import channels, kernels, kernelspecs, sessions, status
from broker.web.jupyter.capability import PREFIX
from broker.web.jupyter.door import Absent
from broker.web.route import JSON, Answer, Operation, Route
from broker.web.terms import EVERYBODY


def _does(about: str, deed: str, audited: str = "") -> Operation:
    return Operation(about, {200: Answer("As Jupyter has it.", {JSON: Any})}, deed, audited=audited)


ROUTES: list[Route] = [
    Route("/api", status.Version, {"get": _does("Whose API this is.", EVERYBODY)}),
    Route("/api/status", status.Status, {"get": _does("What goes on.", Deed.READ)}),
    Route("/api/me", status.Me, {"get": _does("Who is asking.", Deed.READ)}),
    Route(
        "/api/kernelspecs",
        kernelspecs.KernelSpecs,
        {"get": _does("Profiles and live sessions, as kernelspecs.", Deed.READ)},
    ),
    Route(
        "/api/kernelspecs/{spec}",
        kernelspecs.OneKernelSpec,
        {"get": _does("Describe a kernelspec.", Deed.READ)},
    ),
    Route(
        "/kernelspecs/{spec}/{file}",
        kernelspecs.Resource,
        {"get": _does("Read a file of a kernelspec.", Deed.READ)},
    ),
    Route(
        "/api/kernels",
        kernels.Kernels,
        {
            "get": _does("List the kernels.", Deed.READ),
            "post": _does("Make a kernel, or join one.", Deed.RUN, "attached"),
        },
    ),
    Route(
        "/api/kernels/{kernel_id}",
        kernels.OneKernel,
        {
            "get": _does("Describe a kernel.", Deed.READ),
            "delete": _does("End a kernel.", Deed.END, "killed"),
        },
    ),
    Route(
        "/api/kernels/{kernel_id}/interrupt",
        kernels.InterruptKernel,
        {"post": _does("Interrupt what runs.", Deed.RUN, "interrupted")},
    ),
    Route(
        "/api/kernels/{kernel_id}/restart",
        kernels.RestartKernel,
        {"post": _does("Restart a kernel.", Deed.RUN, "restarted")},
    ),
    Route(
        "/api/kernels/{kernel_id}/channels",
        channels.Channels,
        {"get": _does("Talk to a kernel over a WebSocket.", Deed.READ, "attached")},
    ),
    Route(
        "/api/sessions",
        sessions.Notebooks,
        {
            "get": _does("List the notebooks.", Deed.READ),
            "post": _does("Give a notebook a kernel.", Deed.RUN, "attached"),
        },
    ),
    Route(
        "/api/sessions/{notebook_id}",
        sessions.OneNotebook,
        {
            "get": _does("Describe a notebook.", Deed.READ),
            "patch": _does("Move a notebook, or change its kernel.", Deed.RUN, "attached"),
            "delete": _does("Forget a notebook, and end its kernel.", Deed.END, "killed"),
        },
    ),
]


def patterns(shared: Mapping[str, Any], *, at_root: bool) -> list[tuple[Any, ...]]:
    """Return the routes as Tornado takes them, wherever they are served."""
    mounts = [PREFIX, ""] if at_root else [PREFIX]
    found: list[tuple[Any, ...]] = [
        (mount + route.pattern(), route.handler, {**shared, "mount": mount})
        for mount in mounts
        for route in ROUTES
    ]
    return [*found, (f"{PREFIX}(?:/.*)?", Absent, {**shared, "mount": PREFIX})]
