"""What a session has run, as a notebook."""

from __future__ import annotations

import asyncio
import json

from broker import answers, errors
from broker.errors import UnknownSession
from broker.notebook import notebook
from broker.principal import Deed
from broker.protocol import check_session_name
from broker.transcript import Kept
from broker.web.door import Face
from broker.web.route import Answer, Operation, Route
from broker.web.terms import OF

NBFORMAT = "application/x-ipynb+json"


class SessionNotebook(Face):
    """`GET /v1/sessions/{session}/notebook`."""

    async def get(self, session: str) -> None:
        """Return the session's last cells as `.ipynb`, also after it has ended."""
        key = (self.tenant, check_session_name(session))
        live = self.service.sessions.get(key)
        record = await self.service.store.get(*key) if live is None else None
        profile = live.profile if live else record.profile if record else ""
        kernelspec, language = self.house.languages.get(profile, ("python3", "python"))

        def made(kept: list[Kept]) -> bytes:
            known = {"session": session, "kernelspec": kernelspec, "language": language}
            cells = [one.cell for one in kept]
            return json.dumps(notebook(cells, **known), indent=1).encode()

        # Megabytes take longer than others should wait; whoever waits for a turn holds none.
        async with self.house.walks.of(self.principal.tenant):
            kept = await self.house.scribe.cells(key, self.house.most_cells)
            if live is None and record is None and not kept:
                raise UnknownSession(f"no session {session!r}")
            body = await asyncio.to_thread(made, kept)
        self.set_header("Content-Type", NBFORMAT)
        # A session's name has nothing in it that a quoted string would have to escape.
        self.set_header("Content-Disposition", f'attachment; filename="{session}.ipynb"')
        self.finish(body)


ROUTE = Route(
    "/v1/sessions/{session}/notebook",
    SessionNotebook,
    {
        "get": Operation(
            "Read what a session has run, also after its end, as a notebook.",
            {200: Answer("The last cells.", {NBFORMAT: answers.Notebook})},
            scope=Deed.READ,
            query=(OF,),
            errors=(errors.UnknownSession, errors.StoreUnavailable),
        )
    },
)
