"""No kernel before its sandbox has held; what falls short is named with its remedy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.proof import Proven
from kernels.errors import IsolationUnavailable, LaunchError
from kernels.spec import Finding, Usage
from tests.broker.service_fakes import SilentKernel

HELD = Finding("seccomp", "io_uring_setup", True, "ENOSYS")
LEAK = Finding("mounts", "read /etc/shadow", False, "1,204 bytes read", "mount it elsewhere")


class FakeLauncher:
    """Reaches a level once it has started, and finds what a test has it find."""

    zygote_pid = 7

    def __init__(self, level: str = "full", *findings: Finding) -> None:
        self.level = "none"
        self.mode = ""
        self.reached = level
        self.findings = list(findings)
        self.error: Exception | None = None
        self.starts = self.tests = 0
        self.kernels: list[SilentKernel] = []
        self.outlived: list[tuple[SilentKernel, str]] = []

    def used(self) -> Usage:
        return Usage()

    async def start(self) -> None:
        self.starts += 1
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        self.level = self.reached
        self.mode = "root" if self.reached != "none" else ""

    async def self_test(self) -> list[Finding]:
        self.tests += 1
        return self.findings

    async def launch(self, *, workspace: Any = None) -> Any:
        self.kernels.append(SilentKernel(f"k{len(self.kernels)}"))
        return self.kernels[-1]

    def drop_workspace(self, workspace: Any) -> None: ...

    async def adopt(self) -> list[tuple[Any, str]]:
        return [*self.outlived]

    async def aclose(self, *, leave: bool = False) -> None: ...


async def test_the_sandbox_is_tried_before_the_first_kernel_and_once() -> None:
    source = FakeLauncher("full", HELD)
    launcher = Proven("python", source, least="full")
    await asyncio.gather(launcher.launch(), launcher.launch())
    assert (source.starts, source.tests, len(source.kernels)) == (1, 1, 2)
    assert (launcher.level, launcher.mode, launcher.told) == ("full", "root", "full (root)")
    assert launcher.findings == (HELD,)


@pytest.mark.parametrize(
    ("level", "least", "enough"),
    [
        ("full", "full", True),
        ("full", "none", True),
        ("standard", "standard", True),
        ("none", "none", True),
        ("standard", "full", False),
        ("none", "full", False),
        ("none", "standard", False),
    ],
)
async def test_the_level_reached_must_be_at_least_the_one_asked_for(
    level: str, least: str, enough: bool
) -> None:
    launcher = Proven("python", FakeLauncher(level, HELD), least=least)
    if enough:
        await launcher.prove()
    else:
        with pytest.raises(IsolationUnavailable, match=f"'{least}' is not available .* '{level}"):
            await launcher.launch()


async def test_a_leak_is_refused_naming_the_layer_the_case_and_the_remedy() -> None:
    source = FakeLauncher("full", HELD, LEAK)
    launcher = Proven("data", source, least="standard")
    with pytest.raises(IsolationUnavailable) as caught:
        await launcher.launch()
    assert source.kernels == []
    assert (caught.value.layer, caught.value.remedy) == ("mounts", "mount it elsewhere")
    for word in ("data", "mounts", "read /etc/shadow", "1,204 bytes read", "mount it elsewhere"):
        assert word in str(caught.value)


async def test_a_sandbox_that_was_mended_is_tried_again_at_the_next_start() -> None:
    source = FakeLauncher("full", LEAK)
    launcher = Proven("python", source, least="full")
    with pytest.raises(IsolationUnavailable):
        await launcher.launch()
    source.findings = [HELD]
    await launcher.launch()
    assert (source.tests, launcher.level) == (2, "full")


async def test_what_leaks_is_told_as_none_where_none_is_enough() -> None:
    launcher = Proven("python", FakeLauncher("full", LEAK), least="none")
    await launcher.launch()
    assert launcher.level == "none"


async def test_a_launcher_that_cannot_start_says_why_itself() -> None:
    source = FakeLauncher()
    source.error = LaunchError("cannot import polars")
    with pytest.raises(LaunchError, match="polars"):
        await Proven("python", source, least="none").launch()


async def test_without_a_proof_only_what_is_bound_is_adopted() -> None:
    source = FakeLauncher("full", LEAK)
    warm, bound = SilentKernel("warm"), SilentKernel("bound")
    source.outlived = [(warm, ""), (bound, "{}")]
    launcher = Proven("python", source, least="full")
    with pytest.raises(IsolationUnavailable):
        await launcher.prove()
    assert await launcher.adopt() == [(bound, "{}")]
    assert warm.exited.done()
    assert not bound.exited.done()
    source.findings = []
    await launcher.prove()
    assert len(await launcher.adopt()) == 2
