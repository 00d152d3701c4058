"""Launch kernels: a ready kernel as an async context manager, and the launcher of a profile.

async with launch(KernelSpec(), directory) as kernel:
    kernel.channels.receiver = print
    kernel.channels.send("shell", "execute_request", {"code": "1 + 1", …})
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from hashlib import sha256
from hmac import digest
from pathlib import Path
from typing import Any

from kernels.channels import PORTS, Channels
from kernels.deed import Deed
from kernels.errors import KernelDied, LaunchError, LaunchTimeout, ZygoteFailed
from kernels.examine import why_not
from kernels.fork import Child, Room, clear, fork, listening, refuse_long
from kernels.introductions import Introductions
from kernels.isolation import Isolation, isolate
from kernels.kernel import Kernel, Workspace
from kernels.kernelspecs import Program, look_up
from kernels.options import Place, child_options, programs_of, sandbox_options
from kernels.readiness import until_ready, until_subscribed
from kernels.sandbox.cgroups import Cgroup
from kernels.spec import Finding, KernelSpec, Order, Usage
from kernels.succession import Succession
from kernels.watchdog import Watchdog
from kernels.zygote import Forked, Zygote

__all__ = ["Kernel", "Launcher", "Workspace", "launch"]

logger = logging.getLogger(__name__)

TEXT_MESSAGE = 4 << 20  # bytes; no piece of text is longer, whatever the bound on rich output
ADOPT_PATIENCE = 2.0  # s for all kernels together
UNBOUNDED = -1  # as ZMQ_MAXMSGSIZE says it; 0 would let no message through
CHANNELS = ("shell", "iopub", "stdin", "control")


class Launcher:
    """Make the kernels of one profile in `directory`, which is this process's own.

    `secret` derives each kernel's key, so that no key is ever written down: a broker that comes
    back with the same secret can speak to the kernels that outlived it. `isolation` is the least
    that will do; `level` and `mode` tell what there is, once started. `tied` kernels end when this
    process does. `groups` is whose control groups to use, `without` layers to leave out, for tests.
    """

    def __init__(
        self,
        spec: KernelSpec,
        directory: Path,
        *,
        isolation: str = "none",
        secret: bytes | None = None,
        orphan_ttl: float = 600.0,
        timeout: float = 60.0,
        heartbeat: bool = False,
        tied: bool = False,
        groups: Path | None = None,
        without: Sequence[str] = (),
    ) -> None:
        refuse_long(directory)
        self.spec = spec
        self.directory = directory
        self.timeout = timeout
        self._minimum = isolation
        self._groups = groups
        self._without = without
        self._isolation: Isolation | None = None
        self._program: Program | None = None  # of a kernelspec
        self._secret = secret or os.urandom(32)
        self._heartbeat = heartbeat
        self._tied = tied
        self._examining = asyncio.Lock()
        self._watchdog = Watchdog()
        self._introductions = Introductions()
        self._succession = Succession(
            spec, directory, orphan_ttl=orphan_ttl, timeout=timeout, tied=tied
        )

    @property
    def level(self) -> str:
        """Return the isolation there is: `full`, `standard` or `none`."""
        return self._isolation.level if self._isolation else "none"

    @property
    def mode(self) -> str:
        """Return how the zygote got its namespaces: `root`, `user`, …; empty without any."""
        return self._isolation.mode if self._isolation else ""

    @property
    def zygote_pid(self) -> int:
        """Return the zygote's process id; 0 while there is none."""
        return self._succession.pid

    def used(self) -> Usage:
        """Return what its kernels use in all, where control groups count it."""
        return self._isolation.used() if self._isolation else Usage()

    async def start(self) -> None:
        """Attach to this directory's zygote or start one. Raises ZygoteFailed."""
        await self._ready_zygote()

    async def self_test(self) -> list[Finding]:
        """Return what hostile code could do in a kernel of this profile; without a sandbox, [].

        The cases run in a sandbox like any kernel's. Raises LaunchError.
        """
        zygote = await self._ready_zygote()
        if self._shut_in.sandbox is None:
            return []
        name = uuid.uuid4().hex[:12]
        room = Room(Workspace(name), await self._new_cgroup(name))
        asked = {"part": "probe", "level": self.level, "network": self.spec.network}
        options = sandbox_options(self.spec.limits) | asked
        child: Child | None = None
        try:
            child = await self._fork(zygote, name, options, room)
            async with asyncio.timeout(self.timeout):
                answer = await child.answer()
        except TimeoutError:
            raise LaunchTimeout(f"the self-test took over {self.timeout:g} s") from None
        finally:
            if child is not None:
                child.close()
                await child.end()
                room.workspace.descriptor = child.forked.files
            self.drop_workspace(room.workspace)
            if room.cgroup is not None:
                await asyncio.to_thread(room.cgroup.remove)
        return [Finding(*finding) for finding in answer["findings"]]

    async def launch(
        self, order: Order | None = None, *, workspace: Workspace | None = None
    ) -> Kernel:
        """Fork a kernel and wait until it takes requests. Raises LaunchError.

        Without an order it is a kernel of the profile, with an id and a key made here. Without a
        workspace it gets an empty one.
        """
        zygote = await self._ready_zygote()
        try:
            return await self._launch(zygote, order, workspace)
        except LaunchError:
            if not zygote.lost.done():
                raise
        # It died under us, which says nothing of the profile: its successor is asked, once.
        return await self._launch(await self._ready_zygote(), order, workspace)

    async def _launch(
        self, zygote: Zygote, order: Order | None, workspace: Workspace | None
    ) -> Kernel:
        kernel_id = order.kernel_id if order else str(uuid.uuid4())
        directory = self.directory_of(kernel_id)
        room = Room(workspace or Workspace(uuid.uuid4().hex[:12]), None)
        try:
            directory.mkdir(mode=0o700)
            room = room._replace(cgroup=await self._new_cgroup(directory.name))
            if workspace is None:  # else it is somebody's, whom we do not know
                Deed(kernel_id).write(directory)
            kernel = await self._start(zygote, kernel_id, order, room)
        except BaseException as error:
            if workspace is None:
                self.drop_workspace(room.workspace)
            # Killing and removing may take a while, and must not hide why.
            await asyncio.shield(asyncio.to_thread(clear, directory, room.cgroup))
            if isinstance(error, OSError):
                raise LaunchError(f"cannot prepare {directory}: {error}") from error
            raise
        self._succession.remember(kernel, of=zygote)
        self._succession.forked()
        return kernel

    async def adopt(self) -> list[tuple[Kernel, str]]:
        """Return the kernels that outlived the last broker, each with its label.

        One that does not answer soon (stopped, or deep in C code) is returned all the same: what
        it is sent waits until it reads.
        """
        zygote = await self._ready_zygote()
        found, kept = [], []
        for forked in await zygote.kernels():
            groups, files = self._shut_in.cgroups, Workspace(forked.workspace, forked.files)
            room = Room(files, groups.find(forked.name) if groups is not None else None)
            deed = Deed.read(self.directory / forked.name)
            try:
                if deed is None:
                    raise ProcessLookupError("nobody knows what it is called")
                kernel = self._kernel(deed.kernel_id, self._key(deed.kernel_id), forked, room)
            except OSError as error:  # what cannot be watched is not kept
                logger.warning("profile=%s kernel %s ended: %s", self.spec.name, forked.name, error)
                forked.process.kill()
                await asyncio.wait([forked.process.exited], timeout=ADOPT_PATIENCE)
                self.drop_workspace(files)
                continue
            kernel.keep_workspace = bool(deed.label)
            self._succession.remember(kernel, of=zygote)
            self._watch(kernel)
            found.append((kernel, deed.label))
            kept.append(forked)
        self._sweep(kept)
        if greetings := [kernel.channels.subscribed for kernel, _ in found]:
            await asyncio.wait(greetings, timeout=ADOPT_PATIENCE)
        return found

    async def tidy(self) -> None:
        """Remove what kernels that have ended without us left behind."""
        live = await (await self._ready_zygote()).kernels()
        for forked in live:
            Workspace(forked.workspace, forked.files).close()
        self._sweep(live)

    async def aclose(self, *, leave: bool = False) -> None:
        """Let go of the zygote: it ends with all its kernels, unless told to `leave` them."""
        await self._watchdog.close()
        await self._succession.aclose(leave=leave)
        if not leave and self._isolation is not None and self._isolation.cgroups is not None:
            await asyncio.to_thread(self._isolation.cgroups.remove)

    @property
    def _shut_in(self) -> Isolation:
        if self._isolation is None:
            raise LaunchError("the launcher has not been started")
        return self._isolation

    async def _ready_zygote(self) -> Zygote:
        async with self._examining:
            if self._isolation is None:
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._isolation = await asyncio.to_thread(self._examine)
        try:
            return await self._succession.zygote(self._isolation.sandbox)
        except ZygoteFailed as error:
            raise why_not(str(error)) or error from None

    def _examine(self) -> Isolation:
        spec = self.spec
        if spec.kernelspec:
            if self._minimum == "none":
                raise LaunchError("free of a sandbox, kernelspecs are for their own launcher")
            self._program = look_up(spec.kernelspec)
            spec = replace(spec, paths=(*spec.paths, *self._program.paths))
        return isolate(
            spec, self.directory, self._minimum, groups=self._groups, without=self._without
        )

    def directory_of(self, kernel_id: str) -> Path:
        """Return the directory of a kernel; `k-1` to `k-5` in it are its sockets."""
        # Not a part of the id: the zygote knows it, and so do the kernels that come after.
        return self.directory / sha256(kernel_id.encode()).hexdigest()[:12]

    def _key(self, kernel_id: str) -> str:
        return digest(self._secret, kernel_id.encode(), sha256).hex()

    def _kernel(self, kernel_id: str, key: str, forked: Forked, room: Room) -> Kernel:
        bound, directory = self.spec.limits.message_bytes, self.directory / forked.name
        if self._shut_in.sandbox is None:
            room.workspace.open(self._home(room.workspace))
        channels = Channels(
            directory / "k",
            key.encode(),
            uuid.uuid4().hex[:12],
            max_message=max(2 * bound, TEXT_MESSAGE) if bound else UNBOUNDED,
            identity="" if self._program else self._key(f"peer {kernel_id}")[:24],
        )
        return Kernel(
            kernel_id,
            spec=self.spec,
            directory=directory,
            process=forked.process,
            channels=channels,
            workspace=room.workspace,
            drop_workspace=self.drop_workspace,
            cgroup=room.cgroup,
            by_signal=bool(self._program and self._program.interrupt_mode == "signal"),
            introductions=self._introductions,
        )

    # Workspaces and what kernels of an earlier life left behind

    def _home(self, workspace: Workspace) -> Path:
        """Return the directory of a workspace that no sandbox holds."""
        return self.directory / f"w-{workspace.workspace_id}"

    def drop_workspace(self, workspace: Workspace) -> None:
        """Remove a session's files; its kernel has ended, or ends without them."""
        workspace.close()
        if self._isolation is not None and self._isolation.sandbox is None:
            shutil.rmtree(self._home(workspace), ignore_errors=True)
        else:
            self._succession.drop(workspace.workspace_id)

    def _sweep(self, live: Sequence[Forked]) -> None:
        kernels = {forked.name for forked in live}
        self._shut_in.sweep(self.directory, kernels, {forked.workspace for forked in live})

    async def _new_cgroup(self, name: str) -> Cgroup | None:
        return await asyncio.to_thread(self._shut_in.make_cgroup, name, self.spec.limits)

    # Starting

    def _options(
        self, key: str, directory: Path, order: Order | None, workspace: Workspace
    ) -> dict[str, Any]:
        outside = None
        if self._shut_in.sandbox is None:
            home = str(self._home(workspace))
            outside = Place(home, str(directory / "k"), str(directory), programs_of(self.spec))
        counted = self.level == "full"
        return child_options(self.spec, key, order, self._program, outside, counted=counted)

    async def _start(
        self, zygote: Zygote, kernel_id: str, order: Order | None, room: Room
    ) -> Kernel:
        """Fork, and wait until the kernel takes requests."""
        key = order.key if order else self._key(kernel_id)
        directory = self.directory_of(kernel_id)
        if self._shut_in.sandbox is None and order is None:
            self._home(room.workspace).mkdir(mode=0o700, exist_ok=True)
        names = (*CHANNELS, "hb") if self._heartbeat else CHANNELS
        with listening(directory / f"k-{PORTS[name]}" for name in names) as listeners:
            options = self._options(key, directory, order, room.workspace)
            child = await self._fork(zygote, directory.name, options, room, listeners)
        if child.forked.files >= 0:
            room.workspace.close()
            room.workspace.descriptor = child.forked.files
        try:
            kernel = self._kernel(kernel_id, key, child.forked, room)
        except OSError:
            child.close()
            await child.end()
            raise
        kernel.keep_workspace = True  # whoever called drops it, should this come to nothing
        try:
            async with asyncio.timeout(self.timeout):
                answer = await child.answer()
                ready = until_ready(kernel) if self._program else until_subscribed(kernel, answer)
                kernel.introduce(await ready)
        except TimeoutError:
            await kernel.close()
            raise LaunchTimeout(f"the kernel was not ready within {self.timeout:g} s") from None
        except BaseException as error:
            await asyncio.shield(kernel.close())
            if isinstance(error, KernelDied):
                raise LaunchError(f"the kernel ended while it started: {error.reason}") from None
            raise
        finally:
            child.close()
        kernel.keep_workspace = False
        self._watch(kernel)
        return kernel

    def _watch(self, kernel: Kernel) -> None:
        if self.level == "standard":
            kernel.watch(self._watchdog, self.zygote_pid)

    async def _fork(
        self,
        zygote: Zygote,
        name: str,
        options: dict[str, Any],
        room: Room,
        listeners: Sequence[socket.socket] = (),
    ) -> Child:
        return await fork(
            zygote,
            name,
            options,
            workspace=room.files(self.spec.limits),
            listeners=listeners,
            cgroup=room.cgroup,
            tied=self._tied,
            timeout=self.timeout,
        )


@asynccontextmanager
async def launch(
    spec: KernelSpec, directory: Path, *, isolation: str = "none"
) -> AsyncIterator[Kernel]:
    """Launch one kernel with a zygote of its own; both end with the block."""
    async with aclosing(Launcher(spec, directory, isolation=isolation)) as launcher:
        kernel = await launcher.launch()
        try:
            yield kernel
        finally:
            await kernel.close()
