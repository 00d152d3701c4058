"""Secrets among what is kept of a session: values of its environment, told by name or by look.

Pure. What clients get while the code runs stays as the code wrote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

LEAST: Final = 8  # characters of a value that can be a secret: shorter ones stand in any text
MOST: Final = 256  # secrets of a session; the oldest go
SOUGHT: Final = 64  # characters of a secret that are looked for; the rest is compared
NAME: Final = 32  # characters of a variable's name that are shown
KEPT: Final = ("type", "display_id")  # of an output

_NAMED: Final = re.compile(
    r"token|secret|passw|passphrase|credential|api_?key"
    r"|(?:^|_)(?:keys?|pass|pwd|auth|dsn|pat|cookies?|bearer|private|salt)(?:_|$)",
    re.IGNORECASE,
)
_IN_URL: Final = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
_RANDOM: Final = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9+=_.~-][A-Za-z0-9+/=_.~-]{19,}")


def secrets_of(name: str, value: str) -> tuple[str, ...]:
    """Return what is secret in a variable: its value, a password in that, or nothing.

    A value is, if its name says so (`API_KEY`), if it is an address with a password, or if it
    looks like nothing that anybody would write: 20 characters or more, letters and digits.
    """
    value = value.strip()  # of one that was read from a file
    if len(value) < LEAST:
        return ()
    if found := _IN_URL.search(value):
        return (value, found[1]) if len(found[1]) >= LEAST else (value,)
    return (value,) if _NAMED.search(name) or _RANDOM.fullmatch(value) else ()


class Redaction:
    """The secrets that a session was given, and the texts in which they may not stand.

    A secret is found where it stands as it is, or as Python, JSON or a URL would write it.
    """

    __slots__ = ("_forms", "_known")

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, ...]] = {}  # secret → the forms it has in text
        self._forms: dict[str, str] = {}  # form → name

    def __repr__(self) -> str:
        return f"<Redaction: {len(self._known)} secrets>"

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, env: Mapping[str, str | None]) -> None:
        """Take in variables of an environment."""
        for name, value in env.items():
            for secret in secrets_of(name, value or ""):
                if secret not in self._known:
                    self._known[secret] = forms = _forms(secret)
                    self._forms |= dict.fromkeys(forms, name[:NAME])
        while len(self._known) > MOST:
            for form in self._known.pop(next(iter(self._known))):
                self._forms.pop(form, None)

    def redacted(self, value: Any) -> Any:
        """Return plain data with a note, `[redacted NAME]`, in the place of each secret."""
        if isinstance(value, str):
            return self._without(value)
        if isinstance(value, dict):
            return {self.redacted(key): self.redacted(one) for key, one in value.items()}
        if isinstance(value, list):
            return [self.redacted(one) for one in value]
        return value

    def cell(self, cell: Mapping[str, Any]) -> dict[str, Any]:
        """Return a cell of a transcript without the secrets in its code and its outputs."""
        outputs = [
            {key: one if key in KEPT else self.redacted(one) for key, one in output.items()}
            for output in cell["outputs"]
        ]
        return {**cell, "code": self.redacted(cell["code"]), "outputs": outputs}

    def _without(self, text: str) -> str:
        found: list[tuple[int, int, str]] = []
        for form, name in self._forms.items():
            # Not by one pattern for all: who sets a new secret each time would have it made anew.
            sought, at = form[:SOUGHT], 0
            while (at := text.find(sought, at)) >= 0:
                end = _end(text, at, form)  # of a long one that is not whole, what there is of it
                found.append((at, -end, name))
                at = end
        if not found:
            return text
        made, done = [], 0
        for start, minus_end, name in sorted(found):  # of two at one place, the longer one first
            if start >= done:
                made += [text[done:start], f"[redacted {name}]"]
            elif -minus_end <= done:
                continue
            done = -minus_end
        return "".join([*made, text[done:]])


def _forms(secret: str) -> tuple[str, ...]:
    """Return a secret as it stands in text, in Python's and JSON's literals, and in a URL."""
    others = repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe="", errors="replace")
    return tuple(dict.fromkeys((secret, *others)))


def _end(text: str, start: int, form: str) -> int:
    """Return where a text ceases to be as a form is."""
    low, high = 0, min(len(form), len(text) - start)
    while low < high:
        middle = (low + high + 1) // 2
        if text.startswith(form[low:middle], start + low):
            low = middle
        else:
            high = middle - 1
    return start + low
