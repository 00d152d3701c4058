"""Whose API this is, what goes on, and who is asking."""

from __future__ import annotations

from importlib.metadata import version

from broker.errors import BadFrame
from broker.faults import bad_field
from broker.loading import load_json
from broker.web.jupyter import models
from broker.web.jupyter.door import JupyterFace, live

API = "2.21.1"  # the jupyter_server whose kernels API this is


class Version(JupyterFace):
    """`GET /api`."""

    public = True

    async def get(self) -> None:
        """Tell whose API this is; Kernel Gateway tells its own version beside it, too."""
        self.answer({"version": API, "broker_version": version("kernel-broker")})


class Status(JupyterFace):
    """`GET /api/status`."""

    async def get(self) -> None:
        """Count what the tenant has here."""
        sessions, started = [*live(self)], float(self.settings["started"])
        used = (max(one.work.last_used, one.created) for one in sessions)
        self.answer(
            {
                "started": models.stamp(started),
                "last_activity": models.stamp(max(used, default=started)),
                "connections": sum(len(one.audience.clients) for one in sessions),
                "kernels": len(sessions),
            }
        )


class Me(JupyterFace):
    """`GET /api/me`, with `permissions` (JSON: actions by resource)."""

    async def get(self) -> None:
        """Tell who is asking, and which of these actions they may do."""
        given = self.get_query_argument("permissions", "")
        try:
            asked = load_json(given, self.house.bounds) if given else {}
        except BadFrame:
            asked = None
        if not isinstance(asked, dict):
            raise bad_field("permissions", "expected JSON: actions by resource")
        told = models.permissions(self.principal, asked)
        self.answer({"identity": models.identity(self.principal), "permissions": told})
