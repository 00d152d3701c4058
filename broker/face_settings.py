"""The settings of the faces that speak another project's protocol. Part of `broker.settings`."""

from __future__ import annotations

from dataclasses import dataclass

from broker.units import FLAG, TEXT, setting


@dataclass(frozen=True, slots=True)
class Jupyter:
    """The face of a Jupyter server."""

    at_root: bool = setting(
        "off", FLAG, "answer at `/api` as well, as Jupyter does, and not under `/jupyter` alone"
    )
    # A Jupyter server ends its kernels when it is stopped: other people's chats are not its own.
    delete_ends: str = setting(
        "unnamed",
        TEXT,
        "sessions that DELETE of a kernel ends: unnamed, those that Jupyter's clients have made,"
        " or all",
        choices=("unnamed", "all"),
    )
