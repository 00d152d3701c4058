"""Where executions run: a session, as they see it."""

from __future__ import annotations

from typing import Any, Protocol

from broker import quotas
from broker.audience import Audience
from broker.marks import Mark
from broker.past import Past
from broker.roles import Host, SessionKernel, SessionLimits, Workspace
from broker.transcript import Transcript
from kernels.state import SessionEvent, SessionState


class Place(quotas.Place, Protocol):
    """Where executions run."""

    limits: SessionLimits
    audience: Audience
    transcript: Transcript
    past: Past
    generation: int
    kernel: SessionKernel | None
    state: SessionState
    workspace: Workspace | None
    host: Host[Any]
    mark: Mark

    def advance(self, event: SessionEvent) -> None:
        """Change its state."""

    @property
    def condemned(self) -> bool:
        """Tell whether the kernel it has is being killed: nothing begins there any more."""

    def kill(self, reason: str) -> None:
        """End the kernel at once."""

    def pace(self) -> bool:
        """Hold the kernel back, or no longer, as its clients and what runs want it."""
