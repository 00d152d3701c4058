"""Secrets among what is kept of a session: values of its environment, told by name or by look.

Pure. What clients get while the code runs stays as the code wrote it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

from broker.shown import GAP

LEAST: Final = 8  # characters of a value that can be a secret: shorter ones stand in any text
MOST: Final = 256  # secrets of a session; the oldest go
SOUGHT: Final = 64  # characters of a secret that are looked for; the rest is compared
NAME: Final = 32  # characters of a variable's name that are shown
KEPT: Final = ("type", "display_id")  # of an output
SEAMS: Final = 32  # places of one text where a kernel has left out some, that are looked at

_NAMED: Final = re.compile(
    r"token|secret|passw|passphrase|credential|api_?key"
    r"|(?:^|_)(?:keys?|pass|pwd|auth|dsn|pat|cookies?|bearer|private|salt)(?:_|$)",
    re.IGNORECASE,
)
_IN_URL: Final = re.compile(r"://[^/\s:@]*:([^/\s@]+)@")
_RANDOM: Final = re.compile(r"(?=.*[0-9])(?=.*[A-Za-z])[A-Za-z0-9+=_.~-][A-Za-z0-9+/=_.~-]{19,}")

# Where text is cut: a kernel's note of what it has left out, and what stands behind a clipped text.
_SEAM: Final = re.compile(r"\n… \d+ characters left out[^\n]* …\n")
_CLIPPED: Final = re.compile(r"(?: \[[\d,]+ characters left out\]|…(?:, cell line \d+)?)\Z")


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

    A secret is found where it stands as it is, or as Python, JSON or a URL would write it; and its
    parts, of LEAST characters or more, where a text was cut in the middle of it.
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
        outputs, after_gap = [], False
        for output in cell["outputs"]:
            outputs.append(self._output(output, is_rest=after_gap))
            after_gap = output["type"] == GAP
        return {**cell, "code": self.redacted(cell["code"]), "outputs": outputs}

    def _output(self, output: Mapping[str, Any], *, is_rest: bool) -> dict[str, Any]:
        made = {key: one if key in KEPT else self.redacted(one) for key, one in output.items()}
        if is_rest and "text" in output:
            made["text"] = self._without(output["text"], is_rest=True)
        if "traceback" in output:  # a secret may have more than one line
            made["traceback"] = self._without("\n".join(output["traceback"])).split("\n")
        return made

    def _without(self, text: str, *, is_rest: bool = False) -> str:
        """Return text without secrets; `is_rest` if it may begin in the middle of one."""
        starts, ends = _cuts(text)
        starts += [0] * is_rest
        found: list[tuple[int, int, str]] = []
        for form, name in self._forms.items():
            # Not by one pattern for all: who sets a new secret each time would have it made anew.
            sought, at = form[:SOUGHT], 0
            while (at := text.find(sought, at)) >= 0:
                end = _end(text, at, form)  # of a long one that is not whole, what there is of it
                found.append((at, -end, name))
                at = end
            found += [(at, -_ended(text, at, form), name) for at in starts]
            found += [(_begun(text, end, form), -end, name) for end in ends]
        found = [one for one in found if one[0] < -one[1]]
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


def _cuts(text: str) -> tuple[list[int], list[int]]:
    """Return where parts of a text begin, and end, that may have been cut in a secret's middle."""
    clipped = _CLIPPED.search(text, max(0, len(text) - 80))
    ends = [clipped.start() if clipped else len(text)]
    seams = list(islice(_SEAM.finditer(text), SEAMS)) if " characters left out" in text else []
    return [seam.end() for seam in seams], ends + [seam.start() for seam in seams]


def _begun(text: str, end: int, form: str) -> int:
    """Return where a form begins that a text's part breaks off in; `end` if it does in none.

    Of a longer beginning, SOUGHT characters are found wherever they stand.
    """
    at = text.find(form[:LEAST], max(0, end - SOUGHT), end)
    while at >= 0:
        if form.startswith(text[at:end]):
            return at
        at = text.find(form[:LEAST], at + 1, end)
    return end


def _ended(text: str, start: int, form: str) -> int:
    """Return where the end of a form is over that a text's part begins with; `start` if with none.

    Where it could be one of several, it is the longest: better too much is left out.
    """
    sought = text[start : start + SOUGHT]
    if len(sought) < LEAST:
        return start
    if (at := form.find(sought)) >= 0:
        return min(len(text), start + len(form) - at)
    most = min(SOUGHT, len(form)) - 1
    rests = (size for size in range(most, LEAST - 1, -1) if text.startswith(form[-size:], start))
    return start + next(rests, 0)


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
