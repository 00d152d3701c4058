"""What operators have a node do."""

from __future__ import annotations

from contextlib import suppress

from tornado import web

from broker.errors import SessionElsewhere, StoreUnavailable
from broker.faults import bad_field, clip, unknown_field
from broker.web.door import Face

KNOWN = ("sessions", "token")


class DrainNode(Face):
    """`POST` and `DELETE /v1/nodes/{node}/drain`."""

    async def post(self, node: str) -> None:
        """Empty this node; `sessions=keep` lets idle sessions live until they end themselves."""
        for name in self.request.query_arguments:
            if name not in KNOWN:
                raise unknown_field(name, KNOWN, "query parameter")
        sessions = self.get_query_argument("sessions", "end")
        if sessions not in ("end", "keep"):
            raise bad_field("sessions", f"expected end or keep, got {clip(sessions)!r}")
        await self._check(node)
        self.house.drain.begin(end_sessions=sessions == "end")
        await self._tell(node)

    async def delete(self, node: str) -> None:
        """Take new sessions again."""
        await self._check(node)
        self.house.drain.undo()
        await self._tell(node)

    async def _check(self, node: str) -> None:
        """Refuse what is for another node, and say where that is."""
        own = self.house.describe().node
        if node == own:
            return
        for record in await self.service.store.nodes():
            if record.node == node:
                raise SessionElsewhere(
                    f"this is node {own}; ask node {node} itself", node=node, url=record.url
                )
        raise web.HTTPError(404)

    async def _tell(self, node: str) -> None:
        with suppress(StoreUnavailable):  # the next renewal tells the others
            await self.service.store.put_node(self.house.describe())
        busy = sum(session.busy for session in self.service.sessions.values())
        draining, left = self.service.draining, self.house.drain.left
        self.answer({"node": node, "draining": draining, "sessions": left, "busy": busy})
