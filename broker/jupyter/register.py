"""The sessions of this node by their ids as kernels: found at once, however many there are."""

from __future__ import annotations

from broker.jupyter import names
from broker.service import Key, Service
from broker.session import Session


class Register:
    """Which session an id stands for, in each tenant apart; kept in step with the service.

    A session that Jupyter's clients have made has its id in its name, and need not be noted.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._named: dict[Key, Session] = {}  # by tenant and id
        for session in service.sessions.values():
            self._note(session)
        service.on_change(self._note)

    def __repr__(self) -> str:
        return f"<Register: {len(self._named)} sessions>"

    def find(self, tenant: str, kernel_id: str) -> Session | None:
        """Return the tenant's session that has this id, as `canonical` writes it."""
        made = self._service.sessions.get((tenant, names.name_of(kernel_id)))
        return made or self._named.get((tenant, kernel_id))

    def _note(self, session: Session) -> None:
        if names.is_unnamed(session.name):
            return
        key = session.tenant, names.kernel_id(*session.key)
        if self._service.sessions.get(session.key) is session:
            self._named[key] = session
        elif self._named.get(key) is session:
            del self._named[key]
