"""What can be asked about a session over HTTP: its variables."""

from __future__ import annotations

from broker.errors import UnknownSession
from broker.faults import bad_field, clip, unknown_field
from broker.protocol import check_session_name
from broker.requests import MAX_VARIABLES, Variables
from broker.web.door import Face

KNOWN = ("names", "max", "token")


class SessionVariables(Face):
    """`GET /v1/sessions/{session}/variables`."""

    async def get(self, session: str) -> None:
        """Tell the session's variables; `names` (a,b) selects, `max` bounds them."""
        for name in self.request.query_arguments:
            if name not in KNOWN:
                raise unknown_field(name, KNOWN, "query parameter")
        key = (self.principal.tenant, check_session_name(session))
        found = self.service.sessions.get(key)
        if found is None:
            raise UnknownSession(f"no session {session!r} on this node")
        self.answer({"session": session, **await found.questions.ask(self._question())})

    def _question(self) -> Variables:
        most = self.get_query_argument("max", "200")
        if not (most.isascii() and most.isdecimal() and 1 <= int(most[:5]) <= MAX_VARIABLES):
            raise bad_field("max", f"expected a number from 1 to {MAX_VARIABLES}: {clip(most)!r}")
        text = self.get_query_argument("names", None)
        names = None if text is None else [name for name in text.split(",") if name]
        if names is not None and len(names) > MAX_VARIABLES:
            raise bad_field("names", f"expected at most {MAX_VARIABLES}")
        return Variables(id="http", names=names, max=int(most))
