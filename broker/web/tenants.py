"""Whose sessions a request is about: those of one's own tenant, or for the operator another's.

Who is let in to another tenant's session is its visitor there. A visitor joins what is there and
makes nothing; what is asked of it is the deed's own scope, and that of the operator. What runs is
the tenant's, and counts against its quotas; transfers and the like are in the visitor's own share.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from tornado.web import RequestHandler

from broker.errors import BadMessage
from broker.principal import TENANT_WORDS, Deed, Principal, is_tenant
from broker.protocol import OpenQuery

EVERY = "*"  # in place of a tenant, where a list is meant


class Meant(NamedTuple):
    """Whose sessions a request is about; `visited` is that tenant again, if it is another's."""

    tenant: str
    visited: str | None


def meant(handler: RequestHandler, principal: Principal, *, every: bool = False) -> Meant:
    """Return whose sessions are meant; `every` if those of all may be. Raises BadMessage.

    Whether they may, `check_visit` says: audits note of a refusal, too, what it was about.
    """
    asked = handler.get_query_argument("tenant", principal.tenant)
    if not (is_tenant(asked) or (every and asked == EVERY)):
        raise BadMessage(f"tenant: expected {TENANT_WORDS}", field="tenant")
    return Meant(asked, None if asked == principal.tenant else asked)


def check_visit(principal: Principal, visited: str | None) -> None:
    """Raise Forbidden for whoever may not visit.

    Nothing is looked up before it is known who asks: the refusal is the same, whatever is there.
    """
    if visited is not None:
        principal.require(Deed.OPERATE)


def joining(query: OpenQuery) -> OpenQuery:
    """Return how a visitor attaches: to what is here, and nothing is made."""
    return replace(query, joins=True)
