"""Write the generated parts of the documents: the settings, the state diagrams, the error codes.

`python deploy/docs/generate.py --write` writes them in place; without it, files that are not up to
date are named and the exit status is 1. A part stands between `<!-- name:begin -->` and its end.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from broker.config import describe
from broker.web.door import CODES
from kernels.state import CLIENT, KERNEL, SESSION, diagram

ROOT = Path(__file__).parent.parent.parent


def settings() -> str:
    """Return the settings table."""
    rows = [
        f"| `{one.name}` | `{one.default}` | `{one.env}` | {one.meaning} |" for one in describe()
    ]
    head = ["| setting | default | environment | meaning |", "|---|---|---|---|"]
    return "\n".join([*head, *rows]).replace("| `` |", "| empty |")


def states() -> str:
    """Return the three state diagrams."""
    tables = (("Kernel", KERNEL), ("Session", SESSION), ("Client", CLIENT))
    return "\n\n".join(
        f"### {name}\n\n```mermaid\n{diagram(table).strip()}\n```"  # type: ignore[type-var]
        for name, table in tables
    )


def codes() -> str:
    """Return the table of refusals."""
    rows = ["| code | HTTP | close | when |", "|---|---|---|---|"]
    for error, code in CODES.items():
        if code.wire != "internal":
            meaning = (error.__doc__ or "").split("\n")[0].rstrip(".")
            rows.append(f"| `{code.wire}` | {code.http} | {code.close} | {meaning} |")
    rows.append("| `internal` | 500 | 1011 | Our own fault; the log has the details |")
    return "\n".join(rows)


PARTS: dict[str, tuple[str, Callable[[], str]]] = {
    "settings": ("README.md", settings),
    "states": ("deploy/docs/architecture.md", states),
    "codes": ("deploy/docs/protocol.md", codes),
}


def renewed(text: str, name: str, content: str) -> str:
    """Return the document with one part written anew. Raises ValueError if it has no such part."""
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    found, count = re.subn(
        f"{re.escape(begin)}.*?{re.escape(end)}",
        lambda _: f"{begin}\n{content}\n{end}",
        text,
        flags=re.DOTALL,
    )
    if count != 1:
        raise ValueError(f"{count} parts named {name}")
    return found


def stale(*, write: bool) -> list[str]:
    """Return the documents that were not up to date, written anew if asked."""
    files = []
    for name, (file, make) in PARTS.items():
        path = ROOT / file
        text = path.read_text()
        fresh = renewed(text, name, make())
        if fresh != text:
            files.append(file)
            if write:
                path.write_text(fresh)
    return files


if __name__ == "__main__":
    write = "--write" in sys.argv[1:]
    old = stale(write=write)
    for file in old:
        print(f"{file}: {'written' if write else 'is not up to date; run make docs'}")
    sys.exit(bool(old) and not write)
