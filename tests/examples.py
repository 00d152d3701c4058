"""The examples of the documents: what stands in them, and whether what came out is what they say.

An example is a fenced block under `<!-- example: name -->`; a fenced block of the language `text`
right after it is what it prints. `…` in it stands for anything. One of the language `console` is
what a terminal shows: lines that begin with `$ ` are commands, those below each what it prints.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
_EXAMPLE = re.compile(
    r"^<!-- example: (?P<name>[\w-]+) -->\n+"
    r"```(?P<language>\w+)\n(?P<code>.*?)^```$"
    r"(?:\n+```text\n(?P<output>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Example:
    """One example of a document."""

    document: str
    name: str
    language: str
    code: str
    output: str | None

    def __str__(self) -> str:
        return f"{self.document}:{self.name}"


def examples(*documents: str) -> list[Example]:
    """Return the examples of documents (paths from the root), in their order."""
    found = []
    for document in documents:
        text = (ROOT / document).read_text()
        name = Path(document).name
        parts = [Example(name, **match.groupdict()) for match in _EXAMPLE.finditer(text)]
        assert len(parts) == text.count("<!-- example: "), f"{document}: an example has no block"
        found += parts
    return found


def commands(example: Example) -> list[tuple[str, str]]:
    """Return the commands that a terminal shows, each with what it shows below."""
    lines = example.code.removeprefix("$ ").split("\n$ ")
    return [(command, shown) for command, _, shown in (line.partition("\n") for line in lines)]


def agrees(said: str, came: str) -> bool:
    """Tell whether what came out is what was said, but for `…` and the space at line ends."""

    def trimmed(text: str) -> str:
        return "\n".join(line.rstrip() for line in text.strip().splitlines())

    pattern = ".*?".join(re.escape(part) for part in trimmed(said).split("…"))
    return re.fullmatch(pattern, trimmed(came), re.DOTALL) is not None
