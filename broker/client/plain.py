"""Values as the plain data that can be sent, and what was sent as what it was. Pure.

What numpy and pandas have is known by what it can do: neither is imported.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import datetime
import decimal
import enum
import uuid
from collections import deque
from collections.abc import Iterable, Mapping, Set
from pathlib import PurePath
from typing import Any

from .errors import BadRequest

MAX_DEPTH = 32  # of lists and maps inside each other; the broker's bound


def plain(value: Any, field: str, level: int = 0) -> Any:
    """Return a value as numbers, text, bytes, lists and maps of text keys.

    Dates are ISO 8601 text, spans of time seconds, decimals text, an enum's member its value, a
    dataclass a map, an array nested lists, a table a list of records. Raises BadRequest naming the
    place for what has no such form.
    """
    if level > MAX_DEPTH:
        raise _refused(field, "nested too deep, or within itself")
    value = _scalar(value)
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [each.name for each in dataclasses.fields(value)]
        value = {name: getattr(value, name) for name in names}
    elif _has(value, "pandas", "to_dict") and hasattr(value, "columns"):
        value = value.to_dict("records")
    elif _has(value, "numpy", "tolist") or _has(value, "pandas", "tolist"):
        value = value.tolist()
        if not isinstance(value, list):  # an array of no dimensions
            return plain(value, field, level + 1)
    if isinstance(value, Mapping):
        return {
            _key(key, field): plain(item, f"{field}[{key!r}]", level + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset | range | deque | Set):
        return _list(value, field, level)
    raise _refused(field, f"a {type(value).__name__} has no plain form")


def _list(value: Iterable[Any], field: str, level: int) -> list[Any]:
    return [plain(item, f"{field}[{index}]", level + 1) for index, item in enumerate(value)]


def _scalar(value: Any) -> Any:
    """Return what a single thing stands for, or the very same."""
    if isinstance(value, enum.Enum):
        return _scalar(value.value)
    if type(value).__name__ in {"NaTType", "NAType"}:  # pandas'
        return None
    if _has(value, "numpy", "item") and not getattr(value, "shape", (1,)):
        item = value.item()
        return value if type(item) is type(value) else _scalar(item)
    for kind, made in _EXACT.items():
        if isinstance(value, kind):
            return made(value)
    return value


def _has(value: Any, library: str, method: str) -> bool:
    return type(value).__module__.partition(".")[0] == library and hasattr(value, method)


def _key(key: Any, field: str) -> str:
    key = _scalar(key)
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    if isinstance(key, int | float):
        return repr(key)
    raise _refused(field, f"a key of type {type(key).__name__} has no text")


def _refused(field: str, why: str) -> BadRequest:
    return BadRequest(f"{field}: {why}", code="bad_message", field=field.partition("[")[0])


_EXACT: dict[Any, Any] = {
    bool: bool,
    int: int.__int__,
    float: float.__float__,
    str: str.__str__,
    (bytes, bytearray, memoryview): bytes,
    (datetime.date, datetime.time): lambda value: value.isoformat(),
    datetime.timedelta: lambda value: value.total_seconds(),
    (decimal.Decimal, uuid.UUID, PurePath): str,
}


def posted(value: Any) -> Any:
    """Return plain data as HTTP takes it: bytes as {"base64": "…"}."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, list):
        return [posted(item) for item in value]
    if isinstance(value, dict):
        return {key: posted(item) for key, item in value.items()}
    return value


def answered(value: Any) -> Any:
    """Return plain data that came as JSON with bytes where it has {"base64": "…"}."""
    if isinstance(value, list):
        return [answered(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"base64"} and isinstance(value["base64"], str):
        try:
            return base64.b64decode(value["base64"], validate=True)
        except binascii.Error:
            return value
    return {key: answered(item) for key, item in value.items()}
