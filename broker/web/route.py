"""What one route is: who answers it, and what each of its methods takes and gives."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tornado.web import RequestHandler

from broker.errors import BrokerError

JSON = "application/json"
NDJSON = "application/x-ndjson"
TEXT = "text/plain"
BYTES = "application/octet-stream"
ANY = "*/*"  # a file, of the type that its name says

_PARAMETER = re.compile(r"\{(\+?)(\w+)\}")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of the query; `kind` is the type that its text stands for."""

    name: str
    about: str
    kind: Any = str


@dataclass(frozen=True, slots=True)
class Answer:
    """What a status comes with: by media type, the type of the body; None for bytes or text."""

    about: str
    bodies: Mapping[str, Any]


def answer(about: str, body: Any) -> dict[int, Answer]:
    """Return the answers of an operation that has but one, in JSON."""
    return {200: Answer(about, {JSON: body})}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of a route.

    `scope` is the deed that a token must allow (`broker.principal`); empty for everybody, without
    a token. `body` is
    the type of the request's body by media type, `errors` what it may be refused for beside what
    every operation is.
    """

    summary: str
    answers: Mapping[int, Answer]
    scope: str
    query: tuple[Parameter, ...] = ()
    body: Mapping[str, Any] | None = None
    errors: tuple[type[BrokerError], ...] = ()
    audited: str = ""  # what the audit calls it once it is done; empty for what changes nothing
    visited: str = "read"  # what it calls that where it is another tenant's

    def queries(self) -> frozenset[str]:
        """Return the names of all that the query may hold."""
        return frozenset({"token", *(one.name for one in self.query)})


@dataclass(frozen=True, slots=True)
class Route:
    """A path, its handler, and its operations by method.

    The path is a template: `{name}` stands for one segment, `{+name}` for all that is left.
    """

    path: str
    handler: type[RequestHandler]
    operations: Mapping[str, Operation]

    def pattern(self) -> str:
        """Return the path as Tornado matches it."""
        parts = []
        last = 0
        for found in _PARAMETER.finditer(self.path):
            parts.append(re.escape(self.path[last : found.start()]))
            parts.append(f"(?P<{found[2]}>{'.*' if found[1] else '[^/]+'})")
            last = found.end()
        return "".join([*parts, re.escape(self.path[last:])])

    def template(self) -> str:
        """Return the path as OpenAPI writes it."""
        return _PARAMETER.sub(r"{\2}", self.path)

    def names(self) -> Iterator[str]:
        """Yield the names of the path's parameters."""
        return (found[2] for found in _PARAMETER.finditer(self.path))
