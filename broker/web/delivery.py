"""What is said about a file that is sent: its type, its name, its version, and which part of it.

A file is a stranger's: nothing said here may make a browser run it. Pure.
"""

from __future__ import annotations

import mimetypes
import re
from typing import Final
from urllib.parse import quote

UNKNOWN: Final = "application/octet-stream"
# What a browser shows without running anything of it; by these names or their beginnings.
HARMLESS: Final = frozenset(
    {
        "application/json",
        "application/zip",
        "application/gzip",
        "application/vnd.apache.parquet",
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/webp",
        "image/bmp",
        "image/tiff",
        "text/plain",
        "text/csv",
        "text/tab-separated-values",
        "text/markdown",
    }
)
HARMLESS_KINDS: Final = ("audio/", "video/")
MAX_DIGITS: Final = 19  # of an offset: no file is longer

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d*)[ \t]*-[ \t]*(\d*)[ \t]*", re.ASCII)
_TOKEN = re.compile(r"[^A-Za-z0-9 ._()+@-]", re.ASCII)


def content_type(name: str) -> str:
    """Return the media type of a file of this name, if it is one that no browser runs."""
    kind, encoding = mimetypes.guess_type(f"x/{name}")
    if kind is None or encoding is not None:
        return UNKNOWN
    harmless = kind in HARMLESS or kind.startswith(HARMLESS_KINDS)
    if not harmless:
        return UNKNOWN
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def disposition(name: str) -> str:
    """Return the Content-Disposition that has a browser save a file under its name, RFC 6266."""
    plain = _TOKEN.sub("_", name)[:150]
    exact = quote(name.encode(errors="surrogateescape").decode(errors="replace"), safe="")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"


def etag(size: int, mtime_ns: int, inode: int) -> str:
    """Return what tells this version of a file from others."""
    return f'"{size:x}-{mtime_ns:x}-{inode:x}"'


def requested_range(header: str, size: int) -> tuple[int, int] | None:
    """Return the part that a Range header asks for, as its first byte and the one behind its last.

    None stands for the whole file: for several parts, other units, and what is no range, as RFC
    9110, 14.2, has it ("MUST ignore"). Raises ValueError for a part that lies behind the end.
    """
    found = _RANGE.fullmatch(header.strip())
    if found is None or max(map(len, found.groups())) > MAX_DIGITS:
        return None
    first, last = found.groups()
    if not first and not last:
        return None
    if not first:
        if int(last) == 0 or size == 0:
            raise ValueError("no byte is asked for")
        return max(0, size - int(last)), size
    if last and int(last) < int(first):
        return None
    if int(first) >= size:
        raise ValueError("behind the end")
    return int(first), min(int(last) + 1, size) if last else size
