"""Plain data to a kernel and back: both ends say the same, and nothing of it is lost."""

from __future__ import annotations

import enum
import json
from array import array
from fractions import Fraction
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import tagged as ours
from kernels.inside import tagged as theirs

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = TEXT | st.sampled_from(["$", "$$", "$bytes", "$int", "$float", "$$int"])
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.integers(-(2**200), 2**200) | TEXT | st.binary()
)
PLAIN = st.recursive(
    SCALARS | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    """Compare with types, signs of zero and nan."""
    return type(one) is type(other) and repr(one) == repr(other)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@given(PLAIN)
def test_plain_data_goes_to_a_kernel_and_back_unchanged(value: Any) -> None:
    there = theirs.unpacked(json.loads(orjson.dumps(ours.packed(value))))
    assert same(there, value)
    back = json.dumps(theirs.packed(there), allow_nan=False, ensure_ascii=False).encode()
    assert same(ours.unpacked(orjson.loads(back)), value)


@given(PLAIN)
def test_both_ends_write_the_same(value: Any) -> None:
    assert same(ours.packed(value), theirs.packed(value))


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (b"\x00a", {"$bytes": "AGE="}),
        (float("nan"), {"$float": "nan"}),
        (float("-inf"), {"$float": "-inf"}),
        (2**63 - 1, 2**63 - 1),
        (2**63, {"$int": "0x8000000000000000"}),
        (-(2**63) - 1, {"$int": "-0x8000000000000001"}),
        ({"$int": "0x1"}, {"$$int": "0x1"}),
        ({"a": {"$": 1}}, {"a": {"$$": 1}}),
    ],
)
def test_what_json_cannot_say_has_a_tag(value: object, written: object) -> None:
    assert ours.packed(value) == written


class Name(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "another"


class Level(enum.IntEnum):
    HIGH = 2**70


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ((1, (2.5,)), [1, [2.5]]),
        (bytearray(b"\x00a"), {"$bytes": "AGE="}),
        (memoryview(array("H", [1])), {"$bytes": "AQA="}),
        (Name("a"), "a"),
        ({Name("$a"): 1}, {"$$a": 1}),
        (Level.HIGH, {"$int": "0x400000000000000000"}),
        (Fraction(1, 4), 0.25),
    ],
)
def test_what_code_makes_of_plain_data_leaves_a_kernel_as_that(
    value: object, written: object
) -> None:
    assert same(theirs.packed(value), written)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (object(), "object is not plain data"),
        ([{1}], "set is not plain data"),
        ({1: 2}, "a key that is no text: int"),
        (1j, "complex is not plain data"),
        (deep(65), "nests deeper than 64 levels"),
    ],
)
def test_what_is_no_plain_data_does_not_leave_a_kernel(value: object, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        theirs.packed(value)


@pytest.mark.parametrize("value", [object(), 1j, {1, 2}, (1,), ["a", [object()]]])
def test_what_is_no_plain_data_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match="no plain data"):
        ours.packed(value)


@pytest.mark.parametrize(
    "value",
    [
        {"$bytes": "?"},
        {"$bytes": 1},
        {"$float": "1e5"},
        {"$float": "infinity"},
        {"$int": "x"},
        {"$int": None},
        {"$else": 1},
        {"$int": "0x1", "a": 1},
        {"a": [{"$": 1}]},
        deep(65),
        deep(900),
    ],
)
def test_what_the_other_end_never_writes_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each says it in its own words
        ours.unpacked(value)


@given(st.recursive(SCALARS.filter(lambda v: not isinstance(v, bytes)), st.lists))
def test_whatever_a_kernel_writes_is_read_or_refused(value: Any) -> None:
    try:
        ours.unpacked({"$int": value, "$$": value})
        ours.unpacked({"$float": value})
    except ValueError:
        pass
