"""HTML as text: what a display says that has no other form. Pure.

It is a stranger's, and a parser that follows the standard takes the square of some texts' length:
tags are found in one pass, and nothing else is understood.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape
from typing import Any

MOST = 256 << 10  # characters that are read of it
NAMELESS = re.compile(r"<IPython\.core\.display\.\w+ object>")  # the text of what has none
TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]{0,20})\b[^<>]{0,4000}>|<![^<>]{0,4000}>")
BREAK = re.compile(r"p|div|br|tr|li|h[1-6]|table|ul|ol|pre|section|hr|dt|dd")
UNSEEN = frozenset({"script", "style", "head", "title", "template"})


def text_of(html: str) -> str:
    """Return the text of HTML, a line for each block; empty where there is none."""
    html = html[:MOST]
    pieces: list[str] = []
    at, unseen = 0, ""
    for tag in TAG.finditer(html):
        if not unseen:
            pieces.append(re.sub(r"\s+", " ", html[at : tag.start()]))
        at, name = tag.end(), (tag[2] or "").lower()
        if unseen or name in UNSEEN:
            unseen = "" if tag[1] and name == unseen else unseen or ("" if tag[1] else name)
        elif BREAK.fullmatch(name):
            pieces.append("\n")
        elif name in ("td", "th") and tag[1]:
            pieces.append("  ")
    if not unseen:
        pieces.append(re.sub(r"\s+", " ", html[at:]))
    lines = (line.strip() for line in "".join(pieces).split("\n"))
    text = "\n".join(line for line in lines if line)
    try:
        return unescape(text)
    except ValueError:  # a number of thousands of digits
        return text


def plain_of(data: Mapping[str, Any]) -> str | None:
    """Return the text form of a display, or None where it has none."""
    plain = data.get("text/plain")
    if plain is not None and not NAMELESS.fullmatch(str(plain).strip()):
        return str(plain)
    for form in ("text/markdown", "text/latex"):
        if isinstance(data.get(form), str):
            return str(data[form])
    html = data.get("text/html")
    told = text_of(html) if isinstance(html, str) else ""
    return told or (None if plain is None else str(plain))
