"""What a kernel says of values that JSON does not have."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernels.inside import publish

SCALARS = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary()),
    st.text(st.characters(categories=["Cs"]), max_size=3),
    st.datetimes(timezones=st.just(UTC)),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    ),
    max_leaves=12,
)


@given(VALUES)
def test_whatever_has_json_is_packed(value: Any) -> None:
    packed = b"{}"
    with suppress(ValueError):  # two keys that are one as text
        packed = publish.pack(value)
    json.loads(packed.decode())


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"date": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)}, {"date": "2026-01-02T03:04:05Z"}),
        ({"date": date(2026, 1, 2)}, {"date": "2026-01-02"}),
        ({"nan": float("nan"), "none": None}, {"nan": "nan", "none": None}),
        (
            {"nan": float("nan"), "array": array("d", [1.5, float("inf")])},
            {"nan": "nan", "array": [1.5, "inf"]},
        ),
        ({"nan": float("nan"), "half": "\udc80"}, {"nan": "nan", "half": "?"}),
        ({1: 2**70}, {"1": 2**70}),
        ("half of a pair: \udc80", "half of a pair: ?"),
        (b"bytes", "Ynl0ZXM="),
    ],
)
def test_what_is_packed(value: object, expected: object) -> None:
    assert json.loads(publish.pack(value)) == expected


def test_what_has_no_json_raises() -> None:
    with pytest.raises(ValueError, match="Can't clean"):
        publish.pack({"object": object()})


def test_an_interrupt_while_packing_is_not_lost() -> None:
    def interrupted() -> Iterator[int]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        publish.pack({"values": interrupted()})
