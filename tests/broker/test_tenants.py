"""Whose sessions a request means, and who may visit them: two questions."""

from __future__ import annotations

from typing import Any

import pytest

from broker.errors import BadMessage, Forbidden
from broker.principal import Principal
from broker.web.tenants import EVERY, Meant, check_visit, meant


class Asked:
    """A request with `tenant` in its query, or without; nothing else of it may be touched."""

    __slots__ = ("_tenant",)

    def __init__(self, tenant: str | None) -> None:
        self._tenant = tenant

    def get_query_argument(self, name: str, default: str) -> str:
        assert name == "tenant"
        return default if self._tenant is None else self._tenant


def told(tenant: str | None, who: Principal, **fields: bool) -> Meant:
    handler: Any = Asked(tenant)
    return meant(handler, who, **fields)


@pytest.mark.parametrize("who", [Principal(), Principal("beta")], ids=["operator", "tenant"])
def test_who_is_meant_is_told_whether_or_not_they_may(who: Principal) -> None:
    assert told(None, who) == told(who.tenant, who) == (who.tenant, None)
    assert told("acme", who) == ("acme", "acme")
    assert told(EVERY, who, every=True) == (EVERY, EVERY)
    for wrong in ("", "a/b", EVERY):
        with pytest.raises(BadMessage):
            told(wrong, who)


def test_only_the_operator_may_visit() -> None:
    check_visit(Principal(), "acme")
    for who in (Principal("beta"), Principal(session="s"), Principal(scopes=frozenset({"run"}))):
        check_visit(who, None)
        for visited in ("acme", EVERY):
            with pytest.raises(Forbidden):
                check_visit(who, visited)
