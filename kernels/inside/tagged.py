"""Plain data on its way from the broker and back: JSON, with a tag for what JSON cannot say.

`broker/tagged.py` is the other end, and says the same:

- `{"$bytes": base64}`
- `{"$float": "nan" | "inf" | "-inf"}`
- `{"$int": "0x…"}`, beyond 64 bits
- in every other map, a key that begins with `$` has one more of them in front.
"""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from numbers import Integral, Real
from typing import Any, Final

MAX_DEPTH: Final = 64  # levels
_LEAST: Final = -(2**63)
_MOST: Final = 2**63


def packed(value: Any, level: int = 0) -> Any:
    """Return plain data as JSON has it. Raises TypeError for what is none.

    What code makes of plain data is as good: numpy's numbers, tuples, its own kinds of text.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Integral | Real):
        return _number(value)
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": b64encode(bytes(value)).decode()}
    if level >= MAX_DEPTH:
        raise TypeError(f"data that nests deeper than {MAX_DEPTH} levels")
    if isinstance(value, list | tuple):
        return [packed(item, level + 1) for item in value]
    if isinstance(value, dict):
        return {_tagged(key): packed(item, level + 1) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} is not plain data")


def unpacked(value: Any, level: int = 0) -> Any:
    """Return what `packed` was given. Raises ValueError for what it never returns."""
    if level > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, list):
        return [unpacked(item, level + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((tag, text),) = value.items()
        if tag in _READ:
            if not isinstance(text, str):
                raise ValueError(f"{tag} without text")
            return _READ[tag](text)
    return {_key(key): unpacked(item, level + 1) for key, item in value.items()}


def _number(value: Any) -> Any:
    if isinstance(value, Integral):
        number = int(value)
        return number if _LEAST <= number < _MOST else {"$int": hex(number)}
    real = float(value)
    return real if math.isfinite(real) else {"$float": repr(real)}


def _tagged(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a key that is no text: {type(key).__name__}")
    name = str.__str__(key)  # and not what a kind of text says of itself
    return f"${name}" if name[:1] == "$" else name


def _key(key: str) -> str:
    if key[:1] != "$":
        return key
    if key[:2] != "$$":
        raise ValueError("a map with a tag that there is not")
    return key[1:]


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)


def _float(text: str) -> float:
    if text not in {"nan", "inf", "-inf"}:
        raise ValueError("no such float")
    return float(text)


def _int(text: str) -> int:
    return int(text, 16)


_READ = {"$bytes": _bytes, "$float": _float, "$int": _int}
