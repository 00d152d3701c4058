"""Version 2: on plain files in place of the system's, and without controllers on the real thing."""

from __future__ import annotations

import os
import select
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernels.sandbox.cgroup_v2 import CgroupsV2, CgroupV2, is_delegated
from kernels.sandbox.cgroups import Cgroups, Unavailable, own_hierarchies

REQUIRED = frozenset({"memory", "pids"})
ALL = frozenset({"memory", "pids", "cpu"})
NAME = "kernel-broker-x"


def fill(directory: Path, **files: str) -> Path:
    """Write files named as the system's: `memory_max` is memory.max."""
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name.replace("_", ".", 1)).write_text(text)
    return directory


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """Return a delegated group with one process in it, and the directories we would make."""
    fill(
        tmp_path / "app.scope",
        cgroup_controllers="cpuset cpu io memory pids\n",
        cgroup_subtree_control="",
        cgroup_type="domain\n",
        cgroup_procs="4242\n",
    )
    fill(tmp_path / "app.scope" / "broker", cgroup_procs="")
    fill(tmp_path / "app.scope" / NAME, cgroup_subtree_control="", cpu_weight="")
    return tmp_path / "app.scope"


def test_our_group_is_cleared_and_its_controllers_passed_on(base: Path) -> None:
    groups = CgroupsV2.prepare(str(base), NAME, REQUIRED)
    assert (base / "broker" / "cgroup.procs").read_text() == "4242"
    assert (base / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert (base / NAME / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"
    assert int((base / NAME / "cpu.weight").read_text()) < 100  # the leaf's
    assert groups.controllers == ALL
    assert groups.evidence() == f"v2: memory pids cpu at {base}/{NAME}"


def test_a_broker_started_in_the_leaf_moves_nobody(base: Path) -> None:
    (base / "cgroup.subtree_control").write_text("cpu memory pids\n")
    groups = CgroupsV2.prepare(str(base / "broker"), NAME, REQUIRED)
    assert (base / "broker" / "cgroup.procs").read_text() == ""
    assert groups.evidence().endswith(f"{base}/{NAME}")


def test_the_root_keeps_its_processes(base: Path) -> None:
    (base / "cgroup.type").unlink()
    CgroupsV2.prepare(str(base), NAME, REQUIRED)
    assert (base / "broker" / "cgroup.procs").read_text() == ""


def test_cpu_is_optional_unless_it_is_required(base: Path) -> None:
    (base / "cgroup.controllers").write_text("memory pids\n")
    assert CgroupsV2.prepare(str(base), NAME, REQUIRED).controllers == REQUIRED
    assert (base / NAME / "cgroup.subtree_control").read_text() == "+memory +pids"
    with pytest.raises(Unavailable, match="controller cpu is not given to"):
        CgroupsV2.prepare(str(base), NAME, ALL)


def test_a_missing_controller_is_named_with_its_remedy(base: Path) -> None:
    (base / "cgroup.controllers").write_text("cpu pids\n")
    with pytest.raises(Unavailable) as caught:
        CgroupsV2.prepare(str(base), NAME, REQUIRED)
    assert caught.value.reason == f"the cgroup v2 controller memory is not given to {base}"
    assert "systemd-run --user --scope -p Delegate=yes broker serve" in caught.value.remedy


def test_files_that_are_not_there_are_no_place_of_ours(base: Path) -> None:
    (base / "cgroup.subtree_control").unlink()
    with pytest.raises(Unavailable, match="is not writable for us"):
        CgroupsV2.prepare(str(base), NAME, REQUIRED)


def test_what_the_system_refuses_is_said(base: Path) -> None:
    (base / NAME / "cgroup.subtree_control").unlink()
    with pytest.raises(Unavailable, match=r"cannot be divided: .*cgroup\.subtree_control"):
        CgroupsV2.prepare(str(base), NAME, REQUIRED)


def test_all_groups_are_counted_together(base: Path) -> None:
    groups = CgroupsV2.prepare(str(base), NAME, REQUIRED)
    assert groups.used() == (None, None)
    fill(base / NAME, cpu_stat="usage_usec 2500000\nuser_usec 1\n", memory_current="7000\n")
    assert groups.used() == (2.5, 7000)


def test_detection_finds_a_pure_version_2(base: Path, tmp_path: Path) -> None:
    fill(
        tmp_path / "self",
        mountinfo=f"31 23 0:28 / {tmp_path} rw - cgroup2 cgroup2 rw,nsdelegate\n",
        cgroup="0::/app.scope\n",
    )
    groups = Cgroups.open("x", proc=str(tmp_path))
    assert (groups.version, groups.evidence()) == (2, f"v2: memory pids cpu at {base}/{NAME}")


def test_what_systemd_runs_is_divided_only_if_it_says_so(tmp_path: Path) -> None:
    assert is_delegated(str(tmp_path), systemd=str(tmp_path / "none"))
    if os.geteuid() != 0:
        pytest.skip("an ordinary user can write only to what is delegated")
    assert not is_delegated(str(tmp_path), systemd=str(tmp_path))
    try:
        os.setxattr(tmp_path, "user.delegate", b"1")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    assert is_delegated(str(tmp_path), systemd=str(tmp_path))


# -- one group, on plain files ----------------------------------------------------------------


@pytest.fixture
def group(tmp_path: Path) -> Iterator[CgroupV2]:
    fill(
        tmp_path / "kernel-1",
        memory_max="", memory_current="5000\n", memory_peak="9000\n", memory_oom_group="",
        memory_events="low 0\nhigh 0\nmax 3\noom 0\noom_kill 0\noom_group_kill 0\n",
        pids_max="", pids_current="7\n", cpu_max="", cgroup_kill="", cgroup_procs="",
        cpu_stat="usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n",
    )  # fmt: skip
    (tmp_path / "kernel-1" / "memory.oom.group").write_text("")
    group = CgroupV2("kernel-1", str(tmp_path / "kernel-1"), ALL)
    yield group
    group.close()


def test_the_limits_are_written(group: CgroupV2) -> None:
    group.settle()
    group.set(memory=1 << 30, processes=128, cpu=0.5)
    directory = Path(group.directory)
    assert (directory / "memory.max").read_text() == "1073741824"
    assert (directory / "memory.oom.group").read_text() == "1"
    assert (directory / "pids.max").read_text() == "128"
    assert (directory / "cpu.max").read_text() == "10000 20000"


def test_no_swap_where_swap_is_counted(group: CgroupV2) -> None:
    swap = Path(group.directory) / "memory.swap.max"
    swap.write_text("max")
    group.settle()
    assert swap.read_text().startswith("0")


def test_memory_in_use_is_not_taken_away(group: CgroupV2) -> None:
    with pytest.raises(OSError, match="busy"):
        group.set(memory=4999)
    assert (Path(group.directory) / "memory.max").read_text() == ""


def test_the_counters_are_read(group: CgroupV2) -> None:
    assert group.cpu_seconds() == 1.5
    assert group.memory() == (5000, 9000)
    assert group.processes() == 7
    assert group.oom_kills() == 0


def test_a_peak_that_cannot_be_reset_is_not_told(group: CgroupV2) -> None:
    (Path(group.directory) / "memory.peak").unlink()
    assert group.memory() == (5000, None)
    group.reset_peak()
    assert group.memory() == (5000, None)


def test_an_event_is_no_oom_until_it_is_counted(group: CgroupV2) -> None:
    events = Path(group.directory) / "memory.events"
    watch = group.oom_descriptor()
    assert not select.select([watch], [], [], 0)[0]
    events.write_text("max 4\noom 0\noom_kill 0\n")
    assert select.select([watch], [], [], 1)[0]
    assert not group.is_out_of_memory()
    assert not select.select([watch], [], [], 0)[0], "the event was not taken"
    events.write_text("max 5\noom 1\noom_kill 1\n")
    assert select.select([watch], [], [], 1)[0]
    assert group.is_out_of_memory()


def test_killing_is_one_write(group: CgroupV2) -> None:
    group.kill()
    assert (Path(group.directory) / "cgroup.kill").read_text() == "1"


# -- the real hierarchy, without controllers --------------------------------------------------


@pytest.fixture
def live() -> Iterator[CgroupsV2]:
    """Yield groups without limits in the mounted hierarchy."""
    own = next((h.directory for h in own_hierarchies() if h.version == 2), None)
    if own is None or not os.access(own, os.W_OK):
        pytest.skip("no version 2 hierarchy here that we may write to")
    directory = f"{own}/kernel-broker-test-{uuid.uuid4().hex[:12]}"
    try:
        os.mkdir(directory)
    except OSError as error:
        pytest.skip(f"no version 2 hierarchy here that we may write to: {error}")
    groups = CgroupsV2(directory, frozenset())
    yield groups
    groups.sweep(())
    groups.remove()
    assert not os.path.exists(directory)


def test_a_child_joins_and_dies_with_the_group(live: CgroupsV2) -> None:
    group = live.make("kernel-1", memory=1, processes=1, cpu=1)
    (procs,) = group.join_descriptors()
    ready, joined = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(procs, b"0")
        os.fork()
        os.write(joined, b"1")
        signal.pause()
        os._exit(0)
    os.close(procs)
    assert os.read(ready, 1) == b"1"
    found = live.find("kernel-1")
    assert found is not None
    assert (found.cpu_seconds() or 0) > 0
    assert group.remove()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert live.names() == set()
    assert found.cpu_seconds() is None
    found.close()
    os.close(ready)
    os.close(joined)
