"""The description of the HTTP routes for programs: OpenAPI 3.1, made from the table of routes."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from http.client import responses
from importlib.metadata import version
from typing import Annotated, Any

import msgspec

from broker import answers, errors
from broker.web.door import CODES, Face
from broker.web.route import JSON, Operation, Route

Json = dict[str, Any]

SESSION = Annotated[
    str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^(?!\.{1,2}$)[A-Za-z0-9._:@-]+$")
]
PATH: dict[str, tuple[Any, str]] = {
    "session": (SESSION, "The session's name."),
}
# What anything that needs a token may be refused for.
ALWAYS = (errors.BadMessage, errors.Unauthorized, errors.Forbidden)
REFERENCE = "#/components/schemas/{name}"


class Description(Face):
    """`GET /openapi.json`."""

    public = True

    async def get(self) -> None:
        """Answer with the document."""
        self.answer(_document(tuple(self.settings["routes"])))


@functools.lru_cache(1)
def _document(routes: tuple[Route, ...]) -> Json:
    return document(routes)


def document(routes: Iterable[Route]) -> Json:
    """Return the OpenAPI document of the routes."""
    routes = tuple(routes)
    types = _Types()
    for route in routes:
        for name in route.names():
            types.want(PATH[name][0])
        for operation in route.operations.values():
            types.want_all(operation)
    types.want(answers.Refused)
    types.resolve()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kernel-broker",
            "version": version("kernel-broker"),
            "summary": "Warm, stateful IPython kernels for chat sessions.",
        },
        "security": [{"bearer": []}, {"query": []}],
        "paths": {
            route.template(): {
                "parameters": [_path_parameter(name, types) for name in route.names()],
                **{
                    method: _operation(method, route, operation, types)
                    for method, operation in route.operations.items()
                },
            }
            for route in routes
        },
        "components": {
            "schemas": types.components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    }


class _Types:
    """The schemas of types: wanted first, so that all get their names at once; then looked up."""

    def __init__(self) -> None:
        self._wanted: list[Any] = []
        self._schemas: list[Json] = []
        self.components: Json = {}

    def want(self, kind: Any) -> None:
        if kind is not None and kind not in self._wanted:
            self._wanted.append(kind)

    def want_all(self, operation: Operation) -> None:
        for parameter in operation.query:
            self.want(parameter.kind)
        for one in (*operation.answers.values(),):
            for kind in one.bodies.values():
                self.want(kind)
        for kind in (operation.body or {}).values():
            self.want(kind)

    def resolve(self) -> None:
        schemas, self.components = msgspec.json.schema_components(
            self._wanted, ref_template=REFERENCE
        )
        self._schemas = list(schemas)
        for name, schema in self.components.items():
            if getattr(answers, name, None) is not None:
                # Later versions may tell more: who reads an answer should not mind.
                schema.pop("additionalProperties", None)

    def schema(self, kind: Any) -> Json:
        return {} if kind is None else self._schemas[self._wanted.index(kind)]

    def content(self, bodies: Mapping[str, Any]) -> Json:
        return {media: {"schema": self.schema(kind)} for media, kind in bodies.items()}


def _path_parameter(name: str, types: _Types) -> Json:
    kind, about = PATH[name]
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": about,
        "schema": types.schema(kind),
    }


def _operation(method: str, route: Route, operation: Operation, types: _Types) -> Json:
    told: Json = {
        "operationId": f"{method} {route.template()}",
        "summary": operation.summary,
        "parameters": [
            {
                "name": one.name,
                "in": "query",
                "description": one.about,
                "schema": types.schema(one.kind),
            }
            for one in operation.query
        ],
        "responses": _responses(operation, types),
    }
    if operation.scope:
        told["x-scope"] = operation.scope
    else:
        told["security"] = []
    if operation.body:
        told["requestBody"] = {"required": True, "content": types.content(operation.body)}
    return told


def _responses(operation: Operation, types: _Types) -> Json:
    told: Json = {
        str(status): {"description": one.about, "content": types.content(one.bodies)}
        for status, one in operation.answers.items()
    }
    refusals: dict[int, list[str]] = {}
    for error in dict.fromkeys((*(ALWAYS if operation.scope else ()), *operation.errors)):
        code = CODES[error]
        words = refusals.setdefault(code.http, [])
        words.append(f"`{code.wire}`: {(error.__doc__ or '').splitlines()[0]}")
    for status, words in sorted(refusals.items()):
        told.setdefault(
            str(status),
            {
                "description": " ".join(words) or responses[status],
                "content": types.content({JSON: answers.Refused}),
            },
        )
    return told
