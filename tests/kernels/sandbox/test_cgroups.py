"""Our own place is found in whatever hierarchies are mounted, and a lack of one is explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernels.sandbox.cgroup_v1 import CgroupsV1
from kernels.sandbox.cgroups import (
    Cgroups,
    Hierarchy,
    Unavailable,
    parse_hierarchies,
    quota,
)

OWN = "2:memory:/a\n1:cpu,cpuacct:/\n0::/\n"


def mounted(*mounts: str) -> str:
    """Return mountinfo's lines for `root mount type options`."""
    rest = "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
    for mount in mounts:
        root, point, kind, options = mount.split()
        rest += f"32 31 0:29 {root} {point} rw,relatime shared:9 - {kind} {kind} rw,{options}\n"
    return rest


@pytest.mark.parametrize(
    ("mounts", "cgroup", "expected"),
    [
        pytest.param(
            ["/ /c/memory cgroup memory", "/ /c/cpu,cpuacct cgroup cpu,cpuacct",
             "/ /c/systemd cgroup xattr,name=systemd", "/ /c/unified cgroup2 nsdelegate"],
            "3:name=systemd:/s\n" + OWN,
            {"memory": "/c/memory/a", "cpu,cpuacct": "/c/cpu,cpuacct",
             "name=systemd": "/c/systemd/s", "": "/c/unified"},
            id="hybrid, with cpu and cpuacct together",
        ),
        pytest.param(
            ["/docker/x /c/memory cgroup memory"], "2:memory:/docker/x/in\n",
            {"memory": "/c/memory/in"}, id="container, without a cgroup namespace",
        ),
        pytest.param(
            ["/docker/x /c/memory cgroup memory"], "2:memory:/docker/xyz\n0::/\n", {},
            id="mounted part is not ours",
        ),
        pytest.param(
            ["/.. /c/memory cgroup memory"], "2:memory:/../../b\n", {}, id="outside the namespace",
        ),
        pytest.param(
            ["/ /sys/fs/cgroup cgroup2 nsdelegate,memory_recursiveprot"],
            "0::/user.slice/app.scope\n", {"": "/sys/fs/cgroup/user.slice/app.scope"}, id="pure v2",
        ),
        pytest.param(
            ["/ /one cgroup memory", "/ /two cgroup memory"], "2:memory:/\n", {"memory": "/one"},
            id="mounted twice",
        ),
        pytest.param(
            ["/ /a\\040b cgroup memory"], "2:memory:/\n", {"memory": "/a b"}, id="a space",
        ),
        pytest.param([], OWN, {}, id="none mounted"),
        pytest.param(["/ /c/memory cgroup memory"], "", {}, id="none of ours"),
    ],
)  # fmt: skip
def test_each_hierarchy_shows_our_own_directory(
    mounts: list[str], cgroup: str, expected: dict[str, str]
) -> None:
    found = parse_hierarchies(mounted(*mounts), cgroup)
    assert {",".join(sorted(h.controllers)): h.directory for h in found} == expected
    assert all(h.version == (1 if h.controllers else 2) for h in found)


def fake_proc(path: Path, mounts: str, cgroup: str) -> str:
    (path / "self").mkdir()
    (path / "self" / "mountinfo").write_text(mounts)
    (path / "self" / "cgroup").write_text(cgroup)
    return str(path)


def test_a_system_without_hierarchies_is_told_to_mount_them(tmp_path: Path) -> None:
    with pytest.raises(Unavailable) as caught:
        Cgroups.open("x", proc=fake_proc(tmp_path, mounted(), OWN))
    assert caught.value.reason == "no cgroup hierarchy is mounted"
    assert "mount -t cgroup2" in caught.value.remedy


def test_the_missing_controller_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    hierarchy = Hierarchy(1, frozenset({"pids"}), str(tmp_path), str(tmp_path))
    with pytest.raises(Unavailable, match="controller memory is not mounted") as caught:
        CgroupsV1.prepare([hierarchy], "kernel-broker-x", frozenset({"memory", "pids"}))
    assert "mount -t cgroup -o memory memory /sys/fs/cgroup/memory" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []
    pids_alone = CgroupsV1.prepare([hierarchy], "kernel-broker-x", frozenset({"pids"}))
    assert pids_alone.controllers == {"pids"}
    assert pids_alone.evidence() == f"v1: pids at {tmp_path}/kernel-broker-x"


@pytest.mark.parametrize(
    ("cores", "expected"),
    [(1.0, (20_000, 20_000)), (0.5, (10_000, 20_000)), (4, (80_000, 20_000)),
     (0.05, (1_000, 20_000)), (0.01, (1_000, 100_000)), (0.0001, (1_000, 1_000_000))],
)  # fmt: skip
def test_cores_as_quota_and_period(cores: float, expected: tuple[int, int]) -> None:
    assert quota(cores) == expected
