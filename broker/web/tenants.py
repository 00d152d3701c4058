"""Whose sessions a request is about: those of one's own tenant, or for the operator another's.

Who is let in to another tenant's session is its visitor there. A visitor joins what is there and
makes nothing; what is asked of it is the deed's own scope, and that of the operator. What runs is
the tenant's, and counts against its quotas; transfers and the like are in the visitor's own share.
"""

from __future__ import annotations

from dataclasses import replace

from tornado.web import RequestHandler

from broker.errors import BadMessage
from broker.principal import TENANT_WORDS, Deed, Principal, is_tenant
from broker.protocol import OpenQuery

EVERY = "*"  # in place of a tenant, where a list is meant


def whose(handler: RequestHandler, principal: Principal, *, every: bool = False) -> str:
    """Return the tenant that is meant; `every` if that may be all. Raises BadMessage, Forbidden.

    Nothing is looked up before it is known who asks: the refusal is the same, whatever is there.
    """
    asked = handler.get_query_argument("tenant", principal.tenant)
    if not (is_tenant(asked) or (every and asked == EVERY)):
        raise BadMessage(f"tenant: expected {TENANT_WORDS}", field="tenant")
    if asked != principal.tenant:
        handler.visited = asked  # type: ignore[attr-defined]  # for the audit, of refusals too
        principal.require(Deed.OPERATE)
    return asked


def joining(query: OpenQuery) -> OpenQuery:
    """Return how a visitor attaches: to what is here, and nothing is made."""
    return replace(query, joins=True)
