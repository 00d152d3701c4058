"""What a call's value becomes: plain data, or a refusal that names the place."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import socket
import types
import uuid
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from kernels.inside.forms import MAX_DEPTH, NoPlainForm, Unfit, plain_form
from kernels.inside.tagged import unpacked

UTC = datetime.UTC
WHEN = datetime.datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)


class Colour(enum.Enum):
    RED = "red"
    ODD = (1, 2)


class Number(enum.IntEnum):
    TWO = 2


class Pair(NamedTuple):
    a: int
    b: str


@dataclasses.dataclass
class Point:
    x: float
    of: Any = None


class Text(str):
    __slots__ = ()

    def __str__(self) -> str:
        return "not this"


class Whole(int):
    def __repr__(self) -> str:
        return "not this"


def form(value: Any, most: int = 0) -> Any:
    return unpacked(plain_form(value, most))


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (None, None),
        (True, True),
        (2**70, 2**70),
        (1.5, 1.5),
        ("a", "a"),
        (b"a", b"a"),
        (bytearray(b"a"), b"a"),
        (memoryview(b"a"), b"a"),
        ((1, (2,)), [1, [2]]),
        ({3}, [3]),
        (frozenset([3]), [3]),
        (range(3), [0, 1, 2]),
        (collections.deque([1]), [1]),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.items(), [["a", 1]]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (collections.Counter("aab"), {"a": 2, "b": 1}),
        ({"$int": 1, "$": 2}, {"$int": 1, "$": 2}),
        ({1: 1, 2.5: 2, None: 4, False: 5}, {"1": 1, "2.5": 2, "null": 4, "false": 5}),
        ({WHEN: 1, Number.TWO: 2}, {"2024-02-03T04:05:06+00:00": 1, "2": 2}),
        ({np.int64(3): 1}, {"3": 1}),
        (Pair(1, "b"), [1, "b"]),
        (Point(1.0, Point(2.0)), {"x": 1.0, "of": {"x": 2.0, "of": None}}),
        (Colour.RED, "red"),
        (Colour.ODD, [1, 2]),
        (Number.TWO, 2),
        (Text("a"), "a"),
        (Whole(3), 3),
        (WHEN, "2024-02-03T04:05:06+00:00"),
        (WHEN.date(), "2024-02-03"),
        (WHEN.time(), "04:05:06"),
        (datetime.timedelta(minutes=1.5), 90.0),
        (decimal.Decimal("0.10"), "0.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/a"), "/a"),
        (np.int8(3), 3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.longdouble(0.5), 0.5),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
        (np.bytes_(b"a"), b"a"),
        (np.datetime64("2024-02-03"), "2024-02-03"),
        (np.datetime64("NaT"), None),
        (np.timedelta64(1500, "ms"), 1.5),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.array(3), 3),
        (np.array([True]), [True]),
        (np.array(["a"]), ["a"]),
        (np.array([b"ab"]), [b"ab"]),
        (np.array([1, {"a": WHEN.date()}], dtype=object), [1, {"a": "2024-02-03"}]),
        (np.array(["2024-02-03", "NaT"], dtype="M8[D]"), ["2024-02-03", None]),
        (np.array([1.5], dtype=np.longdouble), [1.5]),
        (pd.DataFrame({"a": [1, 2], 3: ["x", "y"]}), [{"a": 1, "3": "x"}, {"a": 2, "3": "y"}]),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
        (pd.Index([1, 2]), [1, 2]),
        (pd.array([1, None], dtype="Int64"), [1, None]),
        (pd.Timestamp("2024-02-03T04:05:06Z"), "2024-02-03T04:05:06+00:00"),
        (pd.Timedelta(seconds=2), 2.0),
        ([pd.NaT, pd.NA], [None, None]),
        (
            pd.DataFrame({"t": [pd.Timestamp("2024-02-03"), pd.NaT]}),
            [{"t": "2024-02-03T00:00:00"}, {"t": None}],
        ),
    ],
)
def test_a_value_has_its_plain_form(value: object, plain: object) -> None:
    found = form(value)
    assert found == plain
    assert repr(found) == repr(plain)


def test_what_is_no_number_stays_none() -> None:
    assert repr(form([float("nan"), np.inf, pd.Series([np.nan])])) == "[nan, inf, [nan]]"


def endless() -> list[Any]:
    value: list[Any] = []
    value.append({"a": value})
    return value


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def wide() -> Any:
    """Return what is small, and endless written out: each list holds the last one twice."""
    value: Any = [1]
    for _ in range(MAX_DEPTH - 2):
        value = [value, value]
    return value


@pytest.mark.parametrize(
    ("value", "error", "told"),
    [
        (object(), NoPlainForm, r"value: an object has no plain form"),
        (1j, NoPlainForm, r"value: a complex has no plain form"),
        (np.array([1j]), NoPlainForm, r"value: an array of complex128 has no plain form"),
        (int, NoPlainForm, r"value: a type has no plain form"),
        (Point, NoPlainForm, r"value: a type has no plain form"),
        ({"a": [1, 2, 3, object()]}, NoPlainForm, r"value\['a'\]\[3\]: an object has no plain"),
        ([Point(1.0, print)], NoPlainForm, r"value\[0\]\['of'\]: a builtin_function_or_method"),
        ({(1, 2): 1}, NoPlainForm, r"value: a key of type tuple has no text"),
        ([{b"a": 1}], NoPlainForm, r"value\[0\]: a key of type bytes has no text"),
        ({"1": 1, 1: 2}, Unfit, r"value\['1'\]: two keys have this text"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), Unfit, r"value\[0\]\['a'\]: two keys"),
        (pd.DataFrame([[print]], columns=["a"]), NoPlainForm, r"value\[0\]\['a'\]: a builtin"),
        (endless(), Unfit, r"value\[0\]\['a'\]: it contains itself"),
        (deep(MAX_DEPTH + 1), Unfit, r"nested deeper than 32 levels"),
        (deep(10_000), Unfit, r"nested deeper than 32 levels"),
        (wide(), Unfit, r"more than 190,000 lists, maps and members"),
        ([[]] * 200_000, Unfit, r"more than 190,000 lists, maps and members"),
        (np.zeros(1_000_001), Unfit, r"value: 1,000,001 elements; at most 1,000,000"),
        ([np.zeros((1001, 1000))], Unfit, r"value\[0\]: 1,001,000 elements"),
    ],
)
def test_what_has_no_plain_form_is_refused_at_its_place(
    value: object, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        form(value)


@pytest.mark.parametrize(
    "value", ["a" * 1001, b"a" * 1001, [0] * 600, {"a" * 1001: 1}, 1 << 5000, range(10**12)]
)
def test_what_is_over_the_bound_is_refused_before_it_is_written(value: object) -> None:
    with pytest.raises(Unfit, match=r"more than 1,000 bytes as data; return less of it"):
        form(value, 1000)


def test_only_the_value_itself_can_be_shown_in_its_place() -> None:
    with socket.socket() as one:
        with pytest.raises(NoPlainForm) as alone:
            form(one)
        with pytest.raises(NoPlainForm) as inside:
            form([one])
    assert (alone.value.whole, inside.value.whole) == (True, False)


def test_one_thing_may_stand_at_two_places() -> None:
    one = [1]
    assert form([one, one, {"a": one}]) == [[1], [1], {"a": [1]}]
