"""Settings as text: durations, sizes, lists and names, parsed and written back; the rule of one.

Each parser takes what TOML, an environment variable or a flag may hold, and returns the value;
each raises ValueError whose text is the rule, made to stand after `expected`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Pairs = tuple[tuple[str, str], ...]

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
# Digits are bounded: nothing that long is meant, and int() of a stranger's text is quadratic.
_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([A-Za-z]*)", re.ASCII)
_SIZE_UNIT = re.compile(r"([KMGT])(?:I?B)?|B?")  # 8MB, and 8MiB, are 8M
# RFC 6454, 6.2: scheme, host, and the port unless it is the scheme's own. Desktop programs have
# schemes of their own.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(:[0-9]{1,5})?", re.ASCII)
_OWN_PORT = re.compile(r"^(http://.*):80$|^(https://.*):443$")
# Lower case and dashes alone, so that BROKER_PROFILES_MY_R_WARM can mean one profile only.
LABEL = re.compile(r"[a-z][a-z0-9-]{0,31}", re.ASCII)
_WORDS = {"true": True, "yes": True, "on": True, "1": True}
_WORDS |= {"false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class Unit:
    """One kind of setting: how its text becomes a value, and a value its text."""

    name: str
    parse: Callable[[object], object]
    show: Callable[[object], str] = str


def parse_duration(value: object) -> float:
    """Return seconds: `500ms`, `30s`, `5m`, `2h`, `1d`, or a number of seconds."""
    rule = "a duration such as 500ms, 30s, 5m, 2h, 1d or a number of seconds"
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value.strip())
        factor = _SECONDS.get(match[2] or "s") if match else None
        if match is None or factor is None:
            raise ValueError(rule)
        return float(match[1]) * factor if factor != 0.001 else float(match[1]) / 1000
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(rule)
    if not (0 <= value < 1e18 and math.isfinite(value)):
        raise ValueError(rule)
    return float(value)


def show_duration(value: object) -> str:
    """Return seconds in the largest unit that divides them: 1800.0 is `30m`."""
    if not isinstance(value, int | float):
        raise TypeError("a duration is a number")
    if value == 0:
        return "0s"
    millis = round(value * 1000)
    for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)):
        if millis and millis % size == 0 and millis / 1000 == value:
            return f"{millis // size}{unit}"
    return f"{value:.9f}".rstrip("0").rstrip(".") + "s"  # to the nanosecond, as it is parsed


def parse_size(value: object) -> int:
    """Return bytes: `512K`, `8M`, `1G` in powers of 1024, or a number of bytes."""
    rule = "a size such as 512K, 8M, 1G or a number of bytes"
    if isinstance(value, str):
        match = _QUANTITY.fullmatch(value.strip())
        unit = _SIZE_UNIT.fullmatch(match[2].upper()) if match else None
        if match is None or unit is None:
            raise ValueError(rule)
        factor = _BYTES[unit[1] or ""]
        if "." not in match[1]:
            return int(match[1]) * factor
        size = float(match[1]) * factor
        if not size.is_integer():
            raise ValueError(f"{rule}, and a whole number of bytes")
        return int(size)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**18:
        raise ValueError(rule)
    return value


def show_size(value: object) -> str:
    """Return bytes in the largest unit that divides them: 8388608 is `8M`."""
    if not isinstance(value, int):
        raise TypeError("a size is an integer")
    for unit in ("T", "G", "M", "K"):
        if value and value % _BYTES[unit] == 0:
            return f"{value // _BYTES[unit]}{unit}"
    return str(value)


def parse_count(value: object) -> int:
    """Return a whole number, 0 or more."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value.strip(), re.ASCII):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 10**18:
        raise ValueError("a whole number")
    return value


def parse_number(value: object) -> float:
    """Return a number, 0 or more, of at most three decimals."""
    if isinstance(value, str) and re.fullmatch(
        r"[0-9]{1,9}(\.[0-9]{1,3})?", value.strip(), re.ASCII
    ):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        raise ValueError("a number such as 1 or 0.5")
    return round(float(value), 3)


def show_number(value: object) -> str:
    """Return a number without the decimals that say nothing: 1.0 is `1`."""
    if not isinstance(value, int | float):
        raise TypeError("a number is one")
    return f"{value:.3f}".rstrip("0").rstrip(".")


def parse_flag(value: object) -> bool:
    """Return true or false; text may say yes, no, on, off, 1 or 0 as well."""
    if isinstance(value, bool):
        return value
    found = _WORDS.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise ValueError("true or false")
    return found


def show_flag(value: object) -> str:
    """Return `true` or `false`, as in TOML."""
    return "true" if value else "false"


def parse_text(value: object) -> str:
    """Return text without control characters; spaces around it are not part of it."""
    if not isinstance(value, str) or any(ord(c) < 32 or ord(c) == 127 for c in value):
        raise ValueError("text without control characters")
    return value.strip()


def parse_names(value: object) -> tuple[str, ...]:
    """Return dotted Python names: a list of them, or one text with commas."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError("a list of module names")
    names = [item.strip() if isinstance(item, str) else "" for item in items]
    if isinstance(value, str):
        names = [name for name in names if name]  # the empty text is the empty list
    for name in names:
        if not all(part.isidentifier() for part in name.split(".")):
            raise ValueError(f"a list of module names ({name[:64]!r} is none)")
    return tuple(dict.fromkeys(names))


def parse_modules(value: object) -> tuple[str, ...]:
    """Return names of top-level modules: a list of them, or one text with commas."""
    names = parse_names(value)
    for name in names:
        if "." in name:
            raise ValueError(f"a list of top-level modules ({name[:64]!r} is within one)")
    return names


def parse_labels(value: object) -> tuple[str, ...]:
    """Return names of profiles: a list of them, or one text with commas."""
    rule = "a list of names of a-z 0-9 -, each with a letter first"
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError(rule)
    names = [item.strip() if isinstance(item, str) else "" for item in items]
    if isinstance(value, str):
        names = [name for name in names if name]  # the empty text is the empty list
    for name in names:
        if LABEL.fullmatch(name) is None:
            raise ValueError(f"{rule} ({name[:64]!r} is none)")
    return tuple(dict.fromkeys(names))


def parse_paths(value: object) -> tuple[str, ...]:
    """Return absolute paths: a list of them, or one text with commas."""
    rule = "a list of absolute paths"
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError(rule)
    paths = [item.strip() if isinstance(item, str) else "" for item in items]
    if isinstance(value, str):
        paths = [path for path in paths if path]  # the empty text is the empty list
    for path in paths:
        parts = path.split("/")[1:]
        # No `..`: what is shown must be what is written. No comma: it stands between two.
        if not path.startswith("/") or ".." in parts or not any(parts) or not _is_plain(path):
            raise ValueError(f"{rule} ({path[:64]!r} is none)")
    return tuple(dict.fromkeys(path.rstrip("/") for path in paths))


def parse_origins(value: object) -> tuple[str, ...]:
    """Return origins as browsers write them: a list of them, or one text with commas."""
    rule = "a list of origins such as https://chat.example:8443"
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        raise ValueError(rule)
    origins = [item.strip().lower() if isinstance(item, str) else "" for item in items]
    if isinstance(value, str):
        origins = [origin for origin in origins if origin]  # the empty text is the empty list
    for origin in origins:
        # No path, no `*`, no `null`: the last is what every page from a file says.
        if not _ORIGIN.fullmatch(origin):
            raise ValueError(f"{rule} ({origin[:64]!r} is none)")
    # A browser leaves the scheme's own port out.
    return tuple(dict.fromkeys(_OWN_PORT.sub(r"\1\2", origin) for origin in origins))


def _is_plain(text: str) -> bool:
    return not any(ord(c) < 32 or ord(c) == 127 or c == "," for c in text)


def show_names(value: object) -> str:
    """Return names with commas between them."""
    if not isinstance(value, tuple):
        raise TypeError("names are a tuple")
    return ",".join(value)


def parse_pairs(value: object) -> Pairs:
    """Return environment variables: a table, or `NAME=value` with commas between them."""
    rule = "a table of NAME = text, or NAME=value with commas between"
    if isinstance(value, str):
        pairs = [item.partition("=") for item in value.split(",") if item.strip()]
        if not all(equals for _, equals, _ in pairs):
            raise ValueError(rule)
        value = {name.strip(): text for name, _, text in pairs}
    if not isinstance(value, Mapping):
        raise ValueError(rule)
    for name, text in value.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{rule} ({str(name)[:64]!r} is no name)")
        if not isinstance(text, str) or "\0" in text:
            raise ValueError(f"{rule} (the value of {name[:64]} is not text)")
    return tuple(sorted(value.items()))


def show_pairs(value: object) -> str:
    """Return the names alone: the values may be secrets."""
    if not isinstance(value, tuple):
        raise TypeError("pairs are a tuple")
    return ",".join(f"{name}=***" for name, _ in value)


DURATION = Unit("duration", parse_duration, show_duration)
SIZE = Unit("size", parse_size, show_size)
COUNT = Unit("count", parse_count)
NUMBER = Unit("number", parse_number, show_number)
FLAG = Unit("flag", parse_flag, show_flag)
TEXT = Unit("text", parse_text)
NAMES = Unit("names", parse_names, show_names)
MODULES = Unit("modules", parse_modules, show_names)
LABELS = Unit("labels", parse_labels, show_names)
PATHS = Unit("paths", parse_paths, show_names)
ORIGINS = Unit("origins", parse_origins, show_names)
PAIRS = Unit("pairs", parse_pairs, show_pairs)


def or_empty(unit: Unit) -> Unit:
    """Return the unit that may also be left empty: the value is None then."""
    return Unit(
        unit.name,
        lambda value: None if value is None or value == "" else unit.parse(value),
        lambda value: "" if value is None else unit.show(value),
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """What one setting may be, and why it is there; `low` and `high` are text of its unit."""

    unit: Unit
    default: str
    meaning: str
    low: str = ""
    high: str = ""
    none: bool = False  # 0 stands for no bound
    choices: tuple[str, ...] = ()
    pattern: str = ""
    words: str = ""  # the pattern, for people
    secret: bool = False

    def read(self, value: object) -> object:
        """Return the value; raises ValueError whose text is the rule it breaks."""
        found = self.unit.parse(value)
        if self.choices and found not in self.choices:
            raise ValueError(f"one of {', '.join(self.choices)}")
        if self.pattern and not re.fullmatch(self.pattern, str(found)):
            raise ValueError(self.words)
        if self.high and isinstance(found, int | float) and not (self.none and found == 0):
            low, high = self.unit.parse(self.low), self.unit.parse(self.high)
            assert isinstance(low, int | float)  # noqa: S101  # bounds are of numbers
            assert isinstance(high, int | float)  # noqa: S101
            if not low <= found <= high:
                raise ValueError(f"{self.low} to {self.high}{', or 0 for none' * self.none}")
        return found

    def show(self, value: object) -> str:
        """Return the value as text, without what is secret in it."""
        text = self.unit.show(value)
        if self.secret:
            return "***" if text else ""
        # The address of a store may carry its password: before the host, or in the query.
        return re.sub(r"(?<=://).*(?=@)|(?<=[?&]password=)[^&]*", "***", text)


def setting(default: str, unit: Unit, meaning: str, *, shown: bool = True, **rule: Any) -> Any:
    """Declare a field of the tree with its rule; `shown` is whether its repr may stand in a log."""
    made = Rule(unit, default, meaning, **rule)
    return field(default=made.read(default), repr=shown, metadata={"rule": made})
