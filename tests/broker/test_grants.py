"""What is posted for a token: each mistake names its field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import BadFrame, BadMessage, BadSessionName, TooLarge
from broker.grants import Grant, grant_of
from broker.principal import SCOPES


@pytest.mark.parametrize(
    ("message", "grant"),
    [
        ({"scopes": ["run"]}, Grant(frozenset({"run"}))),
        ({"scopes": ["run", "run"], "session": None}, Grant(frozenset({"run"}))),
        (
            {"scopes": ["watch"], "tenant": "acme", "session": "s", "expires_in": 60, "name": "x"},
            Grant(frozenset({"watch"}), "acme", "s", 60.0, "x"),
        ),
        (
            {"scopes": ["admin"], "expires_in": "30d"},
            Grant(frozenset({"admin"}), None, None, 2592000),
        ),
    ],
)
def test_a_grant_is_read(message: dict[str, Any], grant: Grant) -> None:
    assert grant_of(message) == grant


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"scopes": []}, "scopes"),
        ({"scopes": "run"}, "scopes"),
        ({"scopes": ["root"]}, "scopes"),
        ({"scopes": [1]}, "scopes"),
        ({"scopes": ["admin"], "session": "s"}, "scopes"),
        ({"tenant": "a/b"}, "tenant"),
        ({"tenant": 1}, "tenant"),
        ({"session": 1}, "session"),
        ({"session": "a b"}, "session"),
        ({"expires_in": 0}, "expires_in"),
        ({"expires_in": -1}, "expires_in"),
        ({"expires_in": "soon"}, "expires_in"),
        ({"expires_in": "3651d"}, "expires_in"),
        ({"expires_in": float("nan")}, "expires_in"),
        ({"expires_in": True}, "expires_in"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"scope": "run"}, "scope"),
        ({"expires": 60}, "expires"),
    ],
)
def test_a_mistake_names_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises((BadMessage, BadSessionName)) as caught:
        grant_of({"scopes": ["run"], **change})
    assert caught.value.field == field
    assert caught.value.message.startswith(f"{field}: ")


@pytest.mark.parametrize("message", [None, [], "run", 1])
def test_what_is_no_object_is_told_so(message: object) -> None:
    with pytest.raises(BadFrame, match="a message is a map"):
        grant_of(message)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {"scopes": PLAIN | st.just(["run"])},
        optional={
            "tenant": PLAIN,
            "session": PLAIN,
            "expires_in": PLAIN,
            "name": PLAIN,
        },
    )
)
@settings(max_examples=300)
def test_anything_posted_is_a_grant_or_a_refusal(message: dict[str, Any]) -> None:
    try:
        grant = grant_of(message)
    except (BadFrame, BadMessage, BadSessionName, TooLarge):
        return
    assert grant.scopes <= SCOPES
    assert grant.scopes
