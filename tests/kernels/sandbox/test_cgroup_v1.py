"""A kernel's tree is held to its memory, processes and cores: real groups of version 1."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from kernels.sandbox import cgroup_v1, cgroup_v2
from kernels.sandbox.cgroup_v1 import CgroupsV1
from kernels.sandbox.cgroups import (
    Cgroup,
    Cgroups,
    Unavailable,
    own_hierarchies,
)
from tests.kernels.sandbox.children import in_child

MIB = 1 << 20
NOBODY = 65534


def fresh_name() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def groups() -> Iterator[CgroupsV1]:
    """Yield the directory of a broker nobody else is named like."""
    try:
        groups = Cgroups.open(fresh_name())
    except Unavailable as error:
        pytest.skip(f"no control groups here: {error}")
    if not isinstance(groups, CgroupsV1):
        pytest.skip(f"not version 1: {groups.evidence()}")
    yield groups
    groups.sweep(())
    groups.remove()


@pytest.fixture
def group(groups: CgroupsV1) -> Cgroup:
    return groups.make("kernel-1", memory=64 * MIB, processes=16, cpu=0)


def join(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.write(descriptor, b"0")
        os.close(descriptor)


@contextmanager
def member(group: Cgroup, act: Callable[[], object]) -> Iterator[int]:
    """Yield a child that acts within the group, once it is there; it is gone afterwards."""
    descriptors = group.join_descriptors()
    with ExitStack() as stack:
        for descriptor in descriptors:
            stack.callback(os.close, descriptor)
        ready, joined = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                join(descriptors)
                os.write(joined, b"1")
                act()
            finally:
                os._exit(0)
        os.close(joined)
        stack.callback(os.close, ready)
        assert os.read(ready, 1) == b"1"
        try:
            yield pid
        finally:
            os.kill(pid, signal.SIGKILL)  # not reaped before: the number is still its own
            os.waitpid(pid, 0)


def end_of(pid: int) -> int:
    """Wait for the child's end and leave it for `member` to reap."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended.si_status


def spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def eat(size: int) -> None:
    bytearray(b"x" * size)


def directories(groups: Cgroups) -> dict[str, Path]:
    """Return the broker's directory by controller, from where the system says we are."""
    name = Path(groups.evidence().split(" at ")[1]).name
    return {
        controller: Path(hierarchy.directory) / name
        for hierarchy in own_hierarchies()
        for controller in hierarchy.controllers
        if controller in ("memory", "pids", "cpu", "cpuacct")
    }


# -- limits -----------------------------------------------------------------------------------


def test_the_limits_are_the_systems(groups: CgroupsV1) -> None:
    groups.make("kernel-1", memory=64 * MIB, processes=7, cpu=0.5)
    at = {key: path / "kernel-1" for key, path in directories(groups).items()}
    assert int((at["memory"] / "memory.limit_in_bytes").read_text()) == 64 * MIB
    if (swap := at["memory"] / "memory.memsw.limit_in_bytes").exists():
        assert int(swap.read_text()) == 64 * MIB
    assert int((at["pids"] / "pids.max").read_text()) == 7
    assert int((at["cpu"] / "cpu.cfs_quota_us").read_text()) == 10_000
    assert int((at["cpu"] / "cpu.cfs_period_us").read_text()) == 20_000
    shares = directories(groups)["cpu"] / "cpu.shares"
    assert int(shares.read_text()) == 512  # the broker's own 1024 are never starved


def test_no_limit_is_what_zero_means(groups: CgroupsV1) -> None:
    groups.make("kernel-1", memory=0, processes=0, cpu=0)
    at = {key: path / "kernel-1" for key, path in directories(groups).items()}
    assert int((at["memory"] / "memory.limit_in_bytes").read_text()) > 1 << 50
    assert (at["pids"] / "pids.max").read_text() == "max\n"
    assert int((at["cpu"] / "cpu.cfs_quota_us").read_text()) == -1


def test_a_bound_kernels_limits_are_lowered(groups: CgroupsV1, group: Cgroup) -> None:
    group.set(memory=32 * MIB, cpu=0.25)
    at = {key: path / "kernel-1" for key, path in directories(groups).items()}
    assert int((at["memory"] / "memory.limit_in_bytes").read_text()) == 32 * MIB
    assert int((at["cpu"] / "cpu.cfs_quota_us").read_text()) == 5_000
    assert int((at["pids"] / "pids.max").read_text()) == 16


def test_memory_in_use_is_not_taken_away(group: Cgroup) -> None:
    kept: list[bytes] = []
    ready, filled = os.pipe()

    def hold() -> None:
        kept.append(b"x" * (24 * MIB))
        os.write(filled, b"1")
        signal.pause()

    with member(group, hold):
        os.read(ready, 1)
        with pytest.raises(OSError, match="busy"):
            group.set(memory=8 * MIB)
        assert group.oom_kills() == 0
    os.close(ready)
    os.close(filled)


def test_a_child_that_eats_memory_is_killed_and_we_learn_at_once(group: Cgroup) -> None:
    event = group.oom_descriptor()
    assert not group.is_out_of_memory()
    with member(group, lambda: eat(256 * MIB)) as pid:
        assert end_of(pid) == signal.SIGKILL
        assert select.select([event], [], [], 0.1)[0], "no word within 100 ms"
        assert group.is_out_of_memory()
        assert group.oom_kills() == 1
        assert not select.select([event], [], [], 0)[0], "the event was not taken"
    current, peak = group.memory()
    assert current is not None
    assert current < 32 * MIB
    assert peak == 64 * MIB
    group.reset_peak()
    assert group.memory()[1] == group.memory()[0]


def test_the_event_itself_tells_before_the_victim_is_counted(group: Cgroup) -> None:
    event = group.oom_descriptor()
    with member(group, lambda: eat(256 * MIB)):
        assert select.select([event], [], [], 5)[0]
        assert group.is_out_of_memory()


def test_a_group_out_of_memory_above_is_not_the_kernels_own_fault(groups: CgroupsV1) -> None:
    quiet = groups.make("quiet", memory=64 * MIB, processes=4, cpu=0)
    greedy = groups.make("greedy", memory=512 * MIB, processes=4, cpu=0)
    write_to = directories(groups)["memory"] / "memory.limit_in_bytes"
    write_to.write_text(str(32 * MIB))
    event = quiet.oom_descriptor()
    with member(quiet, signal.pause), member(greedy, lambda: eat(256 * MIB)) as pid:
        assert end_of(pid) == signal.SIGKILL
        assert select.select([event], [], [], 0.1)[0], "the system no longer tells groups below"
        assert not quiet.is_out_of_memory()
        assert greedy.is_out_of_memory()


def test_a_fork_bomb_stops_at_the_limit(group: Cgroup) -> None:
    count, counted = os.pipe()

    def bomb() -> None:
        for _ in range(100):
            try:
                if os.fork() == 0:
                    signal.pause()
            except BlockingIOError:
                os.write(counted, b"stopped")
                signal.pause()

    with member(group, bomb):
        assert os.read(count, 10) == b"stopped"
        assert group.processes() == 16
        group.kill()
    assert group.remove()
    os.close(count)
    os.close(counted)


def test_a_quota_of_half_a_core_holds(groups: CgroupsV1) -> None:
    group = groups.make("kernel-1", memory=0, processes=0, cpu=0.5)
    with member(group, lambda: spin(0.5)) as pid:
        end_of(pid)
    used = group.cpu_seconds()
    assert used is not None
    assert 0.02 < used < 0.35


def test_the_time_of_ended_processes_counts(group: Cgroup) -> None:
    assert group.cpu_seconds() == 0
    for _ in range(2):
        before = group.cpu_seconds() or 0.0
        with member(group, lambda: spin(0.05)) as pid:
            end_of(pid)
        assert (group.cpu_seconds() or 0.0) > before + 0.002
    assert group.processes() == 0


def test_all_groups_are_counted_together_with_the_time_of_those_that_are_gone(
    groups: CgroupsV1,
) -> None:
    assert groups.used()[0] == 0
    for kernel in ("kernel-8", "kernel-9"):
        before = groups.used()[0] or 0.0
        group = groups.make(kernel, memory=64 << 20, processes=8, cpu=0)
        with member(group, lambda: spin(0.05)) as pid:
            assert (groups.used()[1] or 0) > 0
            end_of(pid)
        assert group.remove()
        assert (groups.used()[0] or 0.0) > before + 0.002


# -- joining and leaving ----------------------------------------------------------------------


def test_a_child_joins_by_what_it_was_passed_whoever_it_has_become(groups: CgroupsV1) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    group = groups.make("kernel-1", memory=64 * MIB, processes=4, cpu=1)
    descriptors = group.join_descriptors()

    def become_and_join() -> str:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        join(descriptors)
        return Path("/proc/self/cgroup").read_text()

    where = in_child(become_and_join)
    for descriptor in descriptors:
        os.close(descriptor)
    for controller in ("memory", "pids", "cpu", "cpuacct"):
        line = next(x for x in where.splitlines() if controller in x.split(":")[1].split(","))
        assert line.endswith("/kernel-1"), line


def test_killing_leaves_no_process_however_they_fork(group: Cgroup) -> None:
    def fork_for_ever() -> None:
        while True:
            try:
                pid = os.fork()
            except BlockingIOError:
                continue
            if pid == 0:
                os.setsid()

    with member(group, fork_for_ever):
        group.kill()
        assert group.remove()


def test_a_group_removes_itself_with_all_that_is_in_it(groups: CgroupsV1, group: Cgroup) -> None:
    group.oom_descriptor()
    group.cpu_seconds()
    with member(group, signal.pause):
        assert group.remove()
    assert groups.names() == set()
    assert group.remove()  # again, and nothing is amiss
    assert group.processes() is None
    assert group.cpu_seconds() is None


def test_a_later_broker_finds_the_group_and_sweeps_the_rest(groups: CgroupsV1) -> None:
    for kernel in ("kept", "left", "broken"):
        groups.make(kernel, memory=64 * MIB, processes=4, cpu=1)
    (directories(groups)["pids"] / "broken").rmdir()
    name = directories(groups)["pids"].name.removeprefix("kernel-broker-")
    later = Cgroups.open(name)
    kept = later.find("kept")
    assert kept is not None
    assert later.find("broken") is None
    assert later.find("never") is None
    with member(kept, signal.pause):
        later.sweep({"kept"})
        assert groups.names() == {"kept"}
        assert kept.processes() == 1
        later.remove()  # not empty: it stays
        assert groups.find("kept") is not None
    assert kept.remove()
    later.remove()
    assert not any(path.exists() for path in directories(groups).values())


def test_a_directory_that_is_not_ours_is_left_alone(groups: CgroupsV1, group: Cgroup) -> None:
    foreign = directories(groups)["pids"] / "not ours"
    foreign.mkdir()
    groups.sweep(())
    assert groups.names() == {"not ours"}
    foreign.rmdir()


def test_two_brokers_do_not_disturb_each_other(groups: CgroupsV1) -> None:
    other = Cgroups.open(fresh_name())
    try:
        mine = groups.make("kernel-1", memory=64 * MIB, processes=4, cpu=1)
        other.make("kernel-1", memory=32 * MIB, processes=4, cpu=1)
        with member(mine, signal.pause):
            other.sweep(())
            assert other.names() == set()
            assert mine.processes() == 1
    finally:
        other.sweep(())
        other.remove()


def test_a_name_is_one_directory(groups: CgroupsV1) -> None:
    for name in ("../x", "", ".", "a/b", "a b"):
        with pytest.raises(ValueError, match="cannot name"):
            groups.make(name, memory=0, processes=0, cpu=0)
    with pytest.raises(ValueError, match="cannot name"):
        Cgroups.open("../x")


def test_a_kernel_has_one_group(groups: CgroupsV1, group: Cgroup) -> None:
    with member(group, signal.pause):
        with pytest.raises(FileExistsError):
            groups.make("kernel-1", memory=0, processes=0, cpu=0)
        assert group.processes() == 1  # the failure has touched nothing


# -- ordinary users ---------------------------------------------------------------------------


def test_the_remedy_makes_it_work_for_an_ordinary_user(groups: CgroupsV1) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    assert cgroup_v1, cgroup_v2  # imported while we may read them
    name = fresh_name()

    def become_and_open() -> tuple[str, str]:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        try:
            mine = Cgroups.open(name)
        except Unavailable as error:
            return error.reason, error.remedy
        group = mine.make("kernel-1", memory=64 * MIB, processes=4, cpu=0.5)
        with member(group, signal.pause):
            seen = f"{group.processes()} in {sorted(mine.controllers)}"
            group.oom_descriptor()
            group.kill()
        return seen, "" if group.remove() else "it is still there"

    reason, remedy = in_child(become_and_open)
    assert "cannot be used: Permission denied" in reason
    commands = remedy.removeprefix("As root: ").split(". In a container")[0]
    try:
        subprocess.run(["/bin/sh", "-ec", commands], check=True)
        assert in_child(become_and_open) == ("1 in ['cpu', 'memory', 'pids']", "")
    finally:
        for path in directories(groups).values():
            path.with_name(f"kernel-broker-{name}").rmdir()
