"""No kernel of a profile before its sandbox was tried: as strong as asked for, and shut.

A launcher says which level of isolation it has reached, and a self-test has hostile code try its
ways out of a real kernel. Both come before the first kernel, in the place of the launcher itself;
a sandbox that falls short is a start that failed, tried again with the pool's own back-off.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from kernels.errors import IsolationUnavailable
from kernels.spec import ISOLATION, Finding, Usage

logger = logging.getLogger(__name__)

NOT_HERE = (
    "`broker doctor` says what is missing on this machine. For code you trust, ask for less by"
    " name: --isolation none (or BROKER_ISOLATION=none), on a loopback address"
)


class Source(Protocol):
    """What is needed of a launcher."""

    @property
    def zygote_pid(self) -> int:
        """Give the zygote's process id, 0 while there is none."""

    @property
    def level(self) -> str:
        """Give the isolation of its kernels, one of ISOLATION; known once it has started."""

    @property
    def mode(self) -> str:
        """Give the way in which the sandbox is set up; empty where there is none."""

    def used(self) -> Usage:
        """Return what its kernels use in all, where that is counted."""

    async def start(self) -> None:
        """Prepare to launch."""

    async def self_test(self) -> list[Finding]:
        """Return what hostile code could do in one of its kernels."""

    async def launch(self, *, workspace: Any = None) -> Any:
        """Return a ready kernel, with its files in a workspace that is there already or anew."""

    def drop_workspace(self, workspace: Any) -> None:
        """Remove a session's files."""

    async def adopt(self) -> list[tuple[Any, str]]:
        """Return each kernel that outlived the last broker, with its label."""

    async def aclose(self, *, leave: bool = False) -> None:
        """Let go of its kernels: end them, or leave them to a later broker."""


class Proven:
    """A launcher whose kernels are at least as shut in as `least`, one of ISOLATION."""

    def __init__(
        self, profile: str, source: Source, *, least: str, like: Proven | None = None
    ) -> None:
        self.profile = profile
        self.least = least
        self._like = like  # made from the same recipe, and tried already
        self.findings: tuple[Finding, ...] = ()
        self._source = source
        self._proving = asyncio.Lock()
        self._proven = False
        self._leaks = False

    def __repr__(self) -> str:
        return f"<Proven {self.profile}: {self.told}, at least {self.least}>"

    @property
    def level(self) -> str:
        """Return the isolation of its kernels; what leaks is none."""
        return ISOLATION[0] if self._leaks else self._source.level

    @property
    def assured(self) -> str:
        """Return the isolation that its kernels will have at the least."""
        if self._proven:
            return self.level
        return self._like.assured if self._like is not None else self.least

    @property
    def mode(self) -> str:
        """Return the way in which the sandbox is set up."""
        return self._source.mode

    @property
    def told(self) -> str:
        """Return level and mode for people: `full (root)`."""
        return f"{self.level} ({self.mode})" if self.mode else self.level

    @property
    def zygote_pid(self) -> int:
        """Return the zygote's process id; 0 while there is none."""
        return self._source.zygote_pid

    def used(self) -> Usage:
        """Return what its kernels use in all, where that is counted."""
        return self._source.used()

    async def prove(self) -> None:
        """Start, and return once the sandbox has held; again is free.

        Raises IsolationUnavailable naming the layer and the remedy, LaunchError.
        """
        async with self._proving:
            if self._proven:
                return
            await self._source.start()
            findings = await self._source.self_test()
            self.findings = tuple(findings)
            leaks = [one for one in findings if not one.safe]
            self._leaks = bool(leaks)
            for leak in leaks:
                logger.error("profile=%s unsafe: %s", self.profile, _words(leak))
            if ISOLATION.index(self.level) < ISOLATION.index(self.least):
                raise self._falls_short(leaks)
            self._proven = True
        logger.info("profile=%s isolation %s", self.profile, self.told)
        if self.level == ISOLATION[0]:
            logger.warning(
                "profile=%s isolation none: code in kernels has all the rights of this user",
                self.profile,
            )

    def _falls_short(self, leaks: list[Finding]) -> IsolationUnavailable:
        if not leaks:
            return IsolationUnavailable(
                f"isolation {self.least!r} is not available for profile {self.profile}: the best"
                f" is {self.told!r}",
                layer="level",
                remedy=NOT_HERE,
            )
        told = "; ".join(map(_words, leaks))
        return IsolationUnavailable(
            f"profile {self.profile} is not as shut in as isolation {self.least!r} asks: {told}",
            layer=leaks[0].layer,
            remedy=leaks[0].remedy or NOT_HERE,
        )

    async def launch(self, *, workspace: Any = None) -> Any:
        """Return a ready kernel. Raises as `prove()` does until the sandbox has held."""
        await self.prove()
        return await self._source.launch(workspace=workspace)

    def drop_workspace(self, workspace: Any) -> None:
        """Remove a session's files; its kernel has ended, or ends without them."""
        self._source.drop_workspace(workspace)

    async def adopt(self) -> list[tuple[Any, str]]:
        """Return each kernel that outlived the last broker, with its label.

        Without a proof only those that are bound: they hold somebody's variables already.
        """
        found = await self._source.adopt()
        for kernel, label in found:
            if not label and not self._proven:
                await kernel.close()
        return [one for one in found if one[1] or self._proven]

    async def aclose(self, *, leave: bool = False) -> None:
        """Let go of its kernels: end them, or leave them to a later broker."""
        await self._source.aclose(leave=leave)


def _words(finding: Finding) -> str:
    return f"{finding.layer}: {finding.case}: {finding.evidence}"
