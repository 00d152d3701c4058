"""The configuration: three sources, one frozen tree, every mistake at once, no secret shown."""

from __future__ import annotations

import dataclasses
import math
import string
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from broker import units
from broker.config import (
    Config,
    ConfigError,
    Loaded,
    Profile,
    Setting,
    Tenant,
    describe,
    is_loopback,
    load,
)
from kernels.spec import DEFAULT_PRELOAD

TOKEN = "a-token-of-more-than-16"
QUICK = settings(max_examples=150)


def lines(toml: str = "", environ: Mapping[str, str] | None = None, **flags: object) -> list[str]:
    """Return the mistakes of a configuration that is refused, a line each."""
    with pytest.raises(ConfigError) as caught:
        load(toml, environ or {}, {name.replace("__", "."): flags[name] for name in flags})
    assert len(str(caught.value).splitlines()) == len(caught.value.problems)
    return str(caught.value).splitlines()


# The tree


def test_without_any_source_each_setting_has_its_default() -> None:
    loaded = load()
    assert loaded.config == Config()
    assert set(loaded.origins.values()) == {"default"}
    config = loaded.config
    assert (config.host, config.port, config.orphan_ttl) == ("127.0.0.1", 8787, 600.0)
    assert (config.session.idle_timeout, config.session.execution_timeout) == (1800.0, 300.0)
    assert (config.wire.max_frame, config.session.display_total) == (8 << 20, 64 << 20)
    assert dict(config.profiles) == {"python": Profile()}
    assert config.profiles["python"].preload == DEFAULT_PRELOAD


def test_the_tree_is_frozen() -> None:
    config = load().config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.port = 1
    with pytest.raises(TypeError):
        config.profiles["x"] = Profile()


def test_later_sources_win_and_each_setting_knows_its_own() -> None:
    loaded = load(
        'port = 1\nhost = "::1"\n[session]\nidle_timeout = "10m"\nqueue = 3',
        {"BROKER_PORT": "2", "BROKER_SESSION_IDLE_TIMEOUT": "90", "PATH": "/bin"},
        {"port": 3, "state_dir": "/srv/x", "node": None},
    )
    config = loaded.config
    assert (config.port, config.host, config.state_dir) == (3, "::1", "/srv/x")
    assert (config.session.idle_timeout, config.session.queue) == (90.0, 3)
    assert loaded.origins["port"] == "--port"
    assert loaded.origins["host"] == "broker.toml"
    assert loaded.origins["state_dir"] == "--state-dir"
    assert loaded.origins["session.idle_timeout"] == "BROKER_SESSION_IDLE_TIMEOUT"
    assert loaded.origins["node"] == "default"


@pytest.mark.parametrize("setting", [item for item in describe() if "<" not in item.env])
def test_each_setting_can_be_given_in_every_source(setting: Setting) -> None:
    section, _, name = setting.name.rpartition(".")
    toml = f"[{section}]\n" * bool(section) + f'{name} = "{setting.default}"'
    flags = {setting.name: setting.default}
    for loaded in (load(toml), load("", {setting.env: setting.default}), load("", {}, flags)):
        assert loaded.config == Config()
        assert loaded.origins[setting.name] != "default"


def test_no_two_settings_share_a_variable() -> None:
    variables = [setting.env for setting in describe()]
    assert len(set(variables)) == len(variables)


def test_the_clients_variables_are_not_ours() -> None:
    assert load("", {"BROKER_URL": "x", "BROKER_CONFIG": "y", "XBROKER_A": "z"}) == load()


# Profiles


def test_profiles_come_from_every_source() -> None:
    loaded = load(
        '[profiles.bare]\n[profiles.data]\nwarm = 1\nenv = {B = "2"}\npreload = ["polars"]',
        {
            "BROKER_PROFILES_PYTHON_WARM": "0",
            "BROKER_PROFILES_MY_R_KERNELSPEC": "ir",
            "BROKER_PROFILES_DATA_ENV": "C=3=x, D=",
            "BROKER_PROFILES_PYTHON_PRELOAD": "numpy, os.path",
        },
        {"profiles.python.warm": "2", "profiles.python.cap": 9},
    )
    profiles = loaded.config.profiles
    assert set(profiles) == {"data", "bare", "python", "my-r"}
    assert profiles["data"] == Profile(warm=1, env=(("C", "3=x"), ("D", "")), preload=("polars",))
    assert profiles["bare"] == Profile()
    assert profiles["my-r"] == Profile(kernelspec="ir")
    assert profiles["python"] == Profile(warm=2, cap=9, preload=("numpy", "os.path"))
    assert loaded.origins["profiles.python.warm"] == "--warm"
    assert loaded.origins["profiles.my-r.kernelspec"] == "BROKER_PROFILES_MY_R_KERNELSPEC"


def test_the_python_profile_is_there_unless_another_is_the_default() -> None:
    assert set(load('default_profile = "r"\n[profiles.r]').config.profiles) == {"r"}
    assert set(load("[profiles.r]").config.profiles) == {"r", "python"}


# Tenants


def test_a_tenant_has_of_all_what_is_not_said_of_it() -> None:
    loaded = load(
        '[tenant]\nsessions = 5\nwaiting = 0\n[tenants.acme]\nsessions = 9\nprofiles = ["python"]\n'
        '[tenants."Bob@example.org"]\ncpu_hour = "2h"',
        {"BROKER_TENANT_MEMORY": "4G", "BROKER_TENANTS_MY_OWN_RUNNING": "2"},
    )
    config = loaded.config
    assert config.tenant == Tenant(sessions=5, waiting=0, memory=4 << 30)
    assert dict(config.tenants) == {
        "acme": replace(config.tenant, sessions=9, profiles=("python",)),
        "Bob@example.org": replace(config.tenant, cpu_hour=7200.0),
        "my-own": replace(config.tenant, running=2),
    }
    assert loaded.origins["tenants.my-own.memory"] == "BROKER_TENANT_MEMORY"
    assert loaded.origins["tenants.acme.sessions"] == "broker.toml"
    assert loaded.origins["tenants.acme.running"] == "default"


def test_a_mistake_about_a_tenant_is_named() -> None:
    assert lines('[tenants."a/b"]\n[tenants.x]\nprofiles = ["r"]\nsesions = 1\nmemory = "1M"') == [
        "broker.toml: tenants.a/b: expected 1 to 64 characters of A-Z a-z 0-9 . _ : @ -, a letter"
        " or digit first, as the name of a tenant",
        "broker.toml: tenants.x.sesions: no such setting; did you mean tenants.x.sessions?",
        "broker.toml: tenants.x.memory: expected 32M to 1024T, or 0 for none; got '1M'",
        "broker.toml: tenants.x.profiles: there is no profile 'r'; known: python",
    ]
    assert lines('[tenant]\nprofiles = ["A"]') == [
        "broker.toml: tenant.profiles: expected a list of names of a-z 0-9 -, each with a letter"
        " first ('A' is none); got ['A']"
    ]


# Mistakes


def test_every_mistake_of_every_source_is_reported_together() -> None:
    assert lines(
        'prot = 1\n[session]\nidle_timout = "5m"\nqueue = 0\n[profiles.data]\nwram = 1',
        {"BROKER_PROT": "1", "BROKER_LOG_LEVEL": "loud", "BROKER_PROFILES_PYTHON_WRAM": "1"},
        state_dirr="x",
        session__max_lifetime="long",
    ) == [
        "broker.toml: prot: no such setting; did you mean port?",
        "broker.toml: session.idle_timout: no such setting; did you mean session.idle_timeout?",
        "broker.toml: session.queue: expected 1 to 10000; got 0",
        "broker.toml: profiles.data.wram: no such setting; did you mean profiles.data.warm?",
        "BROKER_LOG_LEVEL: expected one of debug, info, warning, error; got 'loud'",
        "BROKER_PROFILES_PYTHON_WRAM: no such setting; did you mean BROKER_PROFILES_PYTHON_WARM?",
        "BROKER_PROT: no such setting; did you mean BROKER_PORT?",
        "--state-dirr: no such setting; did you mean --state-dir?",
        "--session-max-lifetime: expected a duration such as 500ms, 30s, 5m, 2h, 1d or a number"
        " of seconds; got 'long'",
    ]


@pytest.mark.parametrize(
    ("toml", "line"),
    [
        ("port = ", "broker.toml: not TOML: Invalid value (at end of document)"),
        ("port = 1\nport = 2", "broker.toml: not TOML: Cannot overwrite a value"),
        ("port = 70000", "broker.toml: port: expected 0 to 65535; got 70000"),
        ("port = true", "broker.toml: port: expected a whole number; got True"),
        ("port = 1.5", "broker.toml: port: expected a whole number; got 1.5"),
        ("port = -1", "broker.toml: port: expected a whole number; got -1"),
        ("[port]\na = 1", "broker.toml: port: expected a whole number; got a table"),
        ("session = 5", "broker.toml: session: expected a table: [session]"),
        ("profiles = 5", "broker.toml: profiles: expected a table: [profiles.<name>]"),
        ("[profiles]\nx = 5", "broker.toml: profiles.x: expected a table: [profiles.x]"),
        ("[profiles.My_R]", "broker.toml: profiles.My_R: expected 1 to 32 characters of a-z 0-9 -"),
        ('host = ""', "broker.toml: host: expected a host name or an IP address; got ''"),
        ('state_dir = ""', "broker.toml: state_dir: expected a directory; got ''"),
        ('state_dir = "a\\u0000b"', "broker.toml: state_dir: expected text without control"),
        ('node = "a b"', "broker.toml: node: expected up to 64 characters of A-Z"),
        ('isolation = "some"', "broker.toml: isolation: expected one of full, standard, none;"),
        ('[redis]\nprefix = "a{b}"', "broker.toml: redis.prefix: expected 1 to 64 characters"),
        ('[redis]\nurl = "http://x"', "broker.toml: redis.url: expected a URL of redis://,"),
        ('[redis]\nlease = "1ms"', "broker.toml: redis.lease: expected 1s to 10m; got '1ms'"),
        (
            "[session]\nexecution_timeout = 0.001",
            "broker.toml: session.execution_timeout: expected 10ms to 7d, or 0 for none; got 0.001",
        ),
        ('[wire]\nmax_frame = "8X"', "broker.toml: wire.max_frame: expected a size such as 512K,"),
        ("[profiles.a]\npreload = [1]", "broker.toml: profiles.a.preload: expected a list of"),
        ('[profiles.a]\npreload = "a;b"', "broker.toml: profiles.a.preload: expected a list of"),
        ("[profiles.a]\nenv = {A = 1}", "broker.toml: profiles.a.env: expected a table of NAME"),
        ('[profiles.a]\nenv = {"1" = "x"}', "broker.toml: profiles.a.env: expected a table of"),
        ("[profiles.a]\nmemory = 5", "broker.toml: profiles.a.memory: expected 32M to 16T; got 5"),
        ("[profiles.a]\ncpu = 0", "broker.toml: profiles.a.cpu: expected 0.05 to 1024; got 0"),
        ("[profiles.a]\ncpu = true", "broker.toml: profiles.a.cpu: expected a number such as 1 or"),
        ('[profiles.a]\ncpu = "1e3"', "broker.toml: profiles.a.cpu: expected a number such as 1"),
        ("[profiles.a]\ncpu = nan", "broker.toml: profiles.a.cpu: expected a number such as 1 or"),
        ('[profiles.a]\npaths = "data"', "broker.toml: profiles.a.paths: expected a list of abso"),
        ('[profiles.a]\npaths = ["/a/../b"]', "broker.toml: profiles.a.paths: expected a list of"),
        ('[profiles.a]\npaths = ["/"]', "broker.toml: profiles.a.paths: expected a list of abso"),
        ('[profiles.a]\nallow_imports = "os.path"', "broker.toml: profiles.a.allow_imports: expec"),
        ('[profiles.a]\nnetwork = "all"', "broker.toml: profiles.a.network: expected one of none,"),
        ('[profiles.a]\nzygote = "own"', "broker.toml: profiles.a.zygote: expected one of profile"),
        ('[profiles.a]\nexecution_timeout = "x"', "broker.toml: profiles.a.execution_timeout: exp"),
        ("x = 1", "broker.toml: x: no such setting"),
        (f"port = 0x{'f' * 9999}", "broker.toml: port: expected a whole number; got too large"),
        (f"port = {'1' * 9999}", "broker.toml: not TOML: "),
        # One with another
        (
            "[profiles.python]\nwarm = 9\ncap = 8",
            "broker.toml: profiles.python.warm: 9 kernels kept warm are more than the cap of 8",
        ),
        (
            'isolation = "none"\n[profiles.r]\ncpu_time = "5s"',
            "broker.toml: profiles.r.cpu_time: nobody counts the CPU time of a kernel that",
        ),
        (
            '[profiles.r]\nallow_imports = "os,re"\ndeny_imports = "re"',
            "broker.toml: profiles.r.deny_imports: re cannot be both allowed and denied",
        ),
        (
            '[profiles.r]\nkernelspec = "ir"\npython = "p"',
            "broker.toml: profiles.r.kernelspec: a kernelspec names its own interpreter",
        ),
        (
            '[profiles.r]\nkernelspec = "ir"\ndeny_imports = ["os"]',
            "broker.toml: profiles.r.deny_imports: imports are checked in our own kernels only,"
            " and a kernelspec names another: leave out deny_imports, or kernelspec",
        ),
        (
            '[profiles.python]\npip = "session"',
            "broker.toml: profiles.python.pip: pip has nowhere to install from without a network:"
            " set network = host, or leave pip off",
        ),
        (
            '[profiles.r]\nkernelspec = "ir"\npip = "session"\nnetwork = "host"',
            "broker.toml: profiles.r.pip: pip installs for our own kernels only, and a kernelspec"
            " names another",
        ),
        (
            '[profiles.python]\npip_index = "https://example.org/simple"',
            "broker.toml: profiles.python.pip_index: an index is of no use with pip off",
        ),
        (
            "[pool]\nmax_kernels = 3",
            "broker.toml: pool.max_kernels: the profiles keep 8 kernels warm, more than 3",
        ),
        (
            'default_profile = "dta"\n[profiles.data]',
            "broker.toml: default_profile: there is no profile 'dta'; did you mean data?",
        ),
        (
            '[session]\ndisplay_total = "1M"',
            "broker.toml: session.display_bytes: one rich output may be larger than all",
        ),
    ],
)
def test_a_mistake_is_one_line_with_its_source_its_name_and_the_rule(toml: str, line: str) -> None:
    found = lines(toml)
    assert len(found) == 1
    assert found[0].startswith(line)
    assert len(found[0]) < 250


def test_what_contradicts_a_mistake_is_no_second_mistake() -> None:
    assert len(lines("[profiles.python]\nwarm = 9\ncap = 0")) == 1
    assert len(lines('isolation = "nil"\ntoken = "x"\nhost = "0.0.0.0"')) == 2


def test_a_variable_that_kubernetes_makes_is_explained() -> None:
    (line,) = lines(environ={"BROKER_PORT": "tcp://10.0.0.1:80"})
    assert "enableServiceLinks: false" in line


# Who can reach the broker


def test_a_host_that_others_reach_needs_a_token_and_isolation() -> None:
    (line,) = lines(host="192.0.2.7")
    assert line.startswith("--host: 192.0.2.7 can be reached from elsewhere: set a token")
    assert "BROKER_TOKEN" in line
    (line,) = lines(environ={"BROKER_TOKEN": TOKEN}, host="192.0.2.7", isolation="none")
    assert "isolation = none shuts nothing in" in line
    assert load("", {"BROKER_TOKEN": TOKEN}, {"host": "::"}).config.token == TOKEN
    assert load("", {}, {"isolation": "none"}).config.isolation == "none"


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LocalHost", True),
        ("0.0.0.0", False),  # noqa: S104  # nothing is bound here
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example.org", False),
        ("0", False),
        ("", False),
    ],
)
def test_only_loopback_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# Secrets


def test_no_secret_is_ever_shown() -> None:
    secret = "hunter2hunter2hunter2"
    loaded = load(
        "",
        {
            "BROKER_TOKEN": secret,
            "BROKER_REDIS_URL": f"redis://me:{secret}@h:1/0?password={secret}&db=1",
            "BROKER_PROFILES_PYTHON_ENV": f"KEY={secret}",
        },
    )
    shown = {item.name: item.value for item in loaded.effective()}
    assert shown["token"] == "***"
    assert shown["redis.url"] == "redis://***@h:1/0?password=***&db=1"
    assert shown["profiles.python.env"] == "KEY=***"
    assert secret not in repr(loaded.effective())
    assert secret not in repr(loaded)
    assert {item.name: item.value for item in load().effective()}["token"] == ""


@pytest.mark.parametrize(
    "environ",
    [
        {"BROKER_TOKEN": "hunter2 hunter2 hunter2"},
        {"BROKER_TOKEN": "hunter2"},
        {"BROKER_REDIS_URL": "http://:hunter2@host"},
        {"BROKER_PROFILES_PYTHON_ENV": "A=1,hunter2"},
    ],
)
def test_a_refused_secret_is_not_repeated(environ: dict[str, str]) -> None:
    (line,) = lines(environ=environ)
    assert "hunter2" not in line


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "rediss://:p@h:6380/1",
        "unix:///run/valkey.sock?db=1",
        "redis+sentinel://h:26379,h2:26379/service",
    ],
)
def test_each_kind_of_store_is_taken(url: str) -> None:
    assert load("", {"BROKER_REDIS_URL": url}).config.redis.url == url


# What people read


def test_each_setting_is_described_with_a_default_that_parses_to_itself() -> None:
    described = describe()
    assert {item.name for item in described if "<" not in item.name} == {
        name for name in load().origins if not name.startswith("profiles.")
    }
    assert [item.env for item in described if item.name == "profiles.<name>.warm"] == [
        "BROKER_PROFILES_<NAME>_WARM"
    ]
    for item in described:
        assert item.meaning
        assert item.meaning[-1] != "."


def test_what_is_in_effect_can_be_given_back_as_it_is_shown() -> None:
    flags = {item.name: item.value for item in load().effective()}
    assert load("", {}, flags).config == Config()


# Units


@pytest.mark.parametrize(
    ("parse", "given_", "expected"),
    [
        (units.parse_duration, "500ms", 0.5),
        (units.parse_duration, "30s", 30.0),
        (units.parse_duration, " 5m ", 300.0),
        (units.parse_duration, "1.5 h", 5400.0),
        (units.parse_duration, "1d", 86400.0),
        (units.parse_duration, "0", 0.0),
        (units.parse_duration, "2.5", 2.5),
        (units.parse_duration, 7, 7.0),
        (units.parse_duration, 0.25, 0.25),
        (units.parse_size, "512K", 512 << 10),
        (units.parse_size, "8M", 8 << 20),
        (units.parse_size, "1.5g", 3 << 29),
        (units.parse_size, "8MB", 8 << 20),
        (units.parse_size, "8 MiB", 8 << 20),
        (units.parse_size, "100B", 100),
        (units.parse_size, "100", 100),
        (units.parse_size, 100, 100),
        (units.parse_count, " 12 ", 12),
        (units.parse_count, 0, 0),
        (units.parse_flag, "Yes", True),
        (units.parse_flag, "0", False),
        (units.parse_flag, False, False),
        (units.parse_text, " a b ", "a b"),
        (units.parse_names, "a, b.c,,a", ("a", "b.c")),
        (units.parse_names, "", ()),
        (units.parse_names, ["a"], ("a",)),
        (
            units.parse_origins,
            "https://Chat.example:443, http://[::1]:80,app://desk, http://a:443",
            ("https://chat.example", "http://[::1]", "app://desk", "http://a:443"),
        ),
        (units.parse_origins, "", ()),
        (units.parse_pairs, "A=1, B=x=y", (("A", "1"), ("B", "x=y"))),
        (units.parse_pairs, "", ()),
        (units.parse_pairs, {"b": "2", "a": ""}, (("a", ""), ("b", "2"))),
    ],
)
def test_a_unit_is_parsed(
    parse: Callable[[object], object], given_: object, expected: object
) -> None:
    assert parse(given_) == expected


@pytest.mark.parametrize(
    ("parse", "refused"),
    [
        (
            units.parse_duration,
            ["", "s", "5 minutes", "-1", "1e3", "inf", "nan", "٣s", "5M", "1" * 99],
        ),
        (units.parse_duration, [-1, math.nan, math.inf, True, None, [], 10**400]),
        (
            units.parse_size,
            ["", "M", "8X", "-1", "0.1", "1.3K", "8iB", "8BB", 1.5, -1, True, None, 10**400],
        ),
        (units.parse_count, ["", "-1", "1.0", "1_0", "٣", "1" * 99, 1.0, -1, True, None]),
        (units.parse_flag, ["", "maybe", 1, None]),
        (units.parse_text, [1, None, "a\nb", "a\0", "\x7f"]),
        (
            units.parse_origins,
            [1, None, "*", "null", "chat.example", "https://a/", "https://", ["https://a b"], [""]],
        ),
        (units.parse_names, [1, None, "a b", "1a", "a..b", ".a", [""], [1], {"a": 1}]),
        (units.parse_pairs, [1, None, "A", "=1", "A B=1", {"A": 1}, {1: "a"}, {"A": "\0"}, ["A"]]),
    ],
)
def test_what_is_no_unit_is_refused(
    parse: Callable[[object], object], refused: list[object]
) -> None:
    for value in refused:
        with pytest.raises(ValueError, match=r"^[a-z]"):
            parse(value)


@given(st.floats(0, 1e15) | st.integers(0, 10**9).map(lambda n: n / 1000))
@example(0.001)
@example(1e-9)
@example(1.580198713464867)
@QUICK
def test_a_duration_is_shown_so_that_it_reads_back(seconds: float) -> None:
    shown = units.parse_duration(units.show_duration(seconds))
    assert shown == pytest.approx(seconds, rel=1e-9, abs=1e-9)
    if (seconds * 1000).is_integer():
        assert shown == seconds


@given(st.integers(0, 10**17) | st.integers(0, 10**6).map(lambda n: n << 20))
@QUICK
def test_a_size_is_shown_so_that_it_reads_back(size: int) -> None:
    assert units.parse_size(units.show_size(size)) == size


ALPHABET = string.digits + ".-+ \0\néKMGsmhdB=,_a"
VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(ALPHABET, max_size=12)
ANYTHING = VALUES | st.lists(VALUES, max_size=3) | st.dictionaries(st.text(max_size=4), VALUES)
ALL_UNITS = ["DURATION", "SIZE", "COUNT", "FLAG", "TEXT", "NAMES", "ORIGINS", "PAIRS"]


@given(st.sampled_from(ALL_UNITS), ANYTHING)
@QUICK
def test_any_value_is_parsed_or_refused_with_a_rule(name: str, value: object) -> None:
    unit = getattr(units, name)
    try:
        found = unit.parse(value)
    except ValueError as error:
        rule = str(error)
    else:
        rule = "shown"
        assert isinstance(unit.show(found), str)
    assert rule


def loaded_or_told(toml: str, environ: Mapping[str, str], flags: Mapping[str, object]) -> bool:
    try:
        return isinstance(load(toml, environ, flags), Loaded)
    except ConfigError as error:
        return bool(error.problems) and all(str(problem) for problem in error.problems)


NAMES = st.sampled_from([*load().origins, "profiles.x", "profiles..warm", "", ".", "x.y"])
VARIABLES = st.sampled_from([item.env for item in describe()]) | st.text(
    string.ascii_uppercase + "_", max_size=12
).map("BROKER_".__add__)


@given(
    st.text(st.sampled_from("portsein[].={}\"' \n0123#"), max_size=40) | st.text(max_size=20),
    st.dictionaries(VARIABLES, st.text(ALPHABET, max_size=8), max_size=3),
    st.dictionaries(NAMES, ANYTHING, max_size=3),
)
@QUICK
def test_any_sources_are_loaded_or_refused(
    toml: str, environ: dict[str, str], flags: dict[str, object]
) -> None:
    assert loaded_or_told(toml, environ, flags)
