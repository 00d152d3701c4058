"""The kernel application: ipykernel's, on sockets that were made for it, with our defaults."""

from __future__ import annotations

import atexit
import gc
import os
import random
import site
import socket
import sys
from typing import Any, ClassVar

import zmq
from ipykernel.heartbeat import Heartbeat
from ipykernel.kernelapp import IPKernelApp
from traitlets.config import Config

from .child import refuse
from .imports import guard
from .kernel import Kernel, Shell
from .publish import PublishThread, pack
from .streams import CellStream, OutputBudget

INLINE = "matplotlib_inline.backend_inline"
PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "hb": 4, "control": 5}
SEND_QUEUE = 16  # messages in libzmq, each as large as one may be, before the IO thread waits


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
        """Take the addresses and the key from the options; a file is for others to read."""
        self.connection_file = self.options.get("connection_file", "")
        self.transport = "ipc"
        self.ip = self.options["prefix"]
        for channel, number in PORTS.items():
            setattr(self, f"{channel}_port", number)
        self.session.key = self.options["key"].encode()
        self.session.pack = pack

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
        if channel == "shell":
            # The debugger asks the shell over its last endpoint, and a sandbox shows no other.
            s.setsockopt(zmq.USE_FD, -1)
            s.bind("inproc://shell")
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
        # Welcome each subscriber: without this, one that comes before a dead one's connection is
        # seen to end is no news, and would wait for its welcome for ever.
        publisher.setsockopt(zmq.XPUB_VERBOSE, 1)
        publisher.sndhwm = SEND_QUEUE
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
        Kernel.message_bytes = self.options["message_bytes"]
        Kernel.budget.streams = {"stdout": sys.stdout, "stderr": sys.stderr}

    def init_path(self) -> None:
        """Let code import from its working directory, as ipykernel does.

        The zygote's interpreter is isolated, which IPython would take for a wish to forbid it.
        """
        if "" not in sys.path and not self.ignore_cwd and "PYTHONSAFEPATH" not in os.environ:
            folders = map(os.path.basename, sys.path)
            libraries = ("site-packages", "dist-packages")
            at = next((i for i, name in enumerate(folders) if name in libraries), 0)
            sys.path.insert(at, "")

    def init_signal(self) -> None:
        """Do nothing: the kernel takes SIGINT as soon as it exists."""

    def init_gui_pylab(self) -> None:
        """Hook up inline plots: a backend imported before the shell existed never did."""
        super().init_gui_pylab()
        if INLINE in sys.modules:
            from matplotlib_inline.backend_inline import configure_inline_support

            configure_inline_support(self.shell, f"module://{INLINE}")


def parts() -> Config:
    """Return the settings that put our parts in the place of ipykernel's."""
    config = Config()
    config.IPKernelApp.kernel_class = Kernel
    config.IPKernelApp.outstream_class = f"{CellStream.__module__}.{CellStream.__qualname__}"
    config.Kernel._execute_sleep = 0.0  # outputs are ordered by one queue; nothing to wait for
    return config


def settings() -> Config:
    """Return the defaults that differ from ipykernel's, each for a reason."""
    config = parts()
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
    """Make the process its own: environment, directory, randomness."""
    os.environ.clear()
    os.environ.update(options["env"])
    os.chdir(options["cwd"])
    extend_path(options)
    reseed()


def extend_path(options: dict[str, Any]) -> None:
    """Put on the path what the environment asks for: the zygote was started without one."""
    environment = options["env"]
    entries = [entry for entry in environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[0:0] = [entry for entry in entries if entry not in sys.path]
    if (
        options.get("plain")
        and sys.prefix == sys.base_prefix
        and not environment.get("PYTHONNOUSERSITE")
        and os.path.isdir(site.getusersitepackages())
    ):
        site.addsitedir(site.getusersitepackages())


def make_plain(app: KernelApp, arguments: list[str]) -> None:
    """Give the application ipykernel's own settings, and those of a command line."""
    app.config = parts()
    IPKernelApp.parse_command_line(app, arguments)


def start(app: KernelApp, listeners: dict[str, int], options: dict[str, Any]) -> None:
    """Bring the kernel up."""
    KernelApp.options = options
    KernelApp.listeners = listeners
    prepare_process(options)
    if options.get("plain"):
        make_plain(app, options["argv"])
    app.initialize([])
    guard(options["allow_imports"], options["deny_imports"])


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
    if INLINE in sys.modules:
        from IPython.core.pylabtools import activate_matplotlib

        # Makes pyplot interactive: a figure shows at the end of its cell without `show()`.
        activate_matplotlib(f"module://{INLINE}")
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    Kernel.module_files = [name for name in files if name]


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


def become(config: socket.socket, listeners: dict[str, int], options: dict[str, Any]) -> None:
    """Turn a forked child into a kernel; never returns."""
    app = KernelApp.instance()
    try:
        start(app, listeners, options)
    except BaseException as error:
        refuse(config, error)
    # Only now: a collection while starting would write to pages that are shared until then.
    gc.collect(1)
    gc.freeze()
    gc.enable()
    report(config)
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
