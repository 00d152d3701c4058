"""A profile's settings as others take them: what its kernels are made from, and every bound."""

from __future__ import annotations

import os

from broker.config import Config, Profile
from broker.execution import OutputLimits
from broker.policy import PoolLimits
from broker.roles import SessionLimits
from kernels.spec import KernelSpec, Limits


def kernel_spec(name: str, profile: Profile, config: Config) -> KernelSpec:
    """Return what the profile's kernels are made from."""
    return KernelSpec(
        name=name,
        python=profile.python,
        preload=profile.preload,
        env=profile.env,
        kernelspec=profile.kernelspec,
        paths=profile.paths,
        network=profile.network,
        pip=profile.pip,
        pip_index=profile.pip_index,
        allow_imports=profile.allow_imports,
        deny_imports=profile.deny_imports,
        recycle_forks=profile.recycle_forks,
        recycle_after=profile.recycle_after,
        limits=Limits(
            output_bytes=config.session.output_bytes,
            message_bytes=config.session.display_bytes,
            tool_calls=config.session.tool_calls,
            open_files=profile.open_files,
            memory=profile.memory,
            processes=profile.processes,
            cpu=profile.cpu,
            workspace_bytes=profile.workspace,
            workspace_files=profile.workspace_files,
            tmp_bytes=profile.tmp,
            tmp_files=profile.tmp_files,
            file_bytes=profile.file_size,
        ),
    )


def session_limits(profile: Profile, config: Config) -> SessionLimits:
    """Return the bounds on a session of the profile; 0 where nothing holds a kernel to one."""
    bounds = config.session
    held = config.isolation != "none"
    own = profile.execution_timeout
    return SessionLimits(
        queue=bounds.queue,
        idle_timeout=bounds.idle_timeout,
        max_lifetime=bounds.max_lifetime,
        execution_timeout=bounds.execution_timeout if own is None else own,
        cpu_time=profile.cpu_time,
        memory=profile.memory if held else 0,
        processes=profile.processes if held else 0,
        cpu=profile.cpu if held else 0.0,
        workspace_bytes=profile.workspace if held else 0,
        interrupt_grace=bounds.interrupt_grace,
        replay_bytes=bounds.replay_bytes,
        replay_events=bounds.replay_events,
        code_only=bool(profile.kernelspec),
        transcript_cells=bounds.transcript_cells,
        transcript_bytes=bounds.transcript_bytes,
        questions=bounds.questions,
        tool_calls=bounds.tool_calls,
        tool_grace=bounds.tool_grace,
        output=OutputLimits(bounds.output_bytes, bounds.display_bytes, bounds.display_total),
    )


def pool_limits(profile: Profile, config: Config) -> PoolLimits:
    """Return the bounds on the profile's pool."""
    return PoolLimits(
        warm=profile.warm,
        # Who keeps none ready wants none that nobody has asked for.
        warm_most=profile.warm_most if profile.warm else 0,
        cap=profile.cap,
        max_starting=max(2, len(os.sched_getaffinity(0))),
        start_timeout=config.pool.start_timeout + 5,
    )


def languages(config: Config) -> dict[str, tuple[str, str]]:
    """Return each profile's kernelspec and its language, as notebooks name them."""
    named = {name: profile.kernelspec for name, profile in config.profiles.items()}
    return {
        name: (spec, "python" if "python" in spec else spec) if spec else ("python3", "python")
        for name, spec in named.items()
    }
