"""Who is asking, and what they may do. Pure.

Each request is one deed, and one table says which scopes it takes. The operator is `admin` of the
default tenant: that of the state directory's token. Nobody else's `admin` reaches beyond their own
tenant, and a token that is bound to a session reaches nothing beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum

from broker.errors import Forbidden, UnknownSession

DEFAULT_TENANT = "default"
RUN, WATCH, ADMIN = "run", "watch", "admin"
STATIC = "static"  # the configuration's token, or the state directory's
SCOPES = frozenset({RUN, WATCH, ADMIN})

TENANT_WORDS = "1 to 64 characters of A-Z a-z 0-9 . _ : @ -, a letter or digit first"
TENANT = r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,63}"
_TENANT = re.compile(TENANT)


class Deed(StrEnum):
    """What a request is, for the table below."""

    READ = "read"  # look at sessions, or watch one
    RUN = "run"  # open a session, and do in it whatever a client can
    END = "end"  # end a session
    ADMINISTER = "administer"  # the tokens of a tenant
    OPERATE = "operate"  # the node: what it has, and what all tenants do on it


# The scopes of which one is enough.
TAKES: dict[Deed, frozenset[str]] = {
    Deed.READ: frozenset({WATCH, RUN, ADMIN}),
    Deed.RUN: frozenset({RUN}),
    Deed.END: frozenset({RUN, ADMIN}),
    Deed.ADMINISTER: frozenset({ADMIN}),
    Deed.OPERATE: frozenset({ADMIN}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a token speaks for, and what it opens.

    `expires` is Unix seconds; `token_id` names the token and does not help to guess it. `digest` is
    a stored token's, by which it is looked up, and empty for all others.
    """

    tenant: str = DEFAULT_TENANT
    scopes: frozenset[str] = SCOPES
    session: str | None = None  # the only one, where there is one
    expires: float | None = None
    token_id: str = STATIC
    digest: str = field(default="", repr=False, compare=False)

    @property
    def is_operator(self) -> bool:
        """Tell whether it is the node's operator."""
        return self.tenant == DEFAULT_TENANT and ADMIN in self.scopes and self.session is None

    def may(self, deed: Deed) -> bool:
        """Tell whether a deed is allowed, in one's own tenant."""
        if deed is Deed.OPERATE:
            return self.is_operator
        return not TAKES[deed].isdisjoint(self.scopes)

    def require(self, deed: Deed, session: str | None = None) -> None:
        """Raise Forbidden for what the token may not do, UnknownSession for another's session.

        `session` is the one that the deed is about, None for a deed that is about none.
        """
        if session is not None and self.session not in (None, session):
            raise UnknownSession(f"no session {session!r}")
        if not self.may(deed):
            raise Forbidden(_lacking(self, deed))
        if session is None and self.session is not None and deed is not Deed.READ:
            raise Forbidden(f"this token is for session {self.session!r} alone; name it")


def is_tenant(text: str) -> bool:
    """Tell whether a tenant may be called that."""
    return _TENANT.fullmatch(text) is not None


def _lacking(principal: Principal, deed: Deed) -> str:
    if deed is Deed.OPERATE:
        return (
            "this is for the operator: it takes a token of the tenant `default` with the scope"
            " admin, such as that of the state directory"
        )
    has = " ".join(sorted(principal.scopes)) or "none"
    needed = " or ".join(sorted(TAKES[deed]))
    return f"this takes the scope {needed}; the token has {has}: use one with more"
