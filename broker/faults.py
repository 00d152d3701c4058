"""The words of each refusal of a message, and the bounds that it is refused for.

Each is worded once, so that every face says the same.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from broker.errors import BadMessage, TooLarge


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bound what one incoming message may cost.

    `max_items` bounds each list and map. msgpack allocates a list as soon as it has read the length
    that the sender claims: 1,000 nested claims of `unproven` items cost 128 MiB, not 64 GiB. Longer
    ones are first found to be there, so that all lists together have at most an item for each byte.
    What is there is bounded as well: on its way to a kernel an item is gone through four times, a
    list or map takes as long as ten items, and no other client is served meanwhile.
    """

    max_frame: int = 8 << 20  # bytes
    max_depth: int = 32  # maps and lists inside each other; the message itself is the first
    max_items: int = 1 << 20
    max_in_all: int = 3 << 19  # items of all lists and maps together
    max_nested: int = 200_000  # lists and maps
    unproven: int = 1 << 14  # items of a list or map that is read without a look at them before


def bad_field(field: str, rule: str) -> BadMessage:
    """Return the refusal of one field's value."""
    return BadMessage(f"{field}: {rule}", field=field)


def unknown_field(name: str, known: Iterable[str], what: str) -> BadMessage:
    """Return the refusal of a name that nothing is called, with the nearest that something is."""
    name = clip(name)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
    return bad_field(name, f"no such {what}; {hint}")


def over_size(size: int, bounds: Bounds) -> TooLarge:
    """Return the refusal of a frame of `size` bytes."""
    return TooLarge(
        f"a message of {size} bytes is over the bound of {bounds.max_frame}", field="frame"
    )


def over_items(bounds: Bounds, field: str | None = None) -> TooLarge:
    """Return the refusal of a list or map that is too long."""
    where = f"{field}: " if field else ""
    return TooLarge(
        f"{where}a list or map of more than {bounds.max_items} items is over the bound",
        field=field or "frame",
    )


def over_all_items(bounds: Bounds, field: str | None = None) -> TooLarge:
    """Return the refusal of a message that has too much in its lists and maps."""
    where = f"{field}: " if field else ""
    return TooLarge(
        f"{where}lists and maps of more than {bounds.max_in_all} items together are over the bound",
        field=field or "frame",
    )


def over_nested(bounds: Bounds, field: str | None = None) -> TooLarge:
    """Return the refusal of a message of too many lists and maps."""
    where = f"{field}: " if field else ""
    return TooLarge(
        f"{where}more than {bounds.max_nested} lists and maps are over the bound",
        field=field or "frame",
    )


def over_depth(bounds: Bounds, field: str | None = None) -> BadMessage:
    """Return the refusal of a message that nests too deep."""
    where = f"{field}: " if field else ""
    return BadMessage(f"{where}nested deeper than {bounds.max_depth} levels", field=field)


def clip(text: str) -> str:
    """Keep a stranger's text short enough to repeat back."""
    return text if len(text) <= 64 else f"{text[:61]}..."


def kind_of(value: object) -> str:
    """Return what a value is called where it is refused."""
    names = {dict: "a map", list: "a list", str: "text", bytes: "binary", type(None): "null"}
    return names.get(type(value), f"a {type(value).__name__}")
