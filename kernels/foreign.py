"""Kernels of any other installed Jupyter kernelspec, free of a sandbox, with our own kernels' face.

They start through their own provisioner, cold, and end with this process: there is nothing to
adopt. Their sockets are unix sockets in our directory. Those in a sandbox are `launch`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import uuid
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory

from kernels.channels import PORTS, Channels
from kernels.errors import LaunchError, LaunchTimeout
from kernels.introductions import Introductions
from kernels.kernelspecs import find, inherited
from kernels.process import UNKNOWN, reason_of
from kernels.readiness import until_ready
from kernels.spec import Finding, KernelSpec, Usage


class ForeignProcess:
    """Watch a process that a Jupyter provisioner owns.

    `pid` is 0 where the provisioner's kernel is no process of this machine.
    """

    def __init__(self, provisioner: Any) -> None:
        self._provisioner = provisioner
        self._popen: Any = getattr(provisioner, "process", None)
        self._loop = asyncio.get_running_loop()
        self._signals: set[asyncio.Task[None]] = set()
        self._pidfd = -1
        self._waiting: asyncio.Task[None] | None = None
        self.pid: int = getattr(self._popen, "pid", 0) or 0
        self.exited: asyncio.Future[str] = self._loop.create_future()
        try:
            # Our own child, not yet reaped: the number cannot be another's.
            self._pidfd = os.pidfd_open(self.pid) if self.pid else -1
        except ProcessLookupError:
            self._resolve(UNKNOWN)
        if self._pidfd >= 0:
            self._loop.add_reader(self._pidfd, self._reap)
        elif not self.exited.done():
            self._waiting = self._loop.create_task(self._wait())

    def __repr__(self) -> str:
        state = self.exited.result() if self.exited.done() else "running"
        return f"<ForeignProcess {self.pid}: {state}>"

    def send_signal(self, number: int) -> None:
        """Signal the kernel through its provisioner; nothing happens if it has ended."""
        if not self.exited.done():
            task = self._loop.create_task(self._send(number))
            self._signals.add(task)
            task.add_done_callback(self._signals.discard)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    async def aclose(self) -> None:
        """Stop watching."""
        pending = [*self._signals, *([self._waiting] if self._waiting else [])]
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)

    async def _send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                await self._provisioner.kill()
            else:
                await self._provisioner.send_signal(number)

    def _reap(self) -> None:
        code = self._popen.poll()
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        # `subprocess` keeps no wait status; make it again from its return code.
        self._resolve(UNKNOWN if code is None else reason_of(code << 8 if code >= 0 else -code))

    async def _wait(self) -> None:
        code = await self._provisioner.wait()
        self._resolve(UNKNOWN if code is None else f"exit {code}")

    def _resolve(self, reason: str) -> None:
        if not self.exited.done():
            self.exited.set_result(reason)


class ForeignKernel:
    """A live kernel of a Jupyter kernelspec. Whoever holds it closes it."""

    workspace: object | None = None
    keep_workspace = False
    is_metered = False
    is_ours = False
    info = b""  # the content of its answer to `kernel_info_request`, if it is known

    def __init__(
        self,
        kernel_id: str,
        *,
        spec: KernelSpec,
        directory: Path,
        manager: AsyncKernelManager,
        channels: Channels,
        introductions: Introductions,
    ) -> None:
        self.kernel_id = kernel_id
        self.spec = spec
        self.directory = directory
        self.channels = channels
        self.process = ForeignProcess(manager.provisioner)
        self._manager: Any = manager
        self._introductions = introductions
        self._closing: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<ForeignKernel {self.kernel_id[:8]} {self.spec.kernelspec}: {self.process!r}>"

    @property
    def pid(self) -> int:
        """Return the process id; 0 where it runs elsewhere."""
        return self.process.pid

    @property
    def exited(self) -> asyncio.Future[str]:
        """Return the future of the exit reason."""
        return self.process.exited

    def introduce(self, content: bytes) -> None:
        """Note what it has said that it is."""
        self.info = self._introductions.keep(content)

    def label(self, text: str) -> None:
        """Do nothing: no later broker will find it."""

    def usage(self) -> Usage:
        """Return what it has used so far: nobody knows."""
        return Usage()

    def tighten(
        self, *, memory: int | None = None, processes: int | None = None, cpu: float | None = None
    ) -> None:
        """Do nothing: it has no bounds of ours."""

    def interrupt(self, request_id: str = "") -> None:
        """Ask whatever runs to stop, by message or by signal as the kernelspec says."""
        if self._manager.kernel_spec.interrupt_mode == "message":
            with contextlib.suppress(BlockingIOError):
                self.channels.send("control", "interrupt_request", {})
        else:
            self.process.send_signal(signal.SIGINT)

    def insist(self) -> None:
        """Ask once more, where that is a signal."""
        if self._manager.kernel_spec.interrupt_mode != "message":
            self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it at once; `exited` tells when it has."""
        self.process.kill()

    async def close(self) -> None:
        """Kill it, wait for its end, remove its files. Safe to call again."""
        if self._closing is None or (self._closing.done() and self._closing.exception()):
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        provisioner = self._manager.provisioner
        if not self.exited.done():
            with contextlib.suppress(ProcessLookupError):
                await provisioner.kill()
            await asyncio.wait([self.exited])
        await provisioner.wait()
        await self.process.aclose()
        self.channels.close()
        await self._manager.cleanup_resources()
        await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)


class ForeignLauncher:
    """Make kernels of the kernelspec that a profile names."""

    zygote_pid = 0
    level = "none"
    mode = ""

    def __init__(
        self, spec: KernelSpec, directory: Path, *, orphan_ttl: float = 0.0, timeout: float = 60.0
    ) -> None:
        self.spec = spec
        self.directory = directory
        self.timeout = timeout
        self._specs = KernelSpecManager()
        self._introductions = Introductions()
        self._kernels: set[ForeignKernel] = set()

    def used(self) -> Usage:
        """Return nothing: nobody counts what its kernels use."""
        return Usage()

    async def start(self) -> None:
        """Look the kernelspec up. Raises LaunchError naming the installed ones."""
        name = self.spec.kernelspec
        found = await asyncio.to_thread(find, self._specs, name)
        if not KernelProvisionerFactory.instance().is_provisioner_available(found):
            raise LaunchError(f"the provisioner that kernelspec {name!r} names is not installed")
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def self_test(self) -> list[Finding]:
        """Return nothing: there is no sandbox to test."""
        return []

    def drop_workspace(self, workspace: object) -> None:
        """Do nothing: each kernel's files end with it."""

    async def launch(self, *, workspace: object | None = None) -> ForeignKernel:
        """Start a kernel and wait until it takes requests. Raises LaunchError, KernelDied.

        It has no workspace to be given.
        """
        await self.start()
        kernel_id = str(uuid.uuid4())
        directory = self.directory / kernel_id.replace("-", "")[:12]
        try:
            (directory / "home").mkdir(mode=0o700, parents=True)
            directory.chmod(0o700)
            kernel = await self._start(kernel_id, directory)
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise LaunchError(f"cannot start {self.spec.kernelspec!r}: {error}") from error
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        try:
            async with asyncio.timeout(self.timeout):
                kernel.introduce(await until_ready(kernel))
        except TimeoutError:
            await kernel.close()
            raise LaunchTimeout(f"the kernel was not ready within {self.timeout:g} s") from None
        except BaseException:
            await asyncio.shield(kernel.close())
            raise
        self._kernels.add(kernel)
        kernel.exited.add_done_callback(lambda _: self._kernels.discard(kernel))
        return kernel

    async def adopt(self) -> list[tuple[ForeignKernel, str]]:
        """Return nothing: these kernels end with the broker that started them."""
        if self.directory.is_dir():
            live = {kernel.directory for kernel in self._kernels}
            for entry in self.directory.iterdir():
                if entry not in live and (entry / "home").is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
        return []

    async def aclose(self, *, leave: bool = False) -> None:
        """End every kernel; none can be left to a later broker."""
        await asyncio.gather(*(kernel.close() for kernel in tuple(self._kernels)))

    async def _start(self, kernel_id: str, directory: Path) -> ForeignKernel:
        manager = AsyncKernelManager(
            kernel_name=self.spec.kernelspec,
            kernel_spec_manager=self._specs,
            kernel_id=kernel_id,
            connection_file=str(directory / "connection.json"),
            transport="ipc",
            ip=str(directory / "k"),
            **{f"{channel}_port": number for channel, number in PORTS.items()},
        )
        home = str(directory / "home")
        environment = {**inherited(), "HOME": home, "TERM": "dumb", **dict(self.spec.env)}
        try:
            await manager.start_kernel(cwd=home, env=environment)
        except OSError:
            raise
        except Exception as error:  # whatever a provisioner of another project raises
            raise LaunchError(f"cannot start {self.spec.kernelspec!r}: {error}") from error
        ports = {channel: getattr(manager, f"{channel}_port") for channel in PORTS}
        if manager.transport != "ipc" or ports != PORTS:
            await manager.shutdown_kernel(now=True)
            raise LaunchError(
                f"kernelspec {self.spec.kernelspec!r} serves {manager.transport}://{manager.ip}; "
                "only kernels on unix sockets can be used"
            )
        channels = Channels(
            Path(manager.ip),
            manager.session.key,
            uuid.uuid4().hex[:12],
            max_message=2 * self.spec.limits.message_bytes or -1,
        )
        return ForeignKernel(
            kernel_id,
            spec=self.spec,
            directory=directory,
            manager=manager,
            channels=channels,
            introductions=self._introductions,
        )
