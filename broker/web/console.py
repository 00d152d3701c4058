"""The console: a page and its files. They hold no data: what they show comes with a token."""

from __future__ import annotations

import gzip
import hashlib
import secrets
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

from broker.errors import NoSuchFile
from broker.faults import clip
from broker.web.door import Face
from broker.web.route import ANY, Answer, Operation, Route
from broker.web.terms import EVERYBODY

DIRECTORY: Final = Path(__file__).parents[1] / "console"
HTML: Final = "text/html; charset=utf-8"
CSS: Final = "text/css; charset=utf-8"
SCRIPT: Final = "text/javascript; charset=utf-8"
PAGE: Final = "index.html"
SCRIPTS: Final = (
    *("acts", "api", "ask", "cells", "dom", "figures", "files", "format", "frame", "keys", "link"),
    *("main", "markdown", "nodes", "notebook", "outputs", "overview", "python", "rows", "runner"),
    *("session", "side", "spark", "styles", "table", "terminal", "text", "theme"),
    *("variables", "words"),
)
# All there is: a name outside this table is nothing, whatever stands in the directory.
FILES: Final = {
    PAGE: HTML,
    **dict.fromkeys(("page.css", "overview.css", "session.css", "frame.css"), CSS),
    "icon.svg": "image/svg+xml",
    **{f"{name}.js": SCRIPT for name in SCRIPTS},
}
STYLES: Final = "style-src 'self'"
# Outputs are shown in frames that inherit this: no script but ours runs, nothing is loaded from
# elsewhere, no frame goes anywhere, and markup is made of text in one place alone.
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        STYLES,
        "connect-src 'self'",
        "img-src 'self' data: blob:",
        "font-src data:",
        "frame-src 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types frame",
    )
)
HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "X-DNS-Prefetch-Control": "off",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",  # asked for again each time, and a file is answered 304
    "Vary": "Accept-Encoding",
}


class File(NamedTuple):
    """One file as it is sent."""

    plain: bytes
    packed: bytes
    version: str


@cache
def file(name: str) -> File:
    """Return one of FILES, read once."""
    plain = (DIRECTORY / name).read_bytes()
    digest = hashlib.sha256(plain).hexdigest()
    return File(plain, gzip.compress(plain, mtime=0), f'"{digest[:32]}"')


class ConsoleFile(Face):
    """`GET` and `HEAD /console/{file}`."""

    public = True
    _version: str | None = None

    def set_default_headers(self) -> None:
        """Let the page do no more than it has to."""
        super().set_default_headers()
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def compute_etag(self) -> str | None:
        """Return the file's version, the same one for both ways it is sent."""
        return self._version

    async def get(self, file: str) -> None:
        """Send one file."""
        self.send(file)

    head = get

    def send(self, name: str) -> None:
        """Send a file of the table, or what `If-None-Match` makes of it."""
        if name not in FILES:
            raise NoSuchFile(f"the console has no file {clip(name)!r}", field="file")
        found = file(name)
        self.set_header("Content-Type", FILES[name])
        if name == PAGE:
            self.finish(self._anew(found.plain))
            return
        self._version = found.version
        if "gzip" in self.request.headers.get("Accept-Encoding", ""):
            self.set_header("Content-Encoding", "gzip")
            self.finish(found.packed)
        else:
            self.finish(found.plain)

    def _anew(self, page: bytes) -> bytes:
        """Return the page with a nonce that no other one has.

        The page puts it on what it has left of an output's own styles, in that output's frame,
        where nothing else is applied: a stranger cannot know it.
        """
        nonce = secrets.token_urlsafe(16)
        policy = POLICY.replace(STYLES, f"{STYLES} 'nonce-{nonce}'")
        self.set_header("Content-Security-Policy", policy)
        self.set_header("Cache-Control", "no-store")
        return page.replace(b"NONCE", nonce.encode())


class ConsolePage(ConsoleFile):
    """`GET` and `HEAD /`."""

    async def get(self) -> None:  # type: ignore[override]  # its path has no parameter
        """Send the page."""
        self.send(PAGE)

    head = get  # type: ignore[assignment]


UNCHANGED: Final = Answer("It is what `If-None-Match` names.", {})

ROUTES: list[Route] = [
    Route(
        "/",
        ConsolePage,
        {
            method: Operation(
                "Open the console, a page for people.",
                {200: Answer("The page.", {"text/html": None})},
                scope=EVERYBODY,
            )
            for method in ("get", "head")
        },
    ),
    Route(
        "/console/{file}",
        ConsoleFile,
        {
            method: Operation(
                "Read a file of the console.",
                {200: Answer("The file.", {ANY: None}), 304: UNCHANGED},
                scope=EVERYBODY,
                errors=(NoSuchFile,),
            )
            for method in ("get", "head")
        },
    ),
]
