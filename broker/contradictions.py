"""What settings say against each other, though each of them is right. Pure."""

from __future__ import annotations

import difflib
import ipaddress
from collections.abc import Iterator

from broker.settings import Config, Profile


def is_loopback(host: str) -> bool:
    """Tell whether this machine alone reaches the address; of names, only localhost is sure."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def contradictions(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give what no single setting has wrong: the names in it, the one to change first, and why."""
    if not is_loopback(config.host):
        if config.isolation == "none":
            yield (
                ("host", "isolation"),
                f"{config.host} can be reached from elsewhere, and isolation = none shuts nothing"
                " in: use a loopback host, or another isolation",
            )
        if not config.token:
            yield (
                ("host", "token"),
                f"{config.host} can be reached from elsewhere: set a token of at least 16"
                " characters (BROKER_TOKEN, or token in broker.toml), or use a loopback host",
            )
    if config.default_profile not in config.profiles:
        near = difflib.get_close_matches(config.default_profile, list(config.profiles), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        yield ("default_profile",), f"there is no profile {config.default_profile!r}{hint}"
    for name, profile in config.profiles.items():
        yield from _of_a_profile(f"profiles.{name}", profile, config)
    yield from _of_tenants(config)
    warm = sum(profile.warm for profile in config.profiles.values())
    if warm > config.pool.max_kernels:
        yield (
            ("pool.max_kernels", *(f"profiles.{name}.warm" for name in config.profiles)),
            f"the profiles keep {warm} kernels warm, more than {config.pool.max_kernels}",
        )
    session = config.session
    if session.display_bytes > session.display_total:
        yield (
            ("session.display_bytes", "session.display_total"),
            "one rich output may be larger than all of an execution: raise display_total",
        )


def _of_a_profile(
    at: str, profile: Profile, config: Config
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give what the settings of one profile, which stand at `at`, have wrong together."""
    if profile.warm > profile.cap:
        message = f"{profile.warm} kernels kept warm are more than the cap of {profile.cap}"
        yield (f"{at}.warm", f"{at}.cap"), message
    if profile.python and profile.kernelspec:
        yield (
            (f"{at}.kernelspec", f"{at}.python"),
            "a kernelspec names its own interpreter: leave out one of kernelspec and python",
        )
    rules = {"allow_imports": profile.allow_imports, "deny_imports": profile.deny_imports}
    if profile.kernelspec and (given := [part for part, modules in rules.items() if modules]):
        yield (
            (f"{at}.{given[0]}", f"{at}.kernelspec"),
            "imports are checked in our own kernels only, and a kernelspec names another:"
            f" leave out {' and '.join(given)}, or kernelspec",
        )
    if profile.pip == "session" and profile.network != "host":
        yield (
            (f"{at}.pip", f"{at}.network"),
            "pip has nowhere to install from without a network: set network = host, or leave"
            " pip off",
        )
    if profile.pip == "session" and profile.kernelspec:
        yield (
            (f"{at}.pip", f"{at}.kernelspec"),
            "pip installs for our own kernels only, and a kernelspec names another",
        )
    if profile.pip_index and profile.pip == "off":
        yield (f"{at}.pip_index", f"{at}.pip"), "an index is of no use with pip off"
    if profile.cpu_time and config.isolation == "none":
        yield (
            (f"{at}.cpu_time", "isolation"),
            "nobody counts the CPU time of a kernel that isolation = none lets run free",
        )
    if both := sorted({*profile.allow_imports} & {*profile.deny_imports}):
        yield (
            (f"{at}.deny_imports", f"{at}.allow_imports"),
            f"{', '.join(both)} cannot be both allowed and denied",
        )


def _of_tenants(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
    """Give what the settings of tenants have wrong."""
    for at, tenant in [("tenant", config.tenant)] + [
        (f"tenants.{name}", one) for name, one in config.tenants.items()
    ]:
        if unknown := [one for one in tenant.profiles if one not in config.profiles]:
            yield (
                (f"{at}.profiles",),
                f"there is no profile {unknown[0]!r}; known: {', '.join(config.profiles)}",
            )
