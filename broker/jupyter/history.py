"""A `history_request` of Jupyter's, answered from what a session has run. Pure.

Jupyter counts a kernel's sessions where ours has generations, and lines where ours has execution
counts. Kernels keep no database of what they have run, so the transcript stands for it: as bounded,
as redacted, and still there when the kernel is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from typing import Any, Final

from broker.faults import bad_field
from broker.transcript import Cell, Kept

LAST: Final = 10  # entries of a tail, where nobody says how many
MOST: Final = 1 << 20  # characters of the code that one reply carries; the oldest are left out
MOST_PATTERN: Final = 128  # characters: what looking for one costs grows with them
NUMBER: Final = 1 << 53  # what clients of JSON can count to

Json = dict[str, Any]
Entry = tuple[int, int, Any]


def history(kept: Sequence[Kept], asked: Json, generation: int) -> Json:
    """Return the content of a `history_reply`: entries (generation, count, code), the newest last.

    `generation` is the session's own; it is the 0 of a range, and those before it count down from
    there. With `output` an entry's code is a pair with the text of its result, or null. A kind of
    access that Jupyter has not has no entries. Raises BadMessage.

    Source: Jupyter's messaging protocol, *History*; where that is silent, as IPython's database.
    """
    access = asked.get("hist_access_type")
    choose = CHOICES.get(access) if isinstance(access, str) else None
    chosen = choose([(one, one.told) for one in kept], asked, generation) if choose else []
    written = _text_too if asked.get("output") is True else _code
    entries: list[Entry] = []
    room = MOST
    for session, one, told in reversed(chosen):
        room -= len(told["code"] or "")
        if room < 0:
            break
        entries.append((session, told["execution_count"] or 0, written(one, told)))
    return {"status": "ok", "history": entries[::-1]}


# A cell, what is told of it, and its session's number in the reply.
Chosen = list[tuple[int, Kept, Cell]]
Cells = list[tuple[Kept, Cell]]


def _tail(cells: Cells, asked: Json, generation: int) -> Chosen:
    n = _number(asked, "n", LAST)
    return _numbered(cells[-n:] if n > 0 else [])


def _range(cells: Cells, asked: Json, generation: int) -> Chosen:
    session = _number(asked, "session", 0)
    wanted = session if session > 0 else generation + session
    here = [(one, told) for one, told in cells if told["generation"] == wanted]
    after = max((told["execution_count"] or 0 for _, told in here), default=0) + 1
    start, stop = _number(asked, "start", 0), _number(asked, "stop", 0)
    start, stop = start + after * (start < 0), stop + after * (stop < 0) or after
    number = 0 if wanted == generation else wanted
    return [
        (number, one, told) for one, told in here if start <= (told["execution_count"] or 0) < stop
    ]


def _search(cells: Cells, asked: Json, generation: int) -> Chosen:
    pattern = asked.get("pattern") or "*"
    if not isinstance(pattern, str) or len(pattern) > MOST_PATTERN:
        raise bad_field("pattern", f"expected text of at most {MOST_PATTERN} characters")
    matches = re.compile(translate(pattern)).match
    found = [(one, told) for one, told in cells if matches(told["code"] or "")]
    if asked.get("unique") is True:  # each where it was run last
        last = {told["code"]: at for at, (_, told) in enumerate(found)}
        found = [found[at] for at in sorted(last.values())]
    n = _number(asked, "n", len(found))
    return _numbered(found[-n:] if n > 0 else [])


CHOICES: Final[dict[str, Callable[[Cells, Json, int], Chosen]]] = {
    "tail": _tail,
    "range": _range,
    "search": _search,
}


def _numbered(cells: Iterable[tuple[Kept, Cell]]) -> Chosen:
    return [(told["generation"] or 0, one, told) for one, told in cells]


def _number(asked: Json, name: str, otherwise: int) -> int:
    value = asked.get(name)
    if value is None:
        return otherwise
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > NUMBER:
        raise bad_field(name, "expected a whole number")
    return value


def _code(_: Kept, told: Cell) -> str:
    return told["code"] or ""


def _text_too(one: Kept, told: Cell) -> tuple[str, str | None]:
    texts = [
        output["data"].get("text/plain")
        for output in one.cell.get("outputs", ())
        if output["type"] == "result"
    ]
    return _code(one, told), next((text for text in texts if isinstance(text, str)), None)
