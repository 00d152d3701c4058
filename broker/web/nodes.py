"""What operators have a node do."""

from __future__ import annotations

from contextlib import suppress
from typing import Literal

from broker import answers, errors
from broker.errors import SessionElsewhere, StoreUnavailable, UnknownNode
from broker.faults import bad_field, clip
from broker.principal import Deed
from broker.web.door import Face
from broker.web.route import Operation, Parameter, Route, answer

DRAINING = (errors.SessionElsewhere, errors.StoreUnavailable, errors.UnknownNode)


class DrainNode(Face):
    """`POST` and `DELETE /v1/nodes/{node}/drain`."""

    async def post(self, node: str) -> None:
        """Empty this node; `sessions=keep` lets idle sessions live until they end themselves."""
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
        raise UnknownNode(f"no node {clip(node)!r}", field="node")

    async def _tell(self, node: str) -> None:
        with suppress(StoreUnavailable):  # the next renewal tells the others
            await self.service.store.put_node(self.house.describe())
        busy = sum(session.busy for session in self.service.sessions.values())
        draining, left = self.service.draining, self.house.drain.left
        self.answer({"node": node, "draining": draining, "sessions": left, "busy": busy})


ROUTE = Route(
    "/v1/nodes/{node}/drain",
    DrainNode,
    {
        "post": Operation(
            "Empty this node: no new sessions, and an end to each that runs nothing.",
            answer("What is left.", answers.Drained),
            scope=Deed.OPERATE,
            audited="drained",
            query=(Parameter("sessions", "keep: idle ones live on.", Literal["end", "keep"]),),
            errors=DRAINING,
        ),
        "delete": Operation(
            "Have this node take new sessions again.",
            answer("What is left.", answers.Drained),
            scope=Deed.OPERATE,
            audited="undrained",
            errors=DRAINING,
        ),
    },
)
