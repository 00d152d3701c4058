"""The id of a session as a Jupyter kernel: the same after each restart, with nothing stored. Pure.

A session that Jupyter's clients have made is called `kernel-<uuid>` and has that UUID for its id;
any other one's is derived from its tenant and its name.
"""

from __future__ import annotations

import re
import uuid
from functools import lru_cache

NAMESPACE = uuid.UUID("6f1d3f0e-6a53-4c0b-9d2f-0d6f7a1b52c4")
PREFIX = "kernel-"
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
KEPT = 16_384  # ids that are not derived anew: those of all sessions that a node can have


@lru_cache(KEPT)
def kernel_id(tenant: str, name: str) -> str:
    """Return the id of the kernel that a tenant's session of this node is."""
    return derived(tenant, name)


def derived(tenant: str, name: str) -> str:
    """Return the id of the kernel that any session is."""
    if is_unnamed(name):
        return name.removeprefix(PREFIX)
    return str(uuid.uuid5(NAMESPACE, f"{tenant}/{name}"))


def name_of(kernel_id: str) -> str:
    """Return what a session is called that is made for a kernel of that id."""
    return f"{PREFIX}{kernel_id}"


def is_unnamed(name: str) -> bool:
    """Tell whether nobody has chosen this name: a kernel was asked for, and had to be called so."""
    return name.startswith(PREFIX) and _UUID.fullmatch(name, len(PREFIX)) is not None


def notebook_id(kernel_id: str, path: str) -> str:
    """Return the id of a further notebook of a kernel; the first has the kernel's own."""
    return str(uuid.uuid5(uuid.UUID(kernel_id), path))


def canonical(text: str) -> str | None:
    """Return the UUID that a text stands for as ids are written, or None."""
    lower = text.lower()
    return lower if _UUID.fullmatch(lower) else None
