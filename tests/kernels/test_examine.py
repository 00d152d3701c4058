"""What a host lacks is named with its remedy; what it has, with the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kernels.errors import IsolationUnavailable
from kernels.examine import NAMESPACES, POWERS, Host, examine
from kernels.sandbox.cgroups import Hierarchy
from kernels.spec import Finding, Limits

ALL_POWERS = f"{sum(1 << bit for bit in POWERS.values()):016x}"
GOOD = {
    "proc/sys/user/max_user_namespaces": "1000",
    "proc/sys/kernel/seccomp/actions_avail": "kill_process kill_thread trap errno log allow",
    "proc/self/mountinfo": "22 1 0:20 / /proc rw - proc proc rw",
    "proc/self/status": f"Name:\tx\nCapEff:\t{ALL_POWERS}\n",
    "proc/filesystems": "nodev\ttmpfs\n\text4",
}


def host(root: Path, facts: Mapping[str, str | None] | None = None, **changes: object) -> Host:
    """Make a host that has everything, but for the changes."""
    for name, text in {**GOOD, **(facts or {})}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is not None:
            path.write_text(text + "\n")
    (root / "proc/self/ns").mkdir(exist_ok=True)
    for file, *_ in NAMESPACES.values():
        (root / "proc/self/ns" / file).touch()
    groups = root / "cgroup"
    groups.mkdir(exist_ok=True)
    whole = Host(
        root=root,
        uid=0,
        release="6.1.0-13-amd64",
        machine="x86_64",
        landlock=2,
        open_files=20_000,
        mode=lambda: "root",
        ids=lambda: (100_000, 65_536),
        which=lambda name: f"/usr/bin/{name}",
        hierarchies=lambda: [
            Hierarchy(1, frozenset({name}), str(groups), str(groups))
            for name in ("memory", "pids", "cpu")
        ],
    )
    return replace(whole, **changes)  # type: ignore[arg-type]


def finding(found: list[Finding], layer: str) -> Finding:
    [one] = [one for one in found if one.layer == layer]
    return one


def test_a_host_that_has_everything_needs_nothing(tmp_path: Path) -> None:
    for uid, mode in ((0, "root"), (0, "root-plain"), (1000, "user-range")):
        found = examine(host(tmp_path, uid=uid, mode=partial(str, mode)))
        assert all(one.safe and not one.remedy for one in found)
        assert all(one.case and one.evidence for one in found)


def test_this_host_is_examined_without_a_fault() -> None:
    assert {"seccomp", "landlock", "cgroup memory"} <= {one.layer for one in examine()}


@pytest.mark.parametrize(
    ("layer", "facts", "changes", "remedy"),
    [
        ("system", {}, {"release": "5.13.19"}, "Linux 5.14 or later"),
        ("system", {}, {"machine": "riscv64"}, "x86_64 or aarch64"),
        (
            "user namespace",
            {"proc/sys/user/max_user_namespaces": "0"},
            {},
            "sysctl -w user.max_user_namespaces=",
        ),
        ("user namespace", {"proc/sys/user/max_user_namespaces": None}, {}, "CONFIG_USER_NS"),
        (
            "user namespace",
            {"proc/sys/kernel/unprivileged_userns_clone": "0"},
            {"uid": 1000},
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        (
            "apparmor",
            {"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"},
            {"uid": 1000},
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (
            "proc",
            {"proc/self/mountinfo": "22 1 0:20 / /proc rw - x\n23 22 0:5 / /proc/kcore ro - x"},
            {"uid": 1000},
            "systempaths=unconfined",
        ),
        ("landlock", {}, {"landlock": 0}, "lsm="),
        ("seccomp", {"proc/sys/kernel/seccomp/actions_avail": None}, {}, "CONFIG_SECCOMP_FILTER"),
        (
            "capabilities",
            {"proc/self/status": "CapEff:\t00000000000000e1"},
            {},
            "--cap-add CAP_DAC_OVERRIDE;",
        ),
        (
            "capabilities",
            {"proc/self/status": "CapEff:\t00000000000000e1"},
            {"mode": lambda: "root-plain"},
            "--cap-add CAP_DAC_OVERRIDE,CAP_SETPCAP,CAP_NET_ADMIN,CAP_SYS_CHROOT,CAP_SYS_ADMIN;",
        ),
        ("rlimits", {}, {"open_files": 1024}, "ulimit -Hn 4096"),
        ("workspace quota", {"proc/filesystems": "ext4"}, {}, "CONFIG_TMPFS"),
    ],
)
def test_what_is_missing_is_named_with_its_remedy(
    tmp_path: Path,
    layer: str,
    facts: Mapping[str, str | None],
    changes: Mapping[str, object],
    remedy: str,
) -> None:
    found = examine(host(tmp_path, {**dict.fromkeys(()), **facts}, **changes))
    one = finding(found, layer)
    assert not one.safe
    assert remedy in one.remedy
    assert [other.layer for other in found if not other.safe] == [layer]


@pytest.mark.parametrize(
    ("layer", "facts"),
    [
        ("apparmor", {"proc/sys/kernel/apparmor_restrict_unprivileged_userns": "1"}),
        ("user namespace", {"proc/sys/kernel/unprivileged_userns_clone": "0"}),
    ],
)
def test_what_is_refused_to_ordinary_users_is_not_missed_by_root(
    tmp_path: Path, layer: str, facts: Mapping[str, str]
) -> None:
    one = finding(examine(host(tmp_path, facts)), layer)
    assert (one.safe, one.remedy) == (True, "")


def test_an_ordinary_user_needs_no_capabilities(tmp_path: Path) -> None:
    none = {"proc/self/status": "CapEff:\t0000000000000000"}
    here = host(tmp_path, none, uid=1000, mode=lambda: "user")
    assert finding(examine(here), "capabilities").safe


def test_a_namespace_that_is_not_there_is_named_with_its_option(tmp_path: Path) -> None:
    here = host(tmp_path)
    (tmp_path / "proc/self/ns/uts").unlink()
    one = finding(examine(here), "uts namespace")
    assert (one.safe, one.remedy) == (False, "use a Linux kernel with CONFIG_UTS_NS")


def test_what_could_be_better_is_told_as_such(tmp_path: Path) -> None:
    masked = "22 1 0:20 / /proc rw - x\n23 22 0:5 / /proc/kcore ro - x"
    found = examine(host(tmp_path, {"proc/self/mountinfo": masked}))
    assert finding(found, "proc").safe
    assert "systempaths=unconfined" in finding(found, "proc").remedy
    found = examine(host(tmp_path, uid=1000, ids=lambda: None))
    assert finding(found, "user ids").safe
    assert "apt-get install uidmap" in finding(found, "user ids").remedy


def test_a_start_that_is_not_possible_is_told_in_its_own_words(tmp_path: Path) -> None:
    def mode() -> str:
        raise IsolationUnavailable("/proc is masked", layer="user namespace", remedy="unmask it")

    one = finding(examine(host(tmp_path, mode=mode)), "start mode")
    assert (one.safe, one.remedy) == (False, "unmask it")
    assert "/proc is masked" in one.evidence


def test_without_control_groups_memory_and_processes_are_missed_and_cores_are_not(
    tmp_path: Path,
) -> None:
    found = examine(host(tmp_path, hierarchies=list))
    assert [one.layer for one in found if not one.safe] == ["cgroup memory", "cgroup pids"]
    assert "Delegate=yes" in finding(found, "cgroup cpu").remedy


def test_a_group_of_version_2_must_have_the_controllers(tmp_path: Path) -> None:
    group = tmp_path / "own"
    group.mkdir()
    (group / "cgroup.controllers").write_text("memory pids\n")
    (group / "cgroup.procs").touch()
    found = examine(
        host(tmp_path, hierarchies=lambda: [Hierarchy(2, frozenset(), str(group), str(tmp_path))])
    )
    cpu = finding(found, "cgroup cpu")
    assert (cpu.safe, cpu.evidence) == (True, f"v2, {group} has memory pids")
    assert cpu.remedy


def test_the_bounds_of_the_profile_are_what_counts(tmp_path: Path) -> None:
    found = examine(host(tmp_path, open_files=5000), Limits(open_files=6000))
    assert not finding(found, "rlimits").safe
