"""A token in the path: `/jupyter/t/<token>/api/…`, for clients that can send it nowhere else.

It is taken out before anything else sees the request, so that no route, log or answer has it.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from tornado.httputil import HTTPServerRequest

PREFIX = "/jupyter"
HIDDEN = "***"
_AT = re.compile(rf"({PREFIX})?/t/([^/]*)(/.*)?", re.DOTALL)
_OURS = re.compile(r"/?|/tree|/(?:api|kernelspecs)(?:/.*)?", re.DOTALL)  # of the paths at the root
_VISIBLE = re.compile(r"[!-~]+")


def take(request: HTTPServerRequest, *, at_root: bool) -> None:
    """Put a token in the path of a request into its header, and out of the path.

    It goes before what the header says: who wrote it into the URL meant it.
    """
    mount, token, rest = parted(request.path, at_root=at_root)
    if token is not None:
        request.headers["Authorization"] = f"Bearer {token}" if token else "Bearer"
    path = mount + rest
    if path != request.path:
        _, mark, query = str(request.uri).partition("?")
        request.path, request.uri = path, path + mark + query


def parted(path: str, *, at_root: bool) -> tuple[str, str | None, str]:
    """Return what stands before the token in a path, the token, and what stands behind it.

    The token is empty if it can be none, and None where there is none; a path that is not served
    with a token in it has stars in its place.
    """
    found = _AT.fullmatch(path)
    if found is not None:
        mount, token, rest = found[1] or "", unquote(found[2]), found[3] or ""
        if mount or (at_root and _OURS.fullmatch(rest)):
            return mount, token if _VISIBLE.fullmatch(token) else "", rest
    if path.startswith("/v1/"):  # `/t/` may be a directory in a session's files
        return "", None, path
    return "", None, re.sub(r"/t/[^/]+", f"/t/{HIDDEN}", path)
