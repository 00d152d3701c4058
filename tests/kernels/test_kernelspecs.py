"""What a kernelspec's program is, and what of the host it is shown."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kernels.errors import LaunchError
from kernels.kernelspecs import homes, look_up, needed
from kernels.options import child_options
from kernels.spec import KernelSpec, Limits


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Return a function that installs a kernelspec and returns its directory."""
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))

    def install(name: str, argv: list[str], **fields: Any) -> str:
        folder = tmp_path / "kernels" / name
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(
            json.dumps({"argv": argv, "display_name": name, "language": "x", **fields})
        )
        return str(folder)

    return install


def program(path: Path) -> str:
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return str(path)


def test_the_fields_of_its_command_are_filled_in_and_unknown_ones_stay(
    install: Callable[..., str],
) -> None:
    folder = install("x", ["sh", "{resource_dir}/a", "{prefix}", "-f={connection_file}", "{other}"])
    found = look_up("x")
    words = found.command("c.json")
    assert os.path.basename(words[0]) == "sh"
    assert os.path.isabs(words[0])
    assert words[1:] == [f"{folder}/a", sys.prefix, "-f=c.json", "{other}"]
    assert folder in found.paths


def test_plain_python_is_this_interpreter_and_brings_its_libraries(
    install: Callable[..., str],
) -> None:
    install("x", ["python3", "-m", "thing"])
    found = look_up("x")
    assert found.argv[0] == sys.executable
    assert sys.prefix in found.paths


def test_a_program_is_found_by_its_resource_directory_too(install: Callable[..., str]) -> None:
    folder = install("x", ["{resource_dir}/bin/run"])
    path = program(Path(folder) / "bin" / "run")
    assert look_up("x").argv == (path,)


def test_a_missing_program_and_an_empty_command_are_told(install: Callable[..., str]) -> None:
    install("missing", ["no-such-program-anywhere"])
    install("empty", [])
    with pytest.raises(LaunchError, match="no program 'no-such-program-anywhere'"):
        look_up("missing")
    with pytest.raises(LaunchError, match="names no program"):
        look_up("empty")


def test_our_own_provisioner_is_a_local_one(install: Callable[..., str]) -> None:
    ours = {"kernel_provisioner": {"provisioner_name": "kernel-broker-zygote"}}
    install("x", ["sh"], metadata=ours)
    assert look_up("x").name == "x"


def test_the_tree_around_a_program_is_shown(tmp_path: Path) -> None:
    path = program(tmp_path / "opt" / "lang" / "bin" / "lang")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "lang").symlink_to(path)
    shown = needed(str(tmp_path / "links" / "lang"), ())
    assert str(tmp_path / "links") in shown
    assert str(tmp_path / "opt" / "lang") in shown


@pytest.mark.parametrize("place", [".", ".local", ".cargo"])
def test_of_a_home_only_the_programs_are_shown(tmp_path: Path, place: str) -> None:
    home = tmp_path / "home" / "anna"
    path = program(home / place / "bin" / "lang")
    shown = needed(path, [str(home)])
    assert {os.path.normpath(each) for each in shown} == {
        os.path.normpath(home / place / "bin"),
    }


def test_a_tree_of_its_own_below_a_home_is_shown(tmp_path: Path) -> None:
    home = tmp_path / "home" / "anna"
    path = program(home / ".julia" / "julia-1.12" / "bin" / "julia")
    assert str(home / ".julia" / "julia-1.12") in needed(path, [str(home)])


def test_a_command_of_a_virtual_environment_brings_its_interpreters_libraries() -> None:
    shown = needed(os.path.join(sys.prefix, "bin", "jupyter"), homes())
    assert sys.prefix in shown
    assert any(os.path.samefile(sys.base_prefix, path) for path in shown)


@pytest.mark.parametrize(
    ("network", "transport", "address"),
    [("none", "tcp", ("127.0.0.1", 61_001)), ("host", "ipc", ("/tmp/.sockets/k", 1))],  # noqa: S108
)
def test_ports_are_for_a_network_of_its_own_only(
    install: Callable[..., str], network: str, transport: str, address: tuple[str, int]
) -> None:
    install("x", ["sh"])
    spec = KernelSpec(kernelspec="x", network=network)
    connection = child_options(spec, "key", program=look_up("x"))["connection"]
    assert connection["transport"] == transport
    assert (connection["ip"], connection["shell_port"]) == address


@pytest.mark.parametrize(
    ("memory", "counted", "mapped"),
    [(1 << 30, True, 0), (1 << 30, False, 2 << 30), (0, True, 0), (0, False, 0)],
)
def test_its_mappings_are_bounded_only_where_nothing_counts_its_memory(
    install: Callable[..., str], memory: int, counted: bool, mapped: int
) -> None:
    install("x", ["sh"])
    spec = KernelSpec(kernelspec="x", limits=Limits(memory=memory))
    options = child_options(spec, "key", program=look_up("x"), counted=counted)
    assert options["limits"]["memory"] == mapped
