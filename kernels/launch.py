"""Launch kernels: a ready kernel as an async context manager, and the launcher of a profile.

async with launch(KernelSpec(), directory) as kernel:
    kernel.channels.receiver = print
    kernel.channels.send("shell", "execute_request", {"code": "1 + 1", …})
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from hashlib import sha256
from hmac import digest
from pathlib import Path

from kernels.channels import PORTS, Channels
from kernels.errors import LaunchError, LaunchTimeout
from kernels.process import Process
from kernels.spec import Finding, KernelSpec, Order, Usage
from kernels.zygote import Zygote

MAX_PATH = 107  # bytes of a unix socket address, unix(7)
MAX_CONFIG = 160 << 10  # bytes; a packet must fit the default socket buffer of 208 KiB
BACKLOG = 16
TEXT_MESSAGE = 4 << 20  # bytes; no piece of text is longer, whatever the bound on rich output
ADOPT_PATIENCE = 2.0  # s for all kernels together
STOP_PATIENCE = 5.0  # s that a zygote may take to end
UNBOUNDED = -1  # as ZMQ_MAXMSGSIZE says it; 0 would let no message through
CHANNELS = ("shell", "iopub", "stdin", "control")


class Kernel:
    """A live kernel that takes requests.

    `exited` resolves with the reason when its process ends. Whoever holds it closes it.
    """

    workspace: object | None = None
    keep_workspace = False

    def __init__(
        self,
        kernel_id: str,
        *,
        spec: KernelSpec,
        directory: Path,
        process: Process,
        channels: Channels,
        label: Callable[[str, str], None],
    ) -> None:
        self.kernel_id = kernel_id
        self.spec = spec
        self.directory = directory
        self.process = process
        self.channels = channels
        self._label = label

    def __repr__(self) -> str:
        return f"<Kernel {self.kernel_id[:8]} {self.spec.name}: {self.process!r}>"

    @property
    def pid(self) -> int:
        """Return the process id as seen from here."""
        return self.process.pid

    @property
    def exited(self) -> asyncio.Future[str]:
        """Return the future of the exit reason."""
        return self.process.exited

    def label(self, text: str) -> None:
        """Note who is bound to it, where a later broker finds it."""
        self._label(self.kernel_id, text)

    def usage(self) -> Usage:
        """Return what its process tree has used so far; without a sandbox nobody knows."""
        return Usage()

    def tighten(
        self, *, memory: int | None = None, processes: int | None = None, cpu: float | None = None
    ) -> None:
        """Lower its bounds; without a sandbox it has none."""

    def interrupt(self) -> None:
        """Ask the running cell to stop: a message first, because it reaches every descendant."""
        try:
            self.channels.send("control", "interrupt_request", {})
        except BlockingIOError:
            self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it at once; `exited` tells when it has."""
        self.process.kill()

    async def close(self) -> None:
        """Kill it, wait for its end, remove its files. Safe to call again."""
        self.process.kill()
        await asyncio.wait([self.process.exited])
        self.channels.close()
        try:
            await asyncio.to_thread(shutil.rmtree, self.directory, ignore_errors=True)
        except RuntimeError:  # the interpreter is ending and starts no more threads
            shutil.rmtree(self.directory, ignore_errors=True)


class Launcher:
    """Make the kernels of one profile in `directory`, which is this process's own.

    `secret` derives each kernel's key, so that no key is ever written down: a broker that comes
    back with the same secret can speak to the kernels that outlived it. `tied` kernels end when
    this process does.
    """

    level = "none"
    mode = ""

    def __init__(
        self,
        spec: KernelSpec,
        directory: Path,
        *,
        secret: bytes | None = None,
        orphan_ttl: float = 600.0,
        timeout: float = 60.0,
        heartbeat: bool = False,
        tied: bool = False,
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
        self._secret = secret or os.urandom(32)
        self._orphan_ttl = orphan_ttl
        self._heartbeat = heartbeat
        self._tied = tied
        self._zygote: Zygote | None = None
        self._starting = asyncio.Lock()
        self._kernels: dict[str, tuple[Kernel, str]] = {}

    @property
    def zygote_pid(self) -> int:
        """Return the zygote's process id; 0 while there is none."""
        return self._zygote.pid if self._zygote and not self._zygote.lost.done() else 0

    async def start(self) -> None:
        """Attach to this directory's zygote or start one. Raises ZygoteFailed."""
        await self._ready_zygote()

    async def self_test(self) -> list[Finding]:
        """Return what hostile code could do in a kernel of this profile; without a sandbox, [].

        Raises LaunchError.
        """
        return []

    async def launch(self, order: Order | None = None) -> Kernel:
        """Fork a kernel and wait until it takes requests. Raises LaunchError.

        Without an order it is a kernel of the profile, with an id and a key made here.
        """
        zygote = await self._ready_zygote()
        try:
            return await self._launch(zygote, order)
        except LaunchError:
            if not zygote.lost.done():
                raise
        # It died under us, which says nothing of the profile: its successor is asked, once.
        return await self._launch(await self._ready_zygote(), order)

    async def _launch(self, zygote: Zygote, order: Order | None) -> Kernel:
        kernel_id = order.kernel_id if order else str(uuid.uuid4())
        directory = self.directory_of(kernel_id)
        try:
            directory.mkdir(mode=0o700)
            (directory / "home").mkdir(mode=0o700)
            kernel = await self._fork(zygote, kernel_id, directory, order)
        except OSError as error:
            shutil.rmtree(directory, ignore_errors=True)
            raise LaunchError(f"cannot prepare {directory}: {error}") from error
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        self._remember(kernel, "")
        return kernel

    async def adopt(self) -> list[tuple[Kernel, str]]:
        """Return the kernels that outlived the last broker, each with its label.

        One that does not answer soon (stopped, or deep in C code) is returned all the same: what
        it is sent waits until it reads.
        """
        zygote = await self._ready_zygote()
        found = []
        for forked in await zygote.kernels():
            directory = self.directory_of(forked.kernel_id)
            key = self._key(forked.kernel_id)
            kernel = self._kernel(forked.kernel_id, key, directory, forked.process)
            self._remember(kernel, forked.label)
            found.append((kernel, forked.label))
        self._sweep({kernel.directory for kernel, _ in found})
        if found:
            await asyncio.wait(
                [kernel.channels.subscribed for kernel, _ in found], timeout=ADOPT_PATIENCE
            )
        return found

    async def tidy(self) -> None:
        """Remove what kernels that have ended without us left behind."""
        zygote = await self._ready_zygote()
        self._sweep({self.directory_of(forked.kernel_id) for forked in await zygote.kernels()})

    async def aclose(self, *, leave: bool = False) -> None:
        """Let go of the zygote: it ends with all its kernels, unless told to `leave` them."""
        if self._zygote is not None:
            if not leave:
                self._zygote.stop()
                with contextlib.suppress(TimeoutError):  # a zygote that hangs ends as an orphan
                    async with asyncio.timeout(STOP_PATIENCE):
                        await self._zygote.lost
            self._zygote.close()
            self._zygote = None

    async def _ready_zygote(self) -> Zygote:
        async with self._starting:
            if self._zygote is None or self._zygote.lost.done():
                self._zygote = await Zygote.open(
                    self.spec,
                    self.directory,
                    orphan_ttl=self._orphan_ttl,
                    timeout=self.timeout,
                )
                for kernel, label in self._kernels.values():
                    self._zygote.adopt(kernel.kernel_id, kernel.process, label, tied=self._tied)
            return self._zygote

    def directory_of(self, kernel_id: str) -> Path:
        """Return the directory of a kernel; `k-1` to `k-5` in it are its sockets."""
        return self.directory / kernel_id.replace("-", "")[:12]

    def _key(self, kernel_id: str) -> str:
        return digest(self._secret, kernel_id.encode(), sha256).hex()

    def _kernel(self, kernel_id: str, key: str, directory: Path, process: Process) -> Kernel:
        bound = self.spec.limits.message_bytes
        channels = Channels(
            directory / "k",
            key.encode(),
            uuid.uuid4().hex[:12],
            max_message=max(2 * bound, TEXT_MESSAGE) if bound else UNBOUNDED,
        )
        return Kernel(
            kernel_id,
            spec=self.spec,
            directory=directory,
            process=process,
            channels=channels,
            label=self._set_label,
        )

    def _set_label(self, kernel_id: str, text: str) -> None:
        if kernel_id in self._kernels:
            self._kernels[kernel_id] = (self._kernels[kernel_id][0], text)
        if self._zygote is not None:
            self._zygote.label(kernel_id, text)

    def _remember(self, kernel: Kernel, label: str) -> None:
        self._kernels[kernel.kernel_id] = (kernel, label)
        kernel.exited.add_done_callback(lambda _: self._kernels.pop(kernel.kernel_id, None))

    def _sweep(self, live: set[Path]) -> None:
        """Remove what kernels of an earlier life left behind."""
        for entry in self.directory.iterdir():
            if entry.is_dir() and entry not in live and (entry / "home").exists():
                shutil.rmtree(entry, ignore_errors=True)

    def _options(self, key: str, directory: Path) -> dict[str, object]:
        """Return what a kernel of the profile is told."""
        home = directory / "home"
        environment = {
            "PATH": os.defpath,
            "LANG": "C.UTF-8",
            "HOME": str(home),
            "IPYTHONDIR": str(directory / "ipython"),
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "TERM": "dumb",
            **dict(self.spec.env),
        }
        limits = self.spec.limits
        return {
            "key": key,
            "prefix": str(directory / "k"),
            "cwd": str(home),
            "env": environment,
            "output_bytes": limits.output_bytes,
            "message_bytes": limits.message_bytes,
            "open_files": limits.open_files,
        }

    async def _fork(
        self, zygote: Zygote, kernel_id: str, directory: Path, order: Order | None
    ) -> Kernel:
        key = order.key if order else self._key(kernel_id)
        prefix = directory / "k"
        options = _ordered(order, prefix) if order else self._options(key, directory)
        names = (*CHANNELS, "hb") if self._heartbeat else CHANNELS
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listeners: list[socket.socket] = []
        try:
            listeners.extend(_listen(directory / f"k-{PORTS[name]}") for name in names)
            # Only the child reads this: the key never passes through the zygote's memory.
            ours.send(_packet(options))
            descriptors = [theirs.fileno(), *(listener.fileno() for listener in listeners)]
            async with asyncio.timeout(self.timeout):
                process = await zygote.fork(kernel_id, descriptors, tied=self._tied)
        except TimeoutError:
            ours.close()
            raise LaunchTimeout(f"the zygote did not fork within {self.timeout:g} s") from None
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for listener in listeners:
                listener.close()
        kernel = self._kernel(kernel_id, key, directory, process)
        try:
            async with asyncio.timeout(self.timeout):
                await _until_ready(ours, kernel)
        except TimeoutError:
            await kernel.close()
            raise LaunchTimeout(f"the kernel was not ready within {self.timeout:g} s") from None
        except BaseException:
            await asyncio.shield(kernel.close())
            raise
        finally:
            ours.close()
        return kernel


def _ordered(order: Order, prefix: Path) -> dict[str, object]:
    """Return what an ordered kernel is told: no settings and no bounds of ours."""
    return {
        "plain": True,
        "key": order.key,
        "prefix": str(prefix),
        "cwd": order.cwd,
        "env": dict(order.env),
        "argv": list(order.argv),
        "connection_file": order.connection_file,
        "umask": order.umask,
        "output_bytes": 0,
        "message_bytes": 0,
        "open_files": 0,
    }


def _packet(options: dict[str, object]) -> bytes:
    data = json.dumps(options).encode()
    if len(data) > MAX_CONFIG:
        raise LaunchError(
            f"the kernel's environment and arguments take {len(data)} bytes; at most {MAX_CONFIG}"
        )
    return data


async def _until_ready(config: socket.socket, kernel: Kernel) -> None:
    """Wait for the child's word and for the subscription. Raises LaunchError."""
    loop = asyncio.get_running_loop()
    config.setblocking(False)
    word = await loop.sock_recv(config, MAX_CONFIG)
    if not word:
        raise LaunchError(f"the kernel ended while it started: {await kernel.exited}")
    answer = json.loads(word)
    if "error" in answer:
        raise LaunchError(f"the kernel could not start: {answer['error']}")
    await kernel.channels.subscribed


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def launch(spec: KernelSpec, directory: Path) -> AsyncIterator[Kernel]:
    """Launch one kernel with a zygote of its own; both end with the block."""
    launcher = Launcher(spec, directory)
    try:
        kernel = await launcher.launch()
        try:
            yield kernel
        finally:
            await kernel.close()
    finally:
        await launcher.aclose()
