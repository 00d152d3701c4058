"""Launch kernels: a ready kernel as an async context manager, and the launcher of a profile.

async with launch(KernelSpec(), directory) as kernel:
    kernel.channels.receiver = print
    kernel.channels.send("shell", "execute_request", {"code": "1 + 1", …})
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import socket
import sys
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from hmac import digest
from pathlib import Path
from typing import Any

from kernels.channels import PORTS, Channels
from kernels.errors import IsolationUnavailable, LaunchError, LaunchTimeout
from kernels.isolation import Isolation, isolate
from kernels.kernel import Kernel, Workspace
from kernels.sandbox.cgroups import Cgroup
from kernels.options import (
    HOME,
    PREFIX,
    Place,
    kernel_options,
    moved_into_sandbox,
    ordered_options,
    sandbox_options,
)
from kernels.spec import Finding, KernelSpec, Order
from kernels.zygote import Forked, Zygote

__all__ = ["Kernel", "Launcher", "Workspace", "launch"]

MAX_PATH = 107  # bytes of a unix socket address, unix(7)
MAX_CONFIG = 160 << 10  # bytes; a packet must fit the default socket buffer of 208 KiB
BACKLOG = 16
TEXT_MESSAGE = 4 << 20  # bytes; no piece of text is longer, whatever the bound on rich output
ADOPT_PATIENCE = 2.0  # s for all kernels together
STOP_PATIENCE = 5.0  # s that a zygote may take to end
UNBOUNDED = -1  # as ZMQ_MAXMSGSIZE says it; 0 would let no message through
CHANNELS = ("shell", "iopub", "stdin", "control")
LEFT_BEHIND = re.compile(r"(w-)?[0-9a-f]{12}")  # directories of kernels and of their files

logger = logging.getLogger(__name__)


class Launcher:
    """Make the kernels of one profile in `directory`, which is this process's own.

    `secret` derives each kernel's key, so that no key is ever written down: a broker that comes
    back with the same secret can speak to the kernels that outlived it. `isolation` is the least
    that will do; `level` and `mode` tell what there is, once started. `tied` kernels end when this
    process does. `without` leaves layers of the sandbox out, to show what each is for.
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
        without: Sequence[str] = (),
    ) -> None:
        longest = os.fsencode(directory / ("x" * 12) / "k-5")
        if len(longest) > MAX_PATH:
            raise LaunchError(
                f"{directory} is {len(longest) - MAX_PATH} bytes too long to hold socket files; "
                "use a shorter state directory"
            )
        self.spec = spec
        self.directory = directory
        self.timeout = timeout
        self._minimum = isolation
        self._without = without
        self._isolation: Isolation | None = None
        self._secret = secret or os.urandom(32)
        self._orphan_ttl = orphan_ttl
        self._heartbeat = heartbeat
        self._tied = tied
        self._zygote: Zygote | None = None
        self._forks = 0  # of this zygote
        self._made_at = 0.0
        self._recycling: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()
        self._kernels: dict[str, tuple[Kernel, str]] = {}

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
        return self._zygote.pid if self._zygote and not self._zygote.lost.done() else 0

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
        workspace = Workspace(uuid.uuid4().hex[:12])
        cgroup = await self._new_cgroup(workspace.workspace_id)
        options = sandbox_options(self.spec.limits) | {
            "part": "probe",
            "level": self.level,
            "network": self.spec.network,
        }
        config: socket.socket | None = None
        try:
            forked, config = await self._fork(
                zygote, workspace.workspace_id, options, [], workspace=workspace, cgroup=cgroup
            )
            async with asyncio.timeout(self.timeout):
                answer = await _answer(config)
            forked.process.kill()
            await asyncio.wait([forked.process.exited])
        except TimeoutError:
            raise LaunchTimeout(f"the self-test took over {self.timeout:g} s") from None
        finally:
            if config is not None:
                config.close()
            self._drop(workspace)
            if cgroup is not None:
                await asyncio.to_thread(cgroup.remove)
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
        own = workspace or Workspace(uuid.uuid4().hex[:12])
        cgroup = None
        try:
            directory.mkdir(mode=0o700)
            cgroup = await self._new_cgroup(directory.name)
            kernel = await self._start(zygote, kernel_id, directory, order, own, cgroup)
        except BaseException as error:
            shutil.rmtree(directory, ignore_errors=True)
            if cgroup is not None:
                cgroup.remove()
            if workspace is None:
                self._drop(own)
            if isinstance(error, OSError):
                raise LaunchError(f"cannot prepare {directory}: {error}") from error
            raise
        self._remember(kernel, "")
        self._forks += 1
        self._recycle_when_due()
        return kernel

    async def adopt(self) -> list[tuple[Kernel, str]]:
        """Return the kernels that outlived the last broker, each with its label.

        One that does not answer soon (stopped, or deep in C code) is returned all the same: what
        it is sent waits until it reads.
        """
        zygote = await self._ready_zygote()
        found = []
        live = await zygote.kernels()
        for forked in live:
            cgroup = None
            if self._shut_in.cgroups is not None:
                cgroup = self._shut_in.cgroups.find(self.directory_of(forked.kernel_id).name)
            kernel = self._kernel(forked, self._key(forked.kernel_id), cgroup, self._files(forked))
            kernel.keep_workspace = bool(forked.label)
            self._remember(kernel, forked.label)
            found.append((kernel, forked.label))
        self._sweep(live)
        if found:
            await asyncio.wait(
                [kernel.channels.subscribed for kernel, _ in found], timeout=ADOPT_PATIENCE
            )
        return found

    async def tidy(self) -> None:
        """Remove what kernels that have ended without us left behind."""
        live = await (await self._ready_zygote()).kernels()
        for forked in live:
            if forked.files >= 0:
                os.close(forked.files)
        self._sweep(live)

    def drop_workspace(self, workspace: Workspace) -> None:
        """Remove a session's files; its kernel has ended, or ends without them."""
        self._drop(workspace)

    async def aclose(self, *, leave: bool = False) -> None:
        """Let go of the zygote: it ends with all its kernels, unless told to `leave` them."""
        if self._recycling is not None:
            self._recycling.cancel()
            await asyncio.wait([self._recycling])
        if self._zygote is not None:
            if not leave:
                self._zygote.stop()
                with contextlib.suppress(TimeoutError):  # a zygote that hangs ends as an orphan
                    async with asyncio.timeout(STOP_PATIENCE):
                        await self._zygote.lost
            self._zygote.close()
            self._zygote = None
        if not leave and self._isolation is not None and self._isolation.cgroups is not None:
            await asyncio.to_thread(self._isolation.cgroups.remove)

    @property
    def _shut_in(self) -> Isolation:
        if self._isolation is None:
            raise LaunchError("the launcher has not been started")
        return self._isolation

    async def _ready_zygote(self) -> Zygote:
        async with self._starting:
            if self._isolation is None:
                self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._isolation = await asyncio.to_thread(
                    isolate, self.spec, self.directory, self._minimum, without=self._without
                )
            if self._zygote is None or self._zygote.lost.done():
                zygote = await Zygote.open(
                    self.spec,
                    self.directory,
                    orphan_ttl=self._orphan_ttl,
                    timeout=self.timeout,
                    sandbox=self._isolation.sandbox,
                )
                self._take_over(zygote)
                return zygote
            return self._zygote

    def _take_over(self, zygote: Zygote) -> None:
        """Use a new zygote, which learns of all kernels there are."""
        self._zygote, self._forks, self._made_at = zygote, 0, time.monotonic()
        for kernel, label in self._kernels.values():
            self._hand_over(kernel, label)

    def _hand_over(self, kernel: Kernel, label: str) -> None:
        if self._zygote is not None:
            workspace = kernel.workspace.workspace_id if kernel.workspace else ""
            self._zygote.adopt(
                kernel.kernel_id, kernel.process, label, workspace=workspace, tied=self._tied
            )

    def _recycle_when_due(self) -> None:
        old = time.monotonic() - self._made_at > self.spec.recycle_after
        if (old or self._forks >= self.spec.recycle_forks) and self._recycling is None:
            self._recycling = asyncio.create_task(self._recycle())

    async def _recycle(self) -> None:
        """Put a fresh zygote in the place of this one, which serves until that is ready."""
        old = self._zygote
        try:
            if old is not None:
                successor = await old.succeed(self.spec, self.timeout)
                self._take_over(successor)
                await old.settle()
                old.leave()
                await old.lost
        except LaunchError as error:
            # It goes on as it was; the next kernels come from the older layout.
            logger.warning("profile=%s zygote not recycled: %s", self.spec.name, error)
            self._forks, self._made_at = 0, time.monotonic()
        finally:
            self._recycling = None

    def directory_of(self, kernel_id: str) -> Path:
        """Return the directory of a kernel; `k-1` to `k-5` in it are its sockets."""
        return self.directory / kernel_id.replace("-", "")[:12]

    def _key(self, kernel_id: str) -> str:
        return digest(self._secret, kernel_id.encode(), sha256).hex()

    def _kernel(
        self, forked: Forked, key: str, cgroup: Cgroup | None, workspace: Workspace | None
    ) -> Kernel:
        bound = self.spec.limits.message_bytes
        directory = self.directory_of(forked.kernel_id)
        channels = Channels(
            directory / "k",
            key.encode(),
            uuid.uuid4().hex[:12],
            max_message=max(2 * bound, TEXT_MESSAGE) if bound else UNBOUNDED,
        )
        return Kernel(
            forked.kernel_id,
            spec=self.spec,
            directory=directory,
            process=forked.process,
            channels=channels,
            label=self._set_label,
            workspace=workspace,
            drop_workspace=self._drop,
            cgroup=cgroup,
        )

    def _set_label(self, kernel_id: str, text: str) -> None:
        if kernel_id in self._kernels:
            self._kernels[kernel_id] = (self._kernels[kernel_id][0], text)
        if self._zygote is not None:
            self._zygote.label(kernel_id, text)

    def _remember(self, kernel: Kernel, label: str) -> None:
        self._kernels[kernel.kernel_id] = (kernel, label)
        kernel.exited.add_done_callback(lambda _: self._kernels.pop(kernel.kernel_id, None))

    # Workspaces and what kernels of an earlier life left behind

    def _home(self, workspace: Workspace) -> Path:
        """Return the directory of a workspace that no sandbox holds."""
        return self.directory / f"w-{workspace.workspace_id}"

    def _files(self, forked: Forked) -> Workspace | None:
        return Workspace(forked.workspace, forked.files) if forked.workspace else None

    def _drop(self, workspace: Workspace) -> None:
        workspace.close()
        if self._isolation is not None and self._isolation.sandbox is None:
            shutil.rmtree(self._home(workspace), ignore_errors=True)
        elif self._zygote is not None:
            self._zygote.drop(workspace.workspace_id)

    def _sweep(self, live: Sequence[Forked]) -> None:
        """Remove the directories and cgroups of kernels that are no more."""
        kept = {self.directory_of(forked.kernel_id).name for forked in live}
        workspaces = {f"w-{forked.workspace}" for forked in live}
        for entry in self.directory.iterdir():
            if LEFT_BEHIND.fullmatch(entry.name) and entry.name not in kept | workspaces:
                shutil.rmtree(entry, ignore_errors=True)
        if self._shut_in.cgroups is not None:
            self._shut_in.cgroups.sweep(kept)

    async def _new_cgroup(self, name: str) -> Cgroup | None:
        cgroups, limits = self._shut_in.cgroups, self.spec.limits
        if cgroups is None or "cgroup" in self._without:
            return None
        return await asyncio.to_thread(
            cgroups.make,
            name,
            memory=limits.memory,
            processes=limits.processes,
            cpu=limits.cpu,
        )

    # Starting

    def _options(
        self, key: str, directory: Path, order: Order | None, workspace: Workspace
    ) -> dict[str, Any]:
        programs = os.path.dirname(self.spec.python or sys.executable)
        if self._shut_in.sandbox is None:
            if order is not None:
                return ordered_options(order, str(directory / "k"))
            home = str(self._home(workspace))
            place = Place(home, str(directory / "k"), str(directory), programs)
            return kernel_options(self.spec, key, place)
        bounds = sandbox_options(self.spec.limits)
        if order is not None:
            return moved_into_sandbox(ordered_options(order, "")) | bounds
        place = Place(HOME, PREFIX, "/tmp", programs)  # noqa: S108
        return kernel_options(self.spec, key, place) | bounds

    async def _start(
        self,
        zygote: Zygote,
        kernel_id: str,
        directory: Path,
        order: Order | None,
        workspace: Workspace,
        cgroup: Cgroup | None,
    ) -> Kernel:
        """Fork, and wait until the kernel takes requests."""
        key = order.key if order else self._key(kernel_id)
        if self._shut_in.sandbox is None and order is None:
            self._home(workspace).mkdir(mode=0o700, exist_ok=True)
        names = (*CHANNELS, "hb") if self._heartbeat else CHANNELS
        listeners: list[socket.socket] = []
        try:
            listeners.extend(_listen(directory / f"k-{PORTS[name]}") for name in names)
            options = self._options(key, directory, order, workspace)
            forked, config = await self._fork(
                zygote, kernel_id, options, listeners, workspace=workspace, cgroup=cgroup
            )
        finally:
            for listener in listeners:
                listener.close()
        if forked.files >= 0:
            workspace.close()
            workspace.descriptor = forked.files
        kernel = self._kernel(forked, key, cgroup, workspace)
        kernel.keep_workspace = True  # whoever called drops it, should this come to nothing
        try:
            async with asyncio.timeout(self.timeout):
                await _until_ready(config, kernel)
        except TimeoutError:
            await kernel.close()
            raise LaunchTimeout(f"the kernel was not ready within {self.timeout:g} s") from None
        except BaseException:
            await asyncio.shield(kernel.close())
            raise
        finally:
            config.close()
        kernel.keep_workspace = False
        if self._zygote is not zygote:  # a successor came between
            self._hand_over(kernel, "")
        return kernel

    async def _fork(
        self,
        zygote: Zygote,
        kernel_id: str,
        options: dict[str, Any],
        listeners: Sequence[socket.socket],
        *,
        workspace: Workspace,
        cgroup: Cgroup | None,
    ) -> tuple[Forked, socket.socket]:
        """Fork a child that becomes what `options` say; return its config socket too."""
        limits = self.spec.limits
        wanted = {
            "name": workspace.workspace_id,
            "size": limits.workspace_bytes,
            "files": limits.workspace_files,
        }
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        joins: list[int] = []
        try:
            # Only the child reads this: the key never passes through the zygote's memory.
            ours.send(_packet(options))
            joins = cgroup.join_descriptors() if cgroup is not None else []
            descriptors = [theirs.fileno(), *(listener.fileno() for listener in listeners), *joins]
            async with asyncio.timeout(self.timeout):
                forked = await zygote.fork(
                    kernel_id,
                    descriptors,
                    channels=len(listeners),
                    workspace=wanted,
                    tied=self._tied,
                )
        except BaseException as error:
            ours.close()
            if isinstance(error, TimeoutError):
                words = f"the zygote did not fork within {self.timeout:g} s"
                raise LaunchTimeout(words) from None
            raise
        finally:
            theirs.close()
            for descriptor in joins:
                os.close(descriptor)
        return forked, ours


def _packet(options: dict[str, Any]) -> bytes:
    data = json.dumps(options).encode()
    if len(data) > MAX_CONFIG:
        raise LaunchError(
            f"the kernel's environment and arguments take {len(data)} bytes; at most {MAX_CONFIG}"
        )
    return data


async def _answer(config: socket.socket) -> dict[str, Any]:
    """Return the child's first word. Raises LaunchError if it is of a failure, or of an end."""
    config.setblocking(False)
    word = await asyncio.get_running_loop().sock_recv(config, MAX_CONFIG)
    if not word:
        raise LaunchError("the kernel ended while it started")
    answer: dict[str, Any] = json.loads(word)
    if "error" not in answer:
        return answer
    if layer := answer.get("layer"):
        raise IsolationUnavailable(
            f"the sandbox could not be made: {answer['error']}",
            layer=layer,
            remedy="`broker doctor` tells what this host lacks",
        )
    raise LaunchError(f"the kernel could not start: {answer['error']}")


async def _until_ready(config: socket.socket, kernel: Kernel) -> None:
    """Wait for the child's word and for the subscription. Raises LaunchError."""
    try:
        await _answer(config)
    except LaunchError as error:
        if not kernel.exited.done() and "ended" in str(error):
            raise LaunchError(f"{error}: {await kernel.exited}") from None
        raise
    await kernel.channels.subscribed


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def launch(
    spec: KernelSpec, directory: Path, *, isolation: str = "none"
) -> AsyncIterator[Kernel]:
    """Launch one kernel with a zygote of its own; both end with the block."""
    launcher = Launcher(spec, directory, isolation=isolation)
    try:
        kernel = await launcher.launch()
        try:
            yield kernel
        finally:
            await kernel.close()
    finally:
        await launcher.aclose()
