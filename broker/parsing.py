"""Plain data to requests: checked against the bounds first, then against the type it names.

Each mistake raises BadFrame, BadMessage or TooLarge, and nothing else is ever raised. `request` of
what `request_of` raises is the request's id, where it has one.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Collection, Iterable
from typing import Any, Final, TypeVar

import msgspec

from broker.errors import BadFrame, BadMessage, TooLarge
from broker.faults import (
    Bounds,
    bad_field,
    clip,
    kind_of,
    over_depth,
    over_items,
    unknown_field,
)
from broker.loading import Tally, id_of
from broker.requests import PLAIN_DATA, REQUESTS, Request

S = TypeVar("S", bound=msgspec.Struct)
_CONTAINERS: Final = frozenset({dict, list})
_KEYS: Final = frozenset({str})


def request_of(message: object, bounds: Bounds, *, text: bool = False) -> Request:
    """Return plain data as the request it names; raises BadFrame, BadMessage or TooLarge.

    `text` says that it came as JSON, where a binary value is {"base64": "…"}.
    """
    try:
        return _request_of(message, bounds, text=text)
    except (BadFrame, BadMessage, TooLarge) as refusal:
        refusal.request = id_of(message)
        raise


def _request_of(message: object, bounds: Bounds, *, text: bool) -> Request:
    fields = _checked(message, bounds, text=text)
    kind = fields.get("type")
    struct = REQUESTS.get(kind) if type(kind) is str else None
    if struct is None:
        known = ", ".join(REQUESTS)
        if "type" not in fields:
            raise bad_field("type", f"missing; expected one of {known}")
        got = repr(clip(kind)) if type(kind) is str else kind_of(kind)
        raise bad_field("type", f"expected one of {known}; got {got}")
    return _convert(fields, struct, f"type {kind}")


def body_of(message: object, struct: type[S], bounds: Bounds) -> S:
    """Return JSON that was posted as what it is to be; raises BadFrame, BadMessage or TooLarge."""
    return _convert(_checked(message, bounds, text=True), struct, "this request")


def _checked(message: object, bounds: Bounds, *, text: bool) -> dict[str, object]:
    """Return plain data as a map within the bounds, with text for every key inside it."""
    if type(message) is not dict:
        raise BadFrame(f"a message is a map; this is {kind_of(message)}")
    if len(message) > bounds.max_items:
        raise over_items(bounds)
    tally: Tally | None = None
    for field, value in message.items():
        if type(field) is not str:
            raise BadMessage(f"the fields of a message are named by text, not by {kind_of(field)}")
        if type(value) is dict or type(value) is list:
            if tally is None:  # most messages have nothing that nests
                tally = Tally(bounds)
                tally.add(message)
            _check_nested(value, field, bounds, tally)
            if text and field in PLAIN_DATA:
                message[field] = _with_binary(value, field)
    return message


def _check_nested(
    value: dict[object, object] | list[object], field: str, bounds: Bounds, tally: Tally
) -> None:
    """Walk level by level, so that the sender's nesting is never our stack."""
    level = [value]
    for _ in range(bounds.max_depth - 1):  # the message itself was the first level
        deeper: list[Any] = []
        for container in level:
            tally.add(container, field)
            items: Collection[object] = container
            if type(container) is dict:
                if not set(map(type, container)) <= _KEYS:
                    raise bad_field(field, "expected text for every key inside")
                items = container.values()
            kinds = set(map(type, items))  # long lists are of few: a loop takes ten times as long
            if bytes in kinds and field not in PLAIN_DATA:
                raise bad_field(field, "expected no binary value inside")
            if dict in kinds or list in kinds:
                deeper += [item for item in items if type(item) in _CONTAINERS]
        if not deeper:
            return
        level = deeper
    raise over_depth(bounds, field)


def _with_binary(value: Any, field: str) -> object:
    """Put bytes in the place of each {"base64": "…"}, and return the value; it nests in bounds."""
    items: Iterable[tuple[Any, object]]
    if type(value) is dict:
        if len(value) == 1 and type(text := value.get("base64")) is str:
            try:
                return b64decode(text, validate=True)
            except ValueError:
                raise bad_field(field, 'expected base64 text in {"base64": "…"}') from None
        items = value.items()
    elif _CONTAINERS.isdisjoint(map(type, value)):
        return value
    else:
        items = enumerate(value)
    for at, item in items:
        if type(item) in _CONTAINERS:
            value[at] = _with_binary(item, field)
    return value


def _convert(fields: dict[str, object], struct: type[S], what: str) -> S:
    try:
        return msgspec.convert(fields, struct)
    except msgspec.ValidationError as error:
        text = str(error)
    rule, _, path = text.partition(" - at ")
    found = re.search(r"\$\.(\w+)", path)
    named = rule.partition("`")[2].removesuffix("`")
    if rule.startswith("Object contains unknown field `"):
        if found:
            raise bad_field(found[1], f"no such field inside: {clip(named)}")
        known = struct.__struct_fields__ + (("type",) if struct.__struct_config__.tag else ())
        raise unknown_field(named, known, f"field of {what}")
    if rule.startswith("Object missing required field `"):
        if found:
            raise bad_field(found[1], f"{clip(named)} is missing inside")
        raise bad_field(named, f"missing; {what} needs it")
    rule = rule.replace("`", "")
    raise bad_field(found[1] if found else "type", rule[:1].lower() + rule[1:])
