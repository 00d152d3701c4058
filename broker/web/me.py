"""What a token is told of itself: what it opens, so that nobody has to find out by trying."""

from __future__ import annotations

from broker import answers
from broker.principal import Deed
from broker.web.door import Face
from broker.web.route import Operation, Route, answer


class Me(Face):
    """`GET /v1/me`."""

    async def get(self) -> None:
        """Tell who the token speaks for, and what it may do."""
        who = self.principal
        told = {"tenant": who.tenant, "scopes": sorted(who.scopes), "session": who.session}
        self.answer(told | {"expires": who.expires, "operator": who.is_operator})


ROUTE = Route(
    "/v1/me",
    Me,
    {
        "get": Operation(
            "Ask what the token opens.",
            answer("Whose it is, and what it may do.", answers.Me),
            scope=Deed.READ,
        )
    },
)
