"""The transcripts: a bounded list of finished cells for each session.

    {prefix}:transcript:{<tenant>/<session>}        list of cells, each JSON, the newest last
    {prefix}:transcript_bytes:{<tenant>/<session>}  their bytes, all together

Only the node that serves the session writes it. A write that was not answered may have taken
effect, and is repeated: a cell may stand there twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from broker.store.connection import Connection, load_script

READ_AT_ONCE = 50
Owner = tuple[str, str]  # tenant and session

RECORD = load_script("record")


@dataclass(frozen=True, slots=True)
class Part:
    """New cells of one session; the last of all stay, within `most` and `most_bytes`, `keep` s."""

    owner: Owner
    cells: Sequence[bytes]
    most: int
    most_bytes: int
    keep: float


class Cells:
    """The lists of cells."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self._connection = connection
        self._prefix = prefix

    async def append(self, parts: Sequence[Part]) -> None:
        """Add cells, in one round trip; a part without cells is kept for as long from now on."""
        calls = []
        for part in parts:
            keep = max(1, round(1000 * part.keep))
            calls.append((self._keys(part.owner), (part.most, part.most_bytes, keep, *part.cells)))
        await self._connection.run(RECORD, calls)

    async def read(self, owner: Owner, most: int) -> list[bytes]:
        """Return the last `most` cells, the newest last."""
        found: list[bytes] = []
        key = self._keys(owner)[0]
        for last in range(-1, -1 - most, -READ_AT_ONCE):
            first = max(last - READ_AT_ONCE + 1, -most)
            reply: Any = await self._connection.ask("LRANGE", key, first, last)
            found += [cell.encode() for cell in reversed(reply)]
            if len(reply) < last - first + 1:
                break
        # With its id and its time in it, no cell is like another.
        return list(dict.fromkeys(reversed(found)))

    def _keys(self, owner: Owner) -> list[str]:
        name = f"{{{owner[0]}/{owner[1]}}}"
        return [f"{self._prefix}:{kind}:{name}" for kind in ("transcript", "transcript_bytes")]
