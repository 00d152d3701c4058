"""What is posted for a new access token: its fields, their bounds, each refusal. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from broker.faults import Bounds, bad_field
from broker.parsing import body_of
from broker.principal import ADMIN, TENANT_WORDS, is_tenant
from broker.protocol import check_session_name
from broker.units import parse_duration

LONGEST = 10 * 365 * 86400.0  # s
NAME = 100  # characters


class TokenBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A token as it is asked for; `expires_in` is seconds, or text such as 30d."""

    scopes: Annotated[list[Literal["admin", "run", "watch"]], msgspec.Meta(min_length=1)]
    tenant: str | None = None
    session: str | None = None
    expires_in: float | str | None = None
    name: Annotated[str, msgspec.Meta(max_length=NAME)] | None = None


@dataclass(frozen=True, slots=True)
class Grant:
    """A token to make; `expires_in` in seconds. None is for what was not said."""

    scopes: frozenset[str]
    tenant: str | None = None
    session: str | None = None
    expires_in: float | None = None
    name: str = ""


def grant_of(message: object) -> Grant:
    """Return plain data as a grant. Raises BadFrame, or BadMessage naming the field."""
    body = body_of(message, TokenBody, Bounds())
    if body.tenant is not None and not is_tenant(body.tenant):
        raise bad_field("tenant", f"expected {TENANT_WORDS}")
    if body.session is not None:
        check_session_name(body.session)
        if ADMIN in body.scopes:
            raise bad_field("scopes", "a token for one session cannot have the scope admin")
    name = body.name or ""
    if not name.isprintable():
        raise bad_field("name", "expected printable characters")
    lifetime = _lifetime(body.expires_in)
    return Grant(frozenset(body.scopes), body.tenant, body.session, lifetime, name)


def _lifetime(value: float | str | None) -> float | None:
    if value is None:
        return None
    try:
        seconds = parse_duration(value)
    except ValueError as error:
        raise bad_field("expires_in", f"expected {error}") from None
    if not 1 <= seconds <= LONGEST:
        raise bad_field("expires_in", "expected 1s to 3650d; leave it out for a token without end")
    return seconds
