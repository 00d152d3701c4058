"""Each setting of a profile reaches what it is a setting of."""

from __future__ import annotations

import pytest

from broker.config import Setting, describe, load
from broker.recipe import kernel_spec, session_limits
from kernels.spec import KernelSpec, Limits

SETTINGS = """
[session]
output_bytes = "2M"
display_bytes = "3M"
execution_timeout = "7m"
questions = 4
tool_calls = 8
tool_grace = "2s"

[profiles.data]
python = "/opt/data/bin/python"
preload = ["polars"]
env = {A = "1"}
memory = "2G"
processes = 40
cpu = 1.5
cpu_time = "90s"
execution_timeout = "1m"
workspace = "1G"
workspace_files = 999
tmp = "64M"
tmp_files = 888
open_files = 777
file_size = "512M"
network = "host"
paths = ["/srv/data/", "/srv/models"]
allow_imports = ["polars", "json"]
deny_imports = "ctypes, mmap"
recycle_forks = 55
recycle_after = "2h"
"""


def test_a_profiles_kernels_are_made_as_its_settings_say() -> None:
    config = load(SETTINGS).config
    assert kernel_spec("data", config.profiles["data"], config) == KernelSpec(
        name="data",
        python="/opt/data/bin/python",
        preload=("polars",),
        env=(("A", "1"),),
        network="host",
        paths=("/srv/data", "/srv/models"),
        allow_imports=("polars", "json"),
        deny_imports=("ctypes", "mmap"),
        recycle_forks=55,
        recycle_after=7200.0,
        limits=Limits(
            output_bytes=2 << 20,
            message_bytes=3 << 20,
            tool_calls=8,
            open_files=777,
            memory=2 << 30,
            processes=40,
            cpu=1.5,
            workspace_bytes=1 << 30,
            workspace_files=999,
            tmp_bytes=64 << 20,
            tmp_files=888,
            file_bytes=512 << 20,
        ),
    )


def test_without_settings_kernels_are_made_as_the_spec_says_itself() -> None:
    config = load().config
    assert kernel_spec("python", config.profiles["python"], config) == KernelSpec()


def test_a_profile_may_have_a_timeout_of_its_own_and_tells_its_sessions_their_bounds() -> None:
    config = load(SETTINGS).config
    data = session_limits(config.profiles["data"], config)
    assert (data.execution_timeout, data.cpu_time) == (60.0, 90.0)
    assert (data.questions, data.tool_calls, data.tool_grace) == (4, 8, 2.0)
    assert session_limits(config.profiles["python"], config).execution_timeout == 420.0
    assert data.told() == {
        "execution_timeout": 60.0,
        "idle_timeout": 1800.0,
        "max_lifetime": 43_200.0,
        "queue": 32,
        "output_bytes": 2 << 20,
        "cpu_time": 90.0,
        "memory": 2 << 30,
        "processes": 40,
        "cpu": 1.5,
        "workspace_bytes": 1 << 30,
    }


def test_what_nothing_holds_a_kernel_to_is_told_as_no_bound() -> None:
    config = load('isolation = "none"').config
    told = session_limits(config.profiles["python"], config).told()
    assert {told[name] for name in ("memory", "processes", "cpu", "workspace_bytes")} == {0}
    assert told["execution_timeout"] == 300.0


def test_a_timeout_of_0_is_no_timeout_and_not_the_sessions() -> None:
    config = load("[profiles.a]\nexecution_timeout = 0").config
    assert session_limits(config.profiles["a"], config).execution_timeout == 0.0


@pytest.mark.parametrize(
    "setting", [one for one in describe() if one.name.startswith("profiles.<name>.")]
)
def test_each_setting_of_a_profile_can_be_given_by_its_variable(setting: Setting) -> None:
    variable = setting.env.replace("<NAME>", "PYTHON")
    name = setting.name.replace("<name>", "python")
    assert load("", {variable: setting.default}).origins[name] == variable
