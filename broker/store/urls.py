"""Store URLs: taken apart, and shown without their passwords."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

SCHEMES = ("redis", "rediss", "unix", "redis+sentinel")
SENTINEL_PORT = 26379


class SentinelURL(NamedTuple):
    """The parts of redis+sentinel://[user:password@]host[:port],…/service[/db]."""

    hosts: list[tuple[str, int]]
    service: str
    db: int
    username: str | None
    password: str | None
    sentinel: dict[str, str]  # what the Sentinels themselves ask for: username, password


def redacted(url: str) -> str:
    """Return the URL with every password in it replaced by `***`."""
    # By pattern, not by parsing: a URL that cannot be parsed is shown in an error too. A password
    # may hold anything, so it reaches to the last @ there is.
    url = re.sub(r"^([^:/]*://[^:/@]*):.*@", r"\1:***@", url)
    return re.sub(r"(password=)[^&]*", r"\1***", url)


def scheme_of(url: str) -> str:
    """Return the URL's scheme; raises ValueError for one that no store has."""
    scheme, mark, _ = url.partition("://")
    if not mark or scheme not in SCHEMES:
        raise ValueError(f"it begins with one of {', '.join(f'{one}://' for one in SCHEMES)}")
    return scheme


def parse_sentinel(url: str) -> SentinelURL:
    """Take a Sentinel URL apart; raises ValueError that says which part is wrong.

    The name and password are the server's. The Sentinels' own, if they have any, are the query
    fields `sentinel_username` and `sentinel_password`.
    """
    # Not urlsplit, which takes one host: several with a [::1] among them it refuses.
    place, _, text = url.partition("://")[2].partition("?")
    netloc, _, path = place.partition("/")
    user, _, places = netloc.rpartition("@")
    name, _, password = user.partition(":")
    service, _, db = path.strip("/").partition("/")
    if not service:
        raise ValueError("the service's name is missing: redis+sentinel://host:port/service")
    if db and not db.isdigit():
        raise ValueError(f"the database is a number, not {db!r}")
    hosts = [_host(place) for place in places.split(",")]
    sentinel: dict[str, str] = {}
    for key, value in parse_qsl(text):
        if key not in ("sentinel_username", "sentinel_password"):
            raise ValueError(f"unknown query field {key!r}")
        sentinel[key.removeprefix("sentinel_")] = value
    return SentinelURL(
        hosts, service, int(db or 0), unquote(name) or None, unquote(password) or None, sentinel
    )


def _host(place: str) -> tuple[str, int]:
    host, port = place, str(SENTINEL_PORT)
    if not place.endswith("]") and ":" in place:  # [::1] alone has no port
        host, _, port = place.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit():
        raise ValueError(f"{place!r} is not host:port")
    return host, int(port)
