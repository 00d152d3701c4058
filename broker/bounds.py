"""What a client may ask of its session's bounds, as text of the same units as the settings.

The bounds of a profile are the most there is: a client can ask for less, never for more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.faults import bad_field, clip
from broker.settings import Profile
from broker.units import Rule

# By name, the setting of the profile that it lowers.
ASKED: dict[str, Rule] = {
    name: Profile.__dataclass_fields__[name].metadata["rule"]
    for name in ("memory", "processes", "cpu", "cpu_time", "execution_timeout")
}
# What is held where kernels are shut in so well; the rest would be a promise that nobody keeps.
HELD = {
    "none": frozenset({"execution_timeout"}),
    "standard": frozenset({"execution_timeout", "cpu_time", "memory"}),
    "full": frozenset(ASKED),
}


def asked_limits(args: Mapping[str, str]) -> dict[str, float]:
    """Return the bounds in a query; raises BadMessage naming the field."""
    found = {}
    for name, rule in ASKED.items():
        if name in args:
            try:
                value = rule.read(args[name])
            except ValueError as error:
                raise bad_field(name, f"expected {error}; got {clip(args[name])!r}") from None
            if not isinstance(value, int | float):
                raise bad_field(name, "expected a bound, got nothing")
            found[name] = value
    return found


def check_lower(asked: Mapping[str, float], most: Mapping[str, float], level: str) -> None:
    """Raise BadMessage for what is over the profile's bound, or held by nobody at this level."""
    for name, value in asked.items():
        if name not in HELD[level]:
            raise bad_field(name, f"nothing holds a kernel to it with isolation {level}")
        if most[name] and not 0 < value <= most[name]:
            shown = ASKED[name].show
            raise bad_field(name, f"at most {shown(most[name])} here; got {shown(value)}")


def still_lower(asked: Mapping[str, float], most: Mapping[str, float]) -> dict[str, float]:
    """Return what is left of bounds that were asked for under other settings."""
    return {
        name: value
        for name, value in asked.items()
        if name in most and 0 < value <= (most[name] or value)
    }


def of_the_tree(asked: Mapping[str, float]) -> dict[str, Any]:
    """Return those bounds that the kernel's process tree is held to from outside."""
    return {name: asked[name] for name in ("memory", "processes", "cpu") if name in asked}


def check_same(asked: Mapping[str, float], bounds: Mapping[str, float]) -> None:
    """Raise BadMessage for what is not the bound that the session has already."""
    for name, value in asked.items():
        if value != bounds[name]:
            raise bad_field(name, f"the session has {ASKED[name].show(bounds[name])} already")
