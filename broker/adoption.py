"""A kernel as the service has it, and what is written on it for the broker that comes after."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Protocol

from broker.roles import SessionKernel, Workspace


class ServiceKernel(SessionKernel, Protocol):
    """What the service needs of a kernel beyond what its session does."""

    @property
    def workspace(self) -> Workspace | None:
        """Give its files, if they can outlive it."""

    def label(self, text: str) -> None:
        """Note who is bound, where the next broker finds it."""

    async def close(self) -> None:
        """End it."""


class Adopter(Protocol):
    """Where kernels that outlived the last broker are found."""

    async def adopt(self) -> list[tuple[Any, str]]:
        """Return each live kernel with its label."""


def is_shared(kernel: ServiceKernel, workspace: Workspace | None) -> bool:
    """Tell whether the kernel's files are those of the workspace."""
    return (
        kernel.workspace is not None
        and workspace is not None
        and kernel.workspace.workspace_id == workspace.workspace_id
    )


class Label(NamedTuple):
    """Whose a kernel is."""

    tenant: str
    session: str
    generation: int

    @property
    def key(self) -> tuple[str, str]:
        """Return what names the session on every node."""
        return self.tenant, self.session

    @property
    def text(self) -> str:
        """Return what `read_label` reads."""
        return json.dumps(self._asdict())


def read_label(text: str) -> Label | None:
    """Return whose the kernel is, or None when the text does not tell."""
    try:
        known = json.loads(text)
        return Label(str(known["tenant"]), str(known["session"]), int(known["generation"]))
    except (ValueError, KeyError, TypeError):
        return None
