"""The contract for programs: the routes as OpenAPI 3.1, the messages as JSON Schema."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from http.client import responses
from importlib.metadata import version
from typing import Annotated, Any

import msgspec

from broker import answers, errors, schema
from broker.events import EVENTS
from broker.schema import Json, Schemas
from broker.web.door import CODES, Face
from broker.web.route import JSON, Operation, Route

SESSION = Annotated[
    str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^(?!\.{1,2}$)[A-Za-z0-9._:@-]+$")
]
PATH: dict[str, tuple[Any, str]] = {
    "session": (SESSION, "The session's name."),
    "node": (str, "The node's name, as the list has it."),
    "token_id": (str, "The token's id, as the list has it."),
    "file": (str, "One of the console's files."),
    "path": (str, "A path in the session's workspace; its slashes may stand as they are."),
}
# What anything that needs a token may be refused for.
ALWAYS = (errors.BadMessage, errors.Unauthorized, errors.Forbidden)
OF_A_SESSION = (errors.UnknownSession,)  # as which another tenant's, or another token's, is told
OPEN = (*EVENTS, *answers.Answer.__subclasses__())


class Description(Face):
    """`GET /openapi.json`."""

    public = True

    async def get(self) -> None:
        """Answer with the document."""
        self.answer(self.settings["description"]())


class Messages(Face):
    """`GET /schema.json`."""

    public = True

    async def get(self) -> None:
        """Answer with the document."""
        self.answer(_messages())


_messages = functools.cache(schema.document)


def document(routes: Sequence[Route]) -> Json:
    """Return the OpenAPI document of the routes."""
    types = schema.schemas(_types(routes), "#/components/schemas", open_to=OPEN)
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
                    method: _operation(
                        f"{method} {route.template()}",
                        operation,
                        types,
                        of_a_session="session" in route.names(),
                    )
                    for method, operation in route.operations.items()
                },
            }
            for route in routes
        },
        "components": {
            "schemas": types.shared,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "query": {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    }


def _types(routes: Sequence[Route]) -> Iterator[Any]:
    """Yield every type that the routes' description speaks of."""
    yield answers.Refused
    for route in routes:
        for name in route.names():
            yield PATH[name][0]
        for operation in route.operations.values():
            yield from (one.kind for one in operation.query)
            for bodies in (*(one.bodies for one in operation.answers.values()), operation.body):
                yield from (kind for kind in (bodies or {}).values() if kind is not None)


def _path_parameter(name: str, types: Schemas) -> Json:
    kind, about = PATH[name]
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": about,
        "schema": types.of[kind],
    }


def _operation(name: str, operation: Operation, types: Schemas, *, of_a_session: bool) -> Json:
    told: Json = {
        "operationId": name,
        "summary": operation.summary,
        "parameters": [
            {
                "name": one.name,
                "in": "query",
                "description": one.about,
                "schema": types.of[one.kind],
            }
            for one in operation.query
        ],
        "responses": _responses(operation, types, OF_A_SESSION if of_a_session else ()),
    }
    if operation.scope:
        told["x-scope"] = operation.scope
    else:
        told["security"] = []
    if operation.body:
        told["requestBody"] = {"required": True, "content": _content(operation.body, types)}
    return told


def _responses(operation: Operation, types: Schemas, further: tuple[Any, ...]) -> Json:
    told: Json = {
        str(status): {"description": one.about, "content": _content(one.bodies, types)}
        for status, one in operation.answers.items()
    }
    refusals: dict[int, list[str]] = {}
    always = (*ALWAYS, *further) if operation.scope else ()
    for error in dict.fromkeys((*always, *operation.errors)):
        code = CODES[error]
        words = refusals.setdefault(code.http, [])
        words.append(f"`{code.wire}`: {(error.__doc__ or '').splitlines()[0]}")
    for status, words in sorted(refusals.items()):
        told.setdefault(
            str(status),
            {
                "description": " ".join(words) or responses[status],
                "content": _content({JSON: answers.Refused}, types),
            },
        )
    return told


def _content(bodies: Mapping[str, Any], types: Schemas) -> Json:
    return {
        media: {"schema": {} if kind is None else types.of[kind]} for media, kind in bodies.items()
    }
