"""Access tokens over HTTP: made, listed without what opens anything, revoked."""

from __future__ import annotations

from typing import Any

import orjson

from broker.errors import BadFrame, TooLarge
from broker.grants import grant_of
from broker.store import TokenRecord
from broker.tokens import ID
from broker.web.door import Face

MOST = 16 << 10  # bytes of a body


class AllTokens(Face):
    """`GET` and `POST /v1/tokens`."""

    async def get(self) -> None:
        """List the tenant's tokens, or every tenant's for the operator."""
        found = await self.house.tokens.listed(self.principal)
        self.answer({"tokens": [row(record) for record in found]})

    async def post(self) -> None:
        """Make one; its text is in this answer, and nowhere else ever."""
        if len(self.request.body) > MOST:
            raise TooLarge(f"a body of more than {MOST} bytes is over the bound", field="body")
        try:
            message = orjson.loads(self.request.body)
        except orjson.JSONDecodeError:
            raise BadFrame('not JSON; expected such as {"scopes": ["run"]}') from None
        token, record = await self.house.tokens.create(self.principal, grant_of(message))
        # For the audit: what the token does is noted under its own tenant and id.
        self.subject, self.concerns = record.digest[:ID], record.session or None
        self.about = {"speaks_for": record.tenant}
        self.answer({"token": token, **row(record)}, 201)


class OneToken(Face):
    """`DELETE /v1/tokens/{id}`."""

    async def delete(self, token_id: str) -> None:
        """Revoke it: what it opened on this node is closed before the answer."""
        record = await self.house.tokens.revoke(self.principal, token_id)
        self.answer(row(record) | {"revoked": True})


def row(record: TokenRecord) -> dict[str, Any]:
    """Return what may be told of a token."""
    return {
        "id": record.digest[:ID],
        "tenant": record.tenant,
        "scopes": record.scopes.split(),
        "session": record.session or None,
        "name": record.name,
        "created": record.created,
        "expires": record.expires or None,
        "by": record.by,
    }
