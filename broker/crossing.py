"""Values on their way between a cell and whoever serves its tools: plain data, as JSON.

The kernel's end of it is `kernels.inside.crossing`. What JSON lacks is a map of one key that begins
with `$`: bytes, numbers that are none, whole numbers over 64 bits; a map that looks so is wrapped.
"""

from __future__ import annotations

import base64
import math
import re
from typing import Any

MOST_DEPTH = 64  # levels; the sender's nesting is our stack
_HEX = re.compile(r"-?0x[0-9a-f]{1,4096}")
_FLOATS = ("nan", "inf", "-inf")


def encode(value: Any) -> Any:
    """Return plain data, which nests within the bounds of a message, as JSON can hold it."""
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        made = {key: encode(item) for key, item in value.items()}
        return {"$map": made} if len(made) == 1 and next(iter(made)).startswith("$") else made
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return {"$int": hex(value)}
    return value


def decode(value: Any, depth: int = 0) -> Any:
    """Return what a kernel has encoded. Raises ValueError for what no honest one sends."""
    if depth > MOST_DEPTH:
        raise ValueError(f"data that nests deeper than {MOST_DEPTH} levels")
    if isinstance(value, list):
        return [decode(item, depth + 1) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        key, inner = next(iter(value.items()))
        if key == "$map" and isinstance(inner, dict):
            value = inner
        elif key.startswith("$"):
            return _special(key, inner)
    return {key: decode(item, depth + 1) for key, item in value.items()}


def _special(key: str, inner: Any) -> Any:
    if isinstance(inner, str):
        if key == "$bytes":
            return base64.b64decode(inner, validate=True)
        if key == "$int" and _HEX.fullmatch(inner):
            return int(inner, 16)
        if key == "$float" and inner in _FLOATS:
            return float(inner)
    raise ValueError(f"a map that is none: {key[:20]!r}")
