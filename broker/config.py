"""The one reader of the configuration: `broker.toml`, then BROKER_*, then flags; later wins.

Pure: text and mappings in, a frozen tree out. Every mistake of every source is reported together,
unknown names included, so that a configuration is mended once.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from broker.contradictions import contradictions, is_loopback
from broker.face_settings import Jupyter
from broker.principal import TENANT_WORDS, is_tenant
from broker.settings import Audit, Config, Jwt, Pool, Profile, Redis, Session, Tenant, Wire
from broker.units import LABEL, Rule

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
    "Tenant",
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
    "audit": Audit,
    "jupyter": Jupyter,
    "tenant": Tenant,
}
_TOP = _rules(Config)
_RULES = dict(_TOP)
for _section, _tree in _SECTIONS.items():
    _RULES |= _rules(_tree, f"{_section}.")
# Sections with one table for each name, their rules, and what they may be called.
_NAMED = {"profiles": _rules(Profile), "tenants": _rules(Tenant)}
_CALLED: dict[str, tuple[Callable[[str], object], str]] = {
    "profiles": (
        LABEL.fullmatch,
        "1 to 32 characters of a-z 0-9 -, a letter first, as the name of a profile",
    ),
    "tenants": (is_tenant, f"{TENANT_WORDS}, as the name of a tenant"),
}
_PROFILE = _NAMED["profiles"]
# Where the client's server is, and how long it may take; where the file is.
_NOT_OURS = {"BROKER_URL", "BROKER_ANSWER_TIMEOUT", "BROKER_CONFIG"}


def _env_name(name: str) -> str:
    return "BROKER_" + re.sub(r"[.-]", "_", name).upper()


def _flag_name(name: str) -> str:
    return "--" + re.sub(r"[._]", "-", name)


_ENV = {_env_name(name): name for name in _RULES}
_NAMED_ENV = {
    section: re.compile(rf"BROKER_{section.upper()}_([A-Z0-9_]+)_({'|'.join(rules).upper()})")
    for section, rules in _NAMED.items()
}


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
    named = {
        f"{section}.<name>.{part}": rule
        for section, rules in _NAMED.items()
        for part, rule in rules.items()
    }
    rules = _RULES | named
    return [
        Setting(name, rule.default, _env_name(name), rule.meaning) for name, rule in rules.items()
    ]


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
        self._named: dict[str, dict[str, None]] = {one: {} for one in _NAMED}  # all, in order

    def read_toml(self, text: str, file: str) -> None:
        try:
            document = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: an integer of 5,000 digits
            self._problem(file, "", f"not TOML: {error}")
            return
        for key, value in document.items():
            if key in _SECTIONS:
                self._read_table(file, key, value, _rules(_SECTIONS[key]))
            elif key not in _NAMED:
                self._take(file, key, value, _TOP.get(key), {*_TOP, *_SECTIONS, *_NAMED})
            elif not isinstance(value, dict):
                self._problem(file, key, f"expected a table: [{key}.<name>]")
            else:
                for name, table in value.items():
                    if self._name(file, key, name):
                        self._read_table(file, f"{key}.{name}", table, _NAMED[key])

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
            for section, pattern in _NAMED_ENV.items():
                if match := pattern.fullmatch(variable):
                    name, part = match[1].lower().replace("_", "-"), match[2].lower()
                    if self._name(variable, section, name):
                        rule = _NAMED[section][part]
                        self._take(variable, f"{section}.{name}.{part}", environ[variable], rule)
                    break
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
                if self._name(_flag_name(part), section, profile):
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

    def _name(self, origin: str, section: str, name: str) -> bool:
        fits, words = _CALLED[section]
        if fits(name):
            self._named[section][name] = None
            return True
        self._problem(origin, f"{section}.{name[:64]}", f"expected {words}")
        return False

    def _problem(self, origin: str, name: str, message: str) -> None:
        self._problems.append(Problem(origin, name, message))

    def finish(self) -> Loaded:
        """Build the tree, and check its parts against each other."""
        config = self._build()
        for names, message in contradictions(config):
            if self._wrong.isdisjoint(names):  # else it is the same mistake a second time
                origin = next((self._origins[n] for n in names if n in self._origins), "default")
                self._problem(origin, names[0], message)
        if self._problems:
            raise ConfigError(self._problems)
        origins = {name: self._origin(name) for name, _, _ in _walk(config)}
        return Loaded(config, MappingProxyType(origins))

    def _origin(self, name: str) -> str:
        section, _, rest = name.partition(".")
        default = "default"
        if section == "tenants":  # what is not said of one is said of all
            default = self._origins.get(f"tenant.{rest.rpartition('.')[2]}", default)
        return self._origins.get(name, default)

    def _build(self) -> Config:
        def part(start: Any, section: str) -> Any:
            given = [name for name in _rules(type(start)) if section + name in self._values]
            return replace(start, **{name: self._values[section + name] for name in given})

        top: dict[str, Any] = {name: self._values[name] for name in _TOP if name in self._values}
        if top.get("default_profile", "python") == "python":
            self._named["profiles"].setdefault("python", None)  # there without a word said of it
        sections = {name: part(tree(), f"{name}.") for name, tree in _SECTIONS.items()}
        starts = {"profiles": Profile(), "tenants": sections["tenant"]}  # what is not said of one
        named: dict[str, Any] = {
            section: MappingProxyType({n: part(starts[section], f"{section}.{n}.") for n in names})
            for section, names in self._named.items()
        }
        return Config(**top, **sections, **named)


def _walk(config: Config) -> Iterator[tuple[str, Rule, object]]:
    """Give every setting of a tree: its dotted name, its rule, its value."""
    for name, rule in _TOP.items():
        yield name, rule, getattr(config, name)
    for section, tree in _SECTIONS.items():
        for name, rule in _rules(tree).items():
            yield f"{section}.{name}", rule, getattr(getattr(config, section), name)
    for section, rules in _NAMED.items():
        for one, table in getattr(config, section).items():
            for name, rule in rules.items():
                yield f"{section}.{one}.{name}", rule, getattr(table, name)


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
