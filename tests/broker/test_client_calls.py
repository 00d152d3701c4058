"""What the client sends for a function and for its arguments, and what it makes of a batch."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import functools
import pathlib
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from broker.client import BadRequest, ExecutionFailed, Shown
from broker.client.calls import collect_batch, returned
from broker.client.functions import source_of
from broker.client.plain import answered, plain, posted
from broker.client.result import collect


def plain_function(x: int, *, y: int = 2) -> int:
    """Say what it does."""
    return x + y


async def awaiting(x: int) -> int:
    return x


def nesting(x: int) -> int:
    def inner(y: int) -> int:
        return y + 1

    return inner(x)


@functools.cache
def decorated(x: int) -> int:
    return x


def marked(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


@marked
def untouched(x: int) -> int:
    return x


def closing(x: int) -> Callable[[], int]:
    return lambda: x


class Holder:
    def method(self) -> None:
        """Do nothing."""


# fmt: off
one = lambda x: x * 2  # noqa: E731
pair = (lambda x: x + 1, lambda x: x + 2)
twins = (lambda x: x, lambda x: x)
several = [
    lambda x, \
        y=1:
        x + y,
]
# fmt: on


@pytest.mark.parametrize(
    ("function", "source"),
    [
        ("a.b", "a.b"),
        (one, "lambda x: x * 2"),
        (pair[0], "lambda x: x + 1"),
        (pair[1], "lambda x: x + 2"),
        (twins[1], "lambda x: x"),
        (awaiting, "async def awaiting(x: int) -> int:\n    return x"),
        (
            nesting,
            "def nesting(x: int) -> int:\n    def inner(y: int) -> int:\n"
            "        return y + 1\n\n    return inner(x)",
        ),
    ],
)
def test_a_function_is_sent_as_its_source(function: Any, source: str) -> None:
    assert source_of(function) == source


def test_a_source_that_was_found_does_the_same() -> None:
    here: dict[str, Any] = {}
    exec(source_of(plain_function), here)  # noqa: S102
    assert here["plain_function"](1, y=3) == 4
    assert eval(f"({source_of(several[0])})")(1) == 2  # noqa: S307


def test_a_function_inside_another_is_sent_without_its_indentation() -> None:
    def within(x: int) -> int:
        return x

    assert source_of(within) == "def within(x: int) -> int:\n    return x"


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (len, "a builtin_function_or_method has no source"),
        (Holder, "a type has no source"),
        (Holder().method, "a method has no source"),
        (functools.partial(plain_function, 1), "a partial has no source"),
        (decorated, "a _lru_cache_wrapper has no source"),
        (untouched, "untouched is decorated"),
        (closing(1), "<lambda> uses x of the function around it"),
        (eval("lambda: 1"), "the source of <lambda> cannot be found"),  # noqa: S307
    ],
)
def test_what_cannot_be_sent_is_refused(function: Any, told: str) -> None:
    with pytest.raises(BadRequest, match=told) as refused:
        source_of(function)
    assert refused.value.field == "function"


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Point:
    x: float
    tags: tuple[str, ...] = ()


WHEN = datetime.datetime(2024, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (None, None),
        ((1, {2}), [1, [2]]),
        (bytearray(b"a"), b"a"),
        ({1: "a", None: 2}, {"1": "a", "null": 2}),
        (WHEN, "2024-02-03T04:05:06+00:00"),
        (datetime.timedelta(seconds=1.5), 1.5),
        (decimal.Decimal("0.10"), "0.10"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (pathlib.PurePosixPath("/a"), "/a"),
        (Colour.RED, "red"),
        (Point(1.0, ("a",)), {"x": 1.0, "tags": ["a"]}),
        (np.int64(3), 3),
        (np.float64(0.5), 0.5),
        (np.bool_(True), True),
        (np.array(3), 3),
        (np.arange(4).reshape(2, 2), [[0, 1], [2, 3]]),
        (np.array(["2024-02-03"], dtype="M8[D]"), ["2024-02-03"]),
        (pd.DataFrame({"a": [1, 2]}), [{"a": 1}, {"a": 2}]),
        (pd.Series([pd.Timestamp("2024-02-03"), pd.NaT]), ["2024-02-03T00:00:00", None]),
        (pd.Timedelta(seconds=2), 2.0),
    ],
)
def test_a_value_is_sent_as_plain_data(value: Any, sent: Any) -> None:
    found = plain(value, "args")
    assert repr(found) == repr(sent)


def endless() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (object(), "args: a object has no plain form"),
        ({"a": [1, 1j]}, r"args\['a'\]\[1\]: a complex has no plain form"),
        ({(1, 2): 3}, "args: a key of type tuple has no text"),
        (endless(), "nested too deep, or within itself"),
    ],
)
def test_what_is_no_plain_data_is_refused_at_its_place(value: Any, told: str) -> None:
    with pytest.raises(BadRequest, match=told) as refused:
        plain(value, "args")
    assert refused.value.field == "args"


def test_bytes_go_over_http_and_back() -> None:
    value = {"a": [b"\xff", {"base64": "not base64!"}], "b": "text"}
    assert answered(posted(value)) == value


DONE = {"type": "done", "id": "b", "status": "ok"}


def test_a_batch_has_a_result_for_each_cell() -> None:
    events = [
        {"type": "session", "state": "lost", "reason": "oom", "generation": 2},
        {"type": "queued", "id": "b", "position": 1},
        {"type": "stream", "name": "stdout", "text": "a", "cell": 0},
        {**DONE, "cell": 0},
        {"type": "stream", "name": "stdout", "text": "b", "cell": 1},
        {**DONE, "cell": 2, "status": "cancelled"},
        {**DONE, "cell": 1, "status": "error"},
        {**DONE, "status": "error", "cells": 2},
    ]
    batch = collect_batch(events)
    assert [(one.status, one.stdout) for one in batch] == [
        ("ok", "a"),
        ("error", "b"),
        ("cancelled", ""),
    ]
    assert (batch[0].state, batch[1].state) == ("lost", "warm")
    assert (len(batch), batch.status, batch.done["cells"]) == (3, "error", 2)
    assert batch[-1].status == "cancelled"
    with pytest.raises(ExecutionFailed) as failed:
        batch.raise_for_status()
    assert failed.value.result is batch[1]


def test_a_batch_that_was_cut_raises_though_each_cell_that_is_known_was_ok() -> None:
    batch = collect_batch([{**DONE, "cell": 0}, {**DONE, "status": "lost", "reason": "gone"}])
    with pytest.raises(ExecutionFailed, match="lost: gone") as failed:
        batch.raise_for_status()
    assert failed.value.result.status == "lost"
    whole = collect_batch([{**DONE, "cell": 0}, DONE])
    assert whole.raise_for_status() is whole


def test_a_call_returns_its_value_or_raises() -> None:
    assert returned(collect([{"type": "value", "value": [1]}, DONE])) == [1]
    assert returned(collect([{"type": "value", "value": {"base64": "/w=="}}, DONE])) == {
        "base64": "/w=="
    }
    assert (
        returned(collect([{"type": "value", "value": {"base64": "/w=="}}, DONE]), is_json=True)
        == b"\xff"
    )
    shown = returned(collect([{"type": "value", "data": {"text/plain": "a"}}, DONE]))
    assert isinstance(shown, Shown)
    assert shown == {"text/plain": "a"}
    assert returned(collect([DONE])) is None
    with pytest.raises(ExecutionFailed):
        returned(collect([{**DONE, "status": "error"}]))
