"""Values on their way between a cell and whoever serves its tools: plain data, as JSON.

JSON's own types are themselves. What JSON lacks is a map of one key that begins with `$`: bytes,
numbers that are none, whole numbers over 64 bits. A map that looks like one of these is wrapped.
"""

from __future__ import annotations

import base64
import math
from numbers import Integral, Real
from typing import Any

MOST_DEPTH = 64  # levels


def encode(value: Any, depth: int = 0) -> Any:
    """Return a value as JSON can hold it. Raises TypeError for what is no plain data."""
    if value is None or isinstance(value, bool | str):
        return value if value is None or isinstance(value, bool) else str(value)
    if isinstance(value, Integral):
        number = int(value)
        return number if -(2**63) <= number < 2**63 else {"$int": hex(number)}
    if isinstance(value, Real):
        real = float(value)
        return real if math.isfinite(real) else {"$float": str(real)}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"$bytes": base64.b64encode(bytes(value)).decode()}
    if depth >= MOST_DEPTH:
        raise TypeError(f"data that nests deeper than {MOST_DEPTH} levels")
    if isinstance(value, list | tuple):
        return [encode(item, depth + 1) for item in value]
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"a key that is no text: {type(key).__name__}")
        made = {str(key): encode(item, depth + 1) for key, item in value.items()}
        return {"$map": made} if len(made) == 1 and next(iter(made)).startswith("$") else made
    raise TypeError(f"{type(value).__name__} is not plain data")


def decode(value: Any) -> Any:
    """Return the value that `encode` was given; the broker is who says it."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        key, inner = next(iter(value.items()))
        if key == "$bytes":
            return base64.b64decode(inner)
        if key == "$int":
            return int(inner, 16)
        if key == "$float":
            return float(inner)
        if key == "$map":
            value = inner
    return {key: decode(item) for key, item in value.items()}
