"""Which pool a session's kernels come from, and when a tenant's own is made."""

from __future__ import annotations

from typing import Any, cast

import pytest

from broker.errors import Draining
from broker.pool import Pool
from broker.pools import Pools


class Fake:
    """A pool and its source, and what has been done to them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = self
        self.done: list[str] = []

    def start(self) -> None:
        self.done.append("start")

    async def stop(self) -> None:
        self.done.append("stop")

    async def aclose(self) -> None:
        self.done.append("close")


class Scene:
    def __init__(self) -> None:
        self.made: list[Fake] = []
        self.python = Fake("python")
        self.pools = Pools({"python": cast(Pool[Any], self.python)}, {"data": self.make})

    def make(self, tenant: str) -> Pool[Any]:
        self.made.append(Fake(f"data of {tenant}"))
        return cast(Pool[Any], self.made[-1])


def test_tenants_share_a_profiles_pool_or_have_one_each() -> None:
    scene = Scene()
    assert scene.pools.get("python", "acme") is scene.pools.get("python", "umbrella")
    acme, umbrella = (scene.pools.get("data", tenant) for tenant in ("acme", "umbrella"))
    assert acme is not umbrella
    assert scene.pools.get("data", "acme") is acme
    assert [fake.name for fake in scene.made] == ["data of acme", "data of umbrella"]
    assert [name for name, _ in scene.pools.items()] == ["python", "data@acme", "data@umbrella"]


def test_a_profile_is_known_before_any_tenant_has_used_it() -> None:
    scene = Scene()
    assert "data" in scene.pools
    assert "python" in scene.pools
    assert "absent" not in scene.pools
    assert scene.pools.profiles == ["data", "python"]
    assert scene.made == []


def test_a_pool_starts_with_the_others_or_when_it_is_first_used() -> None:
    scene = Scene()
    scene.pools.get("data", "early")
    assert scene.made[0].done == []  # what outlived the last broker comes first
    scene.pools.start()
    scene.pools.get("data", "late")
    assert [fake.done for fake in (scene.python, *scene.made)] == [["start"]] * 3


async def test_all_of_them_end_and_none_is_made_any_more() -> None:
    scene = Scene()
    scene.pools.start()
    scene.pools.get("data", "acme")
    await scene.pools.stop()
    await scene.pools.close_sources()
    assert [fake.done for fake in (scene.python, *scene.made)] == [["start", "stop", "close"]] * 2
    with pytest.raises(Draining):
        scene.pools.get("data", "other")


async def test_a_tenants_pool_that_nothing_is_in_can_be_let_go_again() -> None:
    scene = Scene()
    scene.pools.get("data", "acme")
    await scene.pools.forget("data", "acme")
    assert scene.made[0].done == ["close"]
    assert scene.pools.get("data", "acme") is scene.pools.values()[-1]
    assert len(scene.made) == 2
