"""The table of routes: all there is to ask for over HTTP.

The application is made of it, and so is `/openapi.json`: what has no row here does not exist, and
a test fails for a method of a handler that its row does not describe. The routes of the Jupyter
face have a table of their own.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from tornado.httputil import HTTPServerRequest
from tornado.web import Application

from broker.face_settings import Jupyter
from broker.jupyter.elsewhere import Elsewhere
from broker.jupyter.register import Register
from broker.web import console, me, node_routes, openapi, session_routes
from broker.web.door import House, Missing, log_request
from broker.web.jupyter import capability
from broker.web.jupyter import routes as jupyter_routes
from broker.web.jupyter.titles import Titles
from broker.web.route import Route

ROUTES: list[Route] = [*session_routes.ROUTES, *node_routes.ROUTES, me.ROUTE, *console.ROUTES]
ALL: list[Route] = [*ROUTES, *jupyter_routes.ROUTES]

DEEDS = {
    (route.handler, method): operation.scope
    for route in ALL
    for method, operation in route.operations.items()
}

AUDITED = {
    (route.handler, method): (operation.audited, operation.visited)
    for route in ALL
    for method, operation in route.operations.items()
}


QUERIES = {
    (route.handler, method): operation.queries()
    for route in ROUTES
    for method, operation in route.operations.items()
}


class Faces(Application):
    """The application; of a token in the path it knows before anybody else."""

    def find_handler(self, request: HTTPServerRequest, **kwargs: Any) -> Any:
        """Find who serves a request."""
        capability.take(request, at_root=self.settings["jupyter"].at_root)
        return super().find_handler(request, **kwargs)


def application(house: House, *, jupyter: Jupyter | None = None, **settings: Any) -> Application:
    """Return the application that serves the tables."""
    shared = {"house": house}
    rules = jupyter or Jupyter()
    return Faces(
        [
            *((route.pattern(), route.handler, shared) for route in ROUTES),
            *jupyter_routes.patterns(shared, at_root=rules.at_root),
        ],
        default_handler_class=Missing,
        default_handler_args=shared,
        log_function=log_request,
        deeds=DEEDS,
        audited=AUDITED,
        known_queries=QUERIES,
        description=cache(lambda: openapi.document(ROUTES)),  # made when it is first asked for
        jupyter=rules,
        titles=Titles(),
        register=Register(house.service),
        elsewhere=Elsewhere(house.service.store),
        started=time.time(),
        **settings,
    )
