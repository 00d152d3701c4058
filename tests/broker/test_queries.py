"""The flags and numbers of a query."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tornado.web import RequestHandler

from broker.errors import BadMessage
from broker.web import queries
from broker.web.questions import names_of

NINES = "00009" + 5000 * "9"  # more digits than int() takes


class Query:
    """A request with one parameter, or none."""

    def __init__(self, **given: str) -> None:
        self._given = given

    def get_query_argument(self, name: str, default: Any = None) -> Any:
        return self._given.get(name, default)


def asked(**given: str) -> RequestHandler:
    return cast(RequestHandler, Query(**given))


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("false", False), ("0", False)]
)
def test_a_flag_is_one_of_four_words(text: str, value: bool) -> None:
    assert queries.flag(asked(deep=text), "deep") is value
    assert queries.flag(asked(), "deep", default=value) is value


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1), ("0007", 7), ("1000", 1000)], ids=["least", "zeros", "most"]
)
def test_a_whole_number_is_told_by_its_digits(text: str, value: int) -> None:
    assert queries.whole(asked(max=text), "max", 200, 1000) == value
    assert queries.whole(asked(), "max", value, 1000) == value


@pytest.mark.parametrize("text", ["", "x", "-1", "0", "1001", "1.5", "1e2", "\u0661", "+1", NINES])
def test_what_is_no_whole_number_in_the_bounds_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadMessage, match=r"^max: expected") as refusal:
        queries.whole(asked(max=text), "max", 200, 1000)
    assert refusal.value.field == "max"
    assert len(refusal.value.message) < 200


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf", "1e12", NINES])
def test_what_is_no_number_is_refused_by_name(text: str) -> None:
    with pytest.raises(BadMessage, match=r"^idle: expected") as refusal:
        queries.number(asked(idle=text), "idle", 0.0)
    assert len(refusal.value.message) < 200


@given(st.text(max_size=40))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    for read in (
        lambda: queries.flag(asked(a=text), "a"),
        lambda: 1 <= queries.whole(asked(a=text), "a", 1, 9) <= 9,
        lambda: 0 <= queries.number(asked(a=text), "a", 0.0) < 1e12,
    ):
        with suppress(BadMessage):
            assert read() in (True, False)


def test_the_names_of_variables_have_bounds() -> None:
    assert names_of(None) is None
    assert names_of("a,,b") == ["a", "b"]
    for text in (",".join(1001 * ["a"]), 257 * "n"):
        with pytest.raises(BadMessage, match=r"^names: expected at most"):
            names_of(text)
