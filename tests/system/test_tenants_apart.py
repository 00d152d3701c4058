"""A profile whose tenants have zygotes of their own: made when used, adopted, gone at the end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.system.conftest import StartBroker
from tests.system.peer import call, execute, metric, new_name, row_of, steady, value_of

SETTINGS = """
[profiles.python]
preload = []
warm = 1
warm_most = 1
zygote = "tenant"
"""
POOL = "python@default"


def configured(directory: Path) -> tuple[Path, str, str]:
    (directory / "broker.toml").write_text(SETTINGS)
    return directory, "--config", str(directory / "broker.toml")


def test_a_tenants_zygote_comes_with_its_first_session(
    start_broker: StartBroker, short_dir: Callable[[], Path]
) -> None:
    with start_broker(*configured(short_dir())) as broker:
        before = call(broker, "GET", "/v1/pools").body
        assert (before["pools"], before["zygotes"]) == ([], [])
        assert call(broker, "GET", "/readyz").status == 200
        name = new_name()
        assert value_of(broker, name, "6 * 7") == "42"
        steady(broker)
        after = call(broker, "GET", "/v1/pools").body
        [pool] = after["pools"]
        assert (pool["profile"], pool["warm"], pool["bound"]) == (POOL, 1, 1)
        assert [row["profile"] for row in after["zygotes"]] == [POOL]
        assert metric(broker, "broker_kernels", profile=POOL, state="bound") == 1
        [node] = call(broker, "GET", "/v1/nodes").body["nodes"]
        assert (pool["isolation"], pool["mode"]) == (node["isolation"], node["mode"])
        assert row_of(broker, name)["profile"] == "python"
        zygote = psutil.Process(after["zygotes"][0]["pid"])
    psutil.wait_procs([zygote], timeout=10)
    assert not zygote.is_running()
    assert not [*broker.state_dir.glob("k/python@*")]


def test_a_tenants_kernels_outlive_a_killed_broker(
    start_broker: StartBroker, short_dir: Callable[[], Path]
) -> None:
    place, name = configured(short_dir()), new_name()
    with start_broker(*place) as broker:
        execute(broker, name, "x = 20")
        steady(broker)
        [pool] = call(broker, "GET", "/v1/pools").body["pools"]
        # The next broker has seen no demand yet: what is warm beyond `warm` may make way.
        bound = {one["kernel"] for one in pool["kernels"] if one["state"] == "bound"}
        assert bound
        os.kill(broker.pid, signal.SIGKILL)
        broker.process.wait(20)
    with start_broker(*place) as again:
        assert value_of(again, name, "x * 2 + 2") == "42"
        assert row_of(again, name)["generation"] == 1
        [later] = call(again, "GET", "/v1/pools").body["pools"]
        assert later["profile"] == POOL
        adopted = {kernel["kernel"] for kernel in later["kernels"]}
        assert bound <= adopted
