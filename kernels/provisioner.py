"""Serve every Jupyter application: a kernel provisioner that forks instead of starting.

Registered with jupyter_client as `kernel-broker-zygote`. A kernelspec names it in its metadata, or
the environment variable JUPYTER_DEFAULT_PROVISIONER_NAME chooses it for every kernelspec. Where a
kernel is none of ipykernel's, or asks for what a fork cannot give, it is started as ever.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import tempfile
import threading
import uuid
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from jupyter_core.paths import jupyter_runtime_dir
from traitlets import Enum, Float, List, Unicode

from kernels.channels import PORTS
from kernels.errors import LaunchError, ZygoteFailed
from kernels.fork import MAX_PATH
from kernels.launch import Kernel, Launcher
from kernels.spec import ISOLATION, KernelSpec, Limits, Order
from kernels.warden import BOOT, lock

MODULES = ("ipykernel_launcher", "ipykernel")
HARMLESS_FLAGS = ("-Xfrozen_modules=off",)  # what kernelspecs pass for the debugger's sake
SLOTS = 64  # processes of one user that use the same interpreter at once
LONGEST_SLOT = "12345678-63/123456789012/k-5"
SIGNATURES = "hmac-sha256"

T = TypeVar("T")


class Command(NamedTuple):
    """An ipykernel command line, taken apart: `python -m ipykernel_launcher -f file …`."""

    python: str
    arguments: tuple[str, ...]


def parse_command(argv: Sequence[str]) -> Command | None:
    """Take a kernelspec's argv apart; None if it is not plainly an ipykernel's."""
    rest = [argument for argument in argv[1:] if argument not in HARMLESS_FLAGS]
    if len(rest) < 2 or rest[0] != "-m" or rest[1] not in MODULES:
        return None
    arguments = []
    words = iter(rest[2:])
    for word in words:
        if word in ("-f", "--f"):
            next(words, None)
        elif not word.startswith(("-f=", "--f=")):
            arguments.append(word)
    return Command(argv[0], tuple(arguments))


class ZygoteThread:
    """Own the zygotes of this process, on an event loop that is there whatever loop callers use.

    jupyter_client's blocking managers run a loop only while a call lasts, and not always the same.
    The thread ends with the process; so do the kernels, because they are tied to it.
    """

    _instance: ClassVar[ZygoteThread | None] = None
    _guard: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._launchers: dict[str, asyncio.Task[Launcher]] = {}
        self._locks: list[int] = []
        threading.Thread(target=self._loop.run_forever, name="zygotes", daemon=True).start()

    @classmethod
    def instance(cls) -> ZygoteThread:
        """Return the process's one."""
        with cls._guard:
            if cls._instance is None:
                cls._instance = cls()
            return cls._instance

    @classmethod
    def forget(cls) -> None:
        """Drop it in a forked child, where the thread is not."""
        cls._guard = threading.Lock()
        if cls._instance is not None:
            for descriptor in cls._instance._locks:
                os.close(descriptor)
            cls._instance = None

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the thread's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Any, *arguments: Any) -> None:
        """Call a function on the thread's loop, soon."""
        self._loop.call_soon_threadsafe(function, *arguments)

    async def launcher(
        self, spec: KernelSpec, orphan_ttl: float, isolation: str = "none"
    ) -> Launcher:
        """Return the launcher of this interpreter and these imports. Raises LaunchError.

        A failure is kept: an interpreter that cannot be a zygote is asked once.
        """
        slot = str(_root() / _fingerprint(spec, isolation))
        opened = self._launchers.get(slot)
        # Somebody may have cleaned the runtime directory; what runs goes on without it.
        if opened is None or (opened.done() and not _is_there(opened)):
            opened = asyncio.create_task(self._open(slot, spec, orphan_ttl, isolation))
            self._launchers[slot] = opened
        return await asyncio.shield(opened)

    async def _open(
        self, slot: str, spec: KernelSpec, orphan_ttl: float, isolation: str
    ) -> Launcher:
        directory, descriptor = _take(slot)
        self._locks.append(descriptor)
        launcher = Launcher(
            spec,
            directory,
            isolation=isolation,
            orphan_ttl=orphan_ttl,
            heartbeat=True,
            tied=True,
        )
        await launcher.tidy()
        return launcher


os.register_at_fork(after_in_child=ZygoteThread.forget)


def _is_there(opened: asyncio.Task[Launcher]) -> bool:
    return opened.exception() is not None or opened.result().directory.is_dir()


def _fingerprint(spec: KernelSpec, isolation: str) -> str:
    """Name what a zygote is made of: a package installed meanwhile makes another zygote."""
    libraries = Path(spec.python).parent.parent.glob("lib/python3*/site-packages")
    files = [*sorted(libraries), *sorted(BOOT.parent.parent.glob("*/*.py"))]
    stamps = (f"{file} {file.stat().st_mtime_ns}" for file in files)
    made_of = [spec.python, isolation, *spec.preload, *stamps]
    return hashlib.sha256("\n".join(made_of).encode()).hexdigest()[:8]


def _root() -> Path:
    """Return this user's directory for zygotes: short enough for socket addresses, and private."""
    root = Path(jupyter_runtime_dir()) / "zygotes"
    if len(os.fsencode(root / LONGEST_SLOT)) > MAX_PATH:
        root = Path(tempfile.gettempdir()) / f"zygotes-{os.getuid()}"
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = root.lstat()
    if state.st_uid != os.getuid() or state.st_mode & 0o077:
        raise LaunchError(f"{root} is not private to this user; remove it")
    return root


def _take(slot: str) -> tuple[Path, int]:
    """Take the first free directory: one whose zygote still waits, where there is one."""
    for number in range(SLOTS):
        directory = Path(f"{slot}-{number}")
        directory.mkdir(mode=0o700, exist_ok=True)
        with suppress(BlockingIOError):
            return directory, lock(directory)
    raise LaunchError(f"{SLOTS} processes use the zygotes {slot}-*")


class ForkedProcess:
    """A forked kernel's process, shaped like `subprocess.Popen`."""

    stdin = stdout = stderr = None

    def __init__(self, kernel: Kernel, thread: ZygoteThread) -> None:
        self.pid = kernel.pid
        self.returncode: int | None = None
        self.ended: Future[int] = Future()
        self._thread = thread
        self._process = kernel.process
        thread.call(self._process.exited.add_done_callback, self._take_end)

    def _take_end(self, _: object) -> None:
        code = self._process.returncode
        # 1 where nobody knows: the zygote, which is the parent, ended before it.
        self.returncode = 1 if code is None else code
        self.ended.set_result(self.returncode)

    def poll(self) -> int | None:
        """Return the exit status; None while the process lives."""
        return self.returncode

    def wait(self) -> int:
        """Wait for the end."""
        return self.ended.result()

    def send_signal(self, number: int) -> None:
        """Signal the kernel and its children, which are one process group."""
        if self.returncode is None:
            if number == signal.SIGKILL:
                self._process.kill()  # in a sandbox, with all that has left its group
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class ZygoteProvisioner(LocalProvisioner):
    """Fork the kernel of a `KernelManager` from this process's zygote.

    The transport becomes unix sockets in a directory that is private to the user. Key, working
    directory, environment and arguments are the manager's.
    """

    preload = List(Unicode(), config=True, help="Modules the zygote imports for all kernels.")
    orphan_ttl = Float(
        300.0, min=0, config=True, help="Seconds a zygote waits for the next process to use it."
    )
    isolation = Enum(
        ISOLATION, "none", config=True, help="The least isolation that will do for kernels."
    )
    # The base class knows only `Popen`, and a parent that may be missing.
    process: Any = None
    parent: Any
    _kernel: Kernel | None = None
    _command: Command | None = None
    _directory_id = ""

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        """Choose between a fork and a start, and set the addresses for a fork."""
        self._command = self._forkable(kwargs)
        if self._command is None:
            return dict(await super().pre_launch(**kwargs))
        manager = self.parent
        kwargs.pop("transport_encryption", None)
        arguments = kwargs.pop("extra_arguments", [])
        launcher = await self._launcher()
        if launcher is None:
            self._command = None
            return dict(await super().pre_launch(extra_arguments=arguments, **kwargs))
        # A restart keeps the addresses: clients stay connected across it.
        self._directory_id = self._directory_id or str(uuid.uuid4())
        manager.transport = "ipc"
        manager.ip = str(launcher.directory_of(self._directory_id) / "k")
        for channel, number in PORTS.items():
            setattr(manager, f"{channel}_port", number)
        session_name = kwargs.get("env", {}).get("JPY_SESSION_NAME", "")
        manager.write_connection_file(jupyter_session=session_name)
        self.connection_info = manager.get_connection_info()
        command = manager.format_kernel_cmd(extra_arguments=arguments)
        return dict(await KernelProvisionerBase.pre_launch(self, cmd=command, **kwargs))

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Fork the kernel, or start it where it cannot be forked."""
        launcher = await self._launcher() if self._command else None
        command = parse_command(cmd)
        if launcher is None or command is None:
            return await super().launch_kernel(cmd, **kwargs)
        environment = dict(kwargs["env"])
        environment.pop("JPY_PARENT_PID", None)  # the kernel's parent is the zygote
        self.cwd = str(kwargs.get("cwd") or Path.cwd())
        order = Order(
            self._directory_id,
            self.parent.session.key.decode(),
            environment,
            self.cwd,
            argv=command.arguments,
            connection_file=os.path.realpath(self.parent.connection_file),
            umask=_umask(),
        )
        thread = ZygoteThread.instance()
        self._kernel = await asyncio.wrap_future(thread.submit(_launch(launcher, order)))
        self.process = ForkedProcess(self._kernel, thread)
        self.pid = self.pgid = self._kernel.pid
        return self.connection_info

    async def wait(self) -> int | None:
        """Wait for the kernel's end; nothing polls."""
        process = self.process
        if not isinstance(process, ForkedProcess):
            return await super().wait()
        code = await asyncio.shield(asyncio.wrap_future(process.ended))  # others wait for it, too
        self.process = None
        return code

    async def send_signal(self, signum: int) -> None:
        """Signal the kernel's process group, unless it has ended: its number may be another's."""
        if isinstance(self.process, ForkedProcess):
            self.process.send_signal(signum)
        else:
            await super().send_signal(signum)

    async def cleanup(self, restart: bool = False) -> None:
        """Remove what the kernel left; after this nothing of it is alive."""
        kernel, self._kernel = self._kernel, None
        if kernel is not None:
            await asyncio.wrap_future(ZygoteThread.instance().submit(kernel.close()))
        await super().cleanup(restart=restart)

    def _forkable(self, kwargs: dict[str, Any]) -> Command | None:
        """Return the command if a fork can stand in for it."""
        manager = self.parent
        if manager is None:
            return None
        command = parse_command([*self.kernel_spec.argv, *kwargs.get("extra_arguments", [])])
        encryption = kwargs.get("transport_encryption") or manager.transport_encryption
        if (
            kwargs.get("independent")  # is to outlive every process of ours
            or encryption == "required"
            or not manager.session.key
            or manager.session.signature_scheme != SIGNATURES
        ):
            return None
        return command

    async def _launcher(self) -> Launcher | None:
        """Return the launcher for the kernelspec's interpreter; None if it can be no zygote."""
        python = shutil.which(self.parent.format_kernel_cmd()[0])
        if python is None:
            return None
        spec = KernelSpec(
            python=python, preload=tuple(self.preload), limits=Limits(message_bytes=0)
        )
        thread = ZygoteThread.instance()
        try:
            opening = thread.submit(thread.launcher(spec, self.orphan_ttl, self.isolation))
            return await asyncio.wrap_future(opening)
        except ZygoteFailed as error:
            self.log.warning("Kernels of %s are started, not forked: %s", python, error)
            return None


class SandboxedProvisioner(ZygoteProvisioner):
    """Fork the kernel into a sandbox, as strong as this host allows, or not at all.

    It sees none of the host's files, its working directory included, and has no network.
    """

    isolation = Enum(ISOLATION[1:], "standard", config=True, help=ZygoteProvisioner.isolation.help)

    def _forkable(self, kwargs: dict[str, Any]) -> Command | None:
        command = super()._forkable(kwargs)
        if command is None:
            raise LaunchError("this kernelspec cannot be forked, and is not started unprotected")
        return command

    async def _launcher(self) -> Launcher | None:
        launcher = await super()._launcher()
        if launcher is None:
            raise LaunchError("its interpreter can be no zygote, and is not started unprotected")
        return launcher


async def _launch(launcher: Launcher, order: Order) -> Kernel:
    kernel = await launcher.launch(order)
    kernel.channels.close()  # the manager's clients have sockets of their own
    return kernel


def _umask() -> int:
    """Return this process's umask, which only setting it would tell otherwise."""
    with suppress(OSError), open("/proc/self/status") as status:
        for line in status:
            if line.startswith("Umask:"):
                return int(line.split()[1], 8)
    return 0o022
