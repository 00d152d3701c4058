"""The transcripts: a bounded stream of finished cells for each session.

    {prefix}:cells:{<tenant>/<session>}   stream; each entry has one field, `cell`, of JSON

Only the node that serves the session writes it. A write that was not answered may have taken
effect, and is repeated: a cell may stand there twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broker.store.connection import Command, Connection

READ_AT_ONCE = 50
Owner = tuple[str, str]  # tenant and session


@dataclass(frozen=True, slots=True)
class Part:
    """Cells of one session; of all that it has, about the last `most` stay, for `keep` s."""

    owner: Owner
    cells: Sequence[bytes]
    most: int
    keep: float


class Cells:
    """The streams of cells."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix

    async def append(self, parts: Sequence[Part]) -> list[list[str]]:
        """Add cells in one round trip, and return the new ones' ids, in order."""
        commands: list[Command] = []
        for part in parts:
            key = self._key(part.owner)
            commands += [
                ("XADD", key, "MAXLEN", "~", part.most, "*", "cell", c) for c in part.cells
            ]
            commands.append(("PEXPIRE", key, max(1, round(1000 * part.keep))))
        replies = iter(await self._connection.pipeline(commands))
        ids = []
        for part in parts:
            ids.append([str(next(replies)) for _ in part.cells])
            next(replies)
        return ids

    async def trim(self, owner: Owner, oldest: str) -> None:
        """Drop what is older than an entry."""
        await self._connection.ask("XTRIM", self._key(owner), "MINID", oldest)

    async def read(self, owner: Owner, most: int) -> list[tuple[str, bytes]]:
        """Return the ids and the cells of the last `most` entries, the newest last."""
        found: list[tuple[str, bytes]] = []
        end = "+"
        while len(found) < most:
            count = min(READ_AT_ONCE, most - len(found))
            reply: Any = await self._connection.ask(
                "XREVRANGE", self._key(owner), end, "-", "COUNT", count
            )
            for entry, fields in reply:
                found.append((str(entry), _cell(fields)))
            if len(reply) < count:
                break
            end = f"({found[-1][0]}"
        found.reverse()
        # With its id and its time in it, no cell is like another.
        first = {cell: entry for entry, cell in reversed(found)}
        return [(entry, cell) for entry, cell in found if cell and first[cell] == entry]

    def _key(self, owner: Owner) -> str:
        return f"{self._prefix}:cells:{{{owner[0]}/{owner[1]}}}"


def _cell(fields: Any) -> bytes:
    values = list(fields.values()) if isinstance(fields, dict) else list(fields)[1:]
    return str(values[0]).encode() if values else b""
