"""What can be asked about a session over HTTP: its variables."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from broker import answers, errors
from broker.errors import UnknownSession
from broker.faults import bad_field, clip
from broker.principal import Deed
from broker.protocol import check_session_name
from broker.requests import MAX_VARIABLES, Variables
from broker.web.door import Face
from broker.web.route import Operation, Parameter, Route, answer

Most = Annotated[int, Meta(ge=1, le=MAX_VARIABLES)]


class SessionVariables(Face):
    """`GET /v1/sessions/{session}/variables`."""

    async def get(self, session: str) -> None:
        """Tell the session's variables; `names` (a,b) selects, `max` bounds them."""
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


ROUTE = Route(
    "/v1/sessions/{session}/variables",
    SessionVariables,
    {
        "get": Operation(
            "List a session's variables, also while it runs.",
            answer("Variables in the order of their making.", answers.VariableRows),
            scope=Deed.RUN,
            query=(
                Parameter("names", "Only these, with commas between them."),
                Parameter("max", "At most so many.", Most),
            ),
            errors=(errors.UnknownSession, errors.KernelBusy, errors.QueueFull),
        )
    },
)
