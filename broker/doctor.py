"""What this host can shut a profile's kernels in with: looked up, and tried in a real sandbox."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from broker import recipe, statedir
from broker.config import Config
from kernels.errors import IsolationUnavailable, KernelError
from kernels.examine import examine
from kernels.launch import Launcher
from kernels.spec import ISOLATION, Finding


@dataclass(frozen=True, slots=True)
class Checkup:
    """What was found: the host's layers, what hostile code could do, and what that comes to."""

    profile: str
    least: str  # isolation that is configured
    layers: tuple[Finding, ...]
    cases: tuple[Finding, ...]
    level: str
    mode: str
    trouble: str = ""  # why there is no sandbox at all

    @property
    def is_enough(self) -> bool:
        """Tell whether a broker with this configuration would serve."""
        return ISOLATION.index(self.level) >= ISOLATION.index(self.least)


def _groups(config: Config, profile: str) -> Path | None:
    """Return the broker's own directory where its control groups may be all that we have.

    Root makes others, so that those of a broker that runs are left alone.
    """
    return statedir.kernels(statedir.find(config.state_dir), profile) if os.geteuid() else None


async def check(config: Config, profile: str) -> Checkup:
    """Examine the host, and try the profile's sandbox. Changes nothing that stays."""
    spec = recipe.kernel_spec(profile, config.profiles[profile], config)
    layers = tuple(examine(limits=spec.limits))
    cases: list[Finding] = []
    level, mode, trouble = ISOLATION[0], "", ""
    with tempfile.TemporaryDirectory(prefix="kb-", ignore_cleanup_errors=True) as directory:
        # Asked for the least there is above none, it takes the best there is.
        launcher = Launcher(
            spec,
            Path(directory),
            isolation=ISOLATION[1],
            timeout=config.pool.start_timeout,
            groups=_groups(config, profile),
        )
        try:
            cases = await launcher.self_test()
            if all(case.safe for case in cases):
                level, mode = launcher.level, launcher.mode
        except IsolationUnavailable as error:
            trouble = f"{error.layer}: {error}"
        except (KernelError, OSError) as error:
            trouble = str(error)
        finally:
            await launcher.aclose()
    return Checkup(profile, config.isolation, layers, tuple(cases), level, mode, trouble)
