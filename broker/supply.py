"""Where the kernels of each profile come from: built from the settings, tried, and taken up again.

A profile whose zygotes are its tenants' own has one directory for each, named by a digest so that
its sockets' names stay short; a file in it says whose it is, for the broker that comes after.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from broker import recipe, statedir
from broker.config import Config
from broker.metrics import Metrics
from broker.policy import Budget
from broker.pool import Pool
from broker.pools import Pools, pool_name
from broker.proof import Proven
from broker.service import Service
from kernels.errors import IsolationUnavailable, KernelError
from kernels.foreign import ForeignLauncher
from kernels.launch import Launcher
from kernels.spec import ISOLATION

logger = logging.getLogger(__name__)

TENANT = "tenant"  # the file


class Supply:
    """The launchers and pools of a node."""

    def __init__(self, config: Config, state: Path, secret: bytes, metrics: Metrics) -> None:
        self._config = config
        self._state = state
        self._secret = secret
        self._metrics = metrics
        self._budget = Budget(config.pool.max_kernels)
        # Of a profile whose tenants have zygotes of their own, this one is for the proof alone.
        self._sources = {name: self._source(name, name) for name in config.profiles}
        shared = [name for name, one in config.profiles.items() if one.zygote == "profile"]
        self.pools = Pools(
            {name: self._pool(name, name, self._sources[name]) for name in shared},
            {name: partial(self._apart, name) for name in config.profiles if name not in shared},
        )
        for name, profile in config.profiles.items():
            if profile.network == "host":
                logger.warning("profile=%s network host: it reaches what this machine does", name)

    @property
    def default(self) -> Proven:
        """Return the launcher of the default profile."""
        return self._sources[self._config.default_profile]

    async def aclose(self) -> None:
        """End the zygotes; the kernels have ended before."""
        await self.pools.close_sources()
        for source in self._sources.values():
            await source.aclose()
        for name in self._config.profiles:
            for directory in self._state.glob(f"k/{name}@*"):
                shutil.rmtree(directory, ignore_errors=True)

    async def ready(self) -> None:
        """Wait for the default profile's warm kernels. Raises ProfileBroken."""
        default = self._config.default_profile
        if self._config.profiles[default].zygote == "profile":
            await self.pools.get(default, "").ready()

    async def adopt(self, service: Service) -> int:
        """Try each sandbox, take up what outlived the last broker, and count the sessions.

        Raises IsolationUnavailable if it is the default profile's that falls short.
        """
        adopted, default = 0, self._config.default_profile
        for name in sorted(self._sources, key=lambda name: name != default):  # it may refuse
            source = self._sources[name]
            try:
                await source.prove()
            except IsolationUnavailable as error:
                if name == default:
                    await _leave(source)
                    raise
                logger.error("profile=%s gets no kernels: %s", name, error)
            except KernelError as error:
                # Its pool tries again with a back-off; the default profile is waited for.
                logger.error("profile=%s cannot start: %s", name, error)
                continue
            if self._config.profiles[name].zygote == "tenant":
                await source.aclose()
                adopted += await self._adopt_tenants(service, name)
            else:
                with suppress(IsolationUnavailable):  # told already
                    adopted += await service.adopt(name, source)
        return adopted

    async def _adopt_tenants(self, service: Service, profile: str) -> int:
        adopted = 0
        for file in sorted(self._state.glob(f"k/{profile}@*/{TENANT}")):
            tenant = file.read_text()
            source = self.pools.get(profile, tenant).source
            assert isinstance(source, Proven)  # noqa: S101  # `_apart` made it
            found = 0
            try:
                await source.prove()
                found = await service.adopt(profile, source, tenant)
            except KernelError as error:
                logger.error("profile=%s tenant=%s: %s", profile, tenant, error)
            if not found:
                await self.pools.forget(profile, tenant)
            adopted += found
        return adopted

    def _apart(self, profile: str, tenant: str) -> Pool[Any]:
        digest = hashlib.sha256(tenant.encode()).hexdigest()[:8]
        source = self._source(profile, f"{profile}@{digest}", like=self._sources[profile])
        directory = statedir.kernels(self._state, f"{profile}@{digest}")
        directory.mkdir(mode=0o700, exist_ok=True)
        statedir.write_private(directory / TENANT, tenant.encode())
        return self._pool(pool_name(profile, tenant), profile, source)

    def _pool(self, name: str, profile: str, source: Proven) -> Pool[Any]:
        limits = recipe.pool_limits(self._config.profiles[profile], self._config)
        self._metrics.watch_isolation(name, lambda: ISOLATION.index(source.level))
        return Pool(name, source, limits, budget=self._budget, metrics=self._metrics)

    def _source(self, profile: str, name: str, like: Proven | None = None) -> Proven:
        config = self._config
        spec = recipe.kernel_spec(profile, config.profiles[profile], config)
        directory = statedir.kernels(self._state, name)
        launcher: Launcher | ForeignLauncher
        if spec.kernelspec and config.isolation == "none":
            launcher = ForeignLauncher(spec, directory, timeout=config.pool.start_timeout)
        else:
            launcher = Launcher(
                spec,
                directory,
                isolation=config.isolation,
                secret=self._secret,
                orphan_ttl=config.orphan_ttl,
                timeout=config.pool.start_timeout,
            )
        return Proven(name, launcher, least=config.isolation, like=like)


async def _leave(source: Proven) -> None:
    """Let go of a launcher that may not be used, but not of what holds somebody's variables.

    That lives on for a while: this machine may be mended, and a broker started again.
    """
    left = False
    with suppress(KernelError):
        left = bool(await source.adopt())
    await source.aclose(leave=left)
