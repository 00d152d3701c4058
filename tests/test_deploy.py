"""What deploy/ says of the product is so, and each of its lines says why."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.cli.serve import serve
from broker.config import Config, describe, load
from kernels.sandbox import cgroup_v2, seccomp

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
UNITS = [DEPLOY / "kernel-broker.service", DEPLOY / "kernel-broker-user.service"]
FILES = [*UNITS, DEPLOY / "Dockerfile", DEPLOY / "compose.yaml", DEPLOY / "apparmor/kernel-broker"]
SECURITY = (DEPLOY / "docs/security.md").read_text()
DEFAULTS = Config()
SETTINGS = {one.name: one.default for one in describe()}
VARIABLES = {one.env for one in describe()}

# Calls that nothing in a container should make, the broker included.
NEVER = """
    bpf perf_event_open userfaultfd io_uring_setup kexec_load kexec_file_load init_module
    finit_module delete_module reboot swapon swapoff acct open_by_handle_at ptrace
    process_vm_readv process_vm_writev settimeofday clock_settime clone3 fsopen quotactl
"""


# -- reading --------------------------------------------------------------------------------------


def options(unit: Path) -> dict[str, str]:
    """Return the last value of each option of a unit."""
    lines = unit.read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if re.match(r"[A-Z]\w+=", line))
    return {pair[0]: pair[1] for pair in pairs}


Tree = dict[str, "Tree"] | list["Tree"] | str


def read_yaml(text: str) -> Tree:
    """Read what compose.yaml uses of YAML: maps, lists of scalars, comments above them."""
    lines = [line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    tree, rest = _block([(len(line) - len(line.lstrip()), line.strip()) for line in lines])
    assert not rest, rest[0]
    return tree


def _block(lines: list[tuple[int, str]]) -> tuple[Tree, list[tuple[int, str]]]:
    if not lines:
        return "", lines
    depth = lines[0][0]
    items: list[Tree] = []
    fields: dict[str, Tree] = {}
    while lines and lines[0][0] == depth:
        (_, line), lines = lines[0], lines[1:]
        if line.startswith("- "):
            items.append(line[2:].strip('"'))
            continue
        name, _, value = line.partition(":")
        assert value[:1] in ("", " "), line
        fields[name] = value.strip()
        if not value and lines and lines[0][0] > depth:
            fields[name], lines = _block(lines)
    return items or fields, lines


def compose(*names: str) -> Tree:
    """Return a part of compose.yaml."""
    tree = read_yaml((DEPLOY / "compose.yaml").read_text())
    for name in names:
        assert isinstance(tree, dict)
        tree = tree[name]
    return tree


def without_reason(lines: list[str], option: str) -> Iterator[str]:
    """Yield the lines that match `option` and follow no comment."""
    for above, line in zip(["", *lines], lines, strict=False):
        if re.match(option, line) and not above.strip().startswith("#"):
            yield line


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_variable_of_ours_is_a_setting(file: Path) -> None:
    used = set(re.findall(r"\bBROKER_[A-Z0-9_]+", file.read_text()))
    assert used <= VARIABLES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_setting_in_a_comment_exists_and_has_the_default_it_says(file: Path) -> None:
    for name, default in re.findall(r"`([a-z][a-z_<>.]*)`(?: \((\w+)\))?", file.read_text()):
        if default or "_" in name or "." in name:
            assert name in SETTINGS, name
            assert default in ("", SETTINGS[name])


@pytest.mark.parametrize("name", ["security.md", "operations.md"])
def test_the_documents_name_no_setting_that_does_not_exist(name: str) -> None:
    text = (DEPLOY / "docs" / name).read_text()
    named = set(re.findall(r"`((?:redis|session|wire|pool|profiles)\.[a-z_<>.]+[a-z])", text))
    assert named
    assert named <= SETTINGS.keys()


def test_the_environment_of_the_container_is_a_configuration_that_loads() -> None:
    environment = compose("services", "broker", "environment")
    assert isinstance(environment, dict)
    given = {name: re.sub(r"\$\{[^}]*\}", "x" * 16, str(environment[name])) for name in environment}
    config = load(environ=given).config
    assert config.isolation == "full"
    assert config.port == DEFAULTS.port


def test_the_command_line_of_every_unit_is_one_that_serve_takes() -> None:
    known = {flag for parameter in serve.params for flag in parameter.opts}
    for unit in UNITS:
        program, command, *flags = options(unit)["ExecStart"].split()
        assert (program, command) == ("/opt/kernel-broker/bin/broker", "serve")
        assert {flag for flag in flags if flag.startswith("--")} <= known


def test_the_threat_model_is_the_same_wherever_it_stands() -> None:
    for text in (SECURITY, (ROOT / "README.md").read_text()):
        told = text.partition("<!-- threats:begin -->")[2].partition("<!-- threats:end -->")[0]
        assert re.findall(r"^\d", told, re.MULTILINE) == list("12345")
        assert told in SECURITY


# -- units ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_option_of_a_service_has_its_reason(unit: Path) -> None:
    _, service = unit.read_text().split("[Service]\n")
    service, _ = service.split("[Install]\n")
    assert not list(without_reason(service.splitlines(), r"\w+="))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_kernels_have_cgroups_and_outlive_a_broker_that_was_killed(unit: Path) -> None:
    given = options(unit)
    assert given["Delegate"] == "yes"
    assert given["DelegateSubgroup"] == cgroup_v2.LEAF
    assert given["KillMode"] == "process"
    assert given["OOMPolicy"] == "continue"
    assert given["TasksMax"] == "infinity"
    assert int(given["TimeoutStopSec"]) > DEFAULTS.drain_timeout
    assert int(given["RestartSec"]) < DEFAULTS.orphan_ttl


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_no_option_is_in_the_way_of_a_sandbox(unit: Path) -> None:
    text = unit.read_text()
    left_out = {"RestrictNamespaces", "PrivateUsers", "ProtectKernelTunables", "ProtectKernelLogs"}
    left_out |= {"ProtectControlGroups", "ProtectHostname", "RestrictSUIDSGID", "SystemCallFilter"}
    assert left_out.isdisjoint(options(unit))
    if unit == UNITS[0]:
        assert all(f"{name}=" in text for name in left_out)  # and the file says why
    else:
        assert "NoNewPrivileges" not in options(unit)  # newuidmap gains by its exec


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_journal_does_not_get_the_token(unit: Path) -> None:
    given = options(unit)
    assert (given["StandardOutput"], given["StandardError"]) == ("null", "journal")


def test_a_service_may_open_as_many_files_as_its_kernels() -> None:
    wanted = DEFAULTS.profiles["python"].open_files
    assert int(options(UNITS[0])["LimitNOFILE"]) >= wanted
    assert int(str(compose("services", "broker", "ulimits", "nofile"))) >= wanted


def test_apparmor_lets_through_the_interpreter_that_the_units_start_and_no_other() -> None:
    text = (DEPLOY / "apparmor/kernel-broker").read_text()
    rule = re.search(
        r"^profile kernel-broker (\S+) flags=\(unconfined\) \{\n  userns,$", text, re.MULTILINE
    )
    assert rule is not None
    folder = str(Path(options(UNITS[0])["ExecStart"].split()[0]).parent)
    assert rule[1] == folder + "/python{,3,3.[0-9]*}"


# -- container ------------------------------------------------------------------------------------


def test_the_image_has_the_python_that_the_project_is_tested_with() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    version = re.search(r"^ARG BASE=python:(3\.\d+)-slim-bookworm$", dockerfile, re.MULTILINE)
    assert version is not None
    assert f"Programming Language :: Python :: {version[1]}" in project["classifiers"]


def test_the_image_takes_nothing_but_what_the_lock_has_hashes_for() -> None:
    dockerfile = re.sub(r" \\\n\s*", " ", (DEPLOY / "Dockerfile").read_text())
    installs = re.findall(r"pip (?:install|wheel) .*", dockerfile)
    assert len(installs) == 4
    for install in installs:
        from_lock = "--require-hashes" in install and "--requirement requirements.lock" in install
        from_wheels = "--no-index --find-links /wheels" in install
        own = "--no-deps --no-build-isolation" in install
        assert from_lock or from_wheels or own, install


def test_a_lock_is_installed_without_looking_for_what_it_does_not_name() -> None:
    # pip takes the newest of what an extra asks for, and then has no hash for it.
    for file in ("deploy/Dockerfile", "deploy/setup-venv", "tests/environments.py"):
        text = re.sub(r"\W+", " ", (ROOT / file).read_text())
        assert "require hashes" in text
        assert text.count("no deps require hashes") == text.count("require hashes"), file


def test_the_image_asks_the_port_and_the_route_that_there_are() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert f"http://127.0.0.1:{DEFAULTS.port}/readyz" in dockerfile
    assert f"EXPOSE {DEFAULTS.port}" in dockerfile
    assert '"/readyz"' in (ROOT / "broker/web/node_routes.py").read_text()
    assert 'ENTRYPOINT ["tini", "--", "broker"]' in dockerfile


def test_no_port_is_published_without_a_token() -> None:
    assert compose("services", "broker", "ports") == [f"127.0.0.1:{DEFAULTS.port}:{DEFAULTS.port}"]
    assert str(compose("services", "broker", "environment", "BROKER_TOKEN")).startswith(
        "${BROKER_TOKEN:?"  # compose refuses to start where it is unset or empty
    )
    store = compose("services", "store")
    assert isinstance(store, dict)
    assert "ports" not in store
    assert compose("networks", "store", "internal") == "true"


def test_the_container_has_what_a_sandbox_needs_and_the_documents_name_it() -> None:
    given = compose("services", "broker", "security_opt")
    assert isinstance(given, list)
    assert given == [
        "seccomp=seccomp.json",
        "apparmor=unconfined",
        "systempaths=unconfined",
        "writable-cgroups=true",
        "no-new-privileges=true",
    ]
    assert all(f"`{option}`" in SECURITY for option in given)
    broker = compose("services", "broker")
    assert isinstance(broker, dict)
    assert (broker["cap_drop"], broker["cap_add"]) == (
        ["ALL"],
        ["CHOWN", "DAC_OVERRIDE", "SETUID", "SETGID"],
    )
    assert broker["cgroup"] == "private"
    assert broker["read_only"] == "true"
    assert int(str(broker["stop_grace_period"]).rstrip("s")) > DEFAULTS.drain_timeout
    assert broker.keys().isdisjoint({"privileged", "pid", "network_mode", "devices"})


def test_every_option_of_the_container_has_its_reason() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    broker = text[text.index("  broker:\n") : text.index("\n  store:\n")].splitlines()
    for block in ("environment:", "networks:", "security_opt:"):  # a reason for each part
        broker.insert(broker.index(f"    {block}"), "    #")
    assert not list(without_reason(broker, r"    \w+:"))
    start = broker.index("    security_opt:")
    assert not list(without_reason(broker[start:], r"      - "))


# -- the container's own filter -------------------------------------------------------------------


def allowed() -> set[str]:
    """Return the calls that seccomp.json allows."""
    profile = json.loads((DEPLOY / "seccomp.json").read_text())
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert profile["defaultErrnoRet"] == seccomp.UNKNOWN & 0xFFFF  # as the kernels' own filter
    assert profile["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]
    names = [name for rule in profile["syscalls"] for name in rule["names"]]
    assert all(
        rule["comment"] and rule["action"] == "SCMP_ACT_ALLOW" for rule in profile["syscalls"]
    )
    assert len(names) == len(set(names))
    return set(names)


def test_the_containers_filter_allows_what_kernels_may_call() -> None:
    refused = {name for names in seccomp.REFUSED.values() for name in names.split()}
    assert seccomp.policy(memory_files=True).keys() - refused <= allowed()


def test_the_containers_filter_allows_what_makes_a_sandbox() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "kernels/sandbox").glob("*.py"))
    called = set(re.findall(r"\bsyscall\(\s*\"(\w+)\"", sources))
    called |= {"unshare", "setns", "mount", "umount2", "sethostname", "prctl", "setgroups"}
    assert called <= allowed()


def test_the_containers_filter_allows_nothing_that_only_attacks_need() -> None:
    assert allowed().isdisjoint(NEVER.split())
