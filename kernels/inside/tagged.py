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
from typing import Any, Final

MAX_DEPTH: Final = 64  # levels
_LEAST: Final = -(2**63)
_MOST: Final = 2**63


def packed(value: Any) -> Any:
    """Return plain data as JSON has it. Raises TypeError for what is none."""
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return value
    if kind is int:
        return value if _LEAST <= value < _MOST else {"$int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if kind is bytes:
        return {"$bytes": b64encode(value).decode()}
    if kind is list:
        return [packed(item) for item in value]
    if kind is dict:
        return {f"${key}" if key[:1] == "$" else key: packed(item) for key, item in value.items()}
    raise TypeError(f"a {kind.__name__} is no plain data")


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
