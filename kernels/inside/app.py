"""The kernel application: ipykernel's, on sockets that were made for it, with our defaults."""

from __future__ import annotations

import atexit
import gc
import json
import os
import random
import resource
import socket
import sys
import traceback
from typing import TYPE_CHECKING, Any, ClassVar

import zmq
from ipykernel.heartbeat import Heartbeat
from ipykernel.ipkernel import IPythonKernel
from ipykernel.kernelapp import IPKernelApp
from ipykernel.zmqshell import ZMQInteractiveShell
from IPython.core.interactiveshell import InteractiveShell
from traitlets import Type
from traitlets.config import Config

from .streams import CellStream, OutputBudget, PublishThread

if TYPE_CHECKING:
    from .forkserver import Request

PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "hb": 4, "control": 5}
MAX_CONFIG = 64 << 10


class Shell(ZMQInteractiveShell):
    """The shell, with `!cmd` through the captured descriptors instead of a terminal."""

    # A pty would turn line ends into CRLF, and a sandbox has no /dev/pts.
    system = InteractiveShell.system_raw


class Kernel(IPythonKernel):
    """The kernel, with its text output under a budget per execution."""

    budget: ClassVar[OutputBudget]
    shell_class = Type(Shell)

    async def do_execute(self, code: str, silent: bool, *args: Any, **options: Any) -> Any:
        """Run one cell; the tail of an over-long output is sent before its reply."""
        self.budget.begin()
        try:
            return await super().do_execute(code, silent, *args, **options)
        finally:
            for stream in (sys.stdout, sys.stderr):
                if isinstance(stream, CellStream):
                    stream.collect()
            self.budget.finish()

    def finish_metadata(self, parent: Any, metadata: Any, reply_content: Any) -> Any:
        """Say in the reply how much of the text was left out."""
        metadata = super().finish_metadata(parent, metadata, reply_content)
        if self.budget.truncated:
            metadata["truncated"] = {"shown": self.budget.shown, "total": self.budget.total}
        return metadata


class DescriptorHeartbeat(Heartbeat):
    """The heartbeat on a listener that was made for it."""

    def __init__(self, context: Any, address: Any, descriptor: int) -> None:
        super().__init__(context, address)
        self._descriptor = descriptor

    def _try_bind_socket(self) -> Any:
        self.socket.setsockopt(zmq.USE_FD, self._descriptor)
        return super()._try_bind_socket()


class KernelApp(IPKernelApp):
    """ipykernel's application without a connection file, a TCP port, or a file in the home."""

    listeners: ClassVar[dict[str, int]] = {}
    options: ClassVar[dict[str, Any]] = {}

    def parse_command_line(self, argv: Any = None) -> None:
        """Do nothing: `prepare` has done it, once for all kernels."""

    def init_connection_file(self) -> None:
        """Take the addresses and the key from the options; there is no file."""
        self.connection_file = ""
        self.transport = "ipc"
        self.ip = self.options["prefix"]
        for channel, number in PORTS.items():
            setattr(self, f"{channel}_port", number)
        self.session.key = self.options["key"].encode()

    def write_connection_file(self, **kwargs: Any) -> None:
        """Write nothing."""

    def cleanup_connection_file(self) -> None:
        """Remove nothing: the socket files belong to whoever made them."""

    def cleanup_ipc_files(self) -> None:
        """Remove nothing, likewise."""

    def log_connection_info(self) -> None:
        """Keep the numbers for `connect_request`; print nothing."""
        self._ports = {name: number for name, number in PORTS.items() if name in self.listeners}

    def _try_bind_socket(self, s: Any, port: int) -> int:
        channel = next(name for name, number in PORTS.items() if number == port)
        s.setsockopt(zmq.USE_FD, self.listeners[channel])
        s.bind(f"ipc://{self.ip}-{port}")
        return port

    def init_heartbeat(self) -> None:
        """Start the heartbeat only where somebody may listen: it costs a context of its own."""
        if "hb" in self.listeners:
            address = (self.transport, self.ip, self.hb_port)
            self.heartbeat = DescriptorHeartbeat(zmq.Context(), address, self.listeners["hb"])
            self.heartbeat.start()

    def init_iopub(self, context: Any) -> None:
        """Publish through a thread with bounded queues, and without a TCP port for children."""
        publisher = context.socket(zmq.XPUB)
        publisher.linger = 1000
        # Losing a message silently would lose the `idle` that ends an execution: wait instead.
        publisher.setsockopt(zmq.XPUB_NODROP, 1)
        self._bind_socket(publisher, self.iopub_port)
        self.configure_tornado_logger()
        limit = self.options["message_bytes"]
        self.iopub_thread = PublishThread(publisher, session=self.session, message_bytes=limit)
        self.iopub_thread.start()
        self.iopub_socket = self.iopub_thread.background_socket

    def init_io(self) -> None:
        """Capture output at Python's level and at the descriptors', under one budget."""
        Kernel.budget = OutputBudget(self.options["output_bytes"])
        CellStream.budget = Kernel.budget
        super().init_io()
        Kernel.budget.streams = {"stdout": sys.stdout, "stderr": sys.stderr}

    def init_gui_pylab(self) -> None:
        """Hook up inline plots: a backend imported before the shell existed never did."""
        super().init_gui_pylab()
        if "matplotlib_inline.backend_inline" in sys.modules:
            from matplotlib_inline.backend_inline import configure_inline_support

            configure_inline_support(self.shell, "module://matplotlib_inline.backend_inline")


def settings() -> Config:
    """Return the defaults that differ from ipykernel's, each for a reason."""
    config = Config()
    config.IPKernelApp.kernel_class = Kernel
    config.IPKernelApp.outstream_class = f"{CellStream.__module__}.{CellStream.__qualname__}"
    config.Kernel._execute_sleep = 0.0  # outputs are ordered by one queue; nothing to wait for
    config.HistoryManager.enabled = False  # a database shared by kernels would leak their code
    config.InteractiveShell.cache_size = 0  # Out[] would keep every result alive
    config.Completer.use_jedi = False
    return config


def reseed() -> None:
    """Give the child its own randomness: what was seeded before the fork is everybody's."""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


def prepare_process(options: dict[str, Any]) -> None:
    """Make the process its own: session, environment, directory, limits."""
    os.setsid()
    os.environ.clear()
    os.environ.update(options["env"])
    os.chdir(options["cwd"])
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files = options["open_files"]
    if files:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    reseed()


def start(app: KernelApp, request: Request) -> None:
    """Bring the kernel up; a failure is told on the config socket."""
    try:
        options = json.loads(request.config.recv(MAX_CONFIG))
        KernelApp.options = options
        KernelApp.listeners = request.listeners
        prepare_process(options)
        app.initialize([])
    except BaseException as error:
        text = "".join(traceback.format_exception_only(type(error), error)).strip()
        request.config.send(json.dumps({"error": text}).encode()[:MAX_CONFIG])
        os._exit(1)


def report(config: socket.socket) -> None:
    """Say that the kernel takes requests."""
    config.send(b'{"ready": true}')
    config.close()


def prepare() -> None:
    """Make, before the fork, what all kernels can share: an application with its settings read.

    Nothing in it may be a thread, a ZMQ context, an event loop or a session with a key.
    """
    sys.argv[:] = [""]
    app = KernelApp.instance(config=settings())
    IPKernelApp.parse_command_line(app, [])
    rehearse(app)


def rehearse(app: KernelApp) -> None:
    """Make a shell and drop it, for what it leaves behind: caches on classes, compiled patterns.

    Made here they are shared by all kernels; made after the fork each would have its own.
    """
    kept = sys.displayhook, sys.excepthook, sys.modules["__main__"], list(sys.path)
    shell = Shell(parent=app, config=app.config, user_ns={}, kernel=None)
    shell.configurables.clear()
    shell.restore_sys_module_state()
    atexit.unregister(shell.atexit_operations)
    sys.displayhook, sys.excepthook, sys.modules["__main__"], sys.path[:] = kept


def become_kernel(request: Request) -> None:
    """Turn a forked child into a kernel; never returns."""
    app = KernelApp.instance()
    start(app, request)
    # Only now: a collection while starting would write to pages that are shared until then.
    gc.collect(1)
    gc.freeze()
    gc.enable()
    report(request.config)
    code = 0
    try:
        app.start()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        code = 1
    finally:
        try:
            app.close()
        finally:
            os._exit(code)
