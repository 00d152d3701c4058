"""Sessions of others: they are there already, and all that others cause in them is heard."""

from __future__ import annotations

from .find import Place
from .sync import Session
from .wire import Deliver


def visit(
    place: Place,
    name: str,
    others: Deliver,
    *,
    profile: str | None = None,
    create: bool = False,
    tenant: str | None = None,
) -> Session:
    """Return a session that is not made unless `create` says so.

    `tenant` is whose it is, for the operator. `others` gets each event that is not of our own
    requests, in the order of all, and the error that ends the connection for good. It is called by
    the thread that reads: what takes its time there holds the connection back.
    """
    return Session._visiting(place, name, profile, tenant=tenant, creates=create, others=others)
