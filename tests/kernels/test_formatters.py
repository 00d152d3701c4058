"""Tables and charts as plain JSON, small, whatever is in them; and other rich forms untouched."""

from __future__ import annotations

import datetime
import json
import sys
import types
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from kernels.inside.formatters import CHART, MOST_BYTES, ROWS, TABLE, add_form
from kernels.inside.plain import plain

mpl.use("agg")
ANY_MIME = "any"


def form(value: object, mime: str = ANY_MIME) -> Any:
    """Return what an object has besides, as it is when it arrives; None if it has nothing."""
    data: dict[str, Any] = {"text/plain": "x"}
    add_form(value, data, lambda wanted: mime in (ANY_MIME, wanted))
    told = [found for name, found in data.items() if name != "text/plain"]
    text = json.dumps(told, allow_nan=False, ensure_ascii=False)
    assert len(text.encode()) <= MOST_BYTES + 2
    found = json.loads(text)
    return found[0] if found else None


def test_a_small_frame_is_told_whole() -> None:
    frame = pd.DataFrame({"n": [1, 2], "s": ["a", None], "f": [0.5, float("nan")]})
    assert form(frame) == {
        "columns": [
            {"name": "n", "dtype": "int64"},
            {"name": "s", "dtype": str(frame["s"].dtype)},
            {"name": "f", "dtype": "float64"},
        ],
        "shape": [2, 3],
        "index": {"name": None, "dtype": "int64", "values": [0, 1]},
        "rows": [[1, "a", 0.5], [2, None, None]],
        "truncated": False,
    }


def test_a_long_and_a_wide_frame_are_cut_and_say_so() -> None:
    told = form(pd.DataFrame(np.zeros((1000, 200))))
    assert (told["shape"], told["truncated"]) == ([1000, 200], True)
    assert (len(told["rows"]), len(told["columns"])) == (ROWS, 50)
    assert {len(row) for row in told["rows"]} == {50}
    assert len(told["index"]["values"]) == ROWS


def test_a_frame_of_long_texts_has_fewer_rows() -> None:
    told = form(pd.DataFrame({f"é{i}" * 500: ["é" * 5000] * 30 for i in range(60)}))
    assert 0 < len(told["rows"]) < ROWS
    assert len(told["rows"]) == len(told["index"]["values"])
    assert told["truncated"]


CELLS = [
    (pd.NaT, None),
    (pd.NA, None),
    (float("inf"), "inf"),
    (pd.Timestamp("2020-01-02 03:04:05"), "2020-01-02T03:04:05"),
    (datetime.date(2020, 1, 2), "2020-01-02"),
    (datetime.time(3, 4), "03:04:00"),
    (pd.Timedelta("1 days"), "P1DT0H0M0S"),
    (np.int8(3), 3),
    (np.float32(0.5), 0.5),
    (np.float64("nan"), None),
    (np.bool_(True), True),
    (np.datetime64("2020-01-02"), "2020-01-02"),
    (np.datetime64("NaT"), None),
    (2**70, str(2**70)),
    (10**5000, "an integer of 16,610 bits"),
    (b"ab", "b'ab'"),
    ("x" * 300, "x" * 200 + "…"),
    ([1, 2], "[1, 2]"),
    (list(range(10**6)), f"{str(list(range(20)))[:-1]}, …"),
    (dict.fromkeys(range(100)), "dict of 100"),
    (1 + 2j, "(1+2j)"),
    (np.zeros(3), "[0. 0. 0.]"),
]


@pytest.mark.parametrize(("value", "told"), CELLS, ids=[type(cell).__name__ for cell, _ in CELLS])
def test_a_cell_is_plain(value: object, told: object) -> None:
    assert plain(value) == told
    frame = pd.DataFrame({"a": pd.Series([value, None], dtype=object)})
    assert form(frame)["rows"] == [[told], [None]]


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
    | st.datetimes() | st.timedeltas() | st.decimals(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=30,
))  # fmt: skip
def test_anything_at_all_is_a_small_plain_cell(value: object) -> None:
    told = plain(value)
    assert len(json.dumps(told, allow_nan=False, ensure_ascii=False)) < 2000


FRAMES = {
    "empty": (pd.DataFrame(), [0, 0]),
    "no rows": (pd.DataFrame({"a": []}), [0, 1]),
    "no columns": (pd.DataFrame(index=[1, 2]), [2, 0]),
    "columns of one name": (pd.DataFrame([[1, 2]], columns=["a", "a"]), [1, 2]),
    "levels": (
        pd.DataFrame(
            [[1, 2]],
            index=pd.MultiIndex.from_tuples([("a", 1)], names=["x", None]),
            columns=pd.MultiIndex.from_tuples([("b", 1), ("b", 2)]),
        ),
        [1, 2],
    ),
    "categories": (pd.DataFrame({"a": pd.Categorical(["x", None])}), [2, 1]),
    "nullable": (pd.DataFrame({"a": pd.array([1, None], dtype="Int64")}), [2, 1]),
    "dates": (pd.DataFrame({"a": [1]}, index=pd.date_range("2020", periods=1)), [1, 1]),
    "intervals": (pd.DataFrame({"a": pd.interval_range(0, 2)}), [2, 1]),
    "a series": (pd.Series([1, 2], name="s"), [2, 1]),
    "a series of dates": (pd.Series(pd.date_range("2020", periods=3)), [3, 1]),
}


@pytest.mark.parametrize("name", FRAMES)
def test_each_kind_of_frame_has_its_form(name: str) -> None:
    frame, shape = FRAMES[name]
    assert form(frame)["shape"] == shape


def test_a_class_of_the_users_that_is_a_frame_has_the_form_too() -> None:
    class Mine(pd.DataFrame):
        pass

    assert form(Mine({"a": [1]}))["rows"] == [[1]]


def test_a_frame_that_fails_is_shown_without() -> None:
    class Bad(pd.DataFrame):
        @property
        def iloc(self) -> Any:
            raise RuntimeError

    assert form(Bad({"a": [1]})) is None


def test_polars_frames_have_the_form_too() -> None:
    class DataFrame:
        columns = ("a", "b")
        dtypes = ("Int64", "String")
        shape = (100, 2)

        def select(self, names: list[str]) -> DataFrame:
            assert list(names) == ["a", "b"]
            return self

        def head(self, count: int) -> DataFrame:
            assert count == ROWS
            return self

        def rows(self) -> list[tuple[object, ...]]:
            return [(1, "x")] * ROWS

    DataFrame.__module__, DataFrame.__qualname__ = "polars.dataframe.frame", "DataFrame"
    told = form(DataFrame())
    assert (told["rows"][0], told["index"], told["truncated"]) == ([1, "x"], {}, True)


def test_what_is_neither_has_no_more_forms() -> None:
    for value in (1, "x", [1], {}, object(), types, json):
        assert form(value) is None


def test_a_form_that_is_not_wanted_is_not_made() -> None:
    assert form(pd.DataFrame({"a": [1]}), CHART) is None
    assert form(pd.DataFrame({"a": [1]}), TABLE) is not None


def test_nothing_is_imported_for_it() -> None:
    program = (
        "import sys; import kernels.inside.formatters as f; f.add_form(1, {}, bool);"
        "sys.exit(any(m in sys.modules for m in ('pandas', 'numpy', 'matplotlib', 'polars')))"
    )
    import subprocess

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# Charts


def drawn(draw: Any) -> Any:
    """Return the first axes of a figure, and the figure."""
    figure = Figure()
    axes = figure.add_subplot()
    draw(axes)
    figure.savefig("/dev/null", format="png")  # as the inline backend has done before
    told = form(figure)
    return told["axes"][0]


CHARTS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "line": (
        lambda axes: axes.plot([1, 2, 3], [4, 5, float("nan")], label="l"),
        [{"kind": "line", "label": "l", "x": [1, 2, 3], "y": [4, 5, None], "points": 3}],
    ),
    "dates": (
        lambda axes: axes.plot([datetime.date(2020, 1, day) for day in (1, 2)], [1, 2]),
        [{"kind": "line", "label": "", "x": ["2020-01-01", "2020-01-02"], "y": [1, 2],
          "points": 2}],
    ),
    "words": (
        lambda axes: axes.plot(["mon", "tue"], [1, 2]),
        [{"kind": "line", "label": "", "x": ["mon", "tue"], "y": [1, 2], "points": 2}],
    ),
    "scatter": (
        lambda axes: axes.scatter([1, 2], [3, 4], label="s"),
        [{"kind": "scatter", "label": "s", "x": [1, 2], "y": [3, 4], "points": 2}],
    ),
    "scatter with a gap": (
        lambda axes: axes.scatter([1, 2, 3], [float("nan"), 5, 6]),
        [{"kind": "scatter", "label": "", "x": [None, 2, 3], "y": [None, 5, 6], "points": 3}],
    ),
    "area": (
        lambda axes: axes.fill_between([1, 2, 3], [4, 5, 6], [0, 0, 1], label="f"),
        [{"kind": "area", "label": "f", "x": [1, 2, 3], "y": [4, 5, 6], "base": [0, 0, 1],
          "points": 3}],
    ),
    "stack": (
        lambda axes: axes.stackplot([1, 2], [[1, 2], [3, 4]], labels=["u", "v"]),
        [{"kind": "area", "label": "u", "x": [1, 2], "y": [1, 2], "base": [0, 0], "points": 2},
         {"kind": "area", "label": "v", "x": [1, 2], "y": [4, 6], "base": [1, 2], "points": 2}],
    ),
    "area in pieces": (
        lambda axes: axes.fill_between([1, 2, 3, 4, 5], [4, 5, 6, 7, 8],
                                       where=[True, True, False, True, True]),
        [{"kind": "area", "label": "", "x": [1, 2, 4, 5], "y": [4, 5, 7, 8],
          "base": [0, 0, 0, 0], "points": 4}],
    ),
    "hexagons": (lambda axes: axes.hexbin([1, 2, 3], [4, 5, 6], gridsize=3), []),
    "line across": (
        lambda axes: (axes.set_xlim(0, 8), axes.axhline(3, xmin=0.25, label="h")),
        [{"kind": "line", "label": "h", "x": [2, 8], "y": [3, 3], "points": 2}],
    ),
    "errors": (
        lambda axes: axes.errorbar([1, 2], [3, 4], yerr=0.5, capsize=3, label="e"),
        [{"kind": "line", "label": "e", "x": [1, 2], "y": [3, 4], "points": 2,
          "y_error": [[2.5, 3.5], [3.5, 4.5]]}],
    ),
    "errors both ways": (
        lambda axes: axes.errorbar([1, 2], [3, 4], xerr=1, yerr=[[0, 1], [1, 2]]),
        [{"kind": "line", "label": "", "x": [1, 2], "y": [3, 4], "points": 2,
          "x_error": [[0, 2], [1, 3]], "y_error": [[3, 4], [3, 6]]}],
    ),
    "bars with errors": (
        lambda axes: axes.bar(["a", "b"], [3, 4], yerr=[1, 2], capsize=2),
        [{"kind": "bar", "label": "", "x": ["a", "b"], "y": [3, 4], "points": 2,
          "y_error": [[2, 4], [2, 6]]}],
    ),
    "bar": (
        lambda axes: axes.bar(["a", "b"], [1, 2], label="b"),
        [{"kind": "bar", "label": "b", "x": ["a", "b"], "y": [1, 2], "points": 2}],
    ),
    "bars by number": (
        lambda axes: axes.bar([1, 2], [3, 4]),
        [{"kind": "bar", "label": "", "x": [1, 2], "y": [3, 4], "points": 2}],
    ),
    "barh": (
        lambda axes: axes.barh(["a", "b"], [1, 2]),
        [{"kind": "barh", "label": "", "x": ["a", "b"], "y": [1, 2], "points": 2}],
    ),
    "hist": (
        lambda axes: axes.hist([0, 0, 1, 2, 4], bins=2),
        [{"kind": "hist", "label": "", "x": [1, 3], "y": [3, 2], "points": 2,
          "edges": [0, 2, 4]}],
    ),
    "pie": (
        lambda axes: axes.pie([1, 3], labels=["u", "v"]),
        [{"kind": "pie", "label": "", "x": ["u", "v"], "y": [0.25, 0.75], "points": 2}],
    ),
    "box": (
        lambda axes: axes.boxplot([[1, 2, 3, 4, 50]], tick_labels=["A"]),
        [{"kind": "box", "label": "A", "y": [1, 2, 3, 4, 4], "outliers": [50]}],
    ),
    "image": (
        lambda axes: axes.imshow(np.zeros((4, 5))),
        [{"kind": "image", "label": "", "shape": [4, 5]}],
    ),
    "nothing": (lambda axes: None, []),
}  # fmt: skip


@pytest.mark.parametrize("name", CHARTS)
def test_each_kind_of_chart_is_told(name: str) -> None:
    draw, series = CHARTS[name]
    told = drawn(draw)
    assert told["series"] == series
    assert told["kind"] == (series[0]["kind"] if series else "other")


def test_titles_labels_and_scales_are_told() -> None:
    def draw(axes: Any) -> None:
        axes.bar(["a", "b"], [1, 2])
        axes.set(title="T", xlabel="X", ylabel="Y", yscale="log")

    told = drawn(draw)
    assert (told["title"], told["x_label"], told["y_label"]) == ("T", "X", "Y")
    assert (told["x_scale"], told["y_scale"], told["x_ticks"]) == ("linear", "log", ["a", "b"])


def test_pandas_own_charts_have_dates_too() -> None:
    index = pd.date_range("2020", periods=3, freq="D")
    told = drawn(lambda axes: pd.Series([1, 2, 3], index).plot(ax=axes))
    assert told["series"][0]["x"][0] == "2020-01-01T00:00:00"


def test_a_long_series_is_thinned_evenly_and_keeps_its_ends() -> None:
    [series] = drawn(lambda axes: axes.plot(np.arange(1_000_000)))["series"]
    assert series["points"] == 1_000_000
    assert (series["x"][0], series["x"][-1]) == (0, 999_999)
    assert len(series["x"]) == len(series["y"]) == 500


def test_a_figure_of_many_charts_is_bounded() -> None:
    figure = Figure(figsize=(20, 20))
    for number in range(30):
        axes = figure.add_subplot(5, 6, number + 1)
        for _ in range(40):
            axes.plot(np.random.default_rng(1).random(1000), label="é" * 500)
    assert form(figure)["axes"]


def test_a_figure_in_space_is_told_without_its_points() -> None:
    figure = Figure()
    figure.add_subplot(projection="3d").plot([1], [2], [3])
    assert form(figure)["axes"][0]["series"] == []


def test_a_figure_that_fails_is_shown_without() -> None:
    class Bad(Figure):
        def get_suptitle(self) -> str:
            raise RuntimeError

    assert form(Bad()) is None
