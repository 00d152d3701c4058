"""The table of routes: all there is to ask for over HTTP.

The application is made of it, and so is `/openapi.json`: what has no row here does not exist, and
a test fails for a method of a handler that its row does not describe.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tornado.web import Application

from broker.web import console, me, node_routes, openapi, session_routes
from broker.web.door import House, Missing, log_request
from broker.web.route import Route

ROUTES: list[Route] = [*session_routes.ROUTES, *node_routes.ROUTES, me.ROUTE, *console.ROUTES]

DEEDS = {
    (route.handler, method): operation.scope
    for route in ROUTES
    for method, operation in route.operations.items()
}

AUDITED = {
    (route.handler, method): operation.audited
    for route in ROUTES
    for method, operation in route.operations.items()
}


QUERIES = {
    (route.handler, method): operation.queries()
    for route in ROUTES
    for method, operation in route.operations.items()
}


def application(house: House, **settings: Any) -> Application:
    """Return the application that serves the table."""
    shared = {"house": house}
    return Application(
        [(route.pattern(), route.handler, shared) for route in ROUTES],
        default_handler_class=Missing,
        default_handler_args=shared,
        log_function=log_request,
        deeds=DEEDS,
        audited=AUDITED,
        known_queries=QUERIES,
        description=cache(lambda: openapi.document(ROUTES)),  # made when it is first asked for
        **settings,
    )
