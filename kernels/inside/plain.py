"""Any value as plain JSON, small: what a cell of a table and a point of a chart may be."""

from __future__ import annotations

import datetime
import math
from typing import Any

TEXT = 200  # characters of a cell
NAME = 100  # characters of a column's name, a title, a label
FEW = 20  # members of a container that are shown
EXACT = 2**53  # from here on, some readers of JSON would have another integer


def plain(value: Any) -> Any:
    """Return a value as JSON has it: no number is null, a date ISO 8601, the rest its text."""
    kind = type(value)
    if value is None or kind is bool:
        return value
    if kind is float and math.isfinite(value):
        return value
    if kind is int and -EXACT < value < EXACT:
        return value
    if (kind is float and math.isnan(value)) or kind.__name__ in ("NaTType", "NAType"):  # pandas'
        return None
    if kind.__module__ == "numpy" and hasattr(value, "item") and not getattr(value, "ndim", 1):
        item = value.item()
        return plain(item) if type(item) is not kind else clipped(str(value), TEXT)
    return clipped(_text(value), TEXT)


def _text(value: Any) -> str:
    kind = type(value)
    text: str
    if kind is str:
        text = value
    elif kind is int:
        text = _digits(value)
    elif isinstance(value, datetime.date | datetime.time) or kind.__name__ == "Timedelta":
        text = value.isoformat()
    elif isinstance(value, list | tuple) and len(value) > FEW:
        text = f"{str(value[:FEW])[:-1]}, …"
    elif isinstance(value, dict | set | frozenset) and len(value) > FEW:
        text = f"{kind.__name__} of {len(value):,}"
    else:
        text = str(value)
    return text


def clipped(text: str, most: int) -> str:
    """Return a text that is no longer than `most` characters and one more."""
    return text if len(text) <= most else f"{text[:most]}…"


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # Python's own bound on the digits of an integer
        return f"an integer of {value.bit_length():,} bits"
