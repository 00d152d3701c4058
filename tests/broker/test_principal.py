"""What a token may do, by its scopes, its tenant and its session."""

from __future__ import annotations

import pytest

from broker.errors import Forbidden, UnknownSession
from broker.principal import ADMIN, RUN, SCOPES, WATCH, Deed, Principal, is_tenant

MAY = {
    (): [],
    (WATCH,): [Deed.READ],
    (RUN,): [Deed.READ, Deed.RUN, Deed.END],
    (ADMIN,): [Deed.READ, Deed.END, Deed.ADMINISTER],
    (WATCH, RUN): [Deed.READ, Deed.RUN, Deed.END],
    (RUN, ADMIN): [Deed.READ, Deed.RUN, Deed.END, Deed.ADMINISTER],
}


@pytest.mark.parametrize("deed", Deed)
@pytest.mark.parametrize("scopes", MAY)
def test_each_deed_takes_its_scope(scopes: tuple[str, ...], deed: Deed) -> None:
    who = Principal("acme", frozenset(scopes))
    if deed in MAY[scopes]:
        who.require(deed, "s")
    else:
        with pytest.raises(Forbidden):
            who.require(deed, "s")


def test_a_refusal_names_the_scope_that_would_do() -> None:
    with pytest.raises(Forbidden, match="takes the scope run; the token has watch"):
        Principal("acme", frozenset({WATCH})).require(Deed.RUN, "s")
    with pytest.raises(Forbidden, match="tenant `default` with the scope admin"):
        Principal("acme").require(Deed.OPERATE)


@pytest.mark.parametrize(
    ("who", "is_operator"),
    [
        (Principal(), True),
        (Principal(scopes=frozenset({ADMIN})), True),
        (Principal(scopes=frozenset({RUN, WATCH})), False),
        (Principal("acme"), False),
        (Principal(session="s"), False),
    ],
)
def test_the_operator_is_the_administrator_of_the_default_tenant(
    who: Principal, is_operator: bool
) -> None:
    assert who.is_operator is who.may(Deed.OPERATE) is is_operator


@pytest.mark.parametrize("deed", [Deed.READ, Deed.RUN, Deed.END])
def test_a_bound_token_finds_no_other_session(deed: Deed) -> None:
    who = Principal("acme", SCOPES, session="mine")
    who.require(deed, "mine")
    with pytest.raises(UnknownSession, match="no session 'yours'"):
        who.require(deed, "yours")


def test_a_bound_token_may_do_nothing_beside_its_session_but_look() -> None:
    who = Principal("acme", SCOPES, session="mine")
    who.require(Deed.READ)
    for deed in (Deed.RUN, Deed.END, Deed.ADMINISTER):
        with pytest.raises(Forbidden, match="for session 'mine' alone"):
            who.require(deed)


@pytest.mark.parametrize("name", ["a", "A9._:@-", "0", "x" * 64, "user@example.org"])
def test_a_tenant_may_be_called_what_identity_providers_call_it(name: str) -> None:
    assert is_tenant(name)


@pytest.mark.parametrize(
    "name", ["", ".", "-a", "a/b", "{a}", "a b", "a\n", "é", "x" * 65, "a\0", "*"]
)
def test_a_tenant_is_not_called_what_a_key_or_a_path_would_mean_something_by(name: str) -> None:
    assert not is_tenant(name)
