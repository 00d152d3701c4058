"""The flags and numbers of a query, as text that a stranger has sent."""

from __future__ import annotations

from collections.abc import Collection

from tornado.web import RequestHandler

from broker.faults import bad_field, clip

FLAGS = {"true": True, "1": True, "false": False, "0": False}
DIGITS = 32  # of a number; int() itself refuses thousands, with an error of its own
LARGEST = 10**12


def flag(handler: RequestHandler, name: str, *, default: bool = False) -> bool:
    """Return a yes or no. Raises BadMessage."""
    text = handler.get_query_argument(name, None)
    if text is None:
        return default
    if text not in FLAGS:
        raise bad_field(name, f"expected true or false, got {clip(text)!r}")
    return FLAGS[text]


def whole(handler: RequestHandler, name: str, default: int, most: int = LARGEST - 1) -> int:
    """Return a whole number from 1 to `most`. Raises BadMessage."""
    text = handler.get_query_argument(name, None)
    if text is None:
        return default
    is_short = text.isascii() and text.isdecimal() and len(text) <= DIGITS
    if not (is_short and 1 <= int(text) <= most):
        raise bad_field(name, f"expected a whole number from 1 to {most}, got {clip(text)!r}")
    return int(text)


def number(handler: RequestHandler, name: str, default: float) -> float:
    """Return a number from 0 on, and finite. Raises BadMessage."""
    text = handler.get_query_argument(name, None)
    if text is None:
        return default
    try:
        value = float(text) if len(text) <= DIGITS else -1.0
    except ValueError:
        value = -1.0
    if not 0 <= value < LARGEST:
        raise bad_field(name, f"expected a number from 0 on, got {clip(text)!r}")
    return value


def chosen(handler: RequestHandler, name: str, known: Collection[str], default: str) -> str:
    """Return one of the words that are known. Raises BadMessage."""
    text = handler.get_query_argument(name, default)
    if text not in known:
        raise bad_field(name, f"expected one of {', '.join(sorted(set(known) - {''}))}")
    return text
