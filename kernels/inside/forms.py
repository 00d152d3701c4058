"""What a call returns, as plain data: a bounded walk that says where it met what has no such form.

Numbers, text, bytes, None and containers are themselves; what stands for one of these becomes it:
dates are ISO 8601 text, spans of time seconds, decimals text, an enum's member its value, a
dataclass a map, an array nested lists, a table a list of records.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import sys
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, MappingView, Set
from pathlib import PurePath
from typing import Any, Final

from .tagged import packed

MAX_DEPTH: Final = 32  # of lists and maps inside each other
MAX_PARTS: Final = 190_000  # lists, maps and members of maps; what reads it has a bound of its own
MAX_ARRAY: Final = 1_000_000  # elements
_LISTS = list, tuple, set, frozenset, range, deque, Set, MappingView
_TEXTS = datetime.date, datetime.time
_NAMED = decimal.Decimal, uuid.UUID, PurePath


class NoPlainForm(TypeError):
    """What stands for no plain data; `whole` if that is the value itself, not something in it."""

    def __init__(self, text: str, *, whole: bool = False) -> None:
        super().__init__(text)
        self.whole = whole


class Unfit(ValueError):
    """A value that is too deep, too large, or within itself."""


def plain_form(value: Any, most: int) -> Any:
    """Return a value as `packed` returns plain data, of at most `most` bytes or so; 0 for no bound.

    Raises NoPlainForm or Unfit. What runs of the value's own, such as its `items`, may raise
    anything.
    """
    return _Walk(most).form(value, 0)


class _Walk:
    """One value's way, with what it has cost so far."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0  # bytes, at the least
        self._parts = 0
        self._path: list[str] = []
        self._open: set[int] = set()  # the containers that we are in

    def form(self, value: Any, level: int) -> Any:
        """Return the form of what stands at the path."""
        kind = type(value)
        if value is None or kind is bool or kind is float or kind is int:
            self._pay(1 + (value.bit_length() // 4 if kind is int else 0))
            return value if kind is bool else packed(value)
        if kind is str or kind is bytes:
            self._pay(len(value) + 2)
            return packed(value)
        if kind is dict or kind is list or kind is tuple:
            return self._inside(value, level)
        for kinds, form in _FORMS:
            if isinstance(value, kinds):
                return form(self, value, level)
        return self._foreign(value, level)

    def _inside(self, value: Any, level: int, content: Any = None) -> Any:
        if id(value) in self._open:
            raise Unfit(f"{self._here}: it contains itself")
        if level >= MAX_DEPTH:
            raise Unfit(f"{self._here}: nested deeper than {MAX_DEPTH} levels")
        self._open.add(id(value))
        try:
            content = value if content is None else content
            if isinstance(content, Mapping):
                return self._map(content.items(), level)
            return self._list(content, level)
        finally:
            self._open.discard(id(value))

    def _list(self, items: Iterable[Any], level: int) -> list[Any]:
        self._part()
        found = []
        for index, item in enumerate(items):
            self._path.append(f"[{index}]")
            found.append(self.form(item, level + 1))
            self._path.pop()
        return found

    def _map(self, items: Iterable[tuple[Any, Any]], level: int) -> dict[str, Any]:
        self._part()
        found: dict[str, Any] = {}
        for key, item in items:
            name = self._key(key)
            self._path.append(f"[{_clipped(name)!r}]")
            if (escaped := f"${name}" if name[:1] == "$" else name) in found:
                raise Unfit(f"{self._here}: two keys have this text")
            self._part()
            self._pay(len(name) + 3)
            found[escaped] = self.form(item, level + 1)
            self._path.pop()
        return found

    def _key(self, key: Any) -> str:
        if isinstance(key, str):
            return str.__str__(key)
        plain = _scalar(key)
        if plain is None or isinstance(plain, bool):
            return {None: "null", True: "true", False: "false"}[plain]
        if isinstance(plain, str | int | float):
            return plain if isinstance(plain, str) else repr(plain)
        raise NoPlainForm(f"{self._here}: a key of type {type(key).__qualname__} has no text")

    def _foreign(self, value: Any, level: int) -> Any:
        """Return the form of what is a library's, where the library is there."""
        plain = _scalar(value)
        if plain is not value:
            return self.form(plain, level)
        if (numpy := sys.modules.get("numpy")) and isinstance(value, numpy.ndarray):
            return self._array(value, level)
        if pandas := sys.modules.get("pandas"):
            if isinstance(value, pandas.DataFrame):
                return self._table(value, level)
            if isinstance(
                value, pandas.Series | pandas.Index | pandas.api.extensions.ExtensionArray
            ):
                self._afford(len(value))
                return self._inside(value, level, value.tolist())
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            names = [field.name for field in dataclasses.fields(value)]
            row = tuple(getattr(value, name) for name in names)
            return self._inside(value, level, _Record(names, row))
        raise self._none(_article(type(value).__qualname__))

    def _array(self, value: Any, level: int) -> Any:
        self._afford(value.size)
        kind = value.dtype.kind
        if kind in "cV":
            raise self._none(f"an array of {value.dtype}")
        if kind in "mM":
            value = _dated(value)
        elif kind == "f" and value.dtype.itemsize > 8:
            value = value.astype(float)
        return self.form(value.tolist(), level)

    def _table(self, value: Any, level: int) -> Any:
        self._afford(value.size)
        names = [self._key(name) for name in value.columns]
        rows = value.itertuples(index=False, name=None)
        return self._inside(value, level, [_Record(names, row) for row in rows])

    def _afford(self, elements: int) -> None:
        if elements > MAX_ARRAY:
            raise Unfit(f"{self._here}: {elements:,} elements; at most {MAX_ARRAY:,}")

    def _part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise Unfit(
                f"value: more than {MAX_PARTS:,} lists, maps and members of maps; return less of it"
            )

    def _pay(self, size: int) -> None:
        self._size += size + 1
        if self._size > self._most > 0:
            raise Unfit(f"value: more than {self._most:,} bytes as data; return less of it")

    def _none(self, what: str) -> NoPlainForm:
        text = f"{self._here}: {what} has no plain form; return numbers, text, lists or maps"
        return NoPlainForm(text, whole=not self._path)

    @property
    def _here(self) -> str:
        return "value" + "".join(self._path)


class _Record(Mapping):  # type: ignore[type-arg]
    """A row of a table; its keys may come twice, and then it has no plain form."""

    def __init__(self, names: list[str], row: tuple[Any, ...]) -> None:
        self._names, self._row = names, row

    def items(self) -> Any:
        return zip(self._names, self._row, strict=True)

    def __getitem__(self, name: str) -> Any:
        return self._row[self._names.index(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _scalar(value: Any) -> Any:
    """Return what a single thing stands for, or the very same where it stands for nothing."""
    if isinstance(value, enum.Enum):
        return _scalar(value.value)  # which may be of any type
    pandas, numpy = sys.modules.get("pandas"), sys.modules.get("numpy")
    if pandas is not None and (value is pandas.NaT or value is pandas.NA):
        return None
    for kinds, plain in _SCALARS:
        if isinstance(value, kinds):
            return value if type(value) is kinds else plain(value)
    if numpy is not None and isinstance(value, numpy.generic):
        return _of_numpy(value, numpy)
    return value


def _of_numpy(value: Any, numpy: Any) -> Any:
    if isinstance(value, numpy.datetime64 | numpy.timedelta64):
        if numpy.isnat(value):
            return None
        if isinstance(value, numpy.datetime64):
            return str(value)
        return float(value / numpy.timedelta64(1, "s"))
    if isinstance(value, numpy.longdouble):
        return float(value)
    plain = value.item()
    return value if isinstance(plain, complex | tuple) else plain


def _dated(value: Any) -> Any:
    """Return times and spans of time as numpy's own things, one by one."""
    numpy = sys.modules["numpy"]
    found = numpy.empty(value.shape, dtype=object)
    for index in numpy.ndindex(value.shape):
        found[index] = value[index]
    return found


def _single(walk: _Walk, value: Any, level: int) -> Any:
    return walk.form(_scalar(value), level)


def _binary(walk: _Walk, value: Any, level: int) -> Any:
    return walk.form(bytes(value), level)


def _container(walk: _Walk, value: Any, level: int) -> Any:
    return walk._inside(value, level)


_Form = Callable[[_Walk, Any, int], Any]
_FORMS: tuple[tuple[Any, _Form], ...] = (
    ((enum.Enum, str, int, float, *_TEXTS, datetime.timedelta, *_NAMED), _single),
    ((bytes, bytearray, memoryview), _binary),
    ((Mapping, *_LISTS), _container),
)
# In this order: a bool is an int.
_SCALARS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (bool, bool),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (_TEXTS, lambda value: value.isoformat()),
    ((datetime.timedelta,), lambda value: value.total_seconds()),
    (_NAMED, str),
)


def _article(name: str) -> str:
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _clipped(text: str) -> str:
    return text if len(text) <= 64 else f"{text[:61]}..."
