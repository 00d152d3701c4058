"""The kernel application: ipykernel's, on sockets that were made for it, with our defaults."""

from __future__ import annotations

import gc
import json
import os
import socket
import sys
import uuid
from pathlib import Path
from typing import Any

import zmq
from ipykernel.control import ControlThread
from ipykernel.heartbeat import Heartbeat
from ipykernel.kernelapp import IPKernelApp
from IPython.core.application import ENV_CONFIG_DIRS, SYSTEM_CONFIG_DIRS
from IPython.core.profiledir import ProfileDir
from traitlets import observe
from traitlets.config import Config

from . import alarms, offspring, packages, places, tracebacks
from .budget import OutputBudget
from .child import refuse
from .doors import Doors
from .imports import guard
from .kernel import Kernel
from .peers import Loop, Router
from .process import prepare_process
from .publish import Publisher
from .rehearsal import dress, rehearse
from .session import KernelSession
from .shell import Shell
from .spill import Outputs
from .streams import CellStream

INLINE = "matplotlib_inline.backend_inline"
PORTS = {"shell": 1, "iopub": 2, "stdin": 3, "hb": 4, "control": 5}


class DescriptorHeartbeat(Heartbeat):
    """The heartbeat on a listener that was made for it."""

    def __init__(self, context: Any, address: Any, descriptor: int) -> None:
        super().__init__(context, address)
        self._descriptor = descriptor

    def _try_bind_socket(self) -> Any:
        self.socket.setsockopt(zmq.USE_FD, self._descriptor)
        return super()._try_bind_socket()


class Profile(ProfileDir):
    """IPython's directory for a user's settings, which is made by who first writes into it."""

    def move(self, location: str) -> None:
        """Be elsewhere from now on."""
        self._location_isset = False
        self.location = location

    def _mkdir(self, path: str, mode: int | None = None) -> bool:
        return False

    @observe("location")
    def _location_changed(self, change: Any) -> None:
        self._location_isset = True
        for part in ("security", "log", "startup", "pid", "static"):
            folder = os.path.join(change["new"], getattr(self, f"{part}_dir_name"))
            setattr(self, f"{part}_dir", folder)


class KernelApp(IPKernelApp):
    """ipykernel's application in two steps: what all kernels share, and what each has for itself.

    `assemble` makes everything that is no descriptor, no thread, no event loop and no secret;
    `begin` makes those. There is no connection file, no TCP port, and no file in the home.
    """

    shell: Any
    profile_dir: Any
    kernel_class: Any
    streams: tuple[Any, Any]
    has_startup = False  # code of an operator's that each kernel runs first
    plain = False  # with the settings of a command line: all of it happens after the fork

    def assemble(self) -> None:
        """Make the kernel, its shell and its streams; they are not yet those of the process."""
        kept = sys.stdout, sys.stderr, sys.displayhook, sys.excepthook, sys.modules["__main__"]
        try:
            self.initialize([])
            # traitlets leaves it to the handlers to drop what nobody wants, when it is made up.
            self.log.setLevel(self.log_level)
            self.streams = sys.stdout, sys.stderr
            self.hooks = sys.displayhook, sys.excepthook, sys.modules["__main__"]
        finally:
            sys.stdout, sys.stderr, sys.displayhook, sys.excepthook = kept[:4]
            sys.modules["__main__"] = kept[4]

    def parse_command_line(self, argv: Any = None) -> None:
        """Do nothing: `prepare` has done it, once for all kernels."""

    def init_profile_dir(self) -> None:
        """Name a directory; the one of a command line is made, as ever."""
        if self.plain:
            super().init_profile_dir()
        else:
            self.profile_dir = Profile(location="/nonexistent")

    def init_connection_file(self) -> None:
        """Do nothing: the options hold what would be in it."""

    def write_connection_file(self, **kwargs: Any) -> None:
        """Write nothing."""

    def cleanup_connection_file(self) -> None:
        """Remove nothing: the socket files belong to whoever made them."""

    def cleanup_ipc_files(self) -> None:
        """Remove nothing, likewise."""

    def log_connection_info(self) -> None:
        """Print nothing."""

    def init_heartbeat(self) -> None:
        """Wait for `begin`."""

    def init_sockets(self) -> None:
        """Make what is sent to; connections come after the fork."""
        self.iopub_thread = self.iopub_socket = Publisher()
        self.iopub_socket.session = self.session
        self.iopub_socket.texts = CellStream.pending
        self.shell_socket = Router(self.iopub_socket.flush, keep=True)
        self.control_socket = Router()
        self.stdin_socket = Router()
        self.configure_tornado_logger()

    def init_io(self) -> None:
        """Capture output at Python's level and at the descriptors', under one budget."""
        Kernel.budget = CellStream.budget = OutputBudget(0)
        super().init_io()
        streams = {"stdout": sys.stdout, "stderr": sys.stderr}
        kept = {name: each for name, each in streams.items() if isinstance(each, CellStream)}
        Kernel.budget.streams = kept

    def init_kernel(self) -> None:
        """Make the kernel on what it sends through."""
        self.kernel = self.kernel_class.instance(
            parent=self,
            session=self.session,
            control_stream=self.control_socket,
            shell_stream=self.shell_socket,
            stdin_socket=self.stdin_socket,
            iopub_thread=self.iopub_thread,
            iopub_socket=self.iopub_socket,
            log=self.log,
            profile_dir=self.profile_dir,
            user_ns=self.user_ns,
        )
        self.displayhook.get_execution_count = lambda: self.kernel.execution_count

    def init_path(self) -> None:
        """Wait for `begin`."""

    def init_code(self) -> None:
        """Note what is there before any code of a user's; `begin` runs such code."""
        self.shell.user_ns_hidden.update(self.shell.user_ns)
        self.shell._sys_modules_keys = set(sys.modules)
        places = (*ENV_CONFIG_DIRS, *SYSTEM_CONFIG_DIRS)
        folders = [os.path.join(each, "startup") for each in places]
        files = any(os.path.isdir(each) and len(os.listdir(each)) > 1 for each in folders)
        self.has_startup = files or bool(self.exec_lines or self.exec_files)

    def init_signal(self) -> None:
        """Do nothing: the kernel takes SIGINT as soon as it starts."""

    def init_gui_pylab(self) -> None:
        """Hook up inline plots: a backend imported before the shell existed never did."""
        super().init_gui_pylab()
        if INLINE in sys.modules:
            from matplotlib_inline.backend_inline import configure_inline_support

            # It gives the formats to a process's first shell alone: `make_plain` makes a second.
            vars(configure_inline_support).pop("current_backend", None)
            configure_inline_support(self.shell, f"module://{INLINE}")

    def begin(self, listeners: dict[str, int], options: dict[str, Any]) -> None:
        """Become the kernel of this process."""
        kernel = self.kernel
        self.session.begin(options["key"].encode())
        kernel.ident = str(uuid.uuid4())
        kernel.shell.displayhook.topic = kernel._topic("execute_result")
        self._take_over()
        self.control_thread = kernel.control_thread = ControlThread(daemon=True)
        control: Loop = kernel.control_thread.io_loop.asyncio_loop
        kernel.budget.limit = options["output_bytes"]
        kernel.message_bytes = self.iopub_socket.message_bytes = options["message_bytes"]
        kernel.answers_exit = self.plain  # others' clients take the reply for the cell's end
        if not self.plain:
            outputs = Outputs(os.getcwd(), lambda: kernel.execution_count)
            kernel.budget.outputs = self.iopub_socket.outputs = outputs
            kernel.asking.most_open = options["tool_calls"]
            kernel.asking.comes_back = True  # its broker does; others' clients do not
        self.iopub_socket.io_loop = self.control_thread.io_loop
        self.iopub_socket.start(control, self.control_thread)
        for stream in self.streams:
            stream.capture(control)
        doors = Doors(
            control,
            routers={
                "shell": self.shell_socket,
                "control": self.control_socket,
                "stdin": self.stdin_socket,
            },
            publisher=self.iopub_socket,
            requests=kernel.shell_channel_thread,
            control=kernel.take_control,
            asking=kernel.asking,
        )
        offspring.expect(self)
        kernel.start()
        doors.open(listeners)
        self.control_thread.start()
        if "hb" in listeners:  # costs a context of its own: only where somebody may listen
            address = "ipc", options["prefix"], PORTS["hb"]
            self.heartbeat = DescriptorHeartbeat(zmq.Context(), address, listeners["hb"])
            self.heartbeat.start()
        ports = {f"{name}_port": number for name, number in PORTS.items() if name in listeners}
        kernel.record_ports(ports)
        self.connection_file = options.get("connection_file", "")
        self.transport, self.ip = "ipc", options["prefix"]
        for channel, number in PORTS.items():
            setattr(self, f"{channel}_port", number)
        self._init_path()
        if self.plain or self.has_startup or "PYTHONSTARTUP" in os.environ:
            super().init_code()

    def _take_over(self) -> None:
        """Make what was assembled that of the process."""
        sys.stdout, sys.stderr = self.streams
        sys.displayhook, sys.excepthook, sys.modules["__main__"] = self.hooks
        shell = self.shell
        if not self.plain:
            self.ipython_dir = shell.ipython_dir = os.environ.get("IPYTHONDIR", "")
            self.profile_dir.move(os.path.join(self.ipython_dir, "profile_default"))
            shell.starting_dir = os.getcwd()
            shell.home_dir = shell.logger.home_dir = os.environ.get("HOME", shell.starting_dir)
            shell.history_manager.dir_hist[:] = [Path.cwd()]
            shell.init_environment()
            if name := os.environ.get("JPY_SESSION_NAME"):
                shell.user_ns["__session__"] = name

    def _init_path(self) -> None:
        """Let code import from its working directory, as ipykernel does.

        The zygote's interpreter is isolated, which IPython would take for a wish to forbid it.
        """
        if "" not in sys.path and not self.ignore_cwd and "PYTHONSAFEPATH" not in os.environ:
            folders = map(os.path.basename, sys.path)
            libraries = ("site-packages", "dist-packages")
            at = next((i for i, name in enumerate(folders) if name in libraries), 0)
            sys.path.insert(at, "")

    def start(self) -> None:
        """Serve until told to stop."""
        if self.poller is not None:
            self.poller.start()
        alarms.serve(self.kernel.io_loop)

    def close(self) -> None:
        """Send what is left to be said."""
        self.iopub_socket.flush()
        self.iopub_socket.wait_until_sent()


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


def make_plain(arguments: list[str]) -> KernelApp:
    """Make an application with ipykernel's own settings, and those of a command line."""
    for each in (KernelApp, Kernel, Shell):
        each.clear_instance()
    app = KernelApp.instance(config=parts())
    app.plain = True
    IPKernelApp.parse_command_line(app, arguments)
    app.session = KernelSession(parent=app)
    app.assemble()
    return app


def start(listeners: dict[str, int], options: dict[str, Any]) -> KernelApp:
    """Bring the kernel up."""
    prepare_process(options)
    app = make_plain(options["argv"]) if options.get("plain") else KernelApp.instance()
    app.begin(listeners, options)
    if not options.get("plain") and not options.get("packages"):
        packages.refuse(app.shell)
    guard(options["allow_imports"], options["deny_imports"])
    return app


def report(config: socket.socket, kernel: Any) -> None:
    """Say that the kernel takes requests, and what it is: later, somebody's code may keep it."""
    config.send(json.dumps({"ready": True, "info": kernel.kernel_info}).encode())
    config.close()


def prepare() -> None:
    """Make, before the fork, what all kernels can share: an application, whole and tried out."""
    sys.argv[:] = [""]
    tracebacks.install()
    places.install()
    app = KernelApp.instance(config=settings())
    IPKernelApp.parse_command_line(app, [])
    app.session = KernelSession(parent=app)
    app.assemble()
    if INLINE in sys.modules:
        from IPython.core.pylabtools import activate_matplotlib

        # Makes pyplot interactive: a figure shows at the end of its cell without `show()`.
        activate_matplotlib(f"module://{INLINE}")
    rehearse(app)
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    Kernel.module_files[:] = [name for name in files if name]


def become(config: socket.socket, listeners: dict[str, int], options: dict[str, Any]) -> None:
    """Turn a forked child into a kernel; never returns."""
    try:
        app = start(listeners, options)
    except BaseException as error:
        refuse(config, error)
    # Only now: a collection while starting would write to pages that are shared until then.
    gc.collect(1)
    gc.freeze()
    gc.enable()
    report(config, app.kernel)
    code = 0
    try:
        if not app.plain:
            dress(app)
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
