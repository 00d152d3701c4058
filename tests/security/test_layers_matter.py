"""Each layer of the sandbox is there for something: with it left out, an attack succeeds.

Most attacks would be stopped by several layers. For a layer that is never the only one, those that
would stop the same attack are left out too, on both sides of the comparison: then it alone decides.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kernels.errors import LaunchError
from kernels.launch import Launcher
from kernels.sandbox import recipe, system
from kernels.spec import KernelSpec, Limits
from tests.kernels.conftest import directory
from tests.kernels.talk import talking
from tests.security.conftest import NEIGHBOUR
from tests.security.corpus import snippets

__all__ = ["directory"]

MEMORY = 128 << 20
SPEC = KernelSpec(preload=(), limits=Limits(memory=MEMORY))
KEY = f"kernel-broker-test-{os.getpid()}"
ABSTRACT = f"\0{KEY}"
ADD_KEY = {"x86_64": 248, "aarch64": 217}
JOIN_SESSION_KEYRING, SESSION_KEYRING = 1, -3


@dataclass(frozen=True)
class Row:
    """A layer, an attack that it stops, and the layers that would stop it as well."""

    layer: str
    attack: str
    also: tuple[str, ...] = ()
    needs_neighbour: bool = False

    def __str__(self) -> str:
        return f"{self.layer}: {self.attack}"


ROWS = [
    # What runs in the kernel's memory is counted by nothing else.
    Row("cgroup", "take_memory_in_a_nameless_file"),
    # One's own mounts hide the zygote's /proc.
    Row("mounts", "see_other_processes"),
    Row("namespaces", "share_a_neighbours_memory", ("mounts",), needs_neighbour=True),
    Row("network", "reach_a_neighbours_server", needs_neighbour=True),
    Row("keyring", "read_a_key_of_the_operators", ("seccomp",)),
    # Root of the zygote's user namespace owns every namespace of the kernel.
    Row("own id", "name_a_neighbours_host", ("user namespace", "capabilities", "seccomp")),
    # The last one: no other may be made in it.
    Row("user namespace", "become_root_of_a_new_user_namespace", ("capabilities", "seccomp")),
    Row("rlimits", "make_a_huge_file"),
    Row("capabilities", "leave_for_a_new_mount_namespace", ("seccomp",)),
    Row("no new privileges", "open_ones_memory_in_a_child", ("landlock", "seccomp")),
    Row("landlock", "rename_a_program_that_was_run"),
    Row("seccomp", "submit_calls_by_a_ring"),
    Row("seccomp", "ask_inherited_sockets_for_the_hosts_interfaces"),
    Row("seccomp", "send_urgent_data_between_sockets"),
]
# Not a wall but what others are built of: it fetches the workspace, and the way to the sysctl.
FOUNDATION = "workspace"

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="only a zygote of root's has ids to give away, and cgroups"
)


@pytest.fixture(scope="module")
def operators_key() -> str:
    """Put a key into a session keyring of this process's own, which all it starts inherit."""
    libc = ctypes.CDLL(None, use_errno=True)
    system.syscall("keyctl", JOIN_SESSION_KEYRING, None)
    number, name = ctypes.c_long(ADD_KEY[system.MACHINE]), KEY.encode()
    made = libc.syscall(number, b"user", name, b"x", ctypes.c_long(1), SESSION_KEYRING)
    if made < 0:
        pytest.skip(f"no key can be kept here: {os.strerror(ctypes.get_errno())}")
    return KEY


async def attacked(attack: str, directory: Path, without: Sequence[str], *, beside: bool) -> str:
    """Return what came of an attack in a sandbox without these layers."""
    launcher = Launcher(SPEC, directory, isolation="standard", without=without)
    host: dict[str, Any] = {"key": KEY, "limits": {"memory": MEMORY}}
    async with AsyncExitStack() as stack:
        stack.push_async_callback(launcher.aclose)
        await launcher.start()
        if attack == "take_memory_in_a_nameless_file" and launcher.level != "full":
            pytest.skip("there is no memory cgroup here")
        if beside:
            neighbour = await stack.enter_async_context(talking(launcher))
            code = NEIGHBOUR.format(secret="kept", abstract=ABSTRACT, places=())
            said = await neighbour.run(code)
            host["neighbour"] = json.loads(said.text())
        attacker = await stack.enter_async_context(talking(launcher))
        try:
            said = await attacker.run(snippets()[attack].cell(host))
        except EOFError as ended:
            return f"SAFE: the kernel ended: {ended}"
        return said.text().strip().rpartition("\n")[2] or said.value


@pytest.mark.parametrize("row", ROWS, ids=str)
@pytest.mark.usefixtures("operators_key")
async def test_an_attack_succeeds_only_without_the_layer_that_stops_it(
    row: Row, directory: Path
) -> None:
    beside = row.needs_neighbour
    kept = await attacked(row.attack, directory / "with", row.also, beside=beside)
    assert kept.startswith("SAFE:"), kept
    left_out = (*row.also, row.layer)
    free = await attacked(row.attack, directory / "without", left_out, beside=beside)
    assert free.startswith("UNSAFE:"), free


async def test_there_is_no_kernel_without_the_foundation_of_the_layers(directory: Path) -> None:
    launcher = Launcher(SPEC, directory / "k", isolation="standard", without=(FOUNDATION,))
    try:
        await launcher.start()
        with pytest.raises(LaunchError, match=r"mounts|workspace"):
            await launcher.launch()
    finally:
        await launcher.aclose()


def test_every_layer_has_an_attack_that_needs_it_left_out() -> None:
    layers = [layer for layer, _ in recipe.STEPS]
    assert {row.layer for row in ROWS} | {FOUNDATION} == set(layers)
    assert {layer for row in ROWS for layer in row.also} <= set(layers)
