"""The one reader of the configuration: `broker.toml`, then BROKER_*, then flags; later wins.

Pure: text and mappings in, a frozen tree out. Every mistake of every source is reported together,
unknown names included, so that a configuration is mended once.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from broker.settings import Config, Jwt, Pool, Profile, Redis, Session, Wire
from broker.units import Rule

__all__ = [
    "Config",
    "ConfigError",
    "Effective",
    "Loaded",
    "Pool",
    "Problem",
    "Profile",
    "Redis",
    "Session",
    "Setting",
    "Wire",
    "describe",
    "is_loopback",
    "load",
]


def _rules(tree: type, section: str = "") -> dict[str, Rule]:
    return {section + part.name: part.metadata["rule"] for part in fields(tree) if part.metadata}


_SECTIONS: dict[str, type] = {
    "redis": Redis,
    "session": Session,
    "wire": Wire,
    "pool": Pool,
    "jwt": Jwt,
}
_TOP = _rules(Config)
_RULES = dict(_TOP)
for _section, _tree in _SECTIONS.items():
    _RULES |= _rules(_tree, f"{_section}.")
_PROFILE = _rules(Profile)
# Lower case and dashes alone, so that BROKER_PROFILES_MY_R_WARM can mean one profile only.
_PROFILE_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_PROFILE_WORDS = "1 to 32 characters of a-z 0-9 -, a letter first, as the name of a profile"
_NOT_OURS = {"BROKER_URL", "BROKER_CONFIG"}  # where the client's server is; where the file is


def _env_name(name: str) -> str:
    return "BROKER_" + re.sub(r"[.-]", "_", name).upper()


def _flag_name(name: str) -> str:
    return "--" + re.sub(r"[._]", "-", name)


_ENV = {_env_name(name): name for name in _RULES}
_PROFILE_ENV = re.compile(rf"BROKER_PROFILES_([A-Z0-9_]+)_({'|'.join(_PROFILE).upper()})")


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the source it stands in, the setting's dotted name, and the rule it breaks."""

    origin: str
    name: str
    message: str

    def __str__(self) -> str:
        if not self.name or self.origin.startswith(("BROKER_", "--")):
            return f"{self.origin}: {self.message}"  # the source names the setting
        return f"{self.origin}: {self.name}: {self.message}"


class ConfigError(ValueError):
    """The configuration cannot be used; the text is one line for each mistake."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting for people: `default` is its text by default, or as it is in effect."""

    name: str
    default: str
    env: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Effective:
    """One setting in effect, as text without secrets, and the source it is from."""

    name: str
    value: str
    origin: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """The configuration in effect, and the source of each setting by its dotted name."""

    config: Config
    origins: Mapping[str, str]

    def effective(self) -> list[Effective]:
        """Return every setting, secrets as `***`."""
        return [
            Effective(name, rule.show(value), self.origins[name])
            for name, rule, value in _walk(self.config)
        ]


def describe() -> list[Setting]:
    """Return every setting with its default: the table of the README."""
    rules = _RULES | {f"profiles.<name>.{part}": rule for part, rule in _PROFILE.items()}
    return [
        Setting(name, rule.default, _env_name(name), rule.meaning) for name, rule in rules.items()
    ]


def is_loopback(host: str) -> bool:
    """Tell whether this machine alone reaches the address; of names, only localhost is sure."""
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def load(
    toml: str = "",
    environ: Mapping[str, str] = MappingProxyType({}),
    flags: Mapping[str, object] = MappingProxyType({}),
    *,
    file: str = "broker.toml",
) -> Loaded:
    """Return the configuration of the three sources; raises ConfigError with every mistake.

    `flags` are by dotted name, None for one that was not given. `file` is what the text is called.
    """
    reading = _Reading()
    reading.read_toml(toml, file)
    reading.read_environ(environ)
    reading.read_flags(flags)
    return reading.finish()


class _Reading:
    """What the sources have said so far."""

    def __init__(self) -> None:
        self._problems: list[Problem] = []
        self._values: dict[str, object] = {}
        self._origins: dict[str, str] = {}
        self._wrong: set[str] = set()
        self._profiles: dict[str, None] = {}  # every one named, in order

    def read_toml(self, text: str, file: str) -> None:
        try:
            document = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: an integer of 5,000 digits
            self._problem(file, "", f"not TOML: {error}")
            return
        for key, value in document.items():
            if key in _SECTIONS:
                self._read_table(file, key, value, _rules(_SECTIONS[key]))
            elif key != "profiles":
                self._take(file, key, value, _TOP.get(key), {*_TOP, *_SECTIONS, "profiles"})
            elif not isinstance(value, dict):
                self._problem(file, key, "expected a table: [profiles.<name>]")
            else:
                for profile, table in value.items():
                    if self._name_profile(file, profile):
                        self._read_table(file, f"profiles.{profile}", table, _PROFILE)

    def _read_table(self, file: str, name: str, table: object, rules: Mapping[str, Rule]) -> None:
        if not isinstance(table, dict):
            self._problem(file, name, f"expected a table: [{name}]")
            return
        for key, value in table.items():
            known = [f"{name}.{part}" for part in rules]
            self._take(file, f"{name}.{key}", value, rules.get(key), known)

    def read_environ(self, environ: Mapping[str, str]) -> None:
        for variable in sorted(environ):
            if not variable.startswith("BROKER_") or variable in _NOT_OURS:
                continue
            if match := _PROFILE_ENV.fullmatch(variable):
                profile, part = match[1].lower().replace("_", "-"), match[2].lower()
                if self._name_profile(variable, profile):
                    name = f"profiles.{profile}.{part}"
                    self._take(variable, name, environ[variable], _PROFILE[part])
            else:
                name = _ENV.get(variable, "")
                known = [*_ENV, *(_env_name(f"profiles.python.{part}") for part in _PROFILE)]
                self._take(variable, name, environ[variable], _RULES.get(name), known)

    def read_flags(self, flags: Mapping[str, object]) -> None:
        for name, value in flags.items():
            if value is None:
                continue
            section, _, rest = name.partition(".")
            profile, _, part = rest.partition(".")
            if section == "profiles" and part in _PROFILE:
                # One flag for whichever profile it is about: --warm, not --profiles-python-warm.
                if self._name_profile(_flag_name(part), profile):
                    self._take(_flag_name(part), name, value, _PROFILE[part])
            else:
                known = [_flag_name(name) for name in _RULES]
                self._take(_flag_name(name), name, value, _RULES.get(name), known)

    def _take(
        self, origin: str, name: str, value: object, rule: Rule | None, known: Iterable[str] = ()
    ) -> None:
        if rule is None:
            written = origin if origin.startswith(("BROKER_", "--")) else name
            near = difflib.get_close_matches(written, list(known), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            self._problem(origin, name, f"no such setting{hint}")
            return
        try:
            self._values[name] = rule.read(value)
            self._origins[name] = origin
        except ValueError as error:
            self._wrong.add(name)
            self._problem(origin, name, _expected(rule, str(error), value))

    def _name_profile(self, origin: str, profile: str) -> bool:
        if _PROFILE_NAME.fullmatch(profile):
            self._profiles[profile] = None
            return True
        self._problem(origin, f"profiles.{profile[:64]}", f"expected {_PROFILE_WORDS}")
        return False

    def _problem(self, origin: str, name: str, message: str) -> None:
        self._problems.append(Problem(origin, name, message))

    def finish(self) -> Loaded:
        """Build the tree, and check its parts against each other."""
        config = self._build()
        for names, message in _contradictions(config):
            if self._wrong.isdisjoint(names):  # else it is the same mistake a second time
                origin = next((self._origins[n] for n in names if n in self._origins), "default")
                self._problem(origin, names[0], message)
        if self._problems:
            raise ConfigError(self._problems)
        origins = {name: self._origins.get(name, "default") for name, _, _ in _walk(config)}
        return Loaded(config, MappingProxyType(origins))

    def _build(self) -> Config:
        def part(tree: type, section: str) -> Any:
            given = [name for name in _rules(tree) if section + name in self._values]
            return tree(**{name: self._values[section + name] for name in given})

        top: dict[str, Any] = {name: self._values[name] for name in _TOP if name in self._values}
        if top.get("default_profile", "python") == "python":
            self._profiles.setdefault("python", None)  # there without a word said of it
        profiles = {name: part(Profile, f"profiles.{name}.") for name in self._profiles}
        sections = {name: part(tree, f"{name}.") for name, tree in _SECTIONS.items()}
        return Config(**top, **sections, profiles=MappingProxyType(profiles))


def _walk(config: Config) -> Iterator[tuple[str, Rule, object]]:
    """Give every setting of a tree: its dotted name, its rule, its value."""
    for name, rule in _TOP.items():
        yield name, rule, getattr(config, name)
    for section, tree in _SECTIONS.items():
        for name, rule in _rules(tree).items():
            yield f"{section}.{name}", rule, getattr(getattr(config, section), name)
    for profile, recipe in config.profiles.items():
        for name, rule in _PROFILE.items():
            yield f"profiles.{profile}.{name}", rule, getattr(recipe, name)


def _contradictions(config: Config) -> Iterator[tuple[tuple[str, ...], str]]:
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


def _expected(rule: Rule, text: str, value: object) -> str:
    got = _got(value)
    if rule.secret or rule.unit.name == "pairs" or "@" in got:
        return f"expected {text}"  # what was given may be a secret, or hold one
    # Kubernetes gives every pod beside a Service called `broker` a BROKER_PORT=tcp://… .
    hint = " (Kubernetes sets it for a Service called broker: use enableServiceLinks: false)"
    got = got if len(got) <= 64 else got[:61] + "..."
    return f"expected {text}; got {got}{hint if 'tcp://' in got[:8] else ''}"


def _got(value: object) -> str:
    if isinstance(value, Mapping):
        return "a table"
    try:
        return repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "too large a number"
