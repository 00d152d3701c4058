"""What is drawn in a figure of matplotlib's: titles, labels and the points of each series.

Read from the figure's own objects, which only matplotlib makes: it is imported when this runs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from .plain import NAME, clipped, plain

AXES = 12  # of a figure
TICKS = 50
CORNERS = 5  # of the line that a box is: back to the first
BOX_LINES = 6  # of a box plot: the box, two whiskers, two caps, the median

Series = dict[str, Any]


def chart_of(figure: Any, points: int, series: int) -> dict[str, Any]:
    """Return what is drawn, with at most so many series in each chart, and points of each."""
    title = figure.get_suptitle()
    drawn = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    points = max(2, points // max(1, len(drawn)))
    told = [_axes(axes, points, series) for axes in drawn[:AXES]]
    return {"title": clipped(title, NAME), "axes": told}


def _axes(axes: Any, points: int, most: int) -> dict[str, Any]:
    series = list(islice(_series(axes, points), most))
    kind = series[0]["kind"] if series else "other"
    told: dict[str, Any] = {
        "kind": kind,
        "title": clipped(axes.get_title(), NAME),
        "x_label": clipped(axes.get_xlabel(), NAME),
        "y_label": clipped(axes.get_ylabel(), NAME),
        "x_scale": axes.get_xscale(),
        "y_scale": axes.get_yscale(),
        "series": series,
    }
    for name, axis in (("x_ticks", axes.xaxis), ("y_ticks", axes.yaxis)):
        if labels := _labels(axis):
            told[name] = [text for _, text in sorted(labels.items())][:TICKS]
    return told


def _series(axes: Any, points: int) -> Iterator[Series]:
    """Yield what matplotlib has drawn, each thing in the form that its kind has."""
    from matplotlib import collections, container, patches

    if hasattr(axes, "get_zlim"):
        return
    for image in axes.images:
        shape = list(map(int, image.get_array().shape))
        yield {"kind": "image", "label": _label(image), "shape": shape}
    wedges = [each for each in axes.patches if isinstance(each, patches.Wedge)]
    if wedges:
        yield _pie(axes, wedges, points)
    for bars in axes.containers:
        if isinstance(bars, container.BarContainer):
            yield _bars(axes, bars, points)
    for marks in axes.collections:
        if isinstance(marks, collections.PathCollection):
            # What is not a number is masked there, and would be told as 0.
            places: Any = _filled(marks.get_offsets())
            xs, ys = _values(axes.xaxis, places[:, 0]), _values(axes.yaxis, places[:, 1])
            yield _points("scatter", _label(marks), xs, ys, points)
    yield from _lines(axes, points)
    for filled in axes.collections:
        if isinstance(filled, collections.PolyCollection):
            yield from _area(axes, filled, points)


def _filled(numbers: Any) -> Any:
    return numbers.filled(math.nan) if hasattr(numbers, "filled") else numbers


def _lines(axes: Any, points: int) -> Iterator[Series]:
    from matplotlib import container

    held = [each for each in axes.containers if isinstance(each, container.ErrorbarContainer)]
    caps = {id(cap) for each in held for cap in each[1]}
    errors_of = {id(each[0]): each for each in held if each[0] is not None}
    lines, at = [line for line in axes.lines if id(line) not in caps], 0
    while at < len(lines):
        line = lines[at]
        if line.get_transform() != axes.transData:  # a part of it is in the axes' own measure
            xs, ys = _on_axes(axes, line)
            yield _points("line", _label(line), xs, ys, points)
            at += 1
            continue
        if _is_box(line) and at + BOX_LINES <= len(lines):
            box, at = _box(axes, lines, at)
            yield box
            continue
        xs = _values(axes.xaxis, line.get_xdata(orig=False))
        if frequency := getattr(axes, "freq", None):  # pandas has drawn it, by numbers of its own
            xs = _Periods(xs, frequency)
        ys = _values(axes.yaxis, line.get_ydata(orig=False))
        bounds = errors_of.get(id(line))
        series = _points("line", _label(line if bounds is None else bounds), xs, ys, points)
        yield series | _errors(axes, bounds, len(xs), points)
        at += 1


def _on_axes(axes: Any, line: Any) -> tuple[Any, Any]:
    """Return where a line is that goes across the chart whatever its limits are."""
    drawn = line.get_transform().transform(line.get_xydata())
    places = axes.transData.inverted().transform(drawn)
    return _values(axes.xaxis, places[:, 0]), _values(axes.yaxis, places[:, 1])


def _errors(axes: Any, bounds: Any, count: int, most: int) -> Series:
    """Return the ends of the error bars of each point that is told, if each point has one."""
    told: Series = {}
    if bounds is None:
        return told
    directions = [("x_error", 0, axes.xaxis)] if bounds.has_xerr else []
    directions += [("y_error", 1, axes.yaxis)] if bounds.has_yerr else []
    for (name, at, axis), marks in zip(directions, bounds[2], strict=False):
        ends = marks.get_segments()
        if len(ends) == count:
            pairs = [_values(axis, ends[place][:, at]) for place in _places(count, most)]
            told[name] = [[_number(low), _number(high)] for low, high in map(tuple, pairs)]
    return told


def _area(axes: Any, filled: Any, points: int) -> Iterator[Series]:
    """Yield what is filled between two lines: its edges, from the outline that matplotlib has."""
    along, edges = int(getattr(filled, "t_direction", "x") == "y"), []
    for path in filled.get_paths():
        outline = path.vertices
        count = (len(outline) - 3) // 2  # an end, one edge, an end, the other backwards, the first
        one, other = outline[1 : count + 1], outline[count + 2 : 2 * count + 2][::-1]
        if count < 1 or len(other) != count or (one[:, along] != other[:, along]).any():
            return  # another polygon
        edges += [(a[along], *sorted((b[1 - along], a[1 - along]))) for a, b in zip(one, other)]  # noqa: B905
    if not edges:
        return
    place, across = (axes.yaxis, axes.xaxis) if along else (axes.xaxis, axes.yaxis)
    xs, low, high = map(list, zip(*edges, strict=True))
    series = _points("area", _label(filled), _values(place, xs), _values(across, high), points)
    base = _values(across, low)
    yield series | {"base": [_number(base[at]) for at in _places(len(xs), points)]}


def _is_box(line: Any) -> bool:
    xs, ys = line.get_xdata(orig=False), line.get_ydata(orig=False)
    if len(xs) != CORNERS or xs[0] != xs[-1] or ys[0] != ys[-1]:
        return False
    return len(set(map(float, xs))) <= 2 and len(set(map(float, ys))) <= 2


def _box(axes: Any, lines: list[Any], at: int) -> tuple[Series, int]:
    """Return one box of a box plot, and the place after it; matplotlib draws each in this order."""
    _, low, high, _, _, median = lines[at : at + BOX_LINES]
    upright = low.get_xdata(orig=False)[0] == low.get_xdata(orig=False)[-1]
    along, across = ("get_ydata", "get_xdata") if upright else ("get_xdata", "get_ydata")
    first, least = getattr(low, along)(orig=False)
    third, most = getattr(high, along)(orig=False)
    middle = getattr(median, along)(orig=False)[0]
    place = float(getattr(low, across)(orig=False)[0])
    at += BOX_LINES
    outliers: list[Any] = []
    if at < len(lines) and lines[at].get_linestyle() == "None":
        outliers = [_number(value) for value in getattr(lines[at], along)(orig=False)[:TICKS]]
        at += 1
    labels = _labels(axes.xaxis if upright else axes.yaxis)
    values = [_number(value) for value in (least, first, middle, third, most)]
    box = {"kind": "box", "label": labels.get(place, ""), "y": values, "outliers": outliers}
    return box, at


def _bars(axes: Any, bars: Any, points: int) -> Series:
    flat = bars.orientation == "horizontal"
    edges = [
        (bar.get_y(), bar.get_height(), bar.get_width()) if flat
        else (bar.get_x(), bar.get_width(), bar.get_height())
        for bar in bars.patches
    ]  # fmt: skip
    # A histogram is bars without a gap, and a bar chart hardly ever is.
    ends = [start + width for start, width, _ in edges]
    close = [abs(end - edge[0]) <= abs(edge[1]) * 1e-6 for end, edge in zip(ends, edges[1:])]  # noqa: B905
    kind = "hist" if close and all(close) else "barh" if flat else "bar"
    labels = {} if kind == "hist" else _labels(axes.yaxis if flat else axes.xaxis)
    places = [start + width / 2 for start, width, _ in edges]
    names = [labels.get(round(float(place), 6)) for place in places]
    axis, lengths = (axes.yaxis, axes.xaxis) if flat else (axes.xaxis, axes.yaxis)
    told = names if all(names) else _values(axis, places)
    values = _values(lengths, [length for _, _, length in edges])
    series = _points(kind, _label(bars), told, values, points)
    if kind == "hist" and len(edges) <= points:
        series["edges"] = [_number(edges[0][0]), *map(_number, ends)]
    return series | _errors(axes, bars.errorbar, len(edges), points)


def _pie(axes: Any, wedges: list[Any], points: int) -> Series:
    shares = [(wedge.theta2 - wedge.theta1) / 360 for wedge in wedges]
    names = [_label(wedge) for wedge in wedges]
    return _points("pie", "", names, shares, points)


def _points(kind: str, label: str, xs: Any, ys: Any, most: int) -> Series:
    """Return a series; of more than `most` points, so many from the first to the last of them."""
    count = min(len(xs), len(ys))
    at = _places(count, most)
    return {
        "kind": kind,
        "label": label,
        "x": [_number(xs[i]) for i in at],
        "y": [_number(ys[i]) for i in at],
        "points": count,
    }


def _places(count: int, most: int) -> Sequence[int]:
    """Return which of so many points are told."""
    return range(count) if count <= most else [i * (count - 1) // (most - 1) for i in range(most)]


class _Dates:
    """The numbers of an axis of dates, each made a date when it is asked for."""

    def __init__(self, numbers: Any) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int) -> Any:
        from matplotlib import dates

        number = float(self._numbers[place])
        if math.isnan(number):
            return None
        date = dates.num2date(number).replace(tzinfo=None)
        return date if date.time() != date.time().min else date.date()


class _Periods(_Dates):
    """The numbers of an axis of pandas' periods, each made the date that it begins at."""

    def __init__(self, numbers: Any, frequency: Any) -> None:
        super().__init__(numbers)
        self._frequency = frequency

    def __getitem__(self, place: int) -> Any:
        number = int(self._numbers[place])
        return sys.modules["pandas"].Period(ordinal=number, freq=self._frequency).start_time


class _Names(_Dates):
    """The numbers of an axis of categories, likewise."""

    def __init__(self, numbers: Any, names: dict[float, str]) -> None:
        super().__init__(numbers)
        self._names = names

    def __getitem__(self, place: int) -> Any:
        number = self._numbers[place]
        return self._names.get(float(number), number)


def _values(axis: Any, numbers: Any) -> Any:
    """Return the numbers of an axis as what they stand for."""
    kind = type(axis.get_converter()).__name__
    if "Date" in kind:
        return _Dates(numbers)
    if "Category" in kind:
        return _Names(numbers, _labels(axis))
    return numbers


def _labels(axis: Any) -> dict[float, str]:
    """Return the places of the labels that a user has given, or that categories have."""
    if "Category" in type(axis.get_converter()).__name__:
        mapping = getattr(axis.get_units(), "_mapping", {})
        return {float(place): clipped(str(name), NAME) for name, place in mapping.items()}
    formatter = axis.get_major_formatter()
    if type(formatter).__name__ not in ("FixedFormatter", "FuncFormatter"):
        return {}
    places = axis.get_ticklocs()[:TICKS]
    texts = [label.get_text() for label in axis.get_ticklabels()[:TICKS]]
    return {
        float(place): clipped(text, NAME)
        for place, text in zip(places, texts, strict=False)
        if text
    }


def _label(artist: Any) -> str:
    """Return the name of a series; matplotlib's own names for those without begin with `_`."""
    label = str(artist.get_label() or "")
    return "" if label.startswith("_") else clipped(label, NAME)


def _number(value: Any) -> Any:
    """Return a value of a point, a float with six digits: nobody reads more of it in a chart."""
    if hasattr(value, "item"):  # numpy's
        value = value.item()
    value = plain(value)
    return float(f"{value:.6g}") if isinstance(value, float) else value
