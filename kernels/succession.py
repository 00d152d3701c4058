"""Keep a zygote for a launcher: start it or find it again, and put a fresh one in its place.

Zygotes come and go, kernels stay: whichever is there is told of every kernel.
"""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path
from typing import Any

from kernels.errors import LaunchError
from kernels.kernel import Kernel
from kernels.sandbox import sources
from kernels.spec import KernelSpec
from kernels.warden import stop
from kernels.zygote import Zygote

logger = logging.getLogger(__name__)

STOP_PATIENCE = 5.0  # s that a zygote may take to end


class Succession:
    """The zygotes of one directory, one after the other."""

    def __init__(
        self,
        spec: KernelSpec,
        directory: Path,
        *,
        orphan_ttl: float,
        timeout: float,
        tied: bool,
    ) -> None:
        self._spec = spec
        self._directory = directory
        self._orphan_ttl = orphan_ttl
        self._timeout = timeout
        self._tied = tied
        self._zygote: Zygote | None = None
        self._code = sources.digest()
        self._forks = 0  # of this zygote
        self._made_at = 0.0
        self._recycling: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._sandbox: dict[str, Any] | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._closed = False
        self._kernels: set[Kernel] = set()
        self._dropped: list[str] = []  # workspaces, while there was no zygote

    @property
    def pid(self) -> int:
        """Return the zygote's process id; 0 while there is none."""
        return self._zygote.pid if self._zygote and not self._zygote.lost.done() else 0

    async def zygote(self, sandbox: dict[str, Any] | None) -> Zygote:
        """Return the zygote, started if need be. Raises ZygoteFailed."""
        self._sandbox = sandbox
        async with self._starting:
            if self._zygote is None or self._zygote.lost.done():
                zygote = await Zygote.open(
                    self._spec,
                    self._directory,
                    orphan_ttl=self._orphan_ttl,
                    timeout=self._timeout,
                    sandbox=sandbox,
                )
                self._take_over(zygote)
                return zygote
            return self._zygote

    def remember(self, kernel: Kernel, *, of: Zygote) -> None:
        """Count a kernel that `of` has forked, or was found to have."""
        self._kernels.add(kernel)
        kernel.exited.add_done_callback(lambda _: self._kernels.discard(kernel))
        if of is not self._zygote:  # a successor came between
            self._hand_over(kernel)

    def drop(self, workspace: str) -> None:
        """Have a workspace unmounted; where no zygote is there, by the next."""
        if self._zygote is None or self._zygote.lost.done():
            self._dropped.append(workspace)
        else:
            self._zygote.drop(workspace)

    def forked(self) -> None:
        """Count a fork; after as many as the spec says, or after its time, a successor is due."""
        self._forks += 1
        old = time.monotonic() - self._made_at > self._spec.recycle_after
        due = old or self._is_outdated or self._forks >= self._spec.recycle_forks
        if due and self._recycling is None:
            self._recycling = asyncio.create_task(self._recycle())

    @property
    def _is_outdated(self) -> bool:
        """Tell whether the zygote runs the code of before an upgrade: it outlived the broker."""
        return self._zygote is not None and self._zygote.code != self._code

    async def aclose(self, *, leave: bool) -> None:
        """Let go of the zygote: it ends with all its kernels, unless told to `leave` them."""
        self._closed = True
        for task in (self._recycling, self._replacing):
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
        if self._zygote is not None:
            if not leave and self._zygote.lost.done():
                await asyncio.to_thread(stop, self._directory)  # by one that starts for it
            elif not leave:
                self._zygote.stop()
                # One that hangs ends as an orphan.
                await asyncio.wait([self._zygote.lost], timeout=STOP_PATIENCE)
            self._zygote.close()
            self._zygote = None

    def _take_over(self, zygote: Zygote) -> None:
        self._zygote, self._forks, self._made_at = zygote, 0, time.monotonic()
        zygote.lost.add_done_callback(lambda _: self._replace(zygote))
        for kernel in self._kernels:
            self._hand_over(kernel)
        while self._dropped:
            zygote.drop(self._dropped.pop())

    def _replace(self, lost: Zygote) -> None:
        """Have another at once where there are kernels: it is to know them if we end next.

        Not for one that was lost as soon as it was there: its kernels may be why.
        """
        lived = time.monotonic() - self._made_at > STOP_PATIENCE
        if lost is self._zygote and self._kernels and lived and not self._closed:
            self._replacing = asyncio.create_task(self._replaced())

    async def _replaced(self) -> None:
        try:
            await self.zygote(self._sandbox)
        except LaunchError as error:  # the next launch tries again
            logger.warning("profile=%s has no zygote: %s", self._spec.name, error)

    def _hand_over(self, kernel: Kernel) -> None:
        if self._zygote is not None:
            workspace = kernel.workspace.workspace_id if kernel.workspace else ""
            name = kernel.directory.name
            self._zygote.adopt(name, kernel.process, workspace=workspace, tied=self._tied)

    async def _recycle(self) -> None:
        """Put a fresh zygote in the place of this one, which serves until that is ready."""
        old = self._zygote
        try:
            if old is not None:
                async with asyncio.timeout(self._timeout):
                    successor = await old.succeed(self._spec, self._timeout)
                async with self._starting:
                    self._take_over(successor)
                await old.settle()
                old.leave()
                await asyncio.wait([old.lost], timeout=STOP_PATIENCE)
                old.close()
                logger.info("profile=%s zygote recycled: pid %d", self._spec.name, self.pid)
        except Exception as error:
            # It goes on as it was; the next kernels come from the older layout.
            logger.warning("profile=%s zygote not recycled: %r", self._spec.name, error)
            self._forks, self._made_at = 0, time.monotonic()
            if old is not None and old is self._zygote:
                self._code = old.code  # it has to do
        finally:
            self._recycling = None
