"""The JSON Schema of every message of the native protocol, made from their types. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from broker.events import BY_TYPE, EVENTS
from broker.requests import REQUESTS

Json = dict[str, Any]
Struct = type[msgspec.Struct]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


class Schemas(NamedTuple):
    """The schema of each type that was asked for, and those that they refer to, by name."""

    of: Mapping[Any, Json]
    shared: dict[str, Json]


def schemas(kinds: Iterable[Any], place: str, open_to: Sequence[Struct] = ()) -> Schemas:
    """Return the schemas of types, whose references begin with `place`.

    Those in `open_to` may have more fields than they tell: later versions may add some, and who
    reads them should not mind.
    """
    wanted = list(dict.fromkeys(kinds))
    found, shared = msgspec.json.schema_components(wanted, ref_template=f"{place}/{{name}}")
    for name in (kind.__name__ for kind in open_to):
        if name in shared:
            shared[name].pop("additionalProperties", None)
    return Schemas(dict(zip(wanted, found, strict=True)), shared)


def document() -> Json:
    """Return one document: `request` is any of the one side, `event` any of the other.

    Each message stands in `$defs` as its side and its type on the wire: two kinds of message may
    have one name in Python.
    """
    defs: dict[str, Json] = {}
    for side, kinds in (("request", REQUESTS), ("event", BY_TYPE)):
        found = schemas(kinds.values(), "#/$defs", open_to=EVENTS if side == "event" else ())
        words = {kind.__name__: word for word, kind in kinds.items()}
        names = {name: f"{side}.{words.get(name, name)}" for name in found.shared}
        defs |= {names[name]: _renamed(schema, names) for name, schema in found.shared.items()}
        defs[side] = {"oneOf": [{"$ref": f"#/$defs/{side}.{word}"} for word in kinds]}
    return {
        "$schema": DIALECT,
        "title": "kernel-broker native protocol, version 1",
        "description": "`request` is what a client sends, `event` what the broker sends.",
        "oneOf": [{"$ref": "#/$defs/request"}, {"$ref": "#/$defs/event"}],
        "$defs": defs,
    }


def _renamed(schema: Any, names: Mapping[str, str]) -> Any:
    """Return a schema whose references lead to the new names."""
    if isinstance(schema, dict):
        copy = {key: _renamed(value, names) for key, value in schema.items()}
        if isinstance(reference := copy.get("$ref"), str):
            copy["$ref"] = f"#/$defs/{names[reference.rpartition('/')[2]]}"
        return copy
    if isinstance(schema, list):
        return [_renamed(one, names) for one in schema]
    return schema
