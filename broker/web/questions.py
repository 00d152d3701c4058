"""What can be asked about a session over HTTP: its variables."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from broker import answers, errors
from broker.errors import UnknownSession
from broker.faults import bad_field
from broker.principal import Deed
from broker.protocol import check_session_name
from broker.requests import MAX_NAME, MAX_VARIABLES, Variables
from broker.web.door import Face
from broker.web.queries import whole
from broker.web.route import Operation, Parameter, Route, answer
from broker.web.terms import OF

Most = Annotated[int, Meta(ge=1, le=MAX_VARIABLES)]


class SessionVariables(Face):
    """`GET /v1/sessions/{session}/variables`."""

    async def get(self, session: str) -> None:
        """Tell the session's variables; `names` (a,b) selects, `max` bounds them."""
        key = (self.tenant, check_session_name(session))
        found = self.service.sessions.get(key)
        if found is None:
            raise UnknownSession(f"no session {session!r} on this node")
        self.answer({"session": session, **await found.questions.ask(self._question())})

    def _question(self) -> Variables:
        names = names_of(self.get_query_argument("names", None))
        return Variables(id="http", names=names, max=whole(self, "max", 200, MAX_VARIABLES))


def names_of(text: str | None) -> list[str] | None:
    """Return the names of a list with commas. Raises BadMessage."""
    if text is None:
        return None
    names = [name for name in text.split(",") if name]
    if len(names) > MAX_VARIABLES:
        raise bad_field("names", f"expected at most {MAX_VARIABLES}")
    if any(len(name) > MAX_NAME for name in names):
        raise bad_field("names", f"expected at most {MAX_NAME} characters in each")
    return names


ROUTE = Route(
    "/v1/sessions/{session}/variables",
    SessionVariables,
    {
        "get": Operation(
            "List a session's variables, also while it runs.",
            answer("Variables in the order of their making.", answers.VariableRows),
            scope=Deed.RUN,
            query=(
                OF,
                Parameter("names", "Only these, with commas between them."),
                Parameter("max", "At most so many.", Most),
            ),
            errors=(errors.UnknownSession, errors.KernelBusy, errors.QueueFull),
        )
    },
)
