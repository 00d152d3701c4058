"""The table of routes: nothing is served that it does not describe."""

from __future__ import annotations

import inspect
import re
from typing import Any

import msgspec
import pytest
from tornado.web import RequestHandler

from broker.web.jupyter.routes import ROUTES as JUPYTER
from broker.web.openapi import PATH, document
from broker.web.route import Answer, Operation, Route, answer
from broker.web.routes import QUERIES, ROUTES

METHODS = ("get", "head", "post", "put", "patch", "delete", "options")
PUBLIC = ("/healthz", "/readyz", "/openapi.json", "/schema.json", "/", "/console/{file}")
DOCUMENT: dict[str, Any] = document(ROUTES)


def answered(handler: type[RequestHandler]) -> set[str]:
    """Return the methods that a handler answers itself."""
    of_all = {name: getattr(RequestHandler, name) for name in METHODS}
    return {
        name
        for name in METHODS
        # Tornado's WebSocket has a `get` of its own.
        if inspect.unwrap(getattr(handler, name)) is not of_all[name]
    }


@pytest.mark.parametrize("route", [*ROUTES, *JUPYTER], ids=lambda route: route.path)
def test_each_method_of_a_route_is_described(route: Route) -> None:
    assert set(route.operations) == answered(route.handler)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_each_parameter_of_a_path_is_described_and_taken(route: Route) -> None:
    names = set(route.names())
    assert names <= set(PATH)
    for method in route.operations:
        taken = inspect.signature(getattr(route.handler, method)).parameters
        any_names = any(one.kind is one.VAR_KEYWORD for one in taken.values())
        assert any_names or names <= set(taken), method


def test_no_two_rows_stand_for_one_path() -> None:
    paths = [route.template() for route in (*ROUTES, *JUPYTER)]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("route", [*ROUTES, *JUPYTER], ids=lambda route: route.path)
def test_a_path_reaches_its_own_row_first(route: Route) -> None:
    path = re.sub(r"\{\+?\w+\}", "a", route.path)
    first = next(one for one in (*ROUTES, *JUPYTER) if re.fullmatch(one.pattern(), path))
    assert first is route


def test_a_parameter_is_one_segment_or_with_a_plus_all_that_is_left() -> None:
    one = Route("/a/{x}", RequestHandler, {}).pattern()
    rest = Route("/a/{+x}", RequestHandler, {}).pattern()
    assert re.fullmatch(one, "/a/b")
    assert not re.fullmatch(one, "/a/b/c")
    assert re.fullmatch(rest, "/a/b/c")


def test_what_needs_no_token_says_so_and_the_rest_names_its_scope() -> None:
    for path, item in DOCUMENT["paths"].items():
        for method, told in item.items():
            if method != "parameters":
                is_public = told.get("security") == []
                assert is_public == (path in PUBLIC)
                assert is_public != ("x-scope" in told)
                assert is_public != ("401" in told["responses"])


def test_every_reference_leads_to_a_schema() -> None:
    found = re.findall(r'"#/components/schemas/([^"]+)"', msgspec.json.encode(DOCUMENT).decode())
    assert found
    assert set(found) <= set(DOCUMENT["components"]["schemas"])


def test_an_answer_may_tell_more_later_and_a_request_may_not() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    assert "additionalProperties" not in schemas["SessionRow"]
    assert schemas["ExecuteBody"]["additionalProperties"] is False


def test_a_route_with_a_type_of_its_own_is_described_by_it() -> None:
    class Own(msgspec.Struct):
        word: str

    row = Route("/own", RequestHandler, {"get": Operation("Say.", answer("It.", Own), scope="")})
    told = document([row])
    assert told["components"]["schemas"]["Own"]["properties"] == {"word": {"type": "string"}}
    assert isinstance(row.operations["get"].answers[200], Answer)


def test_each_method_knows_its_own_parameters_and_no_others() -> None:
    for route in ROUTES:
        for method, operation in route.operations.items():
            names = {one.name for one in operation.query}
            assert QUERIES[route.handler, method] == {"token", *names}
    files = next(route.handler for route in ROUTES if route.path.endswith("/files/{+path}"))
    assert "recursive" in QUERIES[files, "delete"]
    assert "recursive" not in QUERIES[files, "get"]


def test_another_projects_routes_are_not_described_as_ours() -> None:
    assert JUPYTER
    assert not {route.template() for route in JUPYTER} & set(DOCUMENT["paths"])


@pytest.mark.parametrize("route", JUPYTER, ids=lambda route: route.path)
def test_what_jupyters_routes_change_takes_a_scope_and_is_audited(route: Route) -> None:
    for method, operation in route.operations.items():
        changes = method != "get"
        attaches = route.path.endswith("/channels")  # where each message says what it does
        assert bool(operation.audited) == (changes or attaches)
        assert (operation.scope in ("run", "end")) == changes
        assert bool(operation.scope) == (route.path != "/api")
