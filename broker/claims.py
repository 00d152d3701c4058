"""Which node serves a session, by the store's word: claimed, released, refused as another's."""

from __future__ import annotations

import logging
import time

from broker.errors import BrokerError, SessionElsewhere, SessionLost, StoreUnavailable
from broker.session import Session
from broker.store import Claim, Store
from kernels.state import SessionState

logger = logging.getLogger(__name__)

OUT_OF_REACH = "the session store is out of reach; the session is safe"


class Claims:
    """The claims of this node. `record_ttl` is how long an ended session is remembered, in s."""

    def __init__(self, store: Store, record_ttl: float) -> None:
        self._store = store
        self._record_ttl = record_ttl

    async def claim(self, session: Session, kernel_id: str) -> Claim:
        """Take the session for a kernel. Raises SessionElsewhere, StoreUnavailable."""
        for _ in range(2):
            claim = await self._store.claim(
                session.tenant,
                session.name,
                kernel=kernel_id,
                profile=session.profile,
                now=time.time(),
                expires=session.expires,
            )
            if claim.status == "claimed":
                return claim
            if claim.node != self._store.node:
                raise await self._elsewhere(session.name, claim.node)
            # Ours, of a kernel that is gone: its release did not reach the store.
            known = session.lost_reason if session.generation == claim.generation else ""
            await self.release(session, claim.generation, known or "node_lost")
        raise StoreUnavailable("the session's claim changes hands; try again")

    async def release(self, session: Session, generation: int, reason: str) -> None:
        """Give a generation up, and write down why it ended."""
        keep = 0.0 if session.passing else self._record_ttl
        try:
            await self._store.release(
                session.tenant, session.name, generation, reason=reason, now=time.time(), keep=keep
            )
        except StoreUnavailable as error:
            # Our next claim says it again. Once the lease has run out, another's says `node_lost`.
            logger.warning("session=%s/%s not released: %s", *session.key, error)

    async def refuse_elsewhere(self, tenant: str, name: str) -> None:
        """Raise SessionElsewhere if another node serves the session."""
        record = await self._store.get(tenant, name)
        if record and record.leased and record.node != self._store.node:
            raise await self._elsewhere(name, record.node)

    async def _elsewhere(self, name: str, node: str) -> SessionElsewhere:
        url = await self._store.url_of(node)
        return SessionElsewhere(f"session {name!r} is served by node {node}", node=node, url=url)


def changed_meanwhile(state: SessionState) -> BrokerError:
    """Return the refusal of a session that has left OPENING while its kernel was fetched."""
    if state is SessionState.SUSPENDED:
        return StoreUnavailable(OUT_OF_REACH)
    return SessionLost("the session ended while its kernel was being bound")
