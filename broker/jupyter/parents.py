"""Under which request of a client's each message of a kernel is told."""

from __future__ import annotations

from broker.jupyter.recall import parent_of
from broker.session import Session
from kernels.messages import Message

MOST = 64  # of the last requests that are known


class Parents:
    """The parent headers, in place of the kernel's own, of what one session has run last."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[str, bytes] = {}  # by the kernel's id of the request

    def __repr__(self) -> str:
        return f"<Parents of {len(self._known)} requests>"

    def note(self, msg_id: str, parent: bytes) -> None:
        """Know a request from now on."""
        if msg_id not in self._known:
            self._known[msg_id] = parent
            if len(self._known) > MOST:
                del self._known[next(iter(self._known))]

    def of(self, message: Message) -> bytes:
        """Return the parent header of what is about no request that is open here.

        Of what a session's other clients run, the id is the execution's. Threads of a cell that has
        ended still speak for it.
        """
        work = self._session.work
        if work.running is not None and message.parent_id == work.request_id:
            self.note(message.parent_id, parent_of(work.running.id))
        return self._known.get(message.parent_id, message.parts[1])
