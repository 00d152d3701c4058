"""A kernel as the service has it, and what is written on it for the broker that comes after."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from broker.bounds import of_the_tree
from broker.faults import bad_field
from broker.marks import Mark
from broker.past import read_generations
from broker.roles import SessionKernel, Workspace
from broker.session import Session
from broker.store import SessionRecord
from kernels.state import SessionState

logger = logging.getLogger(__name__)


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


def tighten(kernel: ServiceKernel, asked: Mapping[str, float], *, adopted: bool = False) -> None:
    """Hold the kernel to what a client asked for. Raises BadMessage if it has more already.

    One that was adopted has variables that somebody wants: it lives on then, and the log tells.
    """
    bounds = of_the_tree(asked)
    try:
        kernel.tighten(**bounds)
    except OSError as error:
        if not adopted:
            rule = f"not even a fresh kernel keeps to it: {error.strerror}"
            raise bad_field(", ".join(bounds), rule) from error
        logger.warning("kernel=%s is over %s: %s", kernel.kernel_id, ", ".join(bounds), error)


def recall(session: Session, record: SessionRecord | None, generation: int) -> None:
    """Give a session that comes back what the store knows of its past."""
    if record is None:
        return
    session.created, work = record.created, session.work
    work.last_used, work.was_free = last_use(record, session.mark, generation)
    session.past.know(read_generations(record.history))
    if record.generation == generation:
        session.past.begin(generation, record.began or None)


def last_use(record: SessionRecord, mark: Mark, generation: int) -> tuple[float, bool]:
    """Return when a session was last used, in Unix s, and whether it is known what it runs.

    The store is told a while later than the mark, which not every session has.
    """
    if mark.generation != generation:
        return record.last_used, record.state != SessionState.BUSY
    used = max(record.last_used, min(mark.used, time.time()))
    return used, mark.has_ended or record.state != SessionState.BUSY


class Label(NamedTuple):
    """Whose a kernel is."""

    tenant: str
    session: str
    generation: int
    asked: Mapping[str, float] = MappingProxyType({})  # bounds that its client has lowered

    @property
    def key(self) -> tuple[str, str]:
        """Return what names the session on every node."""
        return self.tenant, self.session

    @property
    def text(self) -> str:
        """Return what `read_label` reads."""
        known = self._asdict() | {"asked": dict(self.asked)}
        return json.dumps({name: value for name, value in known.items() if value != {}})


def read_label(text: str) -> Label | None:
    """Return whose the kernel is, or None when the text does not tell."""
    try:
        known = json.loads(text)
        asked = {name: value + 0 for name, value in known.get("asked", {}).items()}
        return Label(str(known["tenant"]), str(known["session"]), int(known["generation"]), asked)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
