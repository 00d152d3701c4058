"""What the broker says, against what its own description says of it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, Union

import msgspec

from broker import answers
from broker.events import EVENTS
from broker.web.openapi import document
from broker.web.route import ANY, JSON, NDJSON, Operation, Route
from broker.web.routes import ROUTES

ANY_EVENT: Any = Union[EVENTS]  # noqa: UP007 - made of a tuple


def check_event(event: Mapping[str, Any]) -> None:
    """Raise AssertionError for an event with a field too many, too few, or of the wrong type."""
    _check(event, ANY_EVENT, "event")


def check_answer(method: str, path: str, status: int, media: str, text: str) -> None:
    """Raise AssertionError for an answer that the description does not have."""
    route, operation = _asked(method.lower(), path.partition("?")[0])
    what = f"{method} {path[:80]} {status}"
    if route is None or operation is None:
        # What Tornado cuts off itself has no body of ours; who has no token learns nothing more.
        assert status in (400, 401, 404, 405), what
        return
    if status not in operation.answers:
        told = _paths()[route.template()][method.lower()]["responses"]
        assert str(status) in told or not text, f"{what}: not described"
    if not text:
        return
    described = operation.answers.get(status)
    bodies = described.bodies if described else {JSON: answers.Refused}
    kind = media.partition(";")[0]
    if ANY in bodies:
        return
    assert kind in bodies, f"{what}: {media}"
    if kind == NDJSON:
        for line in text.splitlines():
            check_event(json.loads(line))
    elif bodies[kind] is not None:
        _check(json.loads(text), bodies[kind], what)


def _check(value: Any, kind: Any, what: str) -> None:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise AssertionError(f"{what}: {error}: {str(value)[:2000]}") from None


def _asked(method: str, path: str) -> tuple[Route | None, Operation | None]:
    for route in ROUTES:
        if re.fullmatch(route.pattern(), path):
            return route, route.operations.get(method)
    return None, None


@functools.cache
def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = document(ROUTES)["paths"]
    return paths
