"""Forms of tables and charts for whoever cannot look at them: plain JSON beside HTML and pictures.

Nothing is imported for it: an object is known by its class's name, and brings its library along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .charts import chart_of
from .plain import NAME, clipped, plain
from .publish import pack

TABLE = "application/vnd.broker.dataframe+json"
CHART = "application/vnd.broker.chart+json"
ROWS = 20
COLUMNS = 50
MOST_BYTES = 64 << 10  # of each form
SMALL = 10 << 10  # characters: whatever they are in JSON, it is less than that

Form = dict[str, Any]


def extra_form(kind: type) -> tuple[str, Callable[[Any], Form]] | None:
    """Return the MIME type and the maker of what an object of this class has besides."""
    for each in kind.__mro__:
        if found := _FORMS.get((each.__module__, each.__qualname__)):
            return found
    return None


def add_form(value: Any, data: dict[str, Any], wanted: Callable[[str], bool]) -> None:
    """Add the extra form of an object, if it has one, to its MIME bundle; never raises for it."""
    found = extra_form(type(value))
    if found is None or found[0] in data or not wanted(found[0]):
        return
    try:
        form = found[1](value)
    except Exception:  # the user's object is shown all the same
        return
    if form:
        data[found[0]] = form


def pandas_table(frame: Any) -> Form:
    """Return the first rows and columns of a DataFrame."""
    rows, columns = frame.shape
    head = frame.iloc[:ROWS]
    if columns > COLUMNS:
        head = head.iloc[:, :COLUMNS]
    cells = head.to_numpy(dtype=object).tolist()
    return _table(zip(head.columns, head.dtypes, strict=True), cells, (rows, columns), head.index)


def pandas_series(series: Any) -> Form:
    """Return the first values of a Series, as a table of one column."""
    head = series.iloc[:ROWS]
    cells = [[cell] for cell in head.to_numpy(dtype=object).tolist()]
    return _table([(series.name, series.dtype)], cells, (len(series), 1), head.index)


def polars_table(frame: Any) -> Form:
    """Return the first rows and columns of polars' DataFrame, which has no index."""
    head = frame.select(frame.columns[:COLUMNS]).head(ROWS)
    return _table(zip(head.columns, head.dtypes, strict=True), head.rows(), frame.shape, None)


def chart(figure: Any) -> Form:
    """Return what is drawn in a figure; with fewer points if it were too large."""
    for points, series in ((500, 20), (100, 20), (20, 10), (20, 3)):
        form = chart_of(figure, points, series)
        if len(pack(form)) <= MOST_BYTES:
            return form
    return {}


def _table(
    columns: Iterable[tuple[Any, Any]], cells: list[Any], shape: tuple[int, int], index: Any
) -> Form:
    rows = [[plain(cell) for cell in row] for row in cells]
    told = [{"name": clipped(str(name), NAME), "dtype": str(dtype)[:NAME]}
            for name, dtype in columns]  # fmt: skip
    form: Form = {"columns": told, "shape": [int(shape[0]), int(shape[1])], "rows": rows}
    form["index"] = {} if index is None else _index(index)
    while True:
        small = sum(len(cell) if isinstance(cell, str) else 24 for row in rows for cell in row)
        if small <= SMALL or len(pack(form)) <= MOST_BYTES or not rows:
            break
        rows = form["rows"] = rows[: len(rows) // 2]
    if index is not None:
        form["index"]["values"] = form["index"]["values"][: len(rows)]
    form["truncated"] = len(rows) < shape[0] or len(told) < shape[1]
    return form


def _index(index: Any) -> Form:
    name = None if all(name is None for name in index.names) else list(map(str, index.names))
    return {
        "name": None if name is None else clipped(", ".join(name), NAME),
        "dtype": str(index.dtype)[:NAME],
        "values": [
            [plain(part) for part in label] if isinstance(label, tuple) else plain(label)
            for label in index.tolist()
        ],
    }


_FORMS: Mapping[tuple[str, str], tuple[str, Callable[[Any], Form]]] = {
    ("pandas", "DataFrame"): (TABLE, pandas_table),
    ("pandas.core.frame", "DataFrame"): (TABLE, pandas_table),
    ("pandas", "Series"): (TABLE, pandas_series),
    ("pandas.core.series", "Series"): (TABLE, pandas_series),
    ("polars.dataframe.frame", "DataFrame"): (TABLE, polars_table),
    ("matplotlib.figure", "Figure"): (CHART, chart),
}
